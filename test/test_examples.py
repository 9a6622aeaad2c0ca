"""The scripts of `examples/` run as a newcomer would run them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2


REPOSITORY = Path(__file__).resolve().parents[1]


def test_first_steps(tmp_path: Path) -> None:
    script = REPOSITORY / "examples" / "first_steps.py"
    result = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "model, affine-aligned" in result.stdout
    assert {path.name for path in (tmp_path / "out" / "first_steps").iterdir()} == {
        "depth.png",
        "normals.png",
        "classes.png",
    }
    assert cv2.imread(str(tmp_path / "out" / "first_steps" / "normals.png")).std() > 10
