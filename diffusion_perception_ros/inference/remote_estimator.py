"""An estimator in a process of its own, which is killed and started again when a library in it hangs or crashes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from diffusion_perception_ros.inference.card import ModelCard
from diffusion_perception_ros.inference.estimator import Query
from diffusion_perception_ros.inference.process_channel import Closed, ProcessChannel
from diffusion_perception_ros.inference.sampling.settings import Sampling, resolve_sampling
from diffusion_perception_ros.sample import Prediction, UInt8Image


FIRST_PAUSE, LAST_PAUSE = 0.5, 60.0
"""Seconds between starts of a process that does not answer; they double from one to the next."""


class ProcessLost(RuntimeError):
    """The process hung and was killed, died, or is not started again yet."""


class RemoteEstimator:
    """Answers like an `Estimator`. Not to be shared between threads, except `close`.

    A process that hangs or dies costs the image that it was working on; the next one starts another.
    """

    card: ModelCard
    backend_name: str
    fallback_reason: str | None
    takes_batches: bool

    def __init__(
        self, load_timeout: float, limit: Callable[[], float], warm_up: bool = True, **arguments: Any
    ) -> None:
        """Starts the process and loads the model in it.

        Args:
            load_timeout: Seconds that loading may take.
            limit: Seconds that an answer may take, asked anew for each.
            warm_up: Run the model once.
            arguments: Of `Estimator.load`.

        Raises:
            InputError: as `Estimator.load`.
            ProcessLost: the process hangs or dies while it loads.
        """
        self._arguments = {**arguments, "warm_up": warm_up}
        self._load_timeout, self._limit = load_timeout, limit
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: ProcessChannel | None = None
        self._life = -1
        self._pause, self._next_start = FIRST_PAUSE, 0.0
        self._is_closed = False
        self._start()

    @property
    def pid(self) -> int | None:
        """Of the process, None while there is none."""
        return self._process.pid if self._process is not None else None

    def check_sampling(
        self,
        steps: int | None = None,
        ensemble_size: int | None = None,
        noise_mode: str | None = None,
        seed: int | None = None,
        merging: str | None = None,
    ) -> Sampling:
        """As `Estimator.check_sampling`."""
        return resolve_sampling(self.card, steps, ensemble_size, noise_mode, seed, merging)

    def forget(self, stream: str | None = None) -> None:
        """As `Estimator.forget`."""
        self._ask("forget", stream)

    def predict(self, rgb: UInt8Image, **question: Any) -> Prediction:
        """As `Estimator.predict`, whose arguments are the fields of a `Query`.

        Raises:
            InputError: the question cannot be answered.
            RuntimeError: the graph failed.
            ProcessLost: the process hung or died; it is started again for the next question.
        """
        prediction: Prediction = self._ask("predict", _alone(Query(rgb, **question)))
        return prediction

    def predict_batch(self, queries: Sequence[Query]) -> list[Prediction]:
        """As `Estimator.predict_batch`."""
        predictions: list[Prediction] = self._ask("predict_batch", [_alone(query) for query in queries])
        return predictions

    def close(self) -> None:
        """Ends the process, whatever it is doing."""
        self._is_closed = True
        process = self._process
        if process is not None:
            process.kill()  # whoever waits for its answer clears up

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self._kill()

    def _ask(self, method: str, argument: Any) -> Any:
        if self._process is None:
            self._restart()
        answer = self._exchange(method, argument, self._limit())
        self._pause = FIRST_PAUSE
        return answer

    def _exchange(self, method: str, argument: Any, seconds: float) -> Any:
        channel = self._channel
        assert channel is not None
        try:
            channel.send((method, argument))
            is_answer, answer = channel.receive(seconds)
        except TimeoutError:
            self._kill()
            raise ProcessLost(f"the network has not answered for {seconds:.1f} s: its process was killed") from None
        except (Closed, OSError, ValueError) as error:
            code = self._kill(grace=1.0)
            raise ProcessLost(f"the network's process ended with {_name_of(code)}") from error
        if not is_answer:
            raise answer
        return answer

    def _restart(self) -> None:
        wait = self._next_start - time.monotonic()
        if self._is_closed or wait > 0:
            raise ProcessLost(f"the network's process is started again in {max(wait, 0):.1f} s")
        self._start()

    def _start(self) -> None:
        self._next_start = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LAST_PAUSE)
        ours, theirs = socket.socketpair()
        questions, answers = os.memfd_create("questions"), os.memfd_create("answers")
        read, self._life = os.pipe()
        files = (theirs.fileno(), answers, questions, read)
        command = [sys.executable, "-m", "diffusion_perception_ros.inference.estimator_process", *map(str, files)]
        self._process = subprocess.Popen(command, pass_fds=files, start_new_session=True, stdin=subprocess.DEVNULL)
        theirs.close()
        os.close(read)
        self._channel = ProcessChannel(Connection(ours.detach()), questions, answers)
        try:
            found = self._exchange("load", self._arguments, self._load_timeout)
        except Exception:
            self._kill()
            raise
        self.card, self.backend_name, self.fallback_reason, self.takes_batches = found

    def _kill(self, grace: float = 0.0) -> int | None:
        """Ends the process if it does not end by itself; its exit code."""
        process, channel, life = self._process, self._channel, self._life
        self._process, self._channel, self._life = None, None, -1
        if process is None:
            return None
        code: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(grace)
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(5)
        if channel is not None:
            channel.close()
        if life >= 0:
            os.close(life)
        return code


def _alone(query: Query) -> Query:
    """The question without memory of this process."""
    return replace(query, memory=None)


def _name_of(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"
