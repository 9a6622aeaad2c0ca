"""Set the version wherever it stands, and close the changelog's section.

python3 scripts/release.py 0.3.0
"""

from __future__ import annotations

import datetime
import re
import sys
from pathlib import Path


ROOT = Path(__file__).resolve().parent.parent
PLACES = {
    "diffusion_perception_ros/__init__.py": (r'(__version__ = ")[^"]+(")', 1),
    "package.xml": (r"(<version>)[^<]+(</version>)", 1),
    "CITATION.cff": (r"(?m)(^version: ).+()$", 1),
}


def main() -> int:
    if len(sys.argv) != 2 or not re.fullmatch(r"\d+\.\d+\.\d+", sys.argv[1]):
        print("release: give the new version, as in: python3 scripts/release.py 0.3.0", file=sys.stderr)
        return 2
    version = sys.argv[1]
    changelog = ROOT / "CHANGELOG.md"
    text = changelog.read_text(encoding="utf-8")
    if "## Unreleased\n" not in text:
        print("release: CHANGELOG.md has no section '## Unreleased'", file=sys.stderr)
        return 1
    written = {}
    for name, (pattern, expected) in PLACES.items():
        changed, count = re.subn(pattern, rf"\g<1>{version}\g<2>", (ROOT / name).read_text(encoding="utf-8"))
        if count != expected:
            print(f"release: {name} has its version in {count} places, {expected} expected", file=sys.stderr)
            return 1
        written[name] = changed
    for name, changed in written.items():
        (ROOT / name).write_text(changed, encoding="utf-8")
    heading = f"## Unreleased\n\n## {version} ({datetime.date.today().isoformat()})\n"
    changelog.write_text(text.replace("## Unreleased\n", heading, 1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
