"""The process of a `RemoteEstimator`: loads one model and answers until its parent goes.

It is started with the numbers of four inherited file descriptors: the socket, the memory for answers, the memory for
questions, and a pipe whose other end the parent holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.process_channel import Closed, ProcessChannel


def end_with_parent(pipe: int) -> None:
    """The kernel kills this process when the other end of a pipe is closed, also while a library hangs in it."""
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, 10, signal.SIGKILL)  # F_SETSIG
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)


def serve(channel: ProcessChannel) -> None:
    """Answers questions: a method of the estimator and its arguments; the first is `load`."""
    estimator: Estimator | None = None
    while True:
        method, arguments = channel.receive()
        answer: Any
        try:
            if method == "load":
                warm_up = arguments.pop("warm_up")
                estimator = Estimator.load(**arguments)
                if warm_up:
                    estimator.warm_up()
                answer = estimator.card, estimator.backend_name, estimator.fallback_reason, estimator.takes_batches
            else:
                assert estimator is not None
                answer = _answer(estimator, method, arguments)
            channel.send((True, answer))
        except Closed:
            raise
        except InputError as error:
            channel.send((False, InputError(str(error))))
        except Exception as error:
            channel.send((False, RuntimeError(f"{type(error).__name__}: {error}")))


def _answer(estimator: Estimator, method: str, argument: Any) -> Any:
    if method == "predict":
        return estimator.predict(**vars(argument))
    if method == "predict_batch":
        return estimator.predict_batch(argument)
    return estimator.forget(argument)


def main() -> None:
    """Entry point."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    socket, outgoing, incoming, pipe = map(int, sys.argv[1:5])
    end_with_parent(pipe)
    with contextlib.suppress(Closed):
        serve(ProcessChannel(Connection(socket), outgoing, incoming))


if __name__ == "__main__":
    main()
