"""The node as one would write it first: cv_bridge, the PyTorch network in the callback, its outputs enlarged there.

The same weights and the same outputs as `perception_node`; what it lacks (metres, camera_info, status, checks) costs
it nothing here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import cv_bridge
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as functional
from rclpy.node import Node
from sensor_msgs.msg import Image

from diffusion_perception_ros.inference.card import InstancesOutput, read_card
from diffusion_perception_ros.inference.instances import enlarge_instances, find_instances
from diffusion_perception_ros.ros.qos import IMAGE_QOS, OUTPUT_QOS
from diffusion_perception_ros.training.onestep.deployed import DeployedNet
from diffusion_perception_ros.training.onestep.weights import read_weights


TOPICS = ("depth", "confidence", "normals", "mask", "mask_confidence", "instances")


class ObviousNode:
    """One thread; publishes to a listener, as the measured node does."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self._network = DeployedNet(read_weights(folder)).eval()
        self._card = read_card(folder)
        self._bridge = cv_bridge.CvBridge()
        self._node, self._listener = Node("obvious"), Node("obvious_listener")
        self._publishers = {
            topic: self._node.create_publisher(Image, f"obvious/{topic}", OUTPUT_QOS) for topic in TOPICS
        }
        for topic in TOPICS:
            self._listener.create_subscription(Image, f"obvious/{topic}", lambda message: None, IMAGE_QOS)

    def process(self, messages: Sequence[Image], everything: bool) -> None:
        """From callback to published: all maps, or depth alone."""
        for message in messages:
            self._process(message, everything)

    @torch.no_grad()
    def _process(self, message: Image, everything: bool) -> None:
        rgb = self._bridge.imgmsg_to_cv2(message, "rgb8")
        size = self._card.input.size.size_for(message.width, message.height)
        small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
        tensor = torch.from_numpy(small).permute(2, 0, 1)[None].float() / 255
        mean, std = torch.tensor(self._card.input.mean), torch.tensor(self._card.input.std)
        outputs = self._network((tensor - mean[:, None, None]) / std[:, None, None])
        large = (message.height, message.width)
        depth, confidence, normals, logits, offsets = outputs
        self._publish(message, "depth", _enlarged(depth, large)[0, 0].numpy(), "32FC1")
        if not everything:
            return
        self._publish(message, "confidence", _enlarged(confidence, large)[0, 0].numpy(), "32FC1")
        directions = functional.normalize(_enlarged(normals, large), dim=1)[0].permute(1, 2, 0).numpy()
        self._publish(message, "normals", np.ascontiguousarray(directions), "32FC3")
        sure, classes = _enlarged(logits.softmax(dim=1), large)[0].max(dim=0)
        label_ids = [label.id for label in self._card.labels]
        mask = np.array(label_ids, np.uint8)[classes.numpy()]
        self._publish(message, "mask", mask, "mono8")
        self._publish(message, "mask_confidence", (255 * sure).round().byte().numpy(), "mono8")
        self._publish(message, "instances", self._instances(logits, offsets, size, mask, label_ids), "mono16")

    def _instances(
        self,
        logits: torch.Tensor,
        offsets: torch.Tensor,
        size: tuple[int, int],
        mask: npt.NDArray[Any],
        label_ids: list[int],
    ) -> npt.NDArray[Any]:
        output = self._card.output("instances")
        assert isinstance(output, InstancesOutput)
        height, width = offsets.shape[2:]
        scale = (output.offset_scale or 1.0) * np.array([width / size[0], height / size[1]], np.float32)
        things = {channel for channel, label in enumerate(self._card.labels) if label.is_thing}
        winner = logits[0].argmax(dim=0).int().numpy()
        ids, channels = find_instances(winner, offsets[0].numpy() * scale[:, None, None], things)
        return enlarge_instances(ids, channels, mask, label_ids)

    def _publish(self, image: Image, topic: str, values: npt.NDArray[Any], encoding: str) -> None:
        message = self._bridge.cv2_to_imgmsg(values, encoding)
        message.header = image.header
        self._publishers[topic].publish(message)


def _enlarged(tensor: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return functional.interpolate(tensor, size, mode="bilinear", align_corners=False)
