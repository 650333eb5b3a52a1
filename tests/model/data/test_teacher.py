"""Another encoder's embeddings: made by a graph, read for training, and given to each frame of a batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("torch")

import torch

from model.cli import app
from model.config import Config
from model.data.loaders import StillLoader
from model.data.record import data_of
from model.data.sources import open_source
from model.data.stills import CaptionedStills, read_stills
from model.data.teacher import read_teacher
from model.data.views import VIEW_SEED, PixelViews
from model.families.lgdn.network import LGDNBatch
from model.runtime.errors import InputError
from model.runtime.onnx import ort
from model.training.setup import start
from model.training.train import train
from tests.support.tiny_lgdn import lgdn_of
from tests.support.tiny_photos import make_photos, make_tokenizer, tiny_config

SIDE = 8
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos") / "data")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder whose embedding is the mean of each channel, and of each quarter of the first one."""
    pixels = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])
    out = helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["batch", 12])
    nodes = [
        helper.make_node("AveragePool", ["pixel_values"], ["cells"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["cells"], ["image_embeds"]),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "cells", [pixels], [out]), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 9
    path = tmp_path_factory.mktemp("graph") / "cells.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def embeddings(photos: Path, graph: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "teacher.npz"
    ran = CliRunner().invoke(app, ["teacher", str(photos), "--graph", str(graph), "--output", str(path)])
    assert ran.exit_code == 0, ran.output
    return path


def test_each_image_gets_the_graphs_embedding_of_itself(photos: Path, embeddings: Path) -> None:
    images = read_stills(photos, "train").images
    rows = read_teacher(embeddings).of(images, 5)
    assert rows.shape == (len(images), 1, 12), "one embedding stands for all views"
    for image, row in list(zip(images, rows[:, 0], strict=True))[:5]:
        pixels = np.asarray(Image.open(image).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        cells = [
            ((pixels[y : y + 4, x : x + 4, c] / 255 - MEAN[c]) / DEVIATION[c]).mean()
            for c in range(3)
            for y in (0, 4)
            for x in (0, 4)
        ]
        np.testing.assert_allclose(row, np.array(cells) / np.linalg.norm(cells), atol=2e-3)


def test_a_batch_has_the_embeddings_of_its_plain_frames(
    photos: Path, embeddings: Path, tmp_path: Path
) -> None:
    base = tiny_config(photos, tmp_path / "run")
    data = replace(
        base.data, teacher=str(embeddings), film_share=0.6, film_frames=4, noise_pool=5, transitions=0.9
    )
    loss = replace(base.loss, teacher_mfcl=1.0, distillation=2.0)
    run = start(replace(base, data=data, loss=loss), lambda _: None, make_tokenizer(tmp_path / "t.json"))
    loader = cast("StillLoader[LGDNBatch]", run.loader)
    assert loader.stills.taught is not None
    batch = loader.make(0, 0)
    assert batch.taught is not None
    assert batch.counted is not None
    assert batch.taught.shape == (len(batch.frames), 12)
    known = batch.taught.abs().sum(1) > 0
    assert 0 < int(known.sum()) < len(known), "films have mixed and plain frames too"
    stored = {tuple(row.tolist()) for row in np.asarray(loader.stills.taught[:, 0])}
    assert {tuple(row.tolist()) for row in batch.taught[known]} <= stored
    assert lgdn_of(run).teacher_projection is not None
    assert run.config.model.teacher == "cells.onnx"
    assert run.family.sources(run.config.model)[-1]["name"] == "cells.onnx, learned from"
    train(run, stop_at=2)
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert "distillation" in lines[-1]
    assert "teacher_mfcl" in lines[-1]


@pytest.fixture(scope="module")
def uncaptioned(photos: Path) -> Path:
    """Ten images without captions, in a folder and its subfolder."""
    folder = photos.parent / "more"
    (folder / "some").mkdir(parents=True)
    for place, image in enumerate(sorted((photos / "images").glob("val_*"))[:10]):
        target = folder / "some" if place % 2 else folder
        Image.open(image).rotate(90).save(target / f"more_{place}.webp", lossless=True)
    (folder / "readme.txt").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def of_views(photos: Path, graph: Path, uncaptioned: Path) -> Path:
    """What the graph gives of three views of each image, also of those without captions."""
    path = photos.parent / "views.npz"
    command = ["teacher", str(photos), "--uncaptioned", str(uncaptioned), "--views", "3"]
    ran = CliRunner().invoke(app, [*command, "--graph", str(graph), "--output", str(path)])
    assert ran.exit_code == 0, ran.output
    return path


def uncaptioned_config(photos: Path, uncaptioned: Path, embedded: Path, output: Path, **data: Any) -> Config:
    base = tiny_config(photos, output)
    settings = {
        "teacher": str(embedded), "uncaptioned": str(uncaptioned), "uncaptioned_pool": 4,
        "film_share": 0.6, "film_frames": 4, "noise_pool": 2, "views": 3,
    }  # fmt: skip
    return replace(
        base,
        model=replace(base.model, image_size=SIDE * 4),
        data=replace(base.data, **{**settings, **data}),
        loss=replace(base.loss, distillation=2.0),
    )


def test_a_frame_learns_from_the_view_that_it_shows(
    photos: Path, uncaptioned: Path, of_views: Path, graph: Path, tmp_path: Path
) -> None:
    """The naive twin gives each frame's pixels, as the batch has them, to the graph."""
    config = uncaptioned_config(photos, uncaptioned, of_views, tmp_path / "run")
    config = replace(config, model=replace(config.model, image_size=SIDE))
    source = open_source(config, "train")
    assert isinstance(source, CaptionedStills)
    loader = StillLoader(PixelViews(source, SIDE, VIEW_SEED), source, lambda examples: examples, config)
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    seen = exact = 0
    without_views = {tuple(row.tolist()) for row in np.asarray(source.taught)[24:, 0]}
    for number in range(loader.steps):
        examples = loader.make(1, number)
        assert examples.taught is not None
        for frame, row in zip(examples.frames.numpy(), examples.taught.numpy(), strict=True):
            if not row.any():
                continue
            pixels = ((frame / 255 - MEAN) / DEVIATION).astype(np.float32).transpose(2, 0, 1)[None]
            (expected,) = session.run(None, {"pixel_values": pixels})[0]
            if np.allclose(row, expected / np.linalg.norm(expected), atol=4e-3):
                exact += 1
            else:
                assert tuple(row.tolist()) in without_views
            seen += 1
    assert exact / seen > 0.8


def test_images_without_captions_are_shown_in_films_and_recorded(
    photos: Path, uncaptioned: Path, of_views: Path, tmp_path: Path
) -> None:
    config = uncaptioned_config(photos, uncaptioned, of_views, tmp_path / "run")
    run = start(config, lambda _: None, make_tokenizer(tmp_path / "t.json"))
    loader = cast("StillLoader[LGDNBatch]", run.loader)
    stills = loader.stills
    assert (len(stills.uncaptioned), len(stills.images), len(stills)) == (10, 34, 24)
    assert stills.owners[24:].tolist() == [-1] * 10
    taught = np.asarray(stills.taught)
    assert taught.shape == (34, 3, 12)
    assert (taught[24:] == taught[24:, :1]).all(), "the image itself stands for its views"
    assert (taught[:24, 1:] != taught[:24, :1]).any(-1).all()
    extra = {tuple(row.tolist()) for row in taught[24:, 0]}
    shown = set()
    for number in range(3 * loader.steps):
        batch = loader.make(number // loader.steps, number % loader.steps)
        assert batch.taught is not None
        assert int(batch.video_ids.max()) < 24
        shown |= extra & {tuple(row.tolist()) for row in batch.taught}
    places = {int(np.flatnonzero((taught == np.array(row, np.float32)).all(-1).any(1))[0]) for row in shown}
    assert len(places) == 10, "each of them is shown in its turn"
    train(run, stop_at=2)
    lines = data_of(torch.load(tmp_path / "run" / "last.pt", weights_only=False)).lines()
    assert lines[-1] == 'images "more", split train: 10 images, 0 captions'


def test_settings_that_teach_nothing_are_refused(
    photos: Path, uncaptioned: Path, of_views: Path, tmp_path: Path
) -> None:
    ineffective: tuple[dict[str, Any], ...] = ({"teacher": ""}, {"film_share": 0.0}, {"uncaptioned_pool": 0})
    for wrong in ineffective:
        with pytest.raises(InputError, match=r"data\.uncaptioned=.* needs data\.teacher"):
            uncaptioned_config(photos, uncaptioned, of_views, tmp_path, **wrong)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no JPEG, PNG or WebP files"):
        open_source(uncaptioned_config(photos, tmp_path / "empty", of_views, tmp_path), "train")


@pytest.mark.parametrize("content", [b"not a zip", b""])
def test_a_file_without_embeddings_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "teacher.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match="holds no embeddings") as refused:
        read_teacher(path)
    assert "allow_pickle" not in str(refused.value)


def test_what_is_missing_is_named(photos: Path, embeddings: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file; make it with `reelfind-model teacher`"):
        read_teacher(tmp_path / "none.npz")
    with pytest.raises(InputError, match=r"lacks 1 of 1 images, such as other\.jpg"):
        read_teacher(embeddings).of([Path("other.jpg")], 1)
    ran = CliRunner().invoke(
        app, ["teacher", str(photos), "--graph", str(tmp_path / "none.onnx"), "--output", str(tmp_path / "o")]
    )
    assert ran.exit_code == 2
    assert not (tmp_path / "o").exists()


def test_two_images_of_one_name_are_refused(photos: Path, graph: Path, tmp_path: Path) -> None:
    ran = CliRunner().invoke(
        app,
        ["teacher", str(photos), str(photos), "--graph", str(graph), "--output", str(tmp_path / "o.npz")],
    )
    assert ran.exit_code == 2
    assert not (tmp_path / "o.npz").exists()
