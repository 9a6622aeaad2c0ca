"""`python -m faults`, from the folder `test`."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path


REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "test" / folder) for folder in ("", "ros", "support")]
VENDOR = "FASTRTPS" if os.environ.get("ROS_DISTRO") in ("humble", "iron", "jazzy") else "FASTDDS"
os.environ.setdefault(f"{VENDOR}_DEFAULT_PROFILES_FILE", str(REPOSITORY / "config" / "fastdds_large_images.xml"))


def main() -> int:
    """Exit code 0 if every row passed or was skipped."""
    from domain_coordinator import domain_id
    from harness import Ros

    from faults.bench import Bench
    from faults.campaign import chosen, parse, run_row, with_earlier, write_results
    from faults.rows import ROWS  # noqa: F401 - fills the list

    args = parse(None)
    results = []
    with (
        tempfile.TemporaryDirectory(prefix="faults.") as folder,
        domain_id() as domain,
        Ros(domain, Path(folder)) as ros,
    ):
        bench = Bench(ros, Path(folder))
        rows = chosen(args.rows, args.quick)
        for number, entry in enumerate(rows, 1):
            print(f"{number}/{len(rows)} {entry.name} ...", flush=True)
            result = run_row(bench, entry)
            results.append(result)
            print(f"    {result.outcome} in {result.seconds} s: {result.reaction[:1500]}", flush=True)
            write_results(with_earlier(results, args.output), args.output, None)
        bench.end()
    write_results(with_earlier(results, args.output), args.output, args.table)
    failed = [result.name for result in results if result.outcome == "failed"]
    print(f"{len(results) - len(failed)} of {len(results)} rows did not fail; {args.output}/faults.md")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
