"""`diffusion-perception doctor`: what this machine has, what it lacks, and what to do about it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict

from rich.markup import escape
from rich.table import Column, Table

from diffusion_perception_ros.cli import doctor_machine, doctor_ros
from diffusion_perception_ros.cli.common import TableConsole
from diffusion_perception_ros.cli.findings import Finding, Level


COLORS: dict[Level, str] = {"ok": "green", "lack": "yellow", "problem": "bold red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Looks at everything: 0 predictions can be made, 1 something prevents that."""
    findings = [finding for check in (*doctor_machine.CHECKS, *doctor_ros.CHECKS) for finding in _looked_at(check)]
    healthy = not any(finding.level == "problem" for finding in findings)
    if args.json:
        print(json.dumps({"healthy": healthy, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        _print(findings)
    return 0 if healthy else 1


def _looked_at(check: Callable[[], list[Finding]]) -> list[Finding]:
    """The findings of a check; a check that fails itself is a finding, because doctors are called to sick machines."""
    try:
        return check()
    except Exception as error:
        sentence = f"could not be looked at: {type(error).__name__}: {error}"
        return [
            Finding(check.__name__, "problem", sentence, "Run 'make setup' again; if that does not help, report it.")
        ]


def _print(findings: list[Finding]) -> None:
    grid = Table.grid(Column(), Column(), Column(overflow="fold"), padding=(0, 2, 0, 0))
    for finding in findings:
        color = COLORS[finding.level]
        grid.add_row(f"[{color}]{finding.level}[/]", finding.topic, escape(finding.state))
        if finding.remedy:
            grid.add_row("", "", f"[dim]→ {escape(finding.remedy)}[/]")
    TableConsole().print(grid)
