#!/usr/bin/env python3
"""GPU acceptance in under ten minutes on one H100: do all backends compute what the CPU computes, and how fast?

    scripts/check_gpu.py -o out/gpu            # everything: the bundled models and a full-size Lotus-D
    scripts/check_gpu.py -o out/gpu --small    # a small Lotus-D: what can be tried without a GPU

For each model and backend: which backend really runs (and why another one, if so), the time to open it (an engine is
built at the first start), the largest and mean difference of the depth from the CPU's, the median time of inference,
and the GPU memory that is in use. Then the same network in PyTorch (diffusers' modules) on the same GPU. Writes
`gpu.json` and `gpu.md` into the output folder; exits with 1 if a backend computes something else than the
CPU.

The full-size Lotus-D has the configs of Stable Diffusion 2 and random weights: speed and memory do not depend on them.
It needs 30 GB of memory and 10 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch


ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "test" / "support")]

from diffusion_perception_ros.cli.export import check_pictures  # noqa: E402
from diffusion_perception_ros.export.exporter import export_family  # noqa: E402
from diffusion_perception_ros.export.options import ExportOptions  # noqa: E402
from diffusion_perception_ros.families import lotus  # noqa: E402
from diffusion_perception_ros.families.recipe import LoadOptions  # noqa: E402
from diffusion_perception_ros.inference.estimator import Estimator  # noqa: E402


FULL_UNET: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "attention_head_dim": (5, 10, 20, 20),
    "norm_num_groups": 32,
}
FULL_VAE: dict[str, Any] = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "norm_num_groups": 32}
BACKENDS = (("cuda", "fp32"), ("tensorrt", "fp32"), ("tensorrt", "fp16"), ("tensorrt", "bf16"))
TOLERANCE = {"fp32": 2e-3, "fp16": 2e-2, "bf16": 5e-2}
"""Mean difference of the depth in [0, 1] that is still the same map."""
RUNS = 30


def main() -> int:
    """Runs all of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("out/gpu"))
    parser.add_argument("--small", action="store_true", help="a Lotus-D with small networks instead of the full size")
    parser.add_argument("--models", nargs="*", default=["onestep-s", "onestep-m"], help="bundled models to check")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    started, rows = time.monotonic(), []
    for name in args.models:
        rows += check_model(name, name)
    checkpoint = write_checkpoint(args.output / "lotus-checkpoint", args.small)
    for precision in ("fp32", "fp16"):
        folder = args.output / f"lotus-{precision}"
        export_lotus(checkpoint, folder, precision, (128, 96) if args.small else (768, 576))
        rows += check_model(folder.name, str(folder))
    rows += check_pytorch(checkpoint, (128, 96) if args.small else (768, 576))
    report = {"gpu": gpu_name(), "minutes": round((time.monotonic() - started) / 60, 1), "rows": rows}
    (args.output / "gpu.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    (args.output / "gpu.md").write_text(markdown(report), encoding="utf-8")
    print(markdown(report))
    return 1 if any(row["problem"] for row in rows) else 0


def check_model(title: str, model: str) -> list[dict[str, Any]]:
    """One row for the CPU and one for every other backend."""
    image = check_pictures(1)[0]
    reference = Estimator.load(model, "cpu")
    expected = depth_of(reference, image)
    rows = [
        row(title, "cpu", reference.card.precision, reference, 0.0, expected, expected, median_ms(reference, image))
    ]
    del reference
    for backend, precision in BACKENDS:
        begun = time.monotonic()
        estimator = Estimator.load(model, backend, engine_precision=precision)
        seconds = time.monotonic() - begun
        depth = depth_of(estimator, image)
        rows.append(row(title, backend, precision, estimator, seconds, depth, expected, median_ms(estimator, image)))
        print(json.dumps(rows[-1]), file=sys.stderr)
    return rows


def row(
    title: str,
    backend: str,
    precision: str,
    estimator: Estimator,
    seconds: float,
    depth: np.ndarray,
    expected: np.ndarray,
    milliseconds: float,
) -> dict[str, Any]:
    """What is written of one model and backend."""
    difference = np.abs(depth - expected)
    used = estimator.backend_name
    asked = used.startswith(
        ("tensorrt", "onnxruntime-tensorrt") if backend == "tensorrt" else f"onnxruntime-{backend}"
    )
    wrong = asked and not difference.mean() <= TOLERANCE.get(precision, TOLERANCE["fp32"])
    return {
        "model": title,
        "backend": backend,
        "precision": precision,
        "runs": used,
        "reason": estimator.fallback_reason or "",
        "open_s": round(seconds, 1),
        "largest": float(f"{difference.max():.2g}"),
        "mean": float(f"{difference.mean():.2g}"),
        "median_ms": round(milliseconds, 2),
        "gpu_mib": gpu_memory(),
        "problem": f"{used} computes another depth than the CPU" if wrong else "",
    }


def depth_of(estimator: Estimator, image: np.ndarray) -> np.ndarray:
    """(H, W) relative depth, or metric depth over its largest value; what is not finite counts as 0."""
    prediction = estimator.predict(image, tasks=["depth"])
    if prediction.depth_relative is not None:
        return np.nan_to_num(prediction.depth_relative)
    assert prediction.depth is not None
    finite = np.nan_to_num(prediction.depth, posinf=0.0)
    return finite / max(float(finite.max()), 1e-6)


def median_ms(estimator: Estimator, image: np.ndarray) -> float:
    """Of inference alone, after the first runs; on a CPU fewer runs of what takes seconds."""
    first = estimator.predict(image, tasks=["depth"]).timings["inference"]
    count = RUNS if first < 0.5 else 2
    return 1e3 * statistics.median(
        estimator.predict(image, tasks=["depth"]).timings["inference"] for _ in range(count)
    )


def write_checkpoint(folder: Path, small: bool) -> Path:
    """A Lotus-D checkpoint with random weights; kept for the next time."""
    from family_checkpoints import write_lotus, write_vae

    if not (folder / "model_index.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        write_lotus(folder, "d", **({} if small else FULL_UNET))
        if not small:
            write_vae(folder / "vae", **FULL_VAE)
    return folder


def export_lotus(checkpoint: Path, folder: Path, precision: Any, size: tuple[int, int]) -> None:
    """One graph of a fixed size, unless it is there from the last time."""
    if (folder / "model.yaml").is_file():
        return
    model = lotus.load(str(checkpoint), "depth", LoadOptions())
    options = ExportOptions(name=folder.name, checkpoint="random weights", size=size, precision=precision)
    export_family(model, folder, check_pictures(1), options)


def check_pytorch(checkpoint: Path, size: tuple[int, int]) -> list[dict[str, Any]]:
    """The same network in PyTorch on the GPU, the usual way to run such a checkpoint."""
    if not torch.cuda.is_available():
        return []
    rows = []
    image = torch.zeros(1, 3, size[1], size[0], device="cuda")
    for name, dtype in (("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)):
        model = lotus.load(str(checkpoint), "depth", LoadOptions()).to("cuda", dtype)

        def step(model: lotus.Lotus = model, dtype: torch.dtype = dtype) -> None:
            with torch.inference_mode():
                model(image.to(dtype))
            torch.cuda.synchronize()

        rows.append({"model": "lotus", "backend": "pytorch", "precision": name, "runs": "pytorch", "reason": "",
                     "open_s": 0.0, "largest": 0.0, "mean": 0.0, "median_ms": round(1e3 * timed(step), 2),
                     "gpu_mib": gpu_memory(), "problem": ""})  # fmt: skip
        del model
        torch.cuda.empty_cache()
    return rows


def timed(step: Callable[[], None]) -> float:
    """Median seconds after three runs that do not count."""
    seconds = []
    for _ in range(3 + RUNS):
        begun = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[3:])


def gpu_name() -> str:
    """As `nvidia-smi` says it, with driver."""
    return _smi("name,driver_version") or "none"


def gpu_memory() -> int:
    """MiB in use on the GPU by all processes, 0 without one."""
    return int(_smi("memory.used").split()[0]) if _smi("memory.used") else 0


def _smi(fields: str) -> str:
    try:
        command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return ""


def markdown(report: dict[str, Any]) -> str:
    """The table for the documentation."""
    names = ("model", "backend", "precision", "runs", "open_s", "largest", "mean", "median_ms", "gpu_mib", "problem")
    lines = [
        f"{report['gpu']}, {report['minutes']} minutes\n",
        "| " + " | ".join(names) + " |",
        "|---" * len(names) + "|",
    ]
    lines += ["| " + " | ".join(str(entry[name]) for name in names) + " |" for entry in report["rows"]]
    reasons = sorted({f"- {entry['backend']}: {entry['reason']}" for entry in report["rows"] if entry["reason"]})
    return "\n".join([*lines, "", *reasons]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
