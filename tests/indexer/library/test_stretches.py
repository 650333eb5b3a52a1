"""Runs of neighbouring segments, and the scores of chosen segments, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from indexer.library.snapshot import Snapshot
from tests.support.toy_bundle import text_embedding
from tests.support.toy_library import FILMS, make_library

LONG = {"a.mp4": [("red", 200.0)], "b.mp4": [("blue", 70.0), ("green", 70.0)], **FILMS}


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return Snapshot.open(make_library(tmp_path_factory.mktemp("stretches"), LONG).library)


def naive_stretches(snapshot: Snapshot, rows: list[int], reach: int, avoid: set[int]) -> list[list[int]]:
    """The segments around each row, joined where they follow each other."""
    place = {}
    for video in snapshot.videos(0, 100):
        for number, row in enumerate(snapshot.segment_rows(video.video_id).tolist()):
            place[row] = (video.video_id, number)
    row_at = {value: key for key, value in place.items()}
    wanted = set()
    for row in rows:
        name, number = place[row]
        for near in range(number - reach, number + reach + 1):
            if (name, near) in row_at and row_at[name, near] not in avoid:
                wanted.add((name, near))
    runs: list[list[tuple[str, int]]] = []
    for name, number in sorted(wanted):
        if runs and runs[-1][-1] == (name, number - 1):
            runs[-1].append((name, number))
        else:
            runs.append([(name, number)])
    found = [[row_at[each] for each in run] for run in runs]
    found = [run for run in found if set(run) & set(rows)]
    return sorted(found, key=lambda run: min(rows.index(row) for row in run if row in rows))


@pytest.mark.parametrize("seed", range(15))
def test_stretches_are_those_of_plain_loops(snapshot: Snapshot, seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = snapshot.num_segments
    rows = rng.permutation(count)[: rng.integers(1, count)].tolist()
    avoid = set(rng.permutation(count)[: rng.integers(0, 3)].tolist()) - set(rows)
    reach = int(rng.integers(0, 3))
    found = snapshot.stretches(rows, reach, avoid)
    assert [run.tolist() for run in found] == naive_stretches(snapshot, rows, reach, avoid)
    starts = [[snapshot.segment_span(row)[0] for row in run.tolist()] for run in found]
    assert all(run == sorted(run) for run in starts)


def test_no_rows_give_no_stretch_and_wrong_ones_are_refused(snapshot: Snapshot) -> None:
    assert snapshot.stretches([], 1) == []
    with pytest.raises(ValueError, match="is not in 0"):
        snapshot.stretches([snapshot.num_segments], 1)


def test_scores_of_chosen_segments_are_those_of_a_search(snapshot: Snapshot) -> None:
    embedding = text_embedding("green and red")
    scores, rows = snapshot.search(embedding[None], snapshot.num_segments)
    expected = dict(zip(rows[0].tolist(), scores[0].tolist(), strict=True))
    chosen = np.random.default_rng(0).permutation(snapshot.num_segments)[:5]
    found = snapshot.scores_of(embedding, chosen)
    assert found.tolist() == pytest.approx([expected[row] for row in chosen.tolist()], abs=1e-6)
    assert len(snapshot.scores_of(embedding, np.empty(0, np.int64))) == 0
