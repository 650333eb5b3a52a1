"""Checkpoints that are damaged, incomplete, or not what they say: each is refused, naming the file and the
remedy, and nothing is written.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

from model.cli import app
from model.importers import load
from model.importers.importing import import_checkpoint
from model.importers.sources import find_checkpoint
from model.runtime.errors import InputError
from tests.support.published import save_clip

pytestmark = pytest.mark.slow

WEIGHTS, CONFIG, PROCESSOR = "model.safetensors", "config.json", "preprocessor_config.json"
TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"
AGAIN = "download the checkpoint again"

#: Damages a copy of a checkpoint.
Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip") / "published")


@pytest.fixture
def copy(clip: Path, tmp_path: Path) -> Path:
    """A checkpoint to damage."""
    return Path(shutil.copytree(clip, tmp_path / "copy"))


def tensors(change: Callable[[dict[str, Tensor]], Mapping[str, Tensor] | None]) -> Damage:
    """Other weights: what `change` returns, or the dictionary that it has changed."""

    def damage(folder: Path) -> None:
        state = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        save_file(dict(change(state) or state), folder / WEIGHTS, metadata={"format": "pt"})

    return damage


def values(name: str, section: str | None = None, **changed: Any) -> Damage:
    """Other values in a JSON file, or in a section of it; None removes one."""

    def damage(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        target = content if section is None else content[section]
        target.update(changed)
        (folder / name).write_text(json.dumps(content))

    return damage


def written(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


def without(*names: str) -> Damage:
    def damage(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return damage


def both(*steps: Damage) -> Damage:
    return lambda folder: [step(folder) for step in steps]


def halved(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])


def in_shards(folder: Path) -> None:
    """The first of two files of weights, and the index that names both."""
    state = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    files = {name: f"model-0000{1 + (name > 'text')}-of-00002.safetensors" for name in state}
    first = {name: tensor for name, tensor in state.items() if files[name].startswith("model-00001")}
    save_file(first, folder / "model-00001-of-00002.safetensors", metadata={"format": "pt"})
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def with_a_large_id(folder: Path) -> None:
    content = json.loads((folder / TOKENIZER).read_text())
    content["model"]["vocab"]["a</w>"] = 999
    (folder / TOKENIZER).write_text(json.dumps(content))


NO_VOCABULARY = without(TOKENIZER, "vocab.json", "merges.txt")
OLD_VOCABULARY = both(NO_VOCABULARY, written("vocab.txt", b"[UNK]\na\n"))
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
OTHER_CODE = {"AutoModel": "modeling.Secret"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        # tensors
        (
            tensors(lambda s: {k: v for k, v in s.items() if k != "visual_projection.weight"}),
            rf"{WEIGHTS} lacks visual_projection\.weight, which CLIPModel needs: .*{AGAIN}",
        ),
        (
            tensors(lambda s: {f"module.{k}": v for k, v in s.items()}),
            rf"{WEIGHTS} lacks logit_scale, .* and 75 more, .* it has module\.logit_scale, .*{AGAIN}",
        ),
        (
            tensors(lambda s: s.update({"visual_projection.weight": torch.zeros(4, 24)})),
            rf"{WEIGHTS}: visual_projection\.weight has shape \[4, 24\], .* asks for \[16, 24\]: .*{AGAIN}",
        ),
        (
            tensors(lambda s: s.update({"visual_projection.weight": torch.full((16, 24), torch.nan)})),
            rf"{WEIGHTS}: visual_projection\.weight holds NaN or infinity; download it again",
        ),
        # what is not supported
        (
            values(CONFIG, model_type="resnet"),
            f"{CONFIG}: model_type 'resnet' is not .* blip, clip, .*, siglip",
        ),
        (values(CONFIG, model_type=None), f"{CONFIG}: model_type None is not .* blip, clip, .*, siglip"),
        (
            values(CONFIG, model_type="secret", auto_map=OTHER_CODE),
            f"{CONFIG}: .*'secret' is not .* code of its own, which is never run here; import one of blip",
        ),
        # half a download
        (without(CONFIG), rf"no {CONFIG} in .*copy: .* `hf download NAME --local-dir DIR`"),
        (without(WEIGHTS), rf"no weights in .*copy \({WEIGHTS}\): .* `hf download NAME --local-dir DIR`"),
        (halved, rf"{WEIGHTS} is damaged \(.*not fully covered.*\): .* `hf download NAME"),
        (written(WEIGHTS, b""), rf"{WEIGHTS} is damaged \(.*\): the download has not finished"),
        (written(WEIGHTS, POINTER), rf"{WEIGHTS} is a pointer of Git LFS, .* `git lfs pull` in .*copy"),
        (written(WEIGHTS, b"<html>" * 99), rf"{WEIGHTS} is damaged \(.*\): .* or it is another file"),
        (
            written(f"{WEIGHTS}.incomplete", b""),
            rf"{WEIGHTS}\.incomplete is a download that has not finished",
        ),
        (in_shards, rf"{WEIGHTS}\.index\.json names model-00002-of-00002\.safetensors, which is not there"),
        (
            both(in_shards, written(f"{WEIGHTS}.index.json", b"{")),
            rf"{WEIGHTS}\.index\.json cannot be read as JSON .*: download it again",
        ),
        (
            both(in_shards, without(f"{WEIGHTS}.index.json")),
            rf"copy has model-00001-of-00002\.safetensors, but neither {WEIGHTS} nor .*; download the whole",
        ),
        (without(PROCESSOR), f"no {PROCESSOR} in .*copy: add the files of its processor"),
        (
            without(SETTINGS, TOKENIZER, "vocab.json"),
            f"no {TOKENIZER} in .*copy, .* add the files of its tok",
        ),
        # configurations that lie
        (
            values(CONFIG, model_type="siglip"),
            rf"{CONFIG}: 'siglip' is read as SiglipModel, but .*\['CLIPMod",
        ),
        (values(CONFIG, model_type="blip"), f"{CONFIG}: architectures is .*: import a BlipForImageTextRetr"),
        (
            values(CONFIG, "text_config", hidden_size=48),
            rf"{WEIGHTS}: .* \[20, 24\], .* \[20, 48\]: .*{AGAIN}",
        ),
        (values(CONFIG, "vision_config", image_size=64), rf"{WEIGHTS}: .*position.* \[65, 24\]: .*{AGAIN}"),
        (
            values(CONFIG, "vision_config", num_hidden_layers=3),
            rf"{WEIGHTS} lacks .*layers\.2\..*: .*{AGAIN}",
        ),
        (
            values(CONFIG, "vision_config", num_hidden_layers=1),
            rf"{WEIGHTS} has .*layers\.1\..* fewer layers: ",
        ),
        (
            values(CONFIG, "text_config", hidden_size="big"),
            rf"{CONFIG} or .* expected int, got str .*{AGAIN}",
        ),
        (values(CONFIG, "text_config", num_attention_heads=5), rf"{CONFIG} or .* not a multiple .*{AGAIN}"),
        (values(CONFIG, text_config=None), rf"{CONFIG}: text_config is None: .*{AGAIN}"),
        (values(CONFIG, vision_config=5), rf"{CONFIG}: vision_config is 5: .*{AGAIN}"),
        (written(CONFIG, b"{"), rf"{CONFIG} cannot be read as JSON .*: download it again"),
        (written(CONFIG, b"[]"), rf"{CONFIG} must hold an object, not list: download it again"),
        # image processors
        (written(PROCESSOR, b"{"), rf"{PROCESSOR} cannot be read as JSON .*: download it again"),
        (
            values(PROCESSOR, image_processor_type="Magic"),
            rf"{PROCESSOR} is not read .*: add the files of its",
        ),
        (
            values(PROCESSOR, auto_map=OTHER_CODE),
            rf"{PROCESSOR}: auto_map names code of its own, .* import a",
        ),
        (values(PROCESSOR, crop_size=24), rf"{PROCESSOR} makes pictures of 24 pixels, but .*32: .*{AGAIN}"),
        (values(PROCESSOR, image_mean=["a", 0, 0]), rf"{PROCESSOR}: image_mean is .*: it must be three num"),
        (
            values(PROCESSOR, image_std=[0, 1, 1]),
            rf"{PROCESSOR}: .*image_std \(0\.0, .*\): they must be posit",
        ),
        (values(PROCESSOR, rescale_factor="x"), rf"{PROCESSOR}: rescale_factor is 'x'"),
        (values(PROCESSOR, resample=0), rf"{PROCESSOR}: resample is 0: bundles know \[1, 2, 3\]"),
        # tokenizers
        (written(TOKENIZER, b"{}"), rf"{TOKENIZER} is damaged \(.*\): download it again"),
        (written(SETTINGS, b"{"), rf"{SETTINGS} cannot be read as JSON .*: download it again"),
        (
            both(OLD_VOCABULARY, written(SETTINGS, b'{"tokenizer_class": "MagicTokenizer"}')),
            rf"tokenizer in .*copy is of a kind that is not read .*: add its {TOKENIZER}, .*save_pretrained",
        ),
        (
            both(NO_VOCABULARY, written(SETTINGS, b'{"auto_map": {"AutoTokenizer": ["a.B", null]}}')),
            rf"{SETTINGS}: auto_map names code of its own, which is never run here: add a {TOKENIZER}",
        ),
        (
            with_a_large_id,
            rf"tokenizer \({TOKENIZER}\) gives the id 999, but the model \({CONFIG}\) has 62 ids: .*again",
        ),
    ],
)
def test_damaged_checkpoints(copy: Path, tmp_path: Path, damage: Damage, message: str) -> None:
    damage(copy)
    with pytest.raises(InputError, match=message) as caught:
        import_checkpoint(find_checkpoint(str(copy)), tmp_path / "bundle")
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == [copy]


def test_pickled_weights_need_leave_and_run_no_code(copy: Path, tmp_path: Path) -> None:
    pickled(copy)
    with pytest.raises(
        InputError, match=r"pytorch_model\.bin is pickled, .* tensors alone with --allow-pickle"
    ):
        find_checkpoint(str(copy))
    graphs = load(find_checkpoint(str(copy), allow_pickle=True)).graphs
    assert "frame_encoder.onnx" in graphs

    class Code:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "has run",)

    torch.save({"x": Code()}, copy / "pytorch_model.bin")
    with pytest.raises(
        InputError, match=r"pytorch_model\.bin .* more than tensors, .* not run: ask its authors"
    ):
        load(find_checkpoint(str(copy), allow_pickle=True))
    assert not (tmp_path / "has run").exists()


def test_code_beside_a_known_model_is_not_run(copy: Path, tmp_path: Path) -> None:
    """The class of transformers is used, whatever else `auto_map` names."""
    (copy / "modeling.py").write_text(f"open({str(tmp_path / 'has run')!r}, 'w')")
    values(CONFIG, auto_map={"AutoModel": "modeling.CLIPModel", "AutoConfig": "modeling.CLIPConfig"})(copy)
    assert load(find_checkpoint(str(copy))).description.embedding_dim == 16
    assert not (tmp_path / "has run").exists()


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("nowhere/at/all", (), "nowhere/at/all is neither a folder nor a name on the hub: name a folder"),
        ("copy", ("--revision", "main"), "--revision main is for names on the hub: .*copy is a folder"),
        ("copy", (), "copy/config.json: model_type 'resnet' is not supported"),
    ],
)
def test_what_the_command_says(copy: Path, source: str, options: tuple[str, ...], message: str) -> None:
    """One line, exit code 2, and the bundle that was there stays."""
    values(CONFIG, model_type="resnet")(copy)
    output = copy.parent / "bundle"
    output.mkdir()
    name = str(copy) if source == "copy" else source
    result = CliRunner().invoke(app, ["import", name, "--output", str(output), *options])
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert re.search(message, line)
    assert list(output.iterdir()) == []
