"""The two diagrams of docs/architecture.md, from the code: packages that import each other, and an image's way.

    python3 scripts/architecture.py           write them into the page
    python3 scripts/architecture.py --check   fail if the page is not what the code says

Standard library only. The page is Mermaid, which code hosts draw.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path


ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "diffusion_perception_ros"
PAGE = ROOT / "docs" / "architecture.md"

ORDER = ("cli", "research", "ros", "evaluation", "training", "families", "export", "datasets", "world", "recordings",
         "inference", "metrics")  # fmt: skip
"""Packages from top to bottom; others that appear are drawn last."""

WAY = (
    ("ros/camera.py", "CameraInput._on_image", "callback"),
    ("ros/worker.py", "FairWorker.offer", "callback"),
    ("ros/worker.py", "FairWorker._run", "worker"),
    ("ros/pipeline.py", "Pipeline.__call__", "worker"),
    ("ros/stages.py", "Stages.prepare", "worker"),
    ("inference/image_messages.py", "color_of", "worker"),
    ("inference/estimator.py", "Estimator.predict", "worker"),
    ("ros/stages.py", "Stages.finish", "worker"),
    ("ros/publishers.py", "Outputs.publish", "worker"),
)
"""What an image of a camera passes, in order: file, function, and the thread it runs in."""


class Drift(Exception):
    """The code is no longer what this script was told."""


def imports_of(path: Path) -> Iterator[str]:
    """Parts of the package that a file imports: the first name after the package's."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == PACKAGE.name and len(parts) > 1:
                yield parts[1]


def arrows() -> dict[str, set[str]]:
    """Package → packages that it imports."""
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    found: dict[str, set[str]] = {}
    for folder in folders:
        imported = {name for path in (PACKAGE / folder).rglob("*.py") for name in imports_of(path)}
        found[folder] = (imported & folders) - {folder}
    return found


def reduced(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The graph without arrows that follow from others: only these are drawn."""

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(graph.get(start, ()))
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += graph.get(name, ())
        return seen

    return {
        name: {other for other in targets if not any(other in reachable(third) for third in targets - {other})}
        for name, targets in graph.items()
    }


def first_sentence(text: str | None) -> str:
    """Of a docstring, short enough for a box."""
    sentence = re.split(r"(?<=[\w)`])[.;] |\.$", " ".join((text or "").split()), maxsplit=1)[0]
    return sentence.replace('"', "'").rstrip(".")


def packages_diagram() -> str:
    """Boxes with what a package is, arrows for imports."""
    graph = arrows()
    names = [name for name in ORDER if name in graph] + sorted(set(graph) - set(ORDER))
    lines = ["flowchart TD"]
    for name in names:
        text = ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text(encoding="utf-8")))
        said = first_sentence(text)
        lines.append(f'    {name}["<b>{name}</b>{"<br>" + said if said else ""}"]')
    lines += [f"    {name} --> {other}" for name in names for other in names if other in reduced(graph)[name]]
    return "\n".join(lines)


def find(path: str, name: str) -> ast.FunctionDef:
    """A function or method by its qualified name.

    Raises:
        Drift: it is not there any more.
    """
    file = PACKAGE / path
    node: ast.AST | None = ast.parse(file.read_text(encoding="utf-8")) if file.is_file() else None
    for part in name.split("."):
        members = node.body if isinstance(node, (ast.Module, ast.ClassDef)) else []
        kinds = (ast.FunctionDef, ast.ClassDef)
        node = next((member for member in members if isinstance(member, kinds) and member.name == part), None)
    if not isinstance(node, ast.FunctionDef):
        raise Drift(f"{path} has no {name}: put the function that took its place into WAY of scripts/architecture.py")
    return node


def signature(function: ast.FunctionDef) -> str:
    """What goes in and comes out, by types."""
    arguments = [argument for argument in function.args.args if argument.arg != "self" and argument.annotation]
    given = ", ".join(ast.unparse(argument.annotation) for argument in arguments if argument.annotation)
    result = ast.unparse(function.returns) if function.returns else "None"
    return f"{given or '-'} → {result}" if result != "None" else given


def way_diagram() -> str:
    """Boxes for functions, from callback to topic, grouped by thread."""
    lines = ["flowchart TD", '    camera(["camera topic"])']
    previous, thread = "camera", ""
    for number, (path, name, runs_in) in enumerate(WAY):
        if runs_in != thread:
            if thread:
                lines.append("    end")
            title = {"callback": "the executor's thread", "worker": "the worker's thread"}[runs_in]
            lines.append(f'    subgraph {runs_in}["{title}"]')
            thread = runs_in
        function = find(path, name)
        said = first_sentence(ast.get_docstring(function))
        types = signature(function).replace("[", "&#91;").replace("]", "&#93;").replace('"', "'").replace("|", "or")
        body = "<br>".join(part for part in (f"<b>{name}</b>", f"<i>{path}</i>", types, said) if part)
        lines += [f'        step{number}["{body}"]']
    lines += ["    end", '    topics(["depth/image, normals/image, segmentation/mask, points, status, …"])']
    for number in range(len(WAY)):
        lines.append(f"    {previous} --> step{number}")
        previous = f"step{number}"
    return "\n".join([*lines, f"    {previous} --> topics"])


def page(text: str) -> str:
    """The page with both diagrams put in their places."""
    for name, diagram in (("packages", packages_diagram()), ("way", way_diagram())):
        pattern = rf"(?s)(<!-- {name}: [^\n]*-->\n).*?(<!-- end of {name} -->)"
        if not re.search(pattern, text):
            raise Drift(f"{PAGE.name} has no place for the diagram '{name}'")
        text = re.sub(pattern, lambda found, drawn=diagram: f"{found[1]}```mermaid\n{drawn}\n```\n{found[2]}", text)
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the diagrams of docs/architecture.md.")
    parser.add_argument("--check", action="store_true", help="only see whether they are up to date")
    arguments = parser.parse_args()
    present = PAGE.read_text(encoding="utf-8")
    try:
        wanted = page(present)
    except Drift as drift:
        print(f"architecture: {drift}", file=sys.stderr)
        return 1
    if arguments.check and wanted != present:
        print("architecture: docs/architecture.md is out of date: python3 scripts/architecture.py", file=sys.stderr)
        return 1
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
