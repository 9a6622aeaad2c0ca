"""What replay.launch.py has to know about a bag and a model, as one line of JSON.

The launch file runs in the interpreter of `ros2 launch`, which has neither bag readers nor pydantic, so it asks this.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from diffusion_perception_ros.datasets.rosbag import BagDataset
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.evaluation.recording import STATUS_TOPIC, output_topics
from diffusion_perception_ros.inference.card import read_card
from diffusion_perception_ros.inference.models import DEFAULT_MODEL, find_model


def plan(bag: str, image_topic: str, model: str, params_file: str) -> dict[str, Any]:
    """Topics of the bag, how its images travel, and what the node will publish.

    Raises:
        InputError: no such bag, topic or model.
    """
    dataset = BagDataset(bag, image_topic or None, depth_required=False)
    base = dataset.image_topic.removesuffix("/compressed")
    card = read_card(find_model(model or model_of(params_file) or DEFAULT_MODEL))
    return {
        "topic": dataset.image_topic,
        "image_topic": base,
        "image_transport": "raw" if base == dataset.image_topic else "compressed",
        "camera_info_topic": dataset.camera_info_topic,
        "depth_topic": dataset.depth_topic,
        "outputs": [*output_topics(card), STATUS_TOPIC],
    }


def model_of(params_file: str) -> str | None:
    """The model that a parameter file names for any node."""
    if not params_file:
        return None
    try:
        content = yaml.safe_load(Path(params_file).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"the parameter file {params_file} cannot be read: {' '.join(str(error).split())}") from None
    sections = content.values() if isinstance(content, dict) else []
    tables = [section.get("ros__parameters") for section in sections if isinstance(section, dict)]
    named = [table["model"] for table in tables if isinstance(table, dict) and table.get("model")]
    return str(named[0]) if named else None


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the executable."""
    parser = argparse.ArgumentParser(prog="replay_plan", description="What replay.launch.py asks about a bag.")
    parser.add_argument("bag")
    parser.add_argument("--image-topic", default="")
    parser.add_argument("--model", default="")
    parser.add_argument("--params-file", default="")
    args = parser.parse_args(argv)
    try:
        print(json.dumps(plan(args.bag, args.image_topic, args.model, args.params_file)))
    except InputError as error:
        print(f"replay.launch.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
