"""What `export -o DIR --overwrite` may replace, and what an export leaves behind that was ended in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from model_factory import write_model

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.export.model_folder import new_model_folder, replaced_model


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder with its content, hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def write_model_over(output: Path, name: str = "new") -> None:
    with new_model_folder(output, overwrite=True) as folder:
        write_model(folder, card={"name": name})


def test_a_model_folder_is_replaced_and_named(tmp_path: Path) -> None:
    output = write_model(tmp_path / "model", card={"name": "old"})
    (output / "README.md").write_text("about it")
    (output / "engines").mkdir()
    (output / "engines" / "model-fp16.engine").write_bytes(b"built for one GPU")
    assert replaced_model(output, overwrite=True) == "the model 'old' (test, 1 files)"
    write_model_over(output)
    assert replaced_model(output, overwrite=True) == "the model 'new' (test, 1 files)"
    assert not (output / "engines").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def _home(folder: Path) -> None:
    (folder / "thesis").mkdir(parents=True)
    (folder / "thesis" / "chapter1.tex").write_text("years of work")


def _home_with_a_model_in_it(folder: Path) -> None:
    write_model(folder)
    _home(folder)


def _foreign_yaml(folder: Path) -> None:
    folder.mkdir()
    (folder / "model.yaml").write_text("nc: 80\nbackbone: [conv]\n")


def _broken_yaml(folder: Path) -> None:
    folder.mkdir()
    (folder / "model.yaml").write_text("{")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_home, "is not a model folder, and --overwrite replaces nothing else"),
        (_home_with_a_model_in_it, "also holds thesis, which is no part of it: move that away"),
        (_foreign_yaml, "model.yaml is not a model card"),
        (_broken_yaml, "model.yaml"),
        (lambda folder: folder.write_text("a file"), "is a file, which --overwrite does not replace"),
    ],
)
def test_everything_else_is_refused_and_untouched(tmp_path: Path, make, said: str) -> None:  # type: ignore[no-untyped-def]
    output = tmp_path / "output"
    make(output)
    before = tree(tmp_path)
    with pytest.raises(InputError, match=said):
        write_model_over(output)
    assert tree(tmp_path) == before


def test_what_was_put_into_the_folder_meanwhile_is_kept(tmp_path: Path) -> None:
    output = write_model(tmp_path / "model")
    export = new_model_folder(output, overwrite=True)
    write_model(export.__enter__(), card={"name": "new"})
    (output / "notes.txt").write_text("mine")
    before = tree(output)
    with pytest.raises(InputError, match=r"also holds notes\.txt"):
        export.__exit__(None, None, None)
    assert tree(output) == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    write_model(tmp_path / "target", card={"name": "old"})
    (tmp_path / "link").symlink_to("target")
    write_model_over(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert replaced_model(tmp_path / "target", overwrite=True) == "the model 'new' (test, 1 files)"


_EXPORTER = """
import sys, time
from pathlib import Path
from diffusion_perception_ros.export.model_folder import new_model_folder
with new_model_folder(Path(sys.argv[1]), overwrite=True) as folder:
    (folder / "model.onnx").write_bytes(bytes(1 << 20))
    print("writing", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def exporter(tmp_path: Path):  # type: ignore[no-untyped-def]
    """A process in the middle of an export to `model`, which holds a model already."""
    write_model(tmp_path / "model", card={"name": "old"})
    process = subprocess.Popen(
        [sys.executable, "-c", _EXPORTER, str(tmp_path / "model")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_an_export_that_is_ended_leaves_nothing(tmp_path: Path, exporter: subprocess.Popen[str], number: int) -> None:
    before = tree(tmp_path / "model")
    exporter.send_signal(number)
    assert exporter.wait(60) != 0
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert tree(tmp_path / "model") == before


def test_the_next_export_removes_what_a_killed_one_left(tmp_path: Path, exporter: subprocess.Popen[str]) -> None:
    exporter.kill()
    exporter.wait()
    assert len(list(tmp_path.iterdir())) == 2
    write_model_over(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_two_exports_do_not_remove_each_others_work(tmp_path: Path, exporter: subprocess.Popen[str]) -> None:
    write_model_over(tmp_path / "model")
    assert len(list(tmp_path.iterdir())) == 2
    assert exporter.poll() is None


def test_a_folder_that_was_moved_away_comes_back(tmp_path: Path) -> None:
    """A process killed between the two renames of the exchange has the old folder under another name."""
    output = write_model(tmp_path / "model", card={"name": "old"})
    os.rename(output, tmp_path / ".model.replaced")
    with pytest.raises(RuntimeError, match="the export fails"), new_model_folder(output, overwrite=True):
        raise RuntimeError("the export fails")
    assert replaced_model(output, overwrite=True) == "the model 'old' (test, 1 files)"


def test_signals_end_the_process_as_before_afterwards(tmp_path: Path) -> None:
    write_model_over(tmp_path / "model")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
