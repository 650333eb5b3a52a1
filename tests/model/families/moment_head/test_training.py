"""Training of the moment head on films of toy stills."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from model.families.moment_head.films import SpliceConfig, Splicer
from model.families.moment_head.network import FilmMomentHead, MomentHeadConfig
from model.families.moment_head.training import HeadTraining, train_head
from model.runtime.errors import InputError
from tests.support.toy_stills import toy_stills

SHORT = SpliceConfig(
    max_items=4, median_seconds=4, max_seconds=8, shots=0, fades=0, near=0, drift=0.2, text_noise=0.1
)
SMALL = MomentHeadConfig(dim=16, channels=16, layers=1, heads=2, dropout=0)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads cost more than they save at these sizes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def share_found(model: FilmMomentHead, splicer: Splicer) -> float:
    """The share of queries whose likeliest start and end are right."""
    hits = []
    for batch in splicer.batches(16, 2, np.random.default_rng(99)):
        with torch.no_grad():
            start, end, _ = model(*(torch.from_numpy(v) for v in (batch.text, batch.frames, batch.mask)))
        right = (start.argmax(1).numpy() == batch.start) & (end.argmax(1).numpy() == batch.end)
        hits += right[batch.start >= 0].tolist()
    return float(np.mean(hits))


def test_a_head_learns_where_moments_are() -> None:
    splicer = Splicer(toy_stills(dim=16, spread=0.02), SHORT)
    untrained = train_head(splicer, SMALL, HeadTraining(steps=1, batch_size=2))
    trained = train_head(splicer, SMALL, HeadTraining(steps=80, batch_size=16, learning_rate=1e-2))
    assert share_found(untrained, splicer) < 0.4
    assert share_found(trained, splicer) > 0.7
    assert not trained.training


def test_the_same_settings_give_the_same_head() -> None:
    splicer, training = Splicer(toy_stills(dim=16, spread=0.02), SHORT), HeadTraining(steps=3, batch_size=4)
    state = torch.get_rng_state()
    first, second = (train_head(splicer, SMALL, training).state_dict() for _ in range(2))
    other = train_head(splicer, SMALL, replace(training, seed=1)).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("changes", [{"steps": 0}, {"learning_rate": 0.0}, {"weight_decay": -1.0}])
def test_wrong_settings_are_named(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(changes))):
        HeadTraining(**changes)
