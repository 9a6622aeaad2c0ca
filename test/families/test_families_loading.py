"""Checkpoints that cannot be used: every message names the file and the remedy."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from family_checkpoints import TWO_LEVELS, write_lotus, write_tiny_vae, write_vae
from hub_server import TOKEN, Hub, Repo, running_hub
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.families import lotus
from diffusion_perception_ros.families.autoencoder import load_tiny_autoencoder
from diffusion_perception_ros.families.checkpoint_files import CheckpointFiles, choose_weights
from diffusion_perception_ros.families.loading import load_network, load_tensors, load_text_constant
from diffusion_perception_ros.families.recipe import LoadOptions


WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete checkpoint."""
    return write_lotus(tmp_path_factory.mktemp("whole") / "lotus", "d", **TWO_LEVELS)


@pytest.fixture
def checkpoint(whole: Path, tmp_path: Path) -> Path:
    """A copy of it to break."""
    return Path(shutil.copytree(whole, tmp_path / "lotus"))


def load(checkpoint: Path | str, task: str = "depth") -> lotus.Lotus:
    return lotus.load(str(checkpoint), task, LoadOptions())


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer"])
def test_a_missing_part_is_named(checkpoint: Path, part: str) -> None:
    shutil.rmtree(checkpoint / part)
    with pytest.raises(InputError, match=f"the part '{part}' of the checkpoint .* is missing: it needs a folder"):
        load(checkpoint)


def test_model_index_may_name_unknown_classes(checkpoint: Path) -> None:
    edit_json(checkpoint / "model_index.json", _class_name="NoSuchPipeline", unet=["nowhere", "NoSuchNet"])
    assert load(checkpoint).recipe.variant == "d"


def test_missing_weights(checkpoint: Path) -> None:
    (checkpoint / "unet" / WEIGHTS).unlink()
    with pytest.raises(InputError, match=r"unet has a config.json but no weights: .*download the checkpoint again"):
        load(checkpoint)


def test_pickled_weights_are_refused_unread(checkpoint: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(checkpoint / "harmed"),)

    (checkpoint / "unet" / WEIGHTS).unlink()
    (checkpoint / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(
        InputError, match=r"diffusion_pytorch_model.bin, a format that can run code.*safe_serialization"
    ):
        load(checkpoint)
    assert not (checkpoint / "harmed").exists()


def test_a_file_of_tensors_runs_no_code(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "harmed"),)

    torch.save({"weight": torch.ones(3)}, tmp_path / "good.pth")
    torch.save({"weight": Harmful()}, tmp_path / "bad.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "good.pth").read_bytes()[:-200])
    torch.save([1, 2], tmp_path / "list.pth")
    assert load_tensors(tmp_path / "good.pth")["weight"].tolist() == [1, 1, 1]
    for name in ("bad.pth", "cut.pth"):
        with pytest.raises(InputError, match=rf"{name} cannot be read as a file of tensors.*never run"):
            load_tensors(tmp_path / name)
    with pytest.raises(InputError, match="holds a list, expected a dictionary"):
        load_tensors(tmp_path / "list.pth")
    assert not (tmp_path / "harmed").exists()


def test_half_downloaded_and_lfs_files(checkpoint: Path) -> None:
    path = checkpoint / "vae" / WEIGHTS
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=rf"vae/{WEIGHTS} is incomplete or damaged.*delete it and download it again"):
        load(checkpoint)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(InputError, match="is a Git LFS pointer, not the weights: run 'git lfs pull'"):
        load(checkpoint)


def test_weights_that_lack_some(checkpoint: Path) -> None:
    path = checkpoint / "unet" / WEIGHTS
    tensors = load_file(path)
    del tensors["conv_in.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"unet lacks 1 weights, the first is 'conv_in.weight'"):
        load(checkpoint)


def test_a_config_that_is_no_json_or_of_another_class(checkpoint: Path) -> None:
    config = checkpoint / "unet" / "config.json"
    edit_json(config, _class_name="UNet3DConditionModel")
    with pytest.raises(InputError, match=r"unet/config.json describes a UNet3DConditionModel, expected UNet2D"):
        load(checkpoint)
    config.write_text("{")
    with pytest.raises(InputError, match=r"unet/config.json cannot be read.*download the checkpoint again"):
        load(checkpoint)


def test_wrong_channels_and_other_kinds_of_networks(checkpoint: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(checkpoint, subfolder="unet")
    UNet2DConditionModel.from_config(unet.config, in_channels=5).save_pretrained(checkpoint / "unet")
    with pytest.raises(InputError, match=r"unet/config.json has in_channels 5, this family and task need 4"):
        load(checkpoint)
    UNet2DConditionModel.from_config(unet.config, class_embed_type=None).save_pretrained(checkpoint / "unet")
    with pytest.raises(InputError, match="has class_embed_type None, this family and task need projection"):
        load(checkpoint)


def test_latents_of_another_width(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint / "vae")
    write_vae(checkpoint / "vae", latent_channels=16)
    with pytest.raises(InputError, match=r"vae/config.json has latent_channels 16, this family and task need 4"):
        load(checkpoint)


def test_a_tokenizer_that_makes_another_number_of_tokens(checkpoint: Path) -> None:
    with pytest.raises(InputError, match=r"makes 2 tokens of the prompt '', this family was trained with 77"):
        load_text_constant(CheckpointFiles(str(checkpoint)), "", 77)


def test_half_precision_only_is_loaded_and_said(checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    vae = AutoencoderKL.from_pretrained(checkpoint, subfolder="vae").half()
    shutil.rmtree(checkpoint / "vae")
    vae.save_pretrained(checkpoint / "vae", variant="fp16")
    model = load(checkpoint)
    assert next(model.autoencoder.parameters()).dtype == torch.float32
    assert "lotus/vae is published in fp16 only" in caplog.text


def test_full_precision_is_preferred_and_shards_are_found() -> None:
    shards = ["m-00001-of-00002", "m-00002-of-00002"]
    names = [f"{shard.replace('m', 'diffusion_pytorch_model')}.safetensors" for shard in shards]
    index = f"{WEIGHTS}.index.json"
    assert choose_weights("x", ["config.json", WEIGHTS, "diffusion_pytorch_model.fp16.safetensors"]) == (
        [WEIGHTS],
        None,
    )
    assert choose_weights("x", ["config.json", index, *names]) == ([index, *names], None)
    assert choose_weights("x", ["scheduler_config.json"]) == ([], None)


def test_a_missing_shard_is_an_error(checkpoint: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(checkpoint, subfolder="unet")
    shutil.rmtree(checkpoint / "unet")
    unet.save_pretrained(checkpoint / "unet", max_shard_size="500KB")
    assert load(checkpoint).recipe.variant == "d"
    next((checkpoint / "unet").glob("*-00002-of-*.safetensors")).unlink()
    with pytest.raises(InputError, match=r"unet cannot be loaded as UNet2DConditionModel"):
        load(checkpoint)


def test_names_that_are_neither_folder_nor_hub_id(checkpoint: Path) -> None:
    for name in ("nowhere", "/no/such/folder", "a/b/c"):
        with pytest.raises(InputError, match=f"'{name}' is neither a folder of this machine nor a hub id"):
            load(name)
    with pytest.raises(InputError, match="is a local folder: a revision belongs to hub ids only"):
        lotus.load(str(checkpoint), "depth", LoadOptions(revision="main"))


def test_the_tiny_autoencoder_lies_at_the_root(tmp_path: Path) -> None:
    recipe = lotus.RECIPES[0]
    tiny = load_tiny_autoencoder(str(write_tiny_vae(tmp_path / "tiny")), recipe)
    with torch.no_grad():
        latent = tiny.encode(torch.zeros(1, 3, 32, 48))
        assert latent.shape == (1, 4, 4, 6)
        assert tiny.decode(latent).shape == (1, 3, 32, 48)
    write_tiny_vae(tmp_path / "wide", latent_channels=16)
    with pytest.raises(InputError, match=r"wide/config.json has latent_channels 16, this family and task need 4"):
        load_tiny_autoencoder(str(tmp_path / "wide"), recipe)


def find_in_new_process(names: list[str], cache: Path, **environment: str) -> list[str]:
    """The U-Net's files for each hub id (`owner/name` or `owner/name@revision`), or the error.

    The hub's client reads its settings when it is imported, hence the process.
    """
    code = (
        "import sys\n"
        "from diffusion_perception_ros.errors import InputError\n"
        "from diffusion_perception_ros.families.checkpoint_files import CheckpointFiles\n"
        "for name in sys.argv[1:]:\n"
        "    id, _, revision = name.partition('@')\n"
        "    try:\n"
        "        folder = CheckpointFiles(id, revision or None).part('unet').folder\n"
        "        print(*sorted(path.name for path in folder.iterdir()))\n"
        "    except InputError as error:\n"
        "        print(error)\n"
    )
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    settings = {"HF_HOME": str(cache), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code, *names],
        env=inherited | settings | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return result.stdout.splitlines()


@pytest.fixture
def hub(whole: Path) -> Iterator[Hub]:
    with running_hub() as hub:
        hub.repos["owner/lotus"] = Repo(whole)
        hub.repos["owner/gated"] = Repo(whole, gated=True)
        yield hub


def test_a_hub_id_is_downloaded_then_read_from_the_cache(hub: Hub, tmp_path: Path) -> None:
    files = [f"config.json {WEIGHTS}"]
    assert find_in_new_process(["owner/lotus"], tmp_path, HF_ENDPOINT=hub.endpoint) == files
    assert {path for path, _ in hub.requests} == {"unet/config.json", f"unet/{WEIGHTS}"}
    assert find_in_new_process(["owner/lotus"], tmp_path, HF_HUB_OFFLINE="1") == files
    assert find_in_new_process(["owner/lotus"], tmp_path, HF_ENDPOINT="http://127.0.0.1:9") == files


def test_what_a_hub_refuses(hub: Hub, tmp_path: Path) -> None:
    names = ["owner/gated", "owner/none", "owner/lotus@v9"]
    gated, none, revision = find_in_new_process(names, tmp_path, HF_ENDPOINT=hub.endpoint)
    assert gated.startswith("owner/gated is gated: accept its terms on https://huggingface.co/owner/gated, then log")
    assert none.startswith("the hub has no repository 'owner/none' any more, or it is private")
    assert revision.startswith("owner/lotus has no revision 'v9'")
    with_token = find_in_new_process(["owner/gated"], tmp_path, HF_ENDPOINT=hub.endpoint, HF_TOKEN=TOKEN)
    assert with_token == [f"config.json {WEIGHTS}"]


def test_no_network_and_nothing_in_the_cache(tmp_path: Path) -> None:
    (said,) = find_in_new_process(["owner/lotus"], tmp_path, HF_HUB_OFFLINE="1")
    assert "'unet' of the checkpoint owner/lotus is not in the local cache and the hub cannot be reached" in said
    assert "give a folder with the checkpoint" in said


def test_offline_the_tiny_autoencoder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="the tiny autoencoder nobody/taesd is not in the local cache"):
        load_tiny_autoencoder("nobody/taesd", lotus.RECIPES[0])


def test_a_part_by_any_name(checkpoint: Path) -> None:
    """GenPercept keeps one U-Net per task in one repository."""
    (checkpoint / "unet").rename(checkpoint / "unet_depth_v2")
    files = CheckpointFiles(str(checkpoint))
    assert load_network(UNet2DConditionModel, files, "unet_depth_v2").config.in_channels == 4
    assert not files.has_part("unet")
