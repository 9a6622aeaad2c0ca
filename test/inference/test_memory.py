"""The memory of a large image does not stay with a robot that goes on with small ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from model_factory import write_model


SCRIPT = """
import json, sys
import numpy as np
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.memory import keep_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6

keep_freed_memory()
estimator = Estimator.load(sys.argv[1], "cpu", threads=1)
small = np.zeros((480, 640, 3), np.uint8)
for _ in range(3):
    estimator.predict(small)
before = resident()
prediction = estimator.predict(np.zeros((3000, 4000, 3), np.uint8))
largest = resident()
del prediction
for _ in range(3):
    estimator.predict(small)
print(json.dumps([before, largest, resident()]))
"""


def test_the_memory_of_a_large_image_is_given_back(tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny", depth="brightness")
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(model)], capture_output=True, text=True, check=True)
    before, largest, after = json.loads(done.stdout.splitlines()[-1])
    assert largest > before + 100
    assert after < before + 0.2 * (largest - before)
