"""A machine without PyTorch, as `make setup` leaves it, or without ROS: commands that need them say what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


WITHOUT = """
import sys
for name in ("torch", "moderngl", "safetensors", "rclpy"):
    sys.modules[name] = None  # as if it were not installed
from diffusion_perception_ros.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "config/train/onestep_s.yaml"],
        ["adapt", "--data", "demo/clip", "--task", "depth", "-o", "adapted"],
        ["world", "--sheet", "sheet.png"],
    ],
)
def test_what_is_missing_is_named_with_its_remedy(tmp_path: Path, arguments: list[str]) -> None:
    command = [sys.executable, "-c", WITHOUT]
    words = [str(REPOSITORY / word) if (REPOSITORY / word).exists() else word for word in arguments]
    result = subprocess.run([*command, *words], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 2, result.stderr
    assert "is not installed" in result.stderr
    assert "make setup-test" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_demo_says_that_it_needs_ros(tmp_path: Path) -> None:
    result = subprocess.run([sys.executable, "-c", WITHOUT, "demo"], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 2, result.stderr
    assert "run 'make demo' in a clone" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_evaluate_needs_none_of_them(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT, "evaluate", "--data", str(tmp_path / "nowhere")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert "there is no folder" in result.stderr
