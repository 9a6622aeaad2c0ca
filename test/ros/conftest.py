"""Fixtures of the tests that run nodes as processes and talk to them over DDS."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


REPOSITORY = Path(__file__).resolve().parents[2]

# Before the first DDS participant of this process: pictures do not fit into the default shared memory.
VENDOR = "FASTRTPS" if os.environ.get("ROS_DISTRO") in ("humble", "iron", "jazzy") else "FASTDDS"
os.environ[f"{VENDOR}_DEFAULT_PROFILES_FILE"] = str(REPOSITORY / "config" / "fastdds_large_images.xml")

from domain_coordinator import domain_id  # noqa: E402
from harness import Ros  # noqa: E402


@pytest.fixture(scope="module")
def ros(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ros]:
    """A ROS domain of this module's own, a node in this process, and means to start others."""
    with domain_id() as domain, Ros(domain, tmp_path_factory.mktemp("ros")) as session:
        yield session
