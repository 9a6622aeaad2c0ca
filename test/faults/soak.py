"""`python -m faults.soak [--minutes 60]`: one node at a steady rate; what it holds, how fast it is, and what is lost.

Writes `soak.json` and `soak.png`. Exit code 1 if memory, threads or handles drift, or an image is not accounted for:
sent = received + lost on the way, received = predicted + dropped for a newer one + skipped + rejected + in work.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faults.__main__ import REPOSITORY  # also makes the harness importable


MOST_GROWTH_MB = 20.0
"""Of memory between the first and the last quarter of the time."""
SAMPLE_SECONDS = 5.0


@dataclass
class Sample:
    """The node at one moment; counts since its start."""

    minutes: float
    memory_mb: float
    threads: int
    handles: int
    latency_ms: float
    """From the stamp to the map, on the node's clock: median of the last seconds."""
    rate_hz: float
    sent: int
    received: int
    predicted: int
    dropped: int
    skipped: int
    rejected: int

    @property
    def in_work(self) -> int:
        """Received and not yet predicted, dropped, skipped or rejected."""
        return self.received - self.predicted - self.dropped - self.skipped - self.rejected


def main() -> int:
    """Soaks and says what came of it."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=10.0, help="images per second")
    parser.add_argument("--model", default="onestep-s", help="name or folder")
    parser.add_argument("-o", "--output", type=Path, default=Path("out/soak"))
    args = parser.parse_args()
    samples = soak(args.model, args.rate, args.minutes)
    problems = judge(samples)
    args.output.mkdir(parents=True, exist_ok=True)
    fields = {"arguments": {**vars(args), "output": str(args.output)}, "problems": problems}
    fields["samples"] = [asdict(sample) for sample in samples]
    (args.output / "soak.json").write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")
    draw(samples, args.output / "soak.png")
    last = samples[-1]
    print(
        f"{last.minutes:.1f} minutes: sent {last.sent} = received {last.received} + lost {last.sent - last.received}; "
        f"predicted {last.predicted}, dropped {last.dropped}, skipped {last.skipped}, rejected {last.rejected}, in "
        f"work {last.in_work}; memory {samples[0].memory_mb:.0f} to {last.memory_mb:.0f} MB, threads "
        f"{samples[0].threads} to {last.threads}, handles {samples[0].handles} to {last.handles}; "
        f"{'; '.join(problems) or 'no drift'}"
    )
    return 1 if problems else 0


def soak(model: str, rate: float, minutes: float) -> list[Sample]:
    """Feeds a node for a while and samples it every few seconds."""
    from domain_coordinator import domain_id
    from harness import Ros

    from faults.bench import NODE, Bench

    samples = []
    with tempfile.TemporaryDirectory() as folder, domain_id() as domain, Ros(domain, Path(folder)) as ros:
        bench = Bench(ros, Path(folder))
        node = bench.start(model=model)
        ros.wait_for(lambda: bench.images.get_subscription_count() > 0, "the node subscribes", 300.0)
        rgb = _image()
        start = next_image = next_sample = time.monotonic()
        sent = 0
        while time.monotonic() - start < 60 * minutes:
            if time.monotonic() >= next_image:
                next_image += 1 / rate
                bench.send(rgb, stamp=time.time())
                sent += 1
            bench.ros.pause(0.01)
            if time.monotonic() >= next_sample:
                next_sample += SAMPLE_SECONDS
                del bench.depths.messages[:]
                samples.append(_sample(ros.values("images"), node.pid, (time.monotonic() - start) / 60, sent))
        ros.pause(3.0)  # what was on the way has arrived, and diagnostics have said so
        samples.append(_sample(ros.values("images"), node.pid, (time.monotonic() - start) / 60, sent))
        assert node.is_running, NODE
        node.stop()
    return [sample for sample in samples if sample.received]


def _image() -> Any:
    import cv2

    path = REPOSITORY / "diffusion_perception_ros" / "inference" / "parity_picture.jpg"
    return cv2.resize(cv2.imread(str(path)), (320, 240))[..., ::-1].copy()


def _sample(values: dict[str, str], pid: int, minutes: float, sent: int) -> Sample:
    from faults.bench import resources

    held = resources(pid)
    counts = [int(values.get(f"Frames {name}") or 0) for name in ("received", "dropped", "skipped", "rejected")]
    received, dropped, skipped, rejected = counts
    return Sample(
        minutes=round(minutes, 3),
        memory_mb=held.memory_mb,
        threads=held.threads,
        handles=held.handles,
        latency_ms=float(values.get("Median latency (ms)") or 0.0),
        rate_hz=float(values.get("Actual frequency (Hz)") or 0.0),
        sent=sent,
        received=received,
        predicted=int(values.get("Events since startup") or 0),
        dropped=dropped,
        skipped=skipped,
        rejected=rejected,
    )


def judge(samples: list[Sample]) -> list[str]:
    """What is wrong, in sentences; the first quarter is for caches to fill."""
    quarter = max(1, len(samples) // 4)
    early, late = samples[quarter : 2 * quarter] or samples[:1], samples[-quarter:]
    problems = []
    growth = sum(s.memory_mb for s in late) / len(late) - sum(s.memory_mb for s in early) / len(early)
    if growth > MOST_GROWTH_MB:
        problems.append(f"memory grew by {growth:.1f} MB from the second to the last quarter")
    for name in ("threads", "handles"):
        more = max(getattr(s, name) for s in late) - max(getattr(s, name) for s in early)
        if more > 2:
            problems.append(f"{more} more {name} at the end")
    last = samples[-1]
    if not 0 <= last.in_work <= 2:
        problems.append(f"{last.in_work} received images are not accounted for")
    if last.received > last.sent:
        problems.append(f"{last.received} images were received, {last.sent} were sent")
    return problems


def draw(samples: list[Sample], path: Path) -> None:
    """Memory, threads and handles, latency, rate and counts over time, one below the other."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    minutes = [sample.minutes for sample in samples]
    figure, axes = pyplot.subplots(5, 1, figsize=(9, 11), sharex=True, layout="constrained")
    for axis, names, label in zip(
        axes,
        (["memory_mb"], ["threads", "handles"], ["latency_ms"], ["rate_hz"], ["dropped", "skipped", "rejected"]),
        ("resident memory (MB)", "open", "median latency (ms)", "predictions per second", "images since the start"),
        strict=True,
    ):
        for name in names:
            axis.plot(minutes, [getattr(sample, name) for sample in samples], label=name.split("_")[0])
        axis.set_ylabel(label)
        axis.set_ylim(0, max(1.0, 1.1 * axis.get_ylim()[1]))
        axis.grid(alpha=0.3)
        if len(names) > 1:
            axis.legend()
    axes[-1].plot(minutes, [sample.sent - sample.received for sample in samples], label="lost on the way")
    axes[-1].legend()
    axes[-1].set_xlabel("minutes")
    axes[0].set_title("perception_node under a steady stream of images")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
