"""What perception_node published, read back from a recorded bag: a prediction and a status per frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.datasets.bag_topics import stamp_of
from diffusion_perception_ros.inference.card import ModelCard
from diffusion_perception_ros.recordings.recording import Message, read_messages
from diffusion_perception_ros.sample import Prediction


IMAGE = "sensor_msgs/msg/Image"
POINTS = "sensor_msgs/msg/PointCloud2"
STATUS = "diffusion_perception_ros/msg/PerceptionStatus"
STATUS_TOPIC = "status"
STAGES = ("decode", "preprocess", "inference", "postprocess", "publish")
_PATIENCE = 8
"""Stamps that may begin before the oldest one counts as complete: topics reach the recorder in any order."""
_LAYOUTS = {
    "32FC1": ("<f4", 1),
    "32FC2": ("<f4", 2),
    "32FC3": ("<f4", 3),
    "mono8": ("u1", 1),
    "mono16": ("<u2", 1),
    "rgb8": ("u1", 3),
}
"""dtype and channels of the encodings that the node uses."""
_TOPICS = {
    "depth": {"depth/image": "depth", "depth_relative/image": "depth_relative"},
    "normals": {"normals/image": "normals"},
    "semantic": {"segmentation/mask": "semantic"},
    "instances": {"instances/image": "instances"},
    "alpha": {"alpha/image": "alpha"},
    "mask": {"mask/image": "mask"},
    "flow": {"flow/image": "flow"},
    "keypoints": {"keypoints": "keypoints"},
    "albedo": {"albedo/image": "albedo"},
    "shading": {"shading/image": "shading"},
    "residual": {"residual/image": "residual"},
    "material": {"material/image": "material"},
}
"""Task to its topics, and each topic to the field of the prediction that it carries."""
_SHARES = ("mask", "albedo", "shading", "residual", "material")
"""Fields in [0, 1] that travel as bytes."""


@dataclass
class RecordedFrame:
    """All outputs that carry one stamp."""

    stamp: int
    """Nanoseconds."""
    time: int
    """Nanoseconds, when the recorder got the last of them."""
    prediction: Prediction
    status: Any
    """PerceptionStatus; None if it was not recorded."""
    frame_ids: list[str]
    """Of every message."""


def output_topics(card: ModelCard) -> list[str]:
    """Topics, relative to the node's namespace, that hold a model's answer."""
    return [topic for task in card.tasks for topic in _TOPICS.get(task, {})]


def read_recording(bag: Path, namespace: str, card: ModelCard, damage: list[str]) -> Iterator[RecordedFrame]:
    """Frames in the order in which they were published.

    Args:
        bag: Written by the recorder; holds `output_topics(card)` and `status` below `namespace`.
        namespace: Of the node, such as `/perception`.
        card: Of the model that ran.
        damage: Gets a sentence for everything that could not be read.
    """
    prefix = namespace.rstrip("/") + "/"
    topics = {prefix + topic for topic in [*output_topics(card), STATUS_TOPIC]}
    pending: dict[int, dict[str, Message]] = {}
    for message in read_messages(bag, topics, {IMAGE, POINTS, STATUS}, damage):
        stamp = stamp_of(message.content.header)
        pending.setdefault(stamp, {})[message.topic.removeprefix(prefix)] = message
        if len(pending) > _PATIENCE:
            oldest = next(iter(pending))
            yield _frame(oldest, pending.pop(oldest), card)
    for stamp, messages in pending.items():
        yield _frame(stamp, messages, card)


def _frame(stamp: int, messages: dict[str, Message], card: ModelCard) -> RecordedFrame:
    fields = {topic: name for topics in _TOPICS.values() for topic, name in topics.items()}
    arrays: dict[str, Any] = {
        fields[topic]: _array(message.content) for topic, message in messages.items() if topic in fields
    }
    status = messages[STATUS_TOPIC].content if STATUS_TOPIC in messages else None
    prediction = Prediction(
        **{name: image / np.float32(255) if name in _SHARES else image for name, image in arrays.items()},
        timings={stage: float(getattr(status, f"{stage}_time")) for stage in STAGES} if status else {},
    )
    depth = card.output("depth")
    if prediction.depth is not None:
        prediction.depth_quantity = "metric_depth"
    elif prediction.depth_relative is not None and depth is not None:
        prediction.depth_quantity = str(depth.quantity)
    return RecordedFrame(
        stamp,
        max(message.time for message in messages.values()),
        prediction,
        status,
        [message.content.header.frame_id for message in messages.values()],
    )


def _array(content: Any) -> npt.NDArray[Any]:
    """(H, W) or (H, W, C) of an image, (N, 3 or 4) of keypoints, as the node writes them: packed, little endian."""
    if not hasattr(content, "encoding"):
        return np.frombuffer(content.data, "<f4").reshape(-1, len(content.fields))
    dtype, channels = _LAYOUTS[content.encoding]
    shape = (content.height, content.width)
    return np.frombuffer(content.data, dtype).reshape(shape if channels == 1 else (*shape, channels))
