"""`diffusion-perception doctor`: what it finds on machines that lack something."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from model_factory import write_model

from diffusion_perception_ros.cli import doctor_machine


REPOSITORY = Path(__file__).resolve().parents[2]
PROFILE = REPOSITORY / "config" / "fastdds_large_images.xml"


def consult(**environment: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """Exit code, and the findings by topic."""
    command = [sys.executable, "-m", "diffusion_perception_ros.cli.main", "doctor", "--json"]
    answer = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    report = json.loads(answer.stdout)
    assert report["healthy"] == (answer.returncode == 0)
    topics: dict[str, list[dict[str, Any]]] = {}
    for finding in report["findings"]:
        topics.setdefault(finding["topic"], []).append(finding)
    return answer.returncode, topics


def test_this_machine_can_predict() -> None:
    code, findings = consult(FASTDDS_DEFAULT_PROFILES_FILE=str(PROFILE))
    assert code == 0
    assert {"Python", "C++ compiler", "GPU", "inference", "models", "ROS 2", "messages", "network"} <= set(findings)
    assert findings["messages"][0]["level"] == "ok"
    assert "32 MiB" in findings["large images"][0]["state"]
    for finding in (entry for entries in findings.values() for entry in entries):
        assert finding["level"] == "ok" or finding["remedy"].endswith(".")


def test_default_transports_lose_images() -> None:
    _, findings = consult(FASTDDS_DEFAULT_PROFILES_FILE="", FASTRTPS_DEFAULT_PROFILES_FILE="")
    assert findings["large images"][0]["level"] == "lack"
    assert str(PROFILE) in findings["large images"][0]["remedy"]


def test_profile_with_a_small_segment(tmp_path: Path) -> None:
    small = tmp_path / "small.xml"
    small.write_text(PROFILE.read_text().replace("33554432", "524288"))
    _, findings = consult(FASTDDS_DEFAULT_PROFILES_FILE=str(small))
    assert findings["large images"][0]["level"] == "lack"
    assert "0.5 MiB" in findings["large images"][0]["state"]


def test_profile_that_does_not_exist(tmp_path: Path) -> None:
    _, findings = consult(FASTDDS_DEFAULT_PROFILES_FILE=str(tmp_path / "none.xml"))
    assert "none.xml" in findings["large images"][0]["state"]


def test_large_data_mode_that_is_ignored() -> None:
    mode = {"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"}
    assert consult(**mode)[1]["large images"][0]["level"] == "ok"
    assert consult(**mode, ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST")[1]["large images"][0]["level"] == "lack"


def test_broken_model_is_named(tmp_path: Path) -> None:
    card = write_model(tmp_path / "broken") / "model.yaml"
    card.write_text(card.read_text() + "\nunheard_of: 1\n")
    code, findings = consult(DIFFUSION_PERCEPTION_MODELS=str(tmp_path))
    assert code == 0
    assert str(tmp_path / "broken") in findings["model"][0]["state"]
    assert "unheard_of" in findings["model"][0]["state"]


def test_messages_that_were_not_built(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "diffusion_perception_ros", tmp_path / "diffusion_perception_ros")
    stale = tmp_path / "diffusion_perception_ros" / "msg"
    stale.mkdir()
    (stale / "__init__.py").write_text("from diffusion_perception_ros.msg import _perception_status")
    code, findings = consult(PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    assert code == 1
    assert findings["messages"][0]["level"] == "problem"
    assert "make setup" in findings["messages"][0]["remedy"]


def test_segments_of_killed_processes() -> None:
    segment = Path("/dev/shm") / f"fastdds_{secrets.token_hex(8)}"
    segment.write_bytes(bytes(3 << 20))
    try:
        findings = consult()[1]["shared memory"]
    finally:
        segment.unlink()
    stale = [finding for finding in findings if "ended processes" in finding["state"]]
    assert stale
    assert stale[0]["level"] == "lack"
    assert "fastdds shm clean" in stale[0]["remedy"]


def test_tensorrt_is_looked_for_in_three_places() -> None:
    """Libraries, their bindings, CUDA's bindings: what lacks is named, with what to do about it."""
    finding = doctor_machine.tensorrt()
    assert finding.topic == "TensorRT"
    assert finding.level == "ok" or "[gpu]" in finding.remedy
