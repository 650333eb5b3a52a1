"""Libraries with embeddings cut to their first dimensions: searched, moments found, evaluated, remembered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.library.folder import Library
from indexer.library.schema import fixed_to_numpy
from indexer.library.snapshot import Snapshot
from indexer.library.tables import open_table
from indexer.library.verify import verify_library
from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle, HubnessCorrection
from model.runtime.errors import BundleError, InputError
from model.runtime.queries import LabelledQuery
from model.runtime.ranking import cut_embeddings
from service.live import open_searcher
from service.search.evaluation import evaluate_library
from service.search.searcher import Searcher, SearchOptions
from service.settings import load_settings
from tests.support.command_line import check_error, invoke
from tests.support.toy_bundle import COLOURS, DIM, make_toy_bundle, text_embedding, unit
from tests.support.toy_calibration import toy_calibration
from tests.support.toy_videos import make_video

FILMS = {name: [(name, 0.5)] for name in COLOURS}
#: Of the toy bundle's dimensions, each of one colour, those of these are left.
LEFT = list(COLOURS)[:4]


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    for name, parts in FILMS.items():
        make_video(folder / f"{name}.mp4", parts=parts)
    make_video(folder / "traffic.mp4", parts=[("red", 6.0), ("green", 6.0)], fps=4)
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy_bundle(
        tmp_path_factory.mktemp("bundle") / "toy", embedding_dims=(2, 4), matcher=False, moments="edges"
    )


@pytest.fixture(scope="module")
def library(media: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("library") / "cut"
    index(media, path, bundle, embedding_dim=4)
    return path


@pytest.fixture(scope="module")
def searcher(library: Path, bundle: Path) -> Searcher:
    return open_searcher(load_settings({"library": library, "bundle": bundle}))


def index(media: Path, library: Path, bundle: Path, **options: Any) -> None:
    chosen = IndexOptions(workers=0, **options)
    index_paths([media], library, Bundle.open(bundle), chosen, lambda _: None)


def stored(library: Path, column: str = "embedding") -> np.ndarray:
    table = open_table(library, "segments").to_table(columns=[column])
    return fixed_to_numpy(table[column]) if column == "embedding" else table[column].to_numpy()


def test_embeddings_are_cut_and_the_rest_stays(
    media: Path, library: Path, bundle: Path, tmp_path: Path
) -> None:
    index(media, tmp_path / "whole", bundle)
    whole = stored(tmp_path / "whole")
    assert whole.shape[1] == DIM
    expected = whole[:, :4] / np.linalg.norm(whole[:, :4], axis=1, keepdims=True)
    np.testing.assert_allclose(stored(library), expected, atol=1e-6)
    kept = [open_table(path, "segments").to_table() for path in (library, tmp_path / "whole")]
    assert kept[0]["frame_salience"].equals(kept[1]["frame_salience"]), "the segment encoder and SFP read it"
    layouts = [Library.open(path).layout for path in (library, tmp_path / "whole")]
    assert [(x.embedding_dim, x.full_embedding_dim) for x in layouts] == [(4, DIM), (DIM, None)]
    assert verify_library(library).ok
    assert json.loads((library / "snapshots/1/manifest.json").read_text())["format_version"] == 4


def test_scores_are_cosines_of_what_is_left(library: Path) -> None:
    snapshot = Snapshot.open(library)
    vectors = stored(library)
    for colour in LEFT:
        query = unit(text_embedding(colour)[:4])
        scores, rows = snapshot.search(text_embedding(colour)[None], 100)
        np.testing.assert_allclose(scores[0], np.sort(vectors @ query)[::-1], atol=1e-5)
        np.testing.assert_allclose(
            snapshot.scores_of(text_embedding(colour), np.arange(len(vectors))), vectors @ query, atol=1e-5
        )
        np.testing.assert_allclose(scores[0], (vectors @ query)[rows[0]], atol=1e-5)
    with pytest.raises(ValueError, match=r"expected \[B, 8\]"):
        snapshot.search(text_embedding("red")[None, :4], 1)


def test_searches_and_moments_work(searcher: Searcher) -> None:
    result = searcher.search("green", 3, SearchOptions(group_by="moment"))
    found = [(Path(h.path).stem, h.start_seconds, h.end_seconds) for h in result.hits]
    assert "green" in {stem for stem, _, _ in found[:2]}
    traffic = next(span for span in found if span[0] == "traffic")
    assert traffic[1:] == pytest.approx((6.0, 12.0), abs=0.5), "the moment head reads all dimensions"
    # The similarity of a moment is compared in the same dimensions as that of a segment.
    assert all(hit.similarity <= 1.001 for hit in result.hits)
    whole = searcher.search("green", 20, SearchOptions(group_by="segment", rerank=False))
    vectors = searcher.snapshot.cut(text_embedding("green")[None])[0]
    assert vectors.shape == (4,)
    assert {Path(h.path).stem for h in whole.hits} == {*COLOURS, "traffic"}


@pytest.mark.filterwarnings("ignore:.*score the same as others")
def test_eval_measures_what_cutting_costs(
    media: Path, bundle: Path, searcher: Searcher, tmp_path: Path
) -> None:
    """Two dimensions are those of red and green: a text of another colour has nothing left."""
    index(media, tmp_path / "two", bundle, embedding_dim=2)
    two = open_searcher(load_settings({"library": tmp_path / "two", "bundle": bundle}))
    queries = [LabelledQuery(i, colour, f"{colour}.mp4") for i, colour in enumerate(LEFT)]
    options = SearchOptions(rerank=False)
    recalls = [evaluate_library(opened, queries, options).similarity["R@1"] for opened in (searcher, two)]
    two.match_queue.close()
    assert recalls[0] == 100.0
    assert recalls[1] <= 50.0


def test_the_size_is_remembered_and_kept(media: Path, library: Path, bundle: Path) -> None:
    index(media, library, bundle)
    index(media, library, bundle, embedding_dim=4)
    assert Library.open(library).layout.embedding_dim == 4
    for other in (2, DIM):
        with pytest.raises(InputError, match=f"embedding_dim is {other}, but .* was made with 4"):
            index(media, library, bundle, embedding_dim=other)


def test_sizes_that_a_bundle_does_not_allow(media: Path, bundle: Path, tmp_path: Path) -> None:
    plain = make_toy_bundle(tmp_path / "plain")
    for folder, said in (
        (bundle, "choose one of 2, 4, 8"),
        (plain, "it gives 8 dimensions and cannot be"),
    ):
        result = invoke(
            *("index", media, "--library", tmp_path / "library", "--bundle", folder, "--workers", "0"),
            *("--embedding-dim", "3"),
        )
        check_error(result, 2, rf"--embedding-dim is 3, which the bundle 'toy' does not allow: {said}")
    assert not (tmp_path / "library").exists()
    assert "may be cut   to 2, 4 dimensions" in invoke("bundle", "info", bundle).stdout


@pytest.mark.parametrize("dims", [(8,), (4, 2), (2, 2), (0,), (16,)])
def test_sizes_that_no_bundle_may_name(dims: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="embedding_dims"):
        make_toy_bundle(tmp_path / "toy", embedding_dims=dims)


def test_hubness_is_that_of_the_cut_embeddings(media: Path, tmp_path: Path) -> None:
    references = unit(np.random.default_rng(0).standard_normal((20, DIM)))
    folder = make_toy_bundle(
        tmp_path / "toy", embedding_dims=(4,), hubness=HubnessCorrection(0.5, 3, references)
    )
    index(media, tmp_path / "library", folder, embedding_dim=4)
    vectors = stored(tmp_path / "library")
    kept = Bundle.open(folder).hubness_correction
    assert kept is not None
    near = np.sort(vectors @ cut_embeddings(kept.references, 4).T, axis=1)[:, -3:]
    np.testing.assert_allclose(stored(tmp_path / "library", "hubness"), near.mean(axis=1), atol=1e-5)
    snapshot = Snapshot.open(tmp_path / "library")
    scores, _ = snapshot.search(text_embedding("red")[None], 100)
    expected = vectors @ unit(text_embedding("red")[:4]) - 0.5 * near.mean(axis=1)
    np.testing.assert_allclose(scores[0], np.sort(expected)[::-1], atol=1e-5)
    assert verify_library(tmp_path / "library").ok


def test_a_cut_library_has_no_probabilities(media: Path, tmp_path: Path) -> None:
    """The calibration was fitted to other scores."""
    folder = make_toy_bundle(tmp_path / "toy", embedding_dims=(4,), calibration=toy_calibration())
    for dim, has_any in ((None, True), (4, False)):
        path = tmp_path / f"library-{dim}"
        index(media, path, folder, embedding_dim=dim)
        searcher = open_searcher(load_settings({"library": path, "bundle": folder}))
        result = searcher.search("red", 3, SearchOptions(group_by="moment"))
        assert [hit.probability is not None for hit in result.hits] == [has_any] * len(result.hits)
        assert result.probability_skipped == (None if has_any else "cut_embeddings")
        searcher.match_queue.close()
