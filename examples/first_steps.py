"""The library in three minutes, without ROS: predict, look at the maps, score against ground truth.

    .venv/bin/python examples/first_steps.py [BAG]

BAG is a recording with a colour and a depth topic, by default the bundled clip. Images go to `out/first_steps`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
from rich.console import Console

from diffusion_perception_ros.datasets.rosbag import BagDataset
from diffusion_perception_ros.evaluation.run import evaluate
from diffusion_perception_ros.evaluation.tables import tables
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.visualization import colorize_depth, colorize_labels, colorize_normals


REPOSITORY = Path(__file__).resolve().parents[1]
OUTPUT = Path("out/first_steps")


def main() -> None:
    recording = BagDataset(Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / "demo" / "clip")
    OUTPUT.mkdir(parents=True, exist_ok=True)

    # 1. A model is a folder with a card. The card says what it gives and what the numbers mean.
    estimator = Estimator.load("onestep-m", backend="cpu")
    depth_card = estimator.card.output("depth")
    print(f"{estimator.card.name} gives {', '.join(estimator.card.tasks)}; its depth is {depth_card.quantity}")

    # 2. One call predicts. Every map is a NumPy array in the size of the image.
    sample = recording[0]
    prediction = estimator.predict(sample.rgb, sample.intrinsics)
    print(f"image {sample.rgb.shape}, depth {prediction.depth_relative.shape} in [0, 1], 0 is near")
    print(
        f"classes: {', '.join(sorted({estimator.card.labels[i].name for i in set(prediction.semantic.flat)})[:8])} …"
    )

    # 3. Numbers become images for eyes.
    maps = {
        "depth": colorize_depth(prediction.depth_relative),
        "normals": colorize_normals(prediction.normals),
        "classes": colorize_labels(prediction.semantic, estimator.card.labels),
    }
    for name, rgb in maps.items():
        cv2.imwrite(str(OUTPUT / f"{name}.png"), rgb[..., ::-1])
    print(f"{len(maps)} images: {OUTPUT.resolve()}")

    # 4. Only the tasks that are asked for are computed.
    normals_only = estimator.predict(sample.rgb, tasks={"normals"})
    print(f"only normals: depth is {normals_only.depth_relative}")

    # 5. Ground truth in the recording gives scores, beside answers that never look at the image.
    for table in tables(evaluate(recording, estimator).summary):
        Console().print(table)


if __name__ == "__main__":
    main()
