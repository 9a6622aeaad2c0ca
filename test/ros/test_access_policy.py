"""The SROS2 policy that ships allows all that the node opens, whatever the model's tasks and the parameters."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from harness import Process, Ros
from model_factory import write_model

from diffusion_perception_ros.ros.access_policy import merged, observe, read_policy, write_policy
from diffusion_perception_ros.ros.outputs import OUTPUTS


POLICY = Path(__file__).resolve().parents[2] / "config" / "sros2" / "perception_node.policy.xml"


def start(ros: Ros, model: Path, *parameters: str) -> Process:
    arguments = [f"model:={model}", "warm_up:=false", "threads:=1", *parameters]
    return ros.start("perception_node", *(part for value in arguments for part in ("-p", value)))


@pytest.mark.parametrize(
    "parameters",
    [
        [],
        ["image_transport:=compressed", "sparse_depth_type:=points", "gravity_source:=imu", "camera_height:=0.5"],
    ],
    ids=["defaults", "other inputs"],
)
def test_the_shipped_policy_is_complete(ros: Ros, tmp_path: Path, parameters: Iterable[str]) -> None:
    node = start(ros, write_model(tmp_path / "tiny"), *parameters)
    ros.wait_for_state("active")
    allowed = read_policy(POLICY, "perception_node")
    seen = merged()

    def all_is_seen() -> bool:
        nonlocal seen
        seen = merged(seen, observe(ros.node, "perception_node", "/"))
        # What it opens last; discovery tells of publishers, subscriptions and services in any order.
        return "/points" in seen["publish"] and any(topic.startswith("/image") for topic in seen["subscribe"])

    ros.wait_for(all_is_seen, "what the node opens")
    ros.pause(1.0)
    seen = merged(seen, observe(ros.node, "perception_node", "/"))
    assert node.stop() == 0
    lacking = {kind: names - allowed[kind] for kind, names in seen.items()}
    assert not any(lacking.values()), f"add with `access_policy -o {POLICY}`: {lacking}"


def test_the_shipped_policy_allows_the_topics_of_every_task() -> None:
    """Also those of models that the test above does not start."""
    allowed = read_policy(POLICY, "perception_node")
    assert {f"/{output.topic}" for output in OUTPUTS} <= allowed["publish"]


def test_a_policy_is_read_as_it_was_written(tmp_path: Path) -> None:
    access = merged({"publish": {"/depth/image"}, "reply": {"~/enable"}}, {"publish": {"/points"}})
    path = tmp_path / "policy.xml"
    path.write_text(write_policy(access, "perception_node", "/"))
    assert read_policy(path, "perception_node") == access
    assert not any(read_policy(path, "another_node").values())
