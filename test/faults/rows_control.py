"""Faults of those who control the node: parameters, lifecycle transitions, signals."""

from __future__ import annotations

import os
import random
import signal
from typing import Any

from harness import parameter_message
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters, ListParameters, SetParameters

from faults.bench import NODE, Bench
from faults.campaign import NO_NODE, row


WRONG: tuple[Any, ...] = (
    True,
    -(2**63),
    2**63 - 1,
    float("nan"),
    float("inf"),
    -1e308,
    "",
    "x" * 10_000,
    [b"\x00", b"\xff"],
    [True, False],
    [1, -2, 2**62],
    [float("nan")] * 7,
    ["", "a" * 1000],
)


def _names(bench: Bench) -> list[str]:
    request = ListParameters.Request()
    return sorted(bench.ros.call(ListParameters, f"{NODE}/list_parameters", request).result.names)


def _storm(bench: Bench, names: list[str]) -> str:
    """Sets every one of those parameters to every value of `WRONG`, then back to what it was."""
    ros = bench.ros
    before = ros.call(GetParameters, f"{NODE}/get_parameters", GetParameters.Request(names=names)).values
    client = ros.node.create_client(SetParameters, f"{NODE}/set_parameters")
    ros.wait_for(client.service_is_ready, "set_parameters")
    accepted = refused = 0
    for name, value in zip(names, before, strict=True):
        for wrong in (*WRONG, None):
            message = parameter_message(name, wrong)
            future = client.call_async(SetParameters.Request(parameters=[message]))
            ros.wait_for(future.done, f"an answer to {name} = {wrong!r}")
            result = future.result().results[0]
            assert result.successful or result.reason, f"{name} = {wrong!r} is refused without a reason"
            accepted, refused = accepted + result.successful, refused + (not result.successful)
        if value.type != ParameterType.PARAMETER_NOT_SET:
            message.value = value
            future = client.call_async(SetParameters.Request(parameters=[message]))
            ros.wait_for(future.done, f"an answer to {name}")
    ros.node.destroy_client(client)
    return f"{len(names)} parameters, {accepted} values accepted, {refused} refused with a reason"


@row("every parameter, values of every type", "refused with a reason, or valid; the node goes on")
def all_parameters(bench: Bench) -> str:
    return _storm(bench, [name for name in _names(bench) if name not in ("use_sim_time",)])


@row("some parameters, values of every type", "refused with a reason, or valid; the node goes on", quick=True)
def some_parameters(bench: Bench) -> str:
    return _storm(bench, ["sparse_depth_extrinsics", "max_rate", "cameras", "model"])


@row("1 000 changes of parameters while images come", "images go on")
def parameter_storm(bench: Bench) -> str:
    for number in range(1000):
        bench.ros.set_parameters(max_depth=100.0 + number % 7)
        if number % 10 == 0:
            bench.send()
    return "1 000 changes answered"


@row("a parameter of a wrong type at the start", "one line, exit code 2", NO_NODE, quick=True)
def wrong_at_start(bench: Bench) -> str:
    said = []
    for name, value in (("sparse_depth_extrinsics", 5), ("max_rate", "fast"), ("cameras", 3.5), ("threads", -1)):
        process = bench.start(**{name: value})
        code = process.wait()
        log = process.log.strip()
        assert code == 2, f"{name}: exit code {code}: {log}"
        assert "Traceback" not in log
        assert name in log
        said.append(log.splitlines()[-1])
    return "; ".join(said)


@row("200 random lifecycle transitions while images come", "each is answered; active again it predicts")
def many_transitions(bench: Bench) -> str:
    return _transitions(bench, 200)


@row("a dozen random lifecycle transitions while images come", "each is answered; it predicts", quick=True)
def some_transitions(bench: Bench) -> str:
    return _transitions(bench, 12)


def _transitions(bench: Bench, count: int) -> str:
    rng, ros = random.Random(0), bench.ros
    done = 0
    for _ in range(count):
        for _ in range(5):
            bench.send()
            ros.pause(0.002)
        done += ros.change_state(rng.choice(["configure", "activate", "deactivate", "cleanup"]))
    for _ in range(3):
        state = ros.state()
        if state != "active":
            ros.change_state("configure" if state == "unconfigured" else "activate")
    return f"{done} of {count} transitions were possible"


@row("SIGINT, SIGTERM and SIGKILL at random moments, also while it starts", "ends; the next one predicts", NO_NODE)
def signals_at_any_time(bench: Bench) -> str:
    return _signals(bench, 20)


@row("SIGINT and SIGTERM while it starts", "ends without a traceback", NO_NODE, quick=True)
def signals_at_start(bench: Bench) -> str:
    return _signals(bench, 3)


def _signals(bench: Bench, count: int) -> str:
    bench.end()
    rng, codes = random.Random(1), []
    for number in range(count):
        how = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)[number % (3 if count > 3 else 2)]
        process = bench.start(model=bench.model("plain"))
        bench.ros.pause(rng.uniform(0.0, 6.0))
        code = process.stop(how)
        codes.append(code)
        # While Python still loads the node's modules, a signal ends it as it ends any Python program.
        is_loading = code in (1, -how) and ("Traceback" not in process.log or "KeyboardInterrupt" in process.log)
        if how != signal.SIGKILL and not is_loading:
            assert "Traceback" not in process.log, process.log[-3000:]
            assert code == 0, f"{how.name} gave exit code {code}: {process.log[-2000:]}"
    bench.use()
    return f"exit codes {sorted(set(codes))}"


@row("a second Ctrl-C", "no traceback, exit code 0", NO_NODE, quick=True)
def second_sigint(bench: Bench) -> str:
    node = bench.use()
    for _ in range(3):
        os.kill(node.pid, signal.SIGINT)
    code = node.wait()
    assert code == 0, f"exit code {code}"
    assert "Traceback" not in node.log
    bench.end_hard()
    return f"exit code {code}"
