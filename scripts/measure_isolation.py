"""What `isolation: process` costs per image, against the thread: wall time beyond the model's own, and processor time.

.venv/bin/python scripts/measure_isolation.py [--model onestep-s] [--images 50]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.remote_estimator import RemoteEstimator
from diffusion_perception_ros.sample import Prediction


def cost(predict: Callable[[], Prediction], images: int) -> str:
    """Medians in milliseconds, as a row of a table."""
    wall, beyond, processor = list[float](), list[float](), list[float]()
    for _ in range(images):
        start, used = time.perf_counter(), time.process_time()
        prediction = predict()
        wall.append(time.perf_counter() - start)
        beyond.append(wall[-1] - sum(prediction.timings.values()))
        processor.append(time.process_time() - used)
    return " | ".join(f"{1000 * statistics.median(values):.1f}" for values in (wall, beyond, processor))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="onestep-s")
    parser.add_argument("--images", type=int, default=50)
    arguments = parser.parse_args()
    rgb = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    local = Estimator.load(arguments.model, threads=1)
    remote = RemoteEstimator(300.0, lambda: 60.0, name_or_path=arguments.model, threads=1)
    print("| 640x480, one thread | ms per image | beyond the model | processor time of the node |\n|---|---|---|---|")
    print(f"| thread | {cost(lambda: local.predict(rgb), arguments.images)} |")
    print(f"| process | {cost(lambda: remote.predict(rgb), arguments.images)} |")
    remote.close()


if __name__ == "__main__":
    main()
