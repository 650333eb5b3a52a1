"""Libraries of bundles that correct hubness: the column, the index, damage; and libraries of others."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import lance
import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.library.errors import LibraryError
from indexer.library.folder import Library
from indexer.library.publish import PublishOptions, publish
from indexer.library.schema import SegmentRow, fixed_to_numpy, segments_table
from indexer.library.snapshot import Snapshot
from indexer.library.tables import open_table
from indexer.library.verify import verify_library
from indexer.library.writer import LibraryWriter
from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle, HubnessCorrection
from model.runtime.errors import InputError
from tests.indexer.library.test_repair import damage_value
from tests.indexer.library.test_writer import finish, segment_row, video_row
from tests.model.runtime.bundle.test_hubness import naive_hubness, unit_vectors
from tests.support.crafted_library import change_table, set_column
from tests.support.toy_bundle import DIM, make_toy_bundle, text_embedding
from tests.support.toy_library import ToyLibrary, data_file, make_library

WEIGHT = 0.7
SEGMENTS = 400
FILMS = {
    "red.mp4": [("red", 2.0)],
    "green.mp4": [("green", 2.0)],
    "mixed.mp4": [("red", 1.0), ("yellow", 1.0), ("green", 1.0)],
    "long.mp4": [("black", 24.0), ("cyan", 24.0), ("white", 24.0)],
}


def correction(weight: float = WEIGHT) -> HubnessCorrection:
    """References that are nearer to red than to other colours."""
    near_red = unit_vectors(30) + 2 * text_embedding("red")
    references = near_red / np.linalg.norm(near_red, axis=1, keepdims=True)
    return HubnessCorrection(weight, 10, references)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("hubs"), FILMS, hubness=correction())


@pytest.fixture
def library(toy: ToyLibrary, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy.library, tmp_path / "library"))


def stored(library: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The embeddings and the hubness of all segments."""
    table = lance.dataset(str(library / "segments.lance")).to_table().combine_chunks()
    return fixed_to_numpy(table["embedding"]), np.array(table["hubness"].to_pylist(), np.float32)


def test_the_column_holds_what_the_reference_texts_measure(toy: ToyLibrary) -> None:
    embedding, hubness = stored(toy.library)
    stored_rows = np.load(toy.bundle / "reference_texts.npy").astype(np.float32)
    references = stored_rows / np.linalg.norm(stored_rows, axis=1, keepdims=True)
    np.testing.assert_allclose(hubness, naive_hubness(embedding, references, 10), atol=1e-6)
    assert hubness.max() - hubness.min() > 0.2
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-6)
    snapshot = Snapshot.open(toy.library)
    assert (snapshot.hubness_weight, snapshot.embedding_dim, snapshot.index.dim) == (WEIGHT, DIM, DIM + 1)
    assert snapshot.hubness is not None
    np.testing.assert_array_equal(snapshot.hubness, hubness)
    vectors = snapshot.index.vectors(np.arange(len(hubness)))
    assert vectors is not None
    np.testing.assert_array_equal(vectors[:, :DIM], embedding)
    np.testing.assert_allclose(vectors[:, DIM], -WEIGHT * hubness, atol=1e-7)
    assert verify_library(toy.library).ok


def test_a_library_of_another_bundle_is_as_before(tmp_path: Path) -> None:
    toy = make_library(tmp_path, {"red.mp4": [("red", 2.0)]})
    schema = open_table(toy.library, "segments").schema
    assert "hubness" not in schema.names
    assert not any(b"hubness" in key for key in schema.metadata)
    snapshot = Snapshot.open(toy.library)
    assert (snapshot.hubness, snapshot.hubness_weight, snapshot.index.dim) == (None, 0.0, DIM)
    scores, _ = snapshot.search(text_embedding("red")[None], 1)
    vectors = snapshot.index.vectors(np.array([0]))
    assert vectors is not None
    assert float(scores[0, 0]) == pytest.approx(float(vectors[0] @ text_embedding("red")), abs=1e-6)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of `filled` are made up: their paths, thumbnails and times cannot be true."""
    monkeypatch.setattr("indexer.library.verify.wrong_meaning", lambda *_: ())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy", hubness=correction()))


def rows_of(library: Library, bundle: Bundle, video: int) -> list[SegmentRow]:
    rows = [segment_row(library, video, index, 1) for index in range(20)]
    hubness = bundle.hubness(np.stack([row.embedding for row in rows]))
    return [replace(row, hubness=float(value)) for row, value in zip(rows, hubness, strict=True)]


def filled(path: Path, bundle: Bundle, factory: str, steps: Sequence[range] = (range(1, 21),)) -> Snapshot:
    """A library of made-up videos of 20 segments; each step is published."""
    library = Library.open_or_create(path, bundle, tokens="none")
    with library.writing():
        writer = LibraryWriter(library)
        for step in steps:
            for video in step:
                rows = rows_of(library, bundle, video)
                writer.add_segments(rows)
                finish(writer, video_row(video, rows))
            writer.flush()
            manifest = publish(writer, PublishOptions(index_factory=factory), last=True)
    assert (manifest.num_segments, manifest.index_factory) == (SEGMENTS, factory)
    assert verify_library(path).ok
    return Snapshot.open(path)


def naive_order(snapshot: Snapshot, query: NDArray[np.float32], allowed: Sequence[int]) -> list[int]:
    """Rows by cosine less weight × hubness, one segment at a time."""
    embedding, _ = stored(snapshot.library)
    hubness = naive_hubness(embedding, correction().references.astype(np.float16), 10)
    return sorted(allowed, key=lambda row: -(float(embedding[row] @ query) - WEIGHT * hubness[row]))


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize(
    ("factory", "least"),
    [("Flat", 1.0), ("HNSW16", 1.0), ("IVF4,Flat", 0.9), ("SQ8", 0.9), ("IVF4,SQ8", 0.9), ("PQ3x4", 0.3)],
)
def test_every_kind_of_index_ranks_by_the_corrected_similarity(
    bundle: Bundle, tmp_path: Path, factory: str, least: float
) -> None:
    snapshot = filled(tmp_path / "library", bundle, factory)
    queries = unit_vectors(12, seed=5)
    half = np.arange(0, SEGMENTS, 2)
    plain, _ = stored(snapshot.library)
    recall, unlike_cosines = [], 0
    for allowed in (None,) if factory.startswith("PQ") else (None, half):
        scores, rows = snapshot.search(queries, 10, allowed=allowed)
        for query, found, values in zip(queries, rows, scores, strict=True):
            among = range(SEGMENTS) if allowed is None else allowed.tolist()
            expected = naive_order(snapshot, query, among)[:10]
            if least == 1.0:
                assert found.tolist() == expected
                assert snapshot.hubness is not None
                exact = plain[found] @ query - WEIGHT * snapshot.hubness[found]
                np.testing.assert_allclose(values, exact, atol=1e-6)
            recall.append(len(set(found.tolist()) & set(expected)) / 10)
            by_cosine = sorted(among, key=lambda row: -float(plain[row] @ query))[:10]
            unlike_cosines += set(by_cosine) != set(expected)
    assert np.mean(recall) >= least
    assert unlike_cosines, "the correction changes no ranking here: the test shows nothing"


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("factory", ["Flat", "HNSW16"])
def test_an_index_added_to_equals_a_new_one(bundle: Bundle, tmp_path: Path, factory: str) -> None:
    grown = filled(tmp_path / "grown", bundle, factory, [range(1, 15), range(15, 16), range(16, 21)])
    fresh = filled(tmp_path / "fresh", bundle, factory)
    queries = unit_vectors(8, seed=6)
    scores, rows = grown.search(queries, 10)
    expected_scores, expected_rows = fresh.search(queries, 10)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)


def test_kinds_of_index_that_must_divide_the_dimensions(toy: ToyLibrary, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"'PQ4' is invalid for 9 dimensions: use one like .*adds one to its 8"
    ):
        index_paths(
            [toy.media],
            tmp_path / "library",
            Bundle.open(toy.bundle),
            IndexOptions(workers=0, index_factory="PQ4"),
            lambda _event: None,
        )


def test_rows_and_layout_go_together(bundle: Bundle, tmp_path: Path) -> None:
    library = Library.open_or_create(tmp_path / "library", bundle, tokens="none")
    with pytest.raises(ValueError, match="with and without hubness"):
        segments_table(library.layout, [segment_row(library, 1, 0, 1)])
    without = replace(library.layout, hubness_weight=None)
    with pytest.raises(ValueError, match="with and without hubness"):
        segments_table(without, rows_of(library, bundle, 1))


@pytest.mark.usefixtures("made_up")
def test_a_hubness_that_is_not_finite_sets_its_video_aside(bundle: Bundle, tmp_path: Path) -> None:
    library = Library.open_or_create(tmp_path / "library", bundle, tokens="none")
    with library.writing():
        writer = LibraryWriter(library)
        for video in (1, 2):
            rows = rows_of(library, bundle, video)
            if video == 2:
                rows[3] = replace(rows[3], hubness=float("nan"))
            writer.add_segments(rows)
            finish(writer, video_row(video, rows))
        writer.flush()
        publish(writer, PublishOptions(), last=True)
    assert [row.video_id for row in writer.set_aside] == [f"{2:032x}"]
    assert Snapshot.open(tmp_path / "library").num_segments == 20


def damage_hubness(library: Path) -> float:
    """Change one stored hubness, one that no other segment has; return what it was."""
    _, hubness = stored(library)
    value = float(hubness[int(np.argmax(hubness))])
    damage_value(data_file(library, "segments"), np.float32(value).tobytes())
    return value


def test_a_damaged_hubness_is_found_and_repaired(toy: ToyLibrary, library: Path) -> None:
    whole = sorted(stored(library)[1].tolist())
    damage_hubness(library)
    assert sorted(stored(library)[1].tolist()) != whole
    (report,) = verify_library(library).snapshots
    assert report.damaged_videos == [str(toy.media / "red.mp4")]
    with pytest.raises(LibraryError, match=r"segments\.lance is damaged: row \d+ differs from its checksum"):
        Snapshot.open(library, accept_damage=True)
    index = Bundle.open(toy.bundle)
    with pytest.raises(LibraryError, match=r"row \d+ differs from its checksum.*--repair"):
        index_paths(
            [toy.media], library, index, IndexOptions(workers=0, index_factory="HNSW8"), lambda _event: None
        )
    options = IndexOptions(workers=0, repair=True)
    summary = index_paths([toy.media], library, index, options, lambda _event: None)
    assert summary.repaired is not None
    assert (summary.repaired.read_again, summary.repaired.moved) == ((str(toy.media / "red.mp4"),), 3)
    assert verify_library(library).ok
    assert sorted(stored(library)[1].tolist()) == whole


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.5, -1.5])
def test_a_hubness_that_cannot_be_true(library: Path, value: float) -> None:
    change_table(
        library,
        "segments",
        lambda rows: set_column(rows, "hubness", [value, *rows["hubness"].to_pylist()[1:]]),
    )
    (report,) = verify_library(library).snapshots
    assert "(row 0): its hubness is not within -1 to 1" in "\n".join(report.problems)


def test_an_index_of_other_weights_is_found(library: Path) -> None:
    change_table(
        library,
        "segments",
        lambda rows: set_column(rows, "hubness", [0.9 * value for value in rows["hubness"].to_pylist()]),
    )
    (report,) = verify_library(library).snapshots
    assert "the index holds other vectors" in "\n".join(report.problems)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.replace_schema_metadata(
            {k: v for k, v in table.schema.metadata.items() if b"hubness" not in k}
        ),
        lambda table: table.drop_columns(["hubness"]),
        lambda table: table.replace_schema_metadata(
            {**table.schema.metadata, b"reelfind.hubness_weight": b"nan"}
        ),
        lambda table: table.replace_schema_metadata(
            {**table.schema.metadata, b"reelfind.hubness_weight": b"much"}
        ),
    ],
)
def test_a_table_whose_weight_and_column_disagree(library: Path, change: Callable[..., object]) -> None:
    path = str(library / "segments.lance")
    lance.write_dataset(change(lance.dataset(path).to_table()), path, mode="overwrite")
    with pytest.raises(LibraryError, match=r"segments\.lance: unexpected columns"):
        Library.open(library)
