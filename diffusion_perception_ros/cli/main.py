"""`diffusion-perception`: one sub-command per module of this folder, and the group `research` beside them.

Exit codes: 0 everything done, 1 done except for some inputs (each named on stderr), 2 nothing could be done (bad
arguments, model or data), 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.memory import keep_freed_memory


GROUP = "research"
RESEARCH_PACKAGE = "diffusion_perception_ros.research.commands"
COMMANDS = {
    "run": "predict on images, folders, videos and bags, without ROS running",
    "evaluate": "metrics against ground truth and image-independent baselines",
    "demo": "publisher, perception node and recorder over DDS, then a report",
    "models": "list, show, verify, fetch and build model folders",
    "doctor": "what this machine has, what it lacks and what to do about it",
    "bench": "benchmarks, as ratios measured side by side",
    "adapt": "adapt a model to a robot's own place and camera, from a few images",
    "train": "train a model from a YAML config",
    "export": "turn a checkpoint into a model folder",
    "world": "render synthetic samples with exact ground truth",
}
"""Each name is a module of `cli` with `add_arguments(parser)` and `run(args) -> int`, imported only when asked for."""
RESEARCH = {
    "ablate": "train the configurations of an ablation and draw them",
    "curves": "learning curves of training runs, side by side",
    "create": "new labelled pairs from a network that was trained to create them",
    "scale": "accuracy against compute at test time: steps, ensembles, noise schedules",
}
"""The same for `diffusion-perception research NAME`: modules of `research.commands`."""
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
    arguments = _with_group(list(sys.argv[1:] if argv is None else argv))
    words = [word for word in arguments if not word.startswith("-")]
    parser = argparse.ArgumentParser(prog="diffusion-perception", description="Dense visual perception for robots.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_commands(subparsers, COMMANDS, __package__, words[:1])
    title = "experiments of the papers, apart from the product"
    group = subparsers.add_parser(GROUP, help=title, description=title)
    _add_commands(
        group.add_subparsers(dest="command", required=True, metavar="COMMAND"),
        RESEARCH,
        RESEARCH_PACKAGE,
        words[1:2] if words[:1] == [GROUP] else [],
    )
    args = parser.parse_args(arguments)
    keep_freed_memory()
    command = importlib.import_module(
        f"{RESEARCH_PACKAGE if args.command in RESEARCH else __package__}.{args.command}"
    )
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


def _with_group(arguments: list[str]) -> list[str]:
    """The arguments, with the group put before a command of research that is called by the name it had before 0.2."""
    if arguments[:1] and arguments[0] in RESEARCH:
        print(f"diffusion-perception: '{arguments[0]}' is now '{GROUP} {arguments[0]}'", file=sys.stderr)
        return [GROUP, *arguments]
    return arguments


def _add_commands(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    commands: Mapping[str, str],
    package: str | None,
    chosen: Sequence[str],
) -> None:
    """Adds the parsers of the commands; only the chosen one's module is imported."""
    for name, summary in commands.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        if name in chosen:
            importlib.import_module(f"{package}.{name}").add_arguments(subparser)


if __name__ == "__main__":
    sys.exit(main())
