"""The goals of speed: each is a ratio of figures of one run, so that it means the same on every machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


Results = Mapping[str, Any]
"""What `around_network.measure` gives, with `startup_cpu_s`."""

PREDICT_GOALS = {"640x480": 1.12, "1280x720": 1.2, "1920x1080": 1.35}
STARTUP_BEFORE = 2.28
"""Seconds of CPU that a node took to be active before its start was made lighter, on two cores of an AMD EPYC."""


def ratios(results: Results, demo: Path = Path("out/demo/metrics.json")) -> dict[str, dict[str, Any]]:
    """Name → value, goal and whether it is reached; None where this run could not measure it, with a note."""
    rows: dict[str, dict[str, Any]] = {}

    def most(name: str, value: float | None, goal: float, note: str = "") -> None:
        rows[name] = {"value": value, "goal": goal, "ok": None if value is None else value <= goal, "note": note}

    def least(name: str, value: float | None, goal: float, note: str = "") -> None:
        rows[name] = {"value": value, "goal": goal, "ok": None if value is None else value >= goal, "note": note}

    for size, goal in PREDICT_GOALS.items():
        cpu = results[size]["cpu_ms"]
        most(f"predict over bare session, all outputs, {size}", cpu["predict, all"] / cpu["bare, all"], goal)
    cpu = results["640x480"]["cpu_ms"]
    whole, bare = cpu["node, all maps"], cpu["bare, all"]
    most("callback to published over bare session, all outputs, 640x480", whole / bare, 1.20)
    one = cpu["node, depth"] / cpu["bare, depth"]
    most("callback to published over bare session, one output, 640x480", one, 1.06)
    colours = (cpu["node, all maps and colours"] - whole) / bare
    most("three colour topics in addition, 640x480", colours, 0.08, "share of the bare session's time")
    peer = cpu.get("obvious node, all")
    note = "" if peer else str(results.get("peer_left_out", ""))
    least("CPU per image, the obvious node over ours, all outputs", peer and peer / whole, 6.0, note)
    peer = cpu.get("obvious node, depth")
    least("CPU per image, the obvious node over ours, depth", peer and peer / cpu["node, depth"], 2.5, note)
    faults = max(max(results[size]["page_faults"].values()) for size in PREDICT_GOALS)
    most("page faults per image, any resolution", faults, 5.0)
    growth = results["memory_growth"]
    share = growth["after_mb"] / growth["before_mb"] - 1
    most("memory growth", share, 0.01, f"over {growth['images']} images")
    started = results.get("startup_cpu_s")
    most("CPU seconds until the node is active, over those before", started and started / STARTUP_BEFORE, 0.5)
    most("latency in make demo over network time", _demo_ratio(demo), 1.6, "" if demo.exists() else "run make demo")
    return rows


def _demo_ratio(path: Path) -> float | None:
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        return float(metrics["latency_ms"]["p50"]) / float(metrics["inference_ms"]["p50"])
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return None


def as_markdown(results: Results, rows: Mapping[str, Mapping[str, Any]], machine: str, model: str) -> str:
    """docs/performance.md."""
    lines = [
        "# Performance",
        "",
        "Written by `diffusion-perception bench --only around --docs docs/performance.md`. CPU time of one thread",
        f"on {machine}; fastest of interleaved rounds, images of the bundled clip, `{model}`.",
        "",
        "| ratio | measured | goal | reached |",
        "|---|---|---|---|",
    ]
    for name, row in rows.items():
        measured = "not measured" if row["value"] is None else f"{row['value']:.3g}"
        reached = {True: "yes", False: "no", None: ""}[row["ok"]]
        note = f" ({row['note']})" if row["note"] else ""
        lines.append(f"| {name}{note} | {measured} | {row['goal']:g} | {reached} |")
    sizes = list(PREDICT_GOALS)
    lines += ["", "| ms of CPU per image | " + " | ".join(sizes) + " |", "|---" * (len(sizes) + 1) + "|"]
    for name in results[sizes[0]]["cpu_ms"]:
        values = [results[size]["cpu_ms"].get(name) for size in sizes]
        lines.append(f"| {name} | " + " | ".join("" if value is None else f"{value:.1f}" for value in values) + " |")
    lines += [
        "",
        "*bare* is `session.run` of ONNX Runtime on the prepared tensor, with all outputs or with the graph cut down",
        "to depth. *predict* adds shrinking the image and making maps of the image's size. *node* is everything from",
        "the image's callback to the last message published, with a listener in the same process. *obvious node* is",
        "`cli/benchmarks/obvious_node.py`: cv_bridge, PyTorch in float32, the same weights and outputs.",
        "",
        "Maps are made by the C++ library of `src/` (`diffusion-perception doctor` says whether it is there); without",
        "it NumPy and OpenCV make the same maps. Smaller maps (`output_size: half` or",
        "`network`) and a smaller input (`input_area`) cost less in proportion to their pixels.",
        "",
        "What bounds each stage:",
        "",
        "- the network: multiplications; int8 on this processor. Nothing of the package runs inside it.",
        "- shrinking the image: reading it once.",
        "- maps: writing them. At 1920x1080 all maps together are 55 MB, most of them normals (25 MB), and memory is",
        "  what they wait for. Ask for fewer maps: what nobody subscribes to is not made.",
        "- publishing: three copies of each message by rclpy and the middleware.",
    ]
    return "\n".join(lines) + "\n"
