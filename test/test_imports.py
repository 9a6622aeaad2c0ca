"""The import arrows of the architecture: what may know about what, and what a robot need not install."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest


PACKAGE = Path(__file__).resolve().parents[1] / "diffusion_perception_ros"

ALLOWED = {
    "metrics": set(),
    "inference": set(),
    "ros": {"inference", "msg"},
    "recordings": set(),
    "world": set(),
    "datasets": {"inference", "world"},
    "evaluation": {"inference", "datasets", "metrics"},
    "export": {"inference.card", "inference.backends", "families"},
    "training": {
        "export",
        "inference.card",
        "inference.color_coding",
        "metrics",
        "datasets",
        "families.dpt_head",
        "families.recipe",
        "world",
    },
    "families": {"inference.card", "datasets", "world"},
    "research": {"cli.common", "cli.evaluate", "datasets", "evaluation", "inference", "metrics", "training", "world"},
}
"""Folder → other parts of the package that it may import, besides `SHARED`. `cli` may import all but `research`."""

SHARED = {"sample", "errors", "files", "folders", "safe_files", "recordings", "mixture_of_experts"}

TRAINING_ONLY = {"torch", "torchvision", "diffusers", "transformers", "accelerate", "peft", "onnxscript"}
RCLPY = {"rclpy", "sensor_msgs", "std_msgs", "cv_bridge"}


def imported_modules(path: Path) -> set[str]:
    """Absolute names of every module that a file imports, at the top or inside functions."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            # `from package import part` imports the module package.part, or a name of package: both are listed.
            modules.update(f"{node.module}.{alias.name}" for alias in node.names)
    return modules


def part_of(module: str) -> str | None:
    """`a.b` for `diffusion_perception_ros.a.b.c`, None for modules of others."""
    names = module.split(".")
    return ".".join(names[1:3]) if names[0] == PACKAGE.name and len(names) > 1 else None


@pytest.mark.parametrize("folder", [folder for folder in ALLOWED if (PACKAGE / folder).is_dir()])
def test_arrows(folder: str) -> None:
    allowed = ALLOWED[folder] | SHARED | {folder}
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {module}"
        for path in sorted((PACKAGE / folder).rglob("*.py"))
        for module in sorted(imported_modules(path))
        if (part := part_of(module)) and part not in allowed and part.split(".")[0] not in allowed
    ]
    assert not wrong


def test_nothing_imports_research() -> None:
    wrong = [
        str(path.relative_to(PACKAGE))
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] != "research"
        and any(module.startswith(f"{PACKAGE.name}.research") for module in imported_modules(path))
    ]
    assert not wrong


def test_no_circle_of_imports() -> None:
    """Imports inside functions count: they only hide a circle."""
    names = {path: ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in PACKAGE.rglob("*.py")}
    modules = {path: name.removesuffix(".__init__") for path, name in names.items()}
    graph = {}
    for path, name in modules.items():
        imported = imported_modules(path)
        # `from package import name` imports the package only if `name` is not a module of it.
        packages = {module.rpartition(".")[0] for module in imported if module not in modules.values()}
        graph[name] = sorted((imported | packages) & set(modules.values()) - {name})
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"these modules import each other in a circle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("inference", TRAINING_ONLY | RCLPY),
        ("ros", TRAINING_ONLY),
        ("datasets", RCLPY),
        ("evaluation", RCLPY),
        ("world", RCLPY),
        ("training", RCLPY),
    ],
)
def test_foreign_modules(folder: str, forbidden: set[str]) -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {module}"
        for path in sorted((PACKAGE / folder).rglob("*.py"))
        for module in sorted(imported_modules(path))
        if module.split(".")[0] in forbidden
    ]
    assert not wrong


def loaded_modules(code: str) -> set[str]:
    """Top-level modules in memory after running `code` in a fresh interpreter."""
    script = f"{code}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    return set(result.stdout.splitlines()[-1].split())


def test_a_prediction_loads_neither_torch_nor_ros() -> None:
    loaded = loaded_modules(
        "import numpy as np\n"
        "from diffusion_perception_ros.inference import visualization\n"
        "from diffusion_perception_ros.inference.estimator import Estimator\n"
        "prediction = Estimator.load('onestep-s', threads=1).predict(np.zeros((48, 64, 3), np.uint8))\n"
        "visualization.colorize_depth(prediction.depth_relative)"
    )
    assert "onnxruntime" in loaded
    assert not loaded & (TRAINING_ONLY | RCLPY)


def test_the_commands_for_robots_load_no_training_code() -> None:
    loaded = loaded_modules(
        "from diffusion_perception_ros.cli import main, models, run\nmain.main(['models', 'list'])"
    )
    assert not loaded & (TRAINING_ONLY | RCLPY)
