"""The installed nodes start, become active and end, with the packages that they find by themselves."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from domain_coordinator import domain_id


PATIENCE = 240
"""Seconds after which something that does not come is a failure."""


def test_a_node_becomes_active_and_ends_on_a_signal(ready: Path, tmp_path: Path) -> None:
    with domain_id() as domain, (tmp_path / "log").open("w") as log:
        environment = os.environ | {"ROS_DOMAIN_ID": str(domain)}
        arguments = ["--ros-args", "-p", "model:=onestep-s", "-r", "__ns:=/robot"]
        node = subprocess.Popen([ready / "perception_node", *arguments], env=environment, stderr=log)
        try:
            waiter = [ready / "wait_until_active", "--ros-args", "-r", "__ns:=/robot", "-p", "topics:=[/robot/image]"]
            answer = subprocess.run(waiter, env=environment, timeout=PATIENCE, capture_output=True, text=True)
            assert answer.returncode == 0, answer.stderr + (tmp_path / "log").read_text()
        finally:
            node.send_signal(signal.SIGINT)
            assert node.wait(60) == 0, (tmp_path / "log").read_text()


def test_waiting_has_an_end(ready: Path) -> None:
    with domain_id() as domain:
        environment = os.environ | {"ROS_DOMAIN_ID": str(domain)}
        waiter = [ready / "wait_until_active", "--ros-args", "-p", "lifecycle_node:=/nobody", "-p", "timeout:=0.5"]
        answer = subprocess.run(waiter, env=environment, timeout=PATIENCE, capture_output=True, text=True)
    assert answer.returncode == 2
    assert "/nobody is not there after 0.5 s" in answer.stderr


def test_the_command_runs_from_the_workspace(ready: Path) -> None:
    command = [ready / "diffusion-perception", "models", "list"]
    answer = subprocess.run(command, timeout=PATIENCE, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert "onestep-s" in answer.stdout
