"""Training on generated photos: it learns, resumes exactly, and says what is wrong."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from model.config import DataConfig  # noqa: E402
from model.data import augment, batches, read_captions  # noqa: E402
from model.lgdn import LGDN  # noqa: E402
from model.train import Run, start, train, train_step  # noqa: E402
from tests.tiny_training import make_photos, make_tokenizer, tiny_config  # noqa: E402


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos") / "data")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")


def ready(data: Path, tokenizer: Path, output: Path, **settings: object) -> Run:
    return start(tiny_config(data, output, **settings), lambda _: None, tokenizer)


def log(run: Run) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


# An untrained model may give two photos exactly the same score.
@pytest.mark.filterwarnings("ignore:.*score the same as others")
def test_the_loss_falls_and_the_validation_rises(data: Path, tokenizer: Path, tmp_path: Path) -> None:
    run = ready(data, tokenizer, tmp_path / "run", epochs=20, evaluate=True)
    train(run)
    rows = log(run)
    # The first losses are small because the bank is empty: compare once it is full.
    losses = [row["mvcl"] for row in rows if "mvcl" in row]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[3:8])
    recalls = [row["validation"]["text_to_video"]["R@1"] for row in rows if "validation" in row]
    assert max(recalls) >= 50 > 10 * 100 / 24
    assert (run.folder / "best.pt").is_file()
    assert (run.folder / "config.yaml").is_file()


def test_a_resumed_run_equals_an_uninterrupted_one(data: Path, tokenizer: Path, tmp_path: Path) -> None:
    whole = ready(data, tokenizer, tmp_path / "whole")
    train(whole)
    # The second stop is inside an epoch.
    for stop in (2, 5, None):
        torch.manual_seed(999)
        config = dataclasses.replace(whole.config, output=str(tmp_path / "parts"))
        parts = start(config, lambda _: None, tokenizer)
        train(parts, stop_at=stop)
    assert parts.step == whole.step == 6
    assert log(parts) == log(whole)
    for (name, a), b in zip(whole.model.state_dict().items(), parts.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_loss_that_is_not_finite_stops_with_advice(data: Path, tokenizer: Path, tmp_path: Path) -> None:
    run = ready(data, tokenizer, tmp_path / "run")
    with torch.no_grad():
        run.model.online.text_projection.weight.fill_(float("nan"))
    before = run.model.online.frame_projection.weight.clone()
    with pytest.raises(FloatingPointError, match=r"step 0: .*not finite; lower train\.lr_image"):
        train(run)
    assert torch.equal(run.model.online.frame_projection.weight, before)


def test_a_checkpoint_of_other_settings_is_refused(data: Path, tokenizer: Path, tmp_path: Path) -> None:
    train(ready(data, tokenizer, tmp_path / "run"), stop_at=1)
    with pytest.raises(ValueError, match="belongs to other settings: choose another output"):
        ready(data, tokenizer, tmp_path / "run", epochs=9)


def test_missing_data_is_named(data: Path, tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no captions\.csv in .*nowhere"):
        ready(tmp_path / "nowhere", tokenizer, tmp_path / "run")
    with pytest.raises(ValueError, match="pass data=DIR"):
        start(dataclasses.replace(tiny_config(data, tmp_path), data=DataConfig()), print)
    with pytest.raises(ValueError, match="no rows of split 'dev'"):
        read_captions(data, "dev")


def test_the_momentum_twin_follows_by_equation_2(data: Path, tokenizer: Path, tmp_path: Path) -> None:
    run = ready(data, tokenizer, tmp_path / "run")
    run.model.train()
    steps = batches(run.cache, run.photos, run.tokenizer, run.config, epoch=0)
    # The first step only fills the bank: without negatives there is no gradient.
    train_step(run, next(steps))
    slow = [p.clone() for p in run.model.momentum.parameters()]
    train_step(run, next(steps))
    moved = 0
    for before, after, fast in zip(
        slow, run.model.momentum.parameters(), run.model.online.parameters(), strict=True
    ):
        torch.testing.assert_close(after, 0.9 * before + 0.1 * fast)
        moved += not torch.equal(before, after)
    assert moved > 50


def test_what_is_cached_stays_frozen(data: Path, tokenizer: Path, tmp_path: Path) -> None:
    run = ready(data, tokenizer, tmp_path / "run")
    pixels = torch.from_numpy(read_captions(data, "val").load(0, 48))[None]
    before = run.model.online.frozen_maps(pixels)
    trained = run.model.online.encode_maps(before)[0]
    train(run)
    assert torch.equal(run.model.online.frozen_maps(pixels), before)
    assert not torch.equal(run.model.online.encode_maps(before)[0], trained)


def test_batches_pack_ragged_videos(
    data: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ready(data, tokenizer, tmp_path / "run")
    counts = set()
    for batch in batches(run.cache, run.photos, run.tokenizer, run.config, epoch=0):
        assert batch.frame_mask.shape == (8, 4)
        assert int(batch.frame_mask.sum()) == len(batch.maps) == len(batch.slots)
        assert torch.equal(batch.frame_mask.flatten().nonzero()[:, 0], batch.slots)
        counts |= set(batch.frame_mask.sum(1).int().tolist())
        lengths = batch.attention_mask.sum(1)
        # In parts of one: each is cut to its own length, which must change nothing.
        monkeypatch.setattr("model.lgdn._CHUNK", 1)
        online = run.model.eval().online
        cut = online.encode_texts(batch.input_ids, batch.attention_mask)
        torch.testing.assert_close(cut, online.encode_text(batch.input_ids, batch.attention_mask)[0])
        assert len(set(lengths.tolist())) > 1
        video, pooled = online.encode_video(batch)
        frames = online.project_frames(pooled)
        single = batch.frame_mask.sum(1) == 1
        # The untrained temporal layer is a mean, so a one-frame video is its frame.
        lone = torch.isin(batch.slots // 4, single.nonzero()[:, 0])
        torch.testing.assert_close(video[single], frames[lone])
    assert counts == {1, 2, 3}


def test_the_learned_temperature_is_clamped() -> None:
    config = tiny_config(Path(), Path()).model
    model = LGDN(dataclasses.replace(config, learn_temperature=True))
    assert model.log_temperature.requires_grad
    assert float(model.temperature.detach()) == pytest.approx(0.07)
    for value, expected in ((-20.0, 0.001), (5.0, 0.5)):
        with torch.no_grad():
            model.log_temperature.fill_(value)
        assert float(model.temperature.detach()) == pytest.approx(expected)


def test_augmentation_is_repeatable_and_changes_the_photo() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    views = [augment(photo, np.random.default_rng(i)) for i in range(20)]
    for i, view in enumerate(views):
        assert view.shape == photo.shape
        assert view.dtype == np.uint8
        assert np.array_equal(view, augment(photo, np.random.default_rng(i)))
    assert len({view.tobytes() for view in views}) == 20
