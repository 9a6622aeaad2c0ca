"""Faults of model folders and of the network that runs."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import onnx
from model_factory import edit_card

from diffusion_perception_ros.inference.card import CARD_NAME, sha256_of
from faults.bench import HEIGHT, WIDTH, Bench
from faults.campaign import NO_NODE, row


WHITE = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)


def copy_of(bench: Bench, name: str) -> Path:
    """A model folder that a row may damage."""
    folder = bench.folder / "damaged" / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(bench.model("plain"), folder)
    return folder


def weights_beside(folder: Path) -> None:
    """Moves the weights into a file of their own, which runtimes map into memory."""
    path = folder / "model.onnx"
    model = onnx.load(path)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(1 << 20, np.float32), "large"))
    model.graph.node.append(onnx.helper.make_node("ReduceMean", ["large"], ["mean"], keepdims=0))
    model.graph.node.append(onnx.helper.make_node("Mul", ["depth_", "mean"], ["depth"]))
    next(node for node in model.graph.node if node.output[0] == "depth").output[0] = "depth_"
    model.graph.node[-1].output[0] = "depth"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=1024)
    edit_card(folder, files={name: sha256_of(folder / name) for name in ("model.onnx", "weights.bin")})


@row(
    "the model's files are truncated, replaced and deleted while it runs",
    "runs on; the next configure says why",
)
def model_vanishes(bench: Bench) -> str:
    return _spoil(bench, copy_of(bench, "vanishing"))


@row("the same with weights in a file beside the graph", "runs on; the next configure says why")
def mapped_weights_vanish(bench: Bench) -> str:
    folder = copy_of(bench, "mapped")
    weights_beside(folder)
    return _spoil(bench, folder)


def _spoil(bench: Bench, folder: Path) -> str:
    whole = folder.with_name(f"{folder.name}.whole")
    shutil.rmtree(whole, ignore_errors=True)
    shutil.copytree(folder, whole)
    node = bench.use(folder)
    large = max(folder.iterdir(), key=lambda path: path.stat().st_size)
    os.truncate(large, 100)
    bench.recover()
    large.write_bytes(b"other bytes")
    bench.recover()
    for path in folder.iterdir():
        path.unlink()
    bench.recover()
    ros = bench.ros
    assert ros.change_state("deactivate")
    assert ros.change_state("cleanup")
    assert not ros.change_state("configure")
    said = bench.said("network", "")
    shutil.copytree(whole, folder, dirs_exist_ok=True)
    assert ros.change_state("configure")
    assert ros.change_state("activate")
    bench.recover()
    assert node.is_running
    return said


@row("a card that is a pipe, an endless file, or nested 20 000 deep", "configure answers with a reason", NO_NODE)
def hostile_cards(bench: Bench) -> str:
    folder = copy_of(bench, "hostile")
    bench.use(folder)
    ros, card = bench.ros, folder / CARD_NAME
    text = card.read_text()
    said = []
    ros.change_state("deactivate")
    ros.change_state("cleanup")
    for make in (
        lambda: os.mkfifo(card),
        lambda: card.symlink_to("/dev/zero"),
        lambda: card.write_text("[" * 20_000),
        lambda: card.write_text(text.replace("0.5", ".nan", 1)),
    ):
        card.unlink()
        make()
        assert not ros.change_state("configure")
        said.append(bench.said("network", CARD_NAME))
    card.unlink()
    card.write_text(text)
    assert ros.change_state("configure")
    assert ros.change_state("activate")
    bench.recover()
    return said[0]


def _white(bench: Bench, words: str) -> str:
    bench.ros.forget_diagnostics()
    bench.send(WHITE)

    def said() -> str:
        statuses = [status for status in bench.ros.diagnostics.values() if status.level != b"\0"]
        return next((f"{s.name}: {s.message}" for s in statuses if words in s.message.lower()), "")

    return bench.ros.repeat_until(lambda: bench.send(WHITE), said, f"'{words}' in the diagnostics")


@row("the network raises on an image", "said; the next image is predicted", {"model": "broken white"}, quick=True)
def network_raises(bench: Bench) -> str:
    return _white(bench, "failed on inputs")


@row(
    "the network asks for 256 TiB on an image",
    "said; the next image is predicted",
    {"model": "huge white"},
    quick=True,
)
def network_out_of_memory(bench: Bench) -> str:
    return _white(bench, "failed on inputs")


@row("the network gives only NaN on an image", "said, not passed on as OK", {"model": "nan white"}, quick=True)
def network_nan(bench: Bench) -> str:
    return _white(bench, "not a number")


HANGING = {"model": "hanging white", "watchdog_seconds": 2.0}


def _hang(bench: Bench) -> str:
    bench.send(WHITE)
    return bench.ros.repeat_until(
        lambda: bench.send(WHITE),
        lambda: next((s.message for s in bench.ros.diagnostics.values() if "has not answered" in s.message), ""),
        "the watchdog speaks",
    )


@row("the network hangs on an image", "ERROR; the node starts again by itself and predicts", NO_NODE, quick=True)
def network_hangs(bench: Bench) -> str:
    bench.use(**HANGING)
    said = _hang(bench)
    seconds = bench.recover()
    bench.end_hard()
    return f"{said}; back after {seconds:.1f} s"


@row("the network hangs, then SIGTERM", "the process ends within seconds", NO_NODE, quick=True)
def hang_then_sigterm(bench: Bench) -> str:
    node = bench.use(**HANGING)
    _hang(bench)
    start = time.monotonic()
    code = node.stop(signal.SIGTERM)
    bench.end_hard()
    return f"exit code {code} after {time.monotonic() - start:.1f} s"


@row("the network hangs, then deactivate", "answered; cleanup, configure and activate bring it back", NO_NODE)
def hang_then_deactivate(bench: Bench) -> str:
    bench.use(**HANGING | {"watchdog_seconds": 600.0})
    bench.send(WHITE)
    bench.ros.pause(2.0)
    start = time.monotonic()
    assert bench.ros.change_state("deactivate")
    seconds = time.monotonic() - start
    for transition in ("cleanup", "configure", "activate"):
        assert bench.ros.change_state(transition)
    bench.recover()
    bench.end_hard()
    return f"deactivate answered after {seconds:.1f} s"
