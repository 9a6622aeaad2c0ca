"""Lifecycle transitions, parameters and models that cannot be used, through the services of one running node."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from harness import Process, Ros
from model_factory import edit_card, write_model
from std_srvs.srv import SetBool


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models, found by name; all but `good` are broken."""
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "good")
    edit_card(write_model(folder / "newer"), schema_version=99)
    (write_model(folder / "altered") / "model.onnx").write_bytes(b"changed afterwards")
    (write_model(folder / "incomplete") / "model.onnx").unlink()
    corrupt = write_model(folder / "corrupt")
    (corrupt / "model.onnx").write_bytes(b"no graph")
    from diffusion_perception_ros.inference.card import sha256_of

    edit_card(corrupt, files={"model.onnx": sha256_of(corrupt / "model.onnx")})
    mismatching = write_model(folder / "mismatching")
    card = (mismatching / "model.yaml").read_text()
    (mismatching / "model.yaml").write_text(card.replace("tensor: normals", "tensor: surface"))
    return folder


@pytest.fixture(scope="module")
def node(ros: Ros, models: Path) -> Process:
    return ros.start(
        "perception_node",
        *("-p", "autostart:=false", "-p", "model:=good", "-p", "threads:=1", "-p", "diagnostics_period:=0.2"),
        *("-p", "max_rate:=5"),
        DIFFUSION_PERCEPTION_MODELS=str(models),
    )


def test_transitions(ros: Ros, node: Process) -> None:
    assert ros.state() == "unconfigured"
    assert not ros.change_state("activate")
    for _ in range(2):
        assert ros.change_state("configure")
        assert ros.state() == "inactive"
        assert ros.change_state("activate")
        assert ros.state() == "active"
        ros.status("images", "waiting for images on /image (0 publishers)")
        assert ros.change_state("deactivate")
        assert ros.state() == "inactive"
        ros.status("images", "not subscribed: the node is inactive")
        assert ros.change_state("cleanup")
        assert ros.state() == "unconfigured"
    ros.status("network", "no model loaded")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("missing", "no model 'missing'"),
        ("newer", "schema_version 99 is newer"),
        ("altered", "does not match its card"),
        ("incomplete", "model.onnx"),
        ("corrupt", "model.onnx"),
        ("mismatching", "surface"),
    ],
)
def test_models_that_cannot_be_used_fail_to_configure(ros: Ros, node: Process, model: str, words: str) -> None:
    assert ros.set_parameters(model=model)[0].successful
    assert not ros.change_state("configure")
    assert ros.state() == "unconfigured"
    status = ros.status("network", words)
    assert status.level == b"\x02"
    assert words in node.log
    assert ros.set_parameters(model="good")[0].successful


def test_parameters_are_checked(ros: Ros, node: Process) -> None:
    assert ros.change_state("configure")
    for name, value, words in (
        ("model", "other", "unconfigured"),
        ("image_transport", "compressed", "unconfigured"),
        ("autostart", True, "read-only"),
        ("max_depth", -1.0, "max_depth"),
        ("max_depth", "far", "max_depth"),
        ("points_decimation", 65, "points_decimation"),
        ("points_decimation", 1.5, "points_decimation"),
        ("min_depth", 2000.0, "min_depth"),
        ("backend", "abacus", "unconfigured"),
    ):
        (result,) = ros.set_parameters(**{name: value})
        assert not result.successful, name
        assert words in result.reason
    for values in (
        {"max_rate": 7},
        {"max_rate": 7.5},
        {"min_depth": 0.5, "max_depth": 8.0},
        {"publish_points": False},
    ):
        assert all(result.successful for result in ros.set_parameters(**values)), values
    assert ros.change_state("cleanup")
    (result,) = ros.set_parameters(backend="abacus")
    assert not result.successful
    assert "'tensorrt'" in result.reason


def test_changes_are_atomic(ros: Ros, node: Process) -> None:
    assert all(result.successful for result in ros.set_parameters(min_depth=0.0, max_depth=100.0))
    (result,) = ros.set_parameters(atomically=True, max_depth=3.0, min_depth=5.0)
    assert not result.successful
    assert result.reason == "min_depth 5.0 must be below max_depth 3.0"
    # max_depth is still 100, or this would be refused.
    assert ros.set_parameters(min_depth=5.0)[0].successful
    (result,) = ros.set_parameters(atomically=True, max_depth=3.0, min_depth=1.0)
    assert result.successful


def test_descriptors(ros: Ros, node: Process) -> None:
    decimation = ros.describe("points_decimation")
    assert (decimation.integer_range[0].from_value, decimation.integer_range[0].to_value) == (1, 64)
    assert decimation.description
    assert ros.describe("max_rate").floating_point_range[0].to_value == 1000.0
    assert "auto, cpu, cuda, tensorrt" in ros.describe("backend").additional_constraints
    assert ros.describe("autostart").read_only
    assert not ros.describe("max_rate").read_only


def test_enable(ros: Ros, node: Process) -> None:
    assert ros.change_state("configure")
    for enabled in (False, True):
        response = ros.call(SetBool, "/perception_node/enable", SetBool.Request(data=enabled))
        assert response.success
        ros.status("outputs", "OK" if enabled else "disabled by ~/enable")
    assert ros.change_state("cleanup")


def test_shutdown_transition_and_signal(ros: Ros, node: Process) -> None:
    assert ros.change_state("configure")
    assert ros.change_state("activate")
    assert ros.change_state("shutdown")
    assert ros.state() == "finalized"
    assert node.stop(signal.SIGINT) == 0
    assert "Traceback" not in node.log


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_an_active_node(ros: Ros, models: Path, how: signal.Signals) -> None:
    node = ros.start(
        "perception_node", "-r", "__node:=other", "-p", "model:=good", DIFFUSION_PERCEPTION_MODELS=str(models)
    )
    ros.wait_for(lambda: "images from /image" in node.log, "the node starts by itself")
    ros.wait_for_state("active", "/other")
    assert node.stop(how) == 0, node.log
    assert "Traceback" not in node.log


def test_activation_that_fails_says_why(ros: Ros, models: Path) -> None:
    node = ros.start(
        "perception_node",
        *("-r", "__node:=strange", "-p", "model:=good", "-p", "diagnostics_period:=0.2"),
        *("-p", "qos_overrides./image.subscription.reliability:=sometimes"),
        DIFFUSION_PERCEPTION_MODELS=str(models),
    )
    assert ros.status("images", "cannot activate").level == b"\x02"
    ros.wait_for_state("inactive", "/strange")
    assert node.stop() == 0


def test_wrong_parameters_at_the_start(ros: Ros) -> None:
    for argument, words in (
        ("threads:=-1", "threads"),
        ("backend:=abacus", "backend"),
        ("max_depth:=far", "max_depth"),
    ):
        node = ros.start("perception_node", "-p", argument)
        assert node.wait() == 2
        assert words in node.log
        assert "Traceback" not in node.log
