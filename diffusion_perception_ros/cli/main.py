"""`diffusion-perception`: one sub-command per module of this folder.

Exit codes: 0 everything done, 1 done except for some inputs (each named on stderr), 2 nothing could be done (bad
arguments, model or data), 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.memory import keep_freed_memory


COMMANDS = {
    "run": "predict on pictures, folders, videos and bags, without ROS running",
    "evaluate": "metrics against ground truth and trivial baselines",
    "scale": "accuracy against compute at test time: steps, ensembles, noise schedules",
    "models": "list, show, verify, fetch and build model folders",
    "doctor": "what this machine has, what it lacks and what to do about it",
    "demo": "publisher, perception node and recorder over DDS, then a report",
    "bench": "benchmarks, as ratios measured side by side",
    "world": "render synthetic samples with exact ground truth",
    "train": "train a model from a YAML config",
    "ablate": "train the rungs of an ablation ladder and draw it",
    "create": "new labelled pairs from a network that was trained to create them",
    "adapt": "adapt a model to a robot's own place and camera, from a few images",
    "export": "turn a checkpoint into a model folder",
}
"""Each name is a module of `cli` with `add_arguments(parser)` and `run(args) -> int`, imported only when asked for."""
TRAINING_MODULES = frozenset(
    {
        "accelerate",
        "diffusers",
        "fast_simplification",
        "h5py",
        "huggingface_hub",
        "moderngl",
        "onnx_ir",
        "onnxscript",
        "peft",
        "pycocotools",
        "safetensors",
        "tensorboard",
        "torch",
        "transformers",
    }
)
"""What the extra [train] installs beyond the runtime, by the names of imports."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; `argv` defaults to the process's arguments."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="diffusion-perception", description="Dense visual perception for robots.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        if name == chosen:
            importlib.import_module(f"{__package__}.{name}").add_arguments(subparser)
    args = parser.parse_args(arguments)
    keep_freed_memory()
    command = importlib.import_module(f"{__package__}.{args.command}")
    try:
        return int(command.run(args))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in TRAINING_MODULES:
            raise
        print(
            f"diffusion-perception {args.command}: {error.name} is not installed, which only rendering, training, "
            "adapting and exporting need: run 'make setup-test', or pip install with the extra [train]",
            file=sys.stderr,
        )
        return 2
    except InputError as error:
        print(f"diffusion-perception {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
