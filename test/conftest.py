"""What holds for every test: nothing of this user's set-up gets in, nothing is drawn on a screen."""

from __future__ import annotations

import os
import signal

import pytest


os.environ["MPLBACKEND"] = "Agg"
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts the tests in the background lets them, and all that they start, ignore the signal.
    signal.signal(signal.SIGINT, signal.default_int_handler)
# The machine that runs the tests may have few cores, which the processes of `make test` share.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")


@pytest.fixture(scope="session", autouse=True)
def _no_models_of_this_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ.pop("DIFFUSION_PERCEPTION_MODELS", None)
    for name in ("DATA", "STATE"):
        os.environ[f"XDG_{name}_HOME"] = str(tmp_path_factory.mktemp(f"{name.lower()}_home"))
