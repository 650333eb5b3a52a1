"""The salient frame proposal against Table 1 and a loop over frames, and against what serving chooses."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
import torch.nn.functional as F
from torch import Tensor

from model.families.lgdn.config import STRATEGIES
from model.families.lgdn.salience import (
    frame_salience,
    salience_dim,
    salient_mask,
    select_salient_tensor,
    text_salience,
)
from model.runtime import ranking

# Table 1, with f and f̂ of a frame, t and t̂ of a text (the paper's l).
TABLE = {
    "simdot": lambda f, f_hat, t, t_hat: f @ t,
    "momentum": lambda f, f_hat, t, t_hat: f @ t + f_hat @ t_hat,
    "crossmom": lambda f, f_hat, t, t_hat: f_hat @ t + f @ t_hat,
    "collaborative": lambda f, f_hat, t, t_hat: (f + f_hat) @ (t + t_hat),
}


def embeddings() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """f, f̂ [3, 5, 8] and l, l̂ [4, 8]."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 5, 8), (3, 5, 8), (4, 8), (4, 8))
    f, f_hat, text, text_hat = (
        F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1) for shape in shapes
    )
    return f, f_hat, text, text_hat


def relevance(strategy: str) -> Tensor:
    f, f_hat, text, text_hat = embeddings()
    stored, asked = frame_salience(strategy, f, f_hat), text_salience(strategy, text, text_hat)
    assert stored.shape == (3, 5, salience_dim(strategy, 8))
    assert asked.shape == (4, salience_dim(strategy, 8))
    return torch.einsum("bns,qs->qbn", stored, asked)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_stored_vectors_give_the_relevance_of_table_1(strategy: str) -> None:
    f, f_hat, text, text_hat = embeddings()
    scores = relevance(strategy)
    for q in range(4):
        for b in range(3):
            for n in range(5):
                expected = TABLE[strategy](f[b, n], f_hat[b, n], text[q], text_hat[q])
                torch.testing.assert_close(scores[q, b, n], expected)


def test_collaborative_is_momentum_plus_crossmom() -> None:
    torch.testing.assert_close(
        relevance("collaborative"), relevance("momentum") + relevance("crossmom"), rtol=1e-12, atol=1e-12
    )


def test_strategies_differ() -> None:
    scores = [relevance(strategy) for strategy in STRATEGIES]
    for i, score in enumerate(scores):
        assert all((score - other).abs().max() > 0.1 for other in scores[:i])


def test_an_unknown_strategy_is_named_with_the_known_ones() -> None:
    f, f_hat, text, text_hat = embeddings()
    message = "unknown salience strategy 'best': use one of simdot, momentum, crossmom, collaborative"
    for call in (
        lambda: salience_dim("best", 8),
        lambda: frame_salience("best", f, f_hat),
        lambda: text_salience("best", text, text_hat),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def chosen_in_loops(scores: list[float], real: list[int], count: int) -> list[int]:
    """Take the best frame that is left, the earliest of equals, as often as there is one."""
    left = [n for n in range(len(scores)) if real[n]]
    chosen: list[int] = []
    while left and len(chosen) < count:
        best = left[0]
        for n in left:
            if scores[n] > scores[best]:
                best = n
        chosen.append(best)
        left.remove(best)
    return chosen


MASK = [[1, 1, 1, 1, 1, 1], [1, 0, 1, 0, 1, 1], [0, 0, 0, 0, 0, 1], [1, 1, 0, 0, 0, 0]]


@pytest.mark.parametrize("count", [1, 2, 3, 6, 9])
@pytest.mark.parametrize("levels", [2, 3, 1000], ids=["two values", "three values", "no ties"])
def test_selection_is_that_of_a_loop(count: int, levels: int) -> None:
    scores = torch.randint(0, levels, (4, 6), generator=torch.Generator().manual_seed(levels)) / levels - 0.5
    index, real = select_salient_tensor(scores, torch.tensor(MASK, dtype=torch.float32), count)
    assert index.shape == real.shape == (4, min(count, 6))
    mask = salient_mask(index, real, 6)
    for row in range(4):
        expected = chosen_in_loops(scores[row].tolist(), MASK[row], count)
        assert index[row, real[row]].tolist() == expected
        assert real[row].tolist() == [True] * len(expected) + [False] * (min(count, 6) - len(expected))
        assert mask[row].nonzero()[:, 0].tolist() == sorted(expected)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_training_chooses_the_frames_that_serving_chooses(count: int) -> None:
    scores = torch.randint(0, 4, (50, 6), generator=torch.Generator().manual_seed(0)) / 4
    counts = torch.arange(50) % 6 + 1
    index, real = select_salient_tensor(scores, (torch.arange(6) < counts[:, None]).float(), count)
    served, served_real = ranking.select_salient(scores.numpy(), counts.numpy(), count)
    assert real.tolist() == served_real.tolist()
    assert index[real].tolist() == served[served_real].tolist()


def test_no_salient_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="0 salient frames: choose 1 or more"):
        select_salient_tensor(torch.zeros(1, 2), torch.ones(1, 2), 0)
