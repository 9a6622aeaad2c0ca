"""The part of `doctor` about ROS 2 and DDS: is it there, are the messages built, do large images get through."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from xml.etree import ElementTree

from diffusion_perception_ros.cli.findings import Finding
from diffusion_perception_ros.cli.resources import find_resource


PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
LARGE_SEGMENT = 8 << 20
"""Bytes of shared memory that a 1080p image and its header fit into."""
SHARED_MEMORY = Path("/dev/shm")
NEEDED_SHARED_MEMORY = 256 << 20
"""Bytes: seven processes with the segments of our profile; containers have 64 MB unless told otherwise."""
RECEIVE_BUFFER = Path("/proc/sys/net/core/rmem_max")
NEEDED_RECEIVE_BUFFER = 4 << 20
COMPANIONS = {
    "launch_ros": "the launch files",
    "rviz2": "the live view",
    "ros2bag": "ros2 bag",
    "vision_msgs": "vision_msgs/LabelInfo",
}
"""Packages of a full ROS 2 that are used where they exist, and for what."""


def ros() -> list[Finding]:
    """ROS 2, its middleware and this package's messages."""
    if importlib.util.find_spec("rclpy") is None:
        remedy = "Nodes need it: run 'make setup', or source a ROS 2 installation. Files are predicted without it."
        return [Finding("ROS 2", "lack", "rclpy is not installed", remedy)]
    from rclpy.utilities import get_rmw_implementation_identifier

    origin = os.environ.get("ROS_DISTRO") or "wheels"
    middleware = get_rmw_implementation_identifier()
    findings = [Finding("ROS 2", "ok", f"{origin}, rclpy {_version('rclpy')}, {middleware}"), *_companions()]
    try:
        importlib.import_module("diffusion_perception_ros.msg")
    except ImportError as error:
        remedy = "Build the workspace with 'make setup' (or colcon build) and source its install/setup.bash."
        return [*findings, Finding("messages", "problem", f"diffusion_perception_ros.msg: {error}", remedy)]
    findings.append(Finding("messages", "ok", "diffusion_perception_ros.msg"))
    return findings + (fast_dds() if "fastrtps" in middleware else [])


def _companions() -> list[Finding]:
    prefixes = [Path(part) for part in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if part]
    missing = {
        name: purpose
        for name, purpose in COMPANIONS.items()
        if not any((prefix / "share" / name / "package.xml").is_file() for prefix in prefixes)
    }
    if not missing:
        return [Finding("ROS 2 tools", "ok", ", ".join(COMPANIONS))]
    packages = " ".join(f"ros-{os.environ.get('ROS_DISTRO') or 'DISTRO'}-{name.replace('_', '-')}" for name in missing)
    remedy = f"For {', '.join(missing.values())}: sudo apt install {packages}."
    return [Finding("ROS 2 tools", "lack", f"without {', '.join(missing)}", remedy)]


def fast_dds() -> list[Finding]:
    """Whether images larger than the default shared-memory segment of Fast DDS get through."""
    profile = find_resource("config/fastdds_large_images.xml")
    remedy = f"Set {PROFILE_VARIABLES[0]}={profile} (the launch files and the demo do so themselves)."
    if os.environ.get("FASTDDS_BUILTIN_TRANSPORTS", "").startswith("LARGE_DATA"):
        if os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE") == "LOCALHOST":
            state = "FASTDDS_BUILTIN_TRANSPORTS=LARGE_DATA is ignored with ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST"
            return [Finding("large images", "lack", state, remedy)]
        return [Finding("large images", "ok", "FASTDDS_BUILTIN_TRANSPORTS=LARGE_DATA")]
    chosen = next((os.environ[name] for name in PROFILE_VARIABLES if os.environ.get(name)), None)
    if chosen is None:
        state = "Fast DDS with its default transports loses best-effort images above 0.5 MB"
        return [Finding("large images", "lack", state, remedy)]
    try:
        segment = _segment_size(Path(chosen))
    except (OSError, ElementTree.ParseError) as error:
        return [Finding("large images", "lack", f"the profile {chosen} cannot be read: {error}", remedy)]
    if segment < LARGE_SEGMENT:
        state = f"the profile {chosen} has a shared-memory segment of {segment / 2**20:.1f} MiB"
        return [Finding("large images", "lack", state, remedy)]
    return [Finding("large images", "ok", f"{chosen}: shared-memory segment of {segment / 2**20:.0f} MiB")]


def _segment_size(profile: Path) -> int:
    """Bytes of the largest shared-memory segment that a Fast DDS profile asks for, 0 if it asks for none."""
    elements = ElementTree.parse(profile).iter()
    return max((int(item.text or 0) for item in elements if item.tag.rpartition("}")[2] == "segment_size"), default=0)


def shared_memory() -> list[Finding]:
    """Room for DDS segments, and segments that killed processes left behind."""
    if not SHARED_MEMORY.is_dir():
        remedy = "DDS falls back to UDP, which loses large images: mount a tmpfs on /dev/shm."
        return [Finding("shared memory", "lack", f"there is no {SHARED_MEMORY}", remedy)]
    findings = []
    usage = shutil.disk_usage(SHARED_MEMORY)
    state = f"{usage.free / 2**20:.0f} of {usage.total / 2**20:.0f} MiB free"
    if usage.free < NEEDED_SHARED_MEMORY:
        remedy = "Stop processes that use it, or give a container more: docker run --shm-size=1g."
        findings.append(Finding("shared memory", "lack", state, remedy))
    else:
        findings.append(Finding("shared memory", "ok", state))
    stale = _stale_segments()
    if stale:
        size = sum(file.stat().st_size for file in stale) / 2**20
        state = f"{len(stale)} Fast DDS files of ended processes ({size:.0f} MiB)"
        remedy = "Remove what killed processes left with 'fastdds shm clean' (in the ROS 2 environment)."
        findings.append(Finding("shared memory", "lack", state, remedy))
    return findings


def _stale_segments() -> list[Path]:
    """Fast DDS files of this user that no process has open or mapped."""
    files = {file for pattern in ("fastrtps_*", "fastdds_*") for file in SHARED_MEMORY.glob(pattern)}
    used: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            used.update(re.findall(r"/dev/shm/\S+", (process / "maps").read_text()))
            used.update(os.readlink(descriptor) for descriptor in (process / "fd").iterdir())
        except OSError:
            continue  # it has ended, or belongs to somebody else
    mine = (file for file in files if file.exists() and file.stat().st_uid == os.getuid())
    return sorted(file for file in mine if str(file) not in used)


def network() -> list[Finding]:
    """The kernel's limit for receive buffers, which matters for images from other machines."""
    if not RECEIVE_BUFFER.is_file():
        return []
    limit = int(RECEIVE_BUFFER.read_text())
    state = f"net.core.rmem_max = {limit} bytes"
    if limit >= NEEDED_RECEIVE_BUFFER:
        return [Finding("network", "ok", state)]
    remedy = "For images from other machines: sudo sysctl -w net.core.rmem_max=33554432."
    return [Finding("network", "lack", state, remedy)]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "of this installation"


CHECKS = (ros, shared_memory, network)
