"""`python -m fuzz [--minutes 10] [--targets WORDS]`: every target in a process of its own, two at a time.

With atheris the inputs follow the coverage of the code; without it they are mutations of good ones. An input that
crashes, hangs for 20 s or takes 2 GiB is left in the output folder, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "test"), str(REPOSITORY / "test" / "support"), str(REPOSITORY)]
TIMEOUT, MEMORY_MB = 20, 2048


def main() -> int:
    """Runs the targets, or with `--target` one of them in this process."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="for each target")
    parser.add_argument("--targets", default="", help="only those whose name contains one of these words, by commas")
    parser.add_argument("-o", "--output", type=Path, default=Path("out/fuzz"))
    parser.add_argument("--target", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.target:
        return run_here(args.target, args.minutes, args.output)
    from fuzz.targets import TARGETS

    words = [word for word in args.targets.split(",") if word]
    names = [target.name for target in TARGETS if not words or any(word in target.name for word in words)]
    with ThreadPoolExecutor(2) as pool:
        codes = list(pool.map(lambda name: run_apart(name, args.minutes, args.output), names))
    return 1 if any(codes) else 0


def run_apart(name: str, minutes: float, output: Path) -> int:
    """One target in a process of its own, its output in a file."""
    output.mkdir(parents=True, exist_ok=True)
    log = output / f"{name}.log"
    command = [sys.executable, "-m", "fuzz", "--target", name, "--minutes", str(minutes), "-o", str(output)]
    with log.open("wb") as stream:
        code = subprocess.run(command, stdout=stream, stderr=stream, timeout=60 * minutes + 300).returncode
    text = log.read_text(errors="replace").strip()
    print(f"{name}: {'clean' if code == 0 else 'FAILED'}; {text.splitlines()[-1] if text else ''} ({log})", flush=True)
    return code


def run_here(name: str, minutes: float, output: Path) -> int:
    """One target in this process until its time is over."""
    if importlib.util.find_spec("atheris") is None:
        return _mutate(name, minutes, output)
    import atheris

    with atheris.instrument_imports(include=["diffusion_perception_ros", "yaml", "rosbags"]):
        from fuzz.targets import TARGETS
    target = next(target for target in TARGETS if target.name == name)
    corpus = output / f"{name}.corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(target.seeds(Path(folder))):
            (corpus / f"seed{number}").write_bytes(seed)
    options = [
        f"-max_total_time={max(1, int(60 * minutes))}",
        f"-timeout={TIMEOUT}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-artifact_prefix={output / name}.",
        "-max_len=65536",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], target.read)
    atheris.Fuzz()
    return 0


def _mutate(name: str, minutes: float, output: Path) -> int:
    import numpy as np

    from fuzz.mutation import mutate
    from fuzz.targets import TARGETS

    target = next(target for target in TARGETS if target.name == name)
    with tempfile.TemporaryDirectory() as folder:
        seeds = target.seeds(Path(folder))
    rng, count = np.random.default_rng(), 0
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        data = mutate(seeds[count % len(seeds)], rng)
        (output / f"{name}.last").write_bytes(data)  # what hangs or kills the process
        target.read(data)
        count += 1
    (output / f"{name}.last").unlink(missing_ok=True)
    print(f"{count} inputs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
