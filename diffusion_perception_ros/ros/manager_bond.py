"""The bond that Nav2's lifecycle manager keeps with the nodes it manages, where bondpy is installed.

The manager takes the whole navigation down when a bonded node dies; without a bond it notices nothing. The names and
times are those of nav2_util's lifecycle node: topic `bond`, the node's name, ten heartbeats per second.
"""

from __future__ import annotations

from typing import Any

from rclpy.node import Node

from diffusion_perception_ros.ros.log import Log


try:
    from bondpy import bondpy
except ImportError:  # the wheels of ROS 2 have none
    bondpy = None

PERIOD, TIMEOUT = 0.1, 4.0
"""Seconds between heartbeats, and without one until the bond is broken."""


class ManagerBond:
    """Kept while the node is active. What goes wrong with it is a line in the log, no more."""

    def __init__(self, node: Node, log: Log) -> None:
        self._node, self._log = node, log
        self._bond: Any = None

    def start(self) -> None:
        """Offers the bond; a manager that asks for none leaves it alone."""
        if bondpy is None or self._bond is not None:
            return
        try:
            self._bond = bondpy.Bond("bond", self._node.get_name(), self._node)
            self._bond.set_heartbeat_period(PERIOD)
            self._bond.set_heartbeat_timeout(TIMEOUT)
            self._bond.start()
        except Exception as error:
            self._log.warning(f"no bond with a lifecycle manager: {type(error).__name__}: {error}")

    def stop(self) -> None:
        """Breaks the bond, as a node does that is deactivated."""
        bond, self._bond = self._bond, None
        if bond is None:
            return
        try:
            bond.shutdown()
        except Exception as error:
            self._log.warning(f"the bond with the lifecycle manager cannot be broken: {error}")
