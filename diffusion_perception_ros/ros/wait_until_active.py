"""Ends when a lifecycle node is active and topics have their subscribers: a player that starts then misses nothing.

Exit codes: 0 everything is there, 2 it was not in time (the log says what was missing).
"""

from __future__ import annotations

import sys
import time
from typing import Any

from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.ros.node_parameters import NodeParameters
from diffusion_perception_ros.ros.parameters import WaitParameters
from diffusion_perception_ros.ros.running import run_node


PERIOD = 0.2
"""Seconds between two looks."""
REMINDER = 10.0
"""Seconds between two lines of the log that say what is waited for."""


class Waiter(Node):
    """Asks a lifecycle node for its state and counts subscribers."""

    def __init__(self) -> None:
        """Raises InputError for a wrong parameter."""
        super().__init__("wait_until_active")
        self.parameters = NodeParameters(self, WaitParameters).values
        name = self.parameters.lifecycle_node
        self._client: Client[Any, Any] = self.create_client(GetState, f"{name}/get_state")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)

    def wait(self) -> None:
        """Return when everything is there.

        Raises:
            InputError: it was not within `timeout`.
        """
        started = reminded = time.monotonic()
        while missing := self._missing():
            now = time.monotonic()
            if now - started > self.parameters.timeout:
                raise InputError(f"{missing} after {self.parameters.timeout:g} s: look at the node's log")
            if now - reminded > REMINDER:
                reminded = now
                self.get_logger().info(f"waiting: {missing}")
            self._executor.spin_once(timeout_sec=PERIOD)

    def _missing(self) -> str:
        """What is not there yet, empty if nothing is missing."""
        state = self._state()
        if state != "active":
            return f"{self._client.srv_name.removesuffix('/get_state')} is {state}"
        topics = [
            topic for topic in self.parameters.topics if self.count_subscribers(topic) < self.parameters.subscribers
        ]
        return f"fewer than {self.parameters.subscribers} subscribers on {', '.join(topics)}" if topics else ""

    def _state(self) -> str:
        """The node's lifecycle state in words."""
        if not self._client.service_is_ready():
            return "not there"
        future = self._client.call_async(GetState.Request())
        self._executor.spin_until_future_complete(future, timeout_sec=1.0)
        if not future.done():
            self._client.remove_pending_request(future)
            return "busy (it loads its model)"
        response = future.result()
        assert response is not None
        return "active" if response.current_state.id == State.PRIMARY_STATE_ACTIVE else response.current_state.label


def work(node: Waiter) -> int:
    """Waits; the exit code."""
    node.wait()
    return 0


def main(args: list[str] | None = None) -> int:
    """Entry point of the executable."""
    return run_node("wait_until_active", Waiter, work, args)


if __name__ == "__main__":
    sys.exit(main())
