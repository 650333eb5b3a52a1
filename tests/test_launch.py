"""Several processes train as one: the same batches, losses and weights; their errors arrive as one line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from model.config import Config  # noqa: E402
from model.launch import launch  # noqa: E402
from tests.tiny_training import make_photos, make_tokenizer, tiny_config  # noqa: E402


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Without dropout, which each process draws for itself."""
    folder = tmp_path_factory.mktemp("launch")
    base = tiny_config(make_photos(folder / "data"), folder / "one", epochs=1, accumulate=1)
    return dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, dropout=0.0),
        data=dataclasses.replace(base.data, cache=str(folder / "cache"), workers=0),
        loss=dataclasses.replace(base.loss, warmup_epochs=0, batch_negatives=True),
    )


def rows(config: Config) -> list[dict[str, float]]:
    path = Path(config.output) / "log.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_two_processes_train_as_one_with_the_joined_batch(config: Config, tmp_path: Path) -> None:
    tokenizer, words = make_tokenizer(tmp_path / "tokenizer.json"), []
    launch(config, lambda _: None, tokenizer)
    two = dataclasses.replace(
        config,
        output=str(tmp_path / "two"),
        train=dataclasses.replace(config.train, processes=2, threads=2),
    )
    launch(two, words.append, tokenizer)
    assert sum(word.startswith("step 3/3 ") for word in words) == 1, "one process speaks for all"
    alone, together = rows(config), rows(two)
    assert len(alone) == len(together) == 3
    for a, b in zip(alone, together, strict=True):
        assert b == pytest.approx(a, rel=2e-3)
    states = [torch.load(Path(c.output) / "last.pt", weights_only=True)["model"] for c in (config, two)]
    begun = torch.load(Path(config.output) / "start.pt", weights_only=True)["model"]
    names = [name for name, value in begun.items() if name.startswith(("online.", "fusion."))]
    moved = sum(float((states[0][name] - begun[name]).square().sum()) for name in names)
    apart = sum(float((states[0][name] - states[1][name]).square().sum()) for name in names)
    # Not zero: Adam makes steps of the rounding where a gradient has no size of its own.
    assert apart < 1e-3 * moved
    torch.testing.assert_close(states[1]["bank.videos"], states[0]["bank.videos"], atol=1e-3, rtol=1e-2)
    assert torch.equal(states[0]["bank.owners"], states[1]["bank.owners"])


def test_an_error_in_a_process_arrives_whole(config: Config, tmp_path: Path) -> None:
    broken = dataclasses.replace(
        config,
        output=str(tmp_path / "broken"),
        data=dataclasses.replace(config.data, path=str(tmp_path / "nowhere")),
        train=dataclasses.replace(config.train, processes=2),
    )
    with pytest.raises(ValueError, match=r"no captions\.csv in .*nowhere: pass the data set's folder"):
        launch(broken, lambda _: None, make_tokenizer(tmp_path / "tokenizer.json"))
