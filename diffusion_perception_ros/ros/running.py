"""What the executables of this package have in common: start, the reason if that fails, a tidy end."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import TypeVar

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node

from diffusion_perception_ros.errors import InputError


AnyNode = TypeVar("AnyNode", bound=Node)


def run_node(name: str, make: Callable[[], AnyNode], work: Callable[[AnyNode], int], args: list[str] | None) -> int:
    """Makes a node, works with it until done or told to end, and destroys it.

    Args:
        name: of the executable, for messages.
        make: may raise InputError, as `work` may.
        work: returns the exit code.
        args: of the command line, None = those of the process.

    Returns:
        The exit code: 0 if ended by a signal, 2 for wrong input.
    """
    rclpy.init(args=args)
    node: AnyNode | None = None
    try:
        node = make()
        return work(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    except InputError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except Exception:
        if rclpy.ok():
            raise
        return 0  # the signal shut the context down between two calls of rclpy, of which the second then failed
    finally:
        if node is not None:
            node.destroy_node()
        gc.collect()  # a node that refused its parameters, half made, must be gone before the context is
        rclpy.try_shutdown()
