"""What the executables of this package have in common: start, the reason if that fails, an end that nothing holds up.

Exit codes: 0 the work is done or a signal ended it, 2 wrong parameters or input, 3 an error of the program or of the
ROS installation, 4 a signal ended the process by force, because something in it hung. Others belong to the executable.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import NoReturn, TypeVar

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.memory import keep_freed_memory


ENDED, WRONG_INPUT, FAILED, FORCED = 0, 2, 3, 4
"""Exit codes."""
GRACE = 2.5
"""Seconds after a signal until the process ends by force."""

AnyNode = TypeVar("AnyNode", bound=Node)


class Ending:
    """Ends the process on SIGINT and SIGTERM, however often they come and whatever hangs.

    A thread of its own gets the signals, as the main one may be inside a library that does not return.
    """

    def __init__(self, name: str, grace: float) -> None:
        """`name`: of the executable; `grace`: seconds that an orderly end may take."""
        self._name, self._grace = name, grace
        self._done = threading.Event()
        self._code: int | None = ENDED
        """Exit code if the process has to be ended now; None while it works, when a long end is a hang."""
        self.is_asked = False
        """A signal has come."""
        self._signals, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)  # a handler that does nothing, for the number to be written
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._wait, name="ending", daemon=True).start()

    def work(self) -> bool:
        """The start is over, work begins; False if a signal has come meanwhile."""
        self._code = None
        return not self.is_asked

    def leave(self, code: int) -> None:
        """The work is done; only DDS has to be closed, which takes seconds on a starved machine and loses nothing."""
        self._code = code

    def finish(self, code: int) -> NoReturn:
        """Ends the process, in order. Cleaning the interpreter up would take seconds, or never end, where libraries'
        threads still work; nothing is left for it to do."""
        self._done.set()
        _exit(code)

    def _wait(self) -> None:
        self._signals.recv(1)
        self.is_asked = True
        threading.Thread(target=_shut_down, name="shutdown", daemon=True).start()  # it may hang, too
        if not self._done.wait(self._grace):
            if self._code is None:
                print(f"{self._name}: something hangs, ended {self._grace:g} s after the signal", file=sys.stderr)
            _exit(FORCED if self._code is None else self._code)


def run_node(
    name: str,
    make: Callable[[], AnyNode],
    work: Callable[[AnyNode], int],
    args: list[str] | None,
    grace: float = GRACE,
) -> NoReturn:
    """Makes a node, works with it until done or told to end, destroys it, and ends the process with an exit code.

    Args:
        name: of the executable, for messages.
        make: may raise InputError, as `work` may.
        work: returns the exit code.
        args: of the command line, None = those of the process.
        grace: seconds that an orderly end may take after a signal.
    """
    keep_freed_memory()
    ending = Ending(name, grace)
    node: AnyNode | None = None
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = make()
        code = work(node) if ending.work() else ENDED
    except (KeyboardInterrupt, ExternalShutdownException):
        code = ENDED
    except InputError as error:
        print(f"{name}: {error}", file=sys.stderr)
        code = WRONG_INPUT
    except Exception as error:
        # A signal may shut the context down between two calls of rclpy, of which the second then fails.
        code = FAILED if rclpy.ok() else ENDED
        if code == FAILED:
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{os.path.basename(where.filename)}:{where.lineno}"
            print(f"{name}: {type(error).__name__} in {place}: {error}", file=sys.stderr)
    ending.leave(code)
    with contextlib.suppress(Exception):
        if node is not None:
            node.destroy_node()
    node = None
    gc.collect()  # a node that refused its parameters, half made, must be gone before the context is
    _shut_down()
    with contextlib.suppress(Exception):
        rclpy.get_default_context().destroy()  # takes the participant out of DDS, and its shared memory away
    ending.finish(code)


def serve(node: Node, on_error: Callable[[Exception], None]) -> None:
    """Serves a node's callbacks until the process is told to end. What a callback raises is told to `on_error`."""
    if not rclpy.ok():
        return
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    failures = 0
    while rclpy.ok():
        try:
            executor.spin_once()
            failures = 0
        except ExternalShutdownException:
            return
        except Exception as error:
            failures += 1
            on_error(error)
            time.sleep(min(0.001 * 2 ** min(failures, 10), 1.0))  # what fails for ever must not take the processor


def _shut_down() -> None:
    """Lets everything that waits for messages go on."""
    with contextlib.suppress(Exception):
        rclpy.try_shutdown()


def _exit(code: int) -> NoReturn:
    """Ends the process at once, without the interpreter's clean-up."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)
