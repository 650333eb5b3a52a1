"""Frame tokens in libraries: stored as asked, read back right, kept through every run."""

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import lance
import numpy as np
import onnx
import pyarrow as pa
import pytest
from typer.testing import CliRunner, Result

from indexer.events import IndexSummary
from indexer.library.errors import LibraryError
from indexer.library.folder import Library
from indexer.library.manifest import _checksum, current_number, read_snapshot_manifest
from indexer.library.records import SegmentRecord
from indexer.library.schema import SCHEMA_VERSION, fixed_to_numpy
from indexer.library.snapshot import Snapshot
from indexer.library.switching import rollback
from indexer.library.tables import open_table
from indexer.library.verify import verify_library
from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle
from model.runtime.errors import BundleError, InputError
from model.runtime.ranking import relevance, select_salient
from model.runtime.tokens import QuantisedTokens, dequantise, merge_tokens
from model.runtime.video import VideoReader
from service.cli.app import app
from tests.support import toy_bundle as toy
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_videos import make_video


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy"))


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos: one of two segments, one of a single frame, one of two colours."""
    folder = tmp_path_factory.mktemp("media")
    make_video(folder / "long.mp4", parts=[("red", 20.0), ("blue", 25.0)], fps=2)
    make_video(folder / "one.mp4", parts=[("green", 0.1)])
    make_video(folder / "two.mp4", parts=[("white", 2.0), ("yellow", 2.0)])
    return folder


def index(bundle: Bundle, library: Path, *paths: Path, **options: Any) -> IndexSummary:
    return index_paths(paths, library, bundle, IndexOptions(**{"workers": 0, **options}), lambda _: None)


def expected_tokens(bundle: Bundle, path: Path, count: int) -> list[np.ndarray]:
    """The tokens of each segment's frames, decoded and encoded once more."""
    manifest = bundle.manifest
    found = []
    with VideoReader(path) as reader:
        for segment in reader.segments(manifest.segment_seconds, manifest.frames_per_segment):
            frames = manifest.image.resizing.frames(segment.frames.data)
            tokens = bundle.encode_frames(frames, tokens=True).tokens
            assert tokens is not None
            found.append(merge_tokens(tokens, count))
    return found


def tokens_of_segment(snapshot: Snapshot, segment: SegmentRecord) -> np.ndarray:
    count = len(segment.frame_ids)
    return snapshot.frame_tokens([segment.row] * count, range(count))


def compare(bundle: Bundle, snapshot: Snapshot, count: int, *, exact: bool) -> None:
    """Every stored token of every video against the bundle's."""
    seen = 0
    for video in snapshot.videos(0, 100):
        expected = expected_tokens(bundle, video.file, count)
        for segment in snapshot.segments(snapshot.segment_rows(video.video_id)):
            tokens = expected[segment.segment_index]
            found = tokens_of_segment(snapshot, segment)
            assert found.shape == tokens.shape == (len(segment.frame_ids), count, 3)
            # Half a step of int8, and the rounding of float32 in batches of another size.
            step = 0 if exact else np.abs(tokens).max(axis=2, keepdims=True) / 254 * 1.002
            assert (np.abs(found - tokens) <= step + 1e-6).all()
            seen += len(found)
    assert seen == snapshot.manifest.num_frames


@pytest.mark.parametrize("kind", ["int8", "float32"])
@pytest.mark.parametrize("count", [4, 2])
def test_stored_tokens_are_those_of_the_bundle(
    bundle: Bundle, media: Path, tmp_path: Path, kind: str, count: int
) -> None:
    index(bundle, tmp_path / "library", media, tokens=kind, tokens_per_frame=count)
    snapshot = Snapshot.open(tmp_path / "library")
    assert snapshot.tokens_per_frame == count
    compare(bundle, snapshot, count, exact=kind == "float32")
    assert verify_library(tmp_path / "library").ok
    schema = open_table(tmp_path / "library", "frames").schema
    kinds = {"int8": (pa.int8(), True), "float32": (pa.float32(), False)}
    assert schema.field("tokens").type == pa.list_(kinds[kind][0], 3 * count)
    assert ("token_scale" in schema.names) is kinds[kind][1]


def test_workers_and_batches_of_any_size_store_the_same(bundle: Bundle, media: Path, tmp_path: Path) -> None:
    index(bundle, tmp_path / "library", media, workers=2, batch_frames=40, encoders=2)
    compare(bundle, Snapshot.open(tmp_path / "library"), 4, exact=False)


def test_by_default_a_bundle_that_reads_tokens_gets_int8_and_another_none(
    bundle: Bundle, media: Path, tmp_path: Path
) -> None:
    index(bundle, tmp_path / "with", media / "two.mp4")
    assert Library.open(tmp_path / "with").layout.tokens == "int8"
    advised = Bundle.open(make_toy_bundle(tmp_path / "advised", stored_tokens_per_frame=3))
    index(advised, tmp_path / "fewer", media / "two.mp4")
    assert Snapshot.open(tmp_path / "fewer").tokens_per_frame == 3

    asked = Bundle.open(make_toy_bundle(tmp_path / "asked", matcher=False, answers=True))
    index(asked, tmp_path / "answers", media / "two.mp4")
    assert Library.open(tmp_path / "answers").layout.tokens == "int8"
    compare(asked, Snapshot.open(tmp_path / "answers"), 4, exact=False)

    bare = Bundle.open(make_toy_bundle(tmp_path / "bare", matcher=False))
    index(bare, tmp_path / "without", media / "two.mp4")
    for library, opened, options in (("without", bare, {}), ("none", bundle, {"tokens": "none"})):
        index(opened, tmp_path / library, media / "two.mp4", **options)
        snapshot = Snapshot.open(tmp_path / library)
        assert snapshot.tokens_per_frame == 0
        assert snapshot.num_videos == 1
        assert verify_library(tmp_path / library).ok
        assert "tokens" not in open_table(tmp_path / library, "frames").schema.names
        with pytest.raises(LibraryError, match="stores no frame tokens: index into a new folder"):
            snapshot.frame_tokens([0], [0])
        frames = snapshot.segment_frames([0])
        salience, counts = frames.salience, frames.counts
        assert (salience.shape, counts.tolist()) == ((1, 16, 16), [16])


def test_a_library_keeps_the_layout_it_was_made_with(bundle: Bundle, media: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    index(bundle, library, media / "one.mp4", tokens="float32", tokens_per_frame=2)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"tokens": "int8"}, r"tokens is int8, but the library at .*library was made with float32"),
        ({"tokens": "none"}, "tokens is none, but the library .* with float32"),
        ({"tokens_per_frame": 4}, "tokens_per_frame is 4, but the library .* with 2: leave the option out"),
    ]
    for options, message in refused:
        with pytest.raises(InputError, match=message):
            index(bundle, library, media, **options)
    assert Snapshot.open(library).num_videos == 1
    index(bundle, library, media)
    index(bundle, library, media, tokens="float32", tokens_per_frame=2)
    snapshot = Snapshot.open(library)
    assert snapshot.num_videos == 3
    compare(bundle, snapshot, 2, exact=True)


def test_a_creation_that_was_cut_short_binds_to_nothing(bundle: Bundle, media: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    for missing in (["videos"], ["videos", "segments"], []):
        shutil.rmtree(library, ignore_errors=True)
        Library.open_or_create(library, bundle, "int8", 3)
        for name in missing:
            shutil.rmtree(library / f"{name}.lance")
        index(bundle, library, media, tokens="float32", tokens_per_frame=2)
        compare(bundle, Snapshot.open(library), 2, exact=True)
        assert verify_library(library).ok
    # What has rows stays, though nothing was published.
    (library / "CURRENT").unlink()
    with pytest.raises(InputError, match="made with float32"):
        index(bundle, library, media, tokens="int8")
    assert index(bundle, library, media).unchanged == 3


def test_options_that_cannot_be(bundle: Bundle, media: Path, tmp_path: Path) -> None:
    bare = Bundle.open(make_toy_bundle(tmp_path / "bare", matcher=False))
    refused: list[tuple[Bundle, dict[str, Any], str]] = [
        (bundle, {"tokens": "int4"}, "tokens is 'int4': it must be one of int8, float32, none"),
        (bundle, {"tokens_per_frame": 5}, "tokens_per_frame: 4 tokens per frame cannot be merged to 5"),
        (bundle, {"tokens_per_frame": 1}, "choose 2 to 4"),
        (bundle, {"tokens": "none", "tokens_per_frame": 2}, "but `tokens` is none"),
        (bare, {"tokens": "int8"}, "the bundle 'toy' has no matcher and no answer head"),
        (bare, {"tokens_per_frame": 2}, "the bundle 'toy' has no matcher and no answer head"),
    ]
    for opened, options, message in refused:
        with pytest.raises(InputError, match=message):
            index(opened, tmp_path / "library", media, **options)
        assert not (tmp_path / "library").exists()


def test_tokens_too_large_for_int8_end_the_run_in_one_line(media: Path, tmp_path: Path) -> None:
    proto = onnx.load_from_string(toy.toy_graphs()["frame_encoder.onnx"])
    next(node for node in proto.graph.node if "frame_tokens" in node.output).output[0] = "small"
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(1e8, np.float32), "huge"))
    proto.graph.node.append(onnx.helper.make_node("Mul", ["small", "huge"], ["frame_tokens"]))
    graphs = {**toy.toy_graphs(), "frame_encoder.onnx": proto.SerializeToString()}
    graphs["matcher.onnx"] = toy.toy_matcher()
    huge = Bundle.open(make_toy_bundle(tmp_path / "huge", matcher=False, graphs=graphs))
    with pytest.raises(BundleError, match=r"huge: .*int8 cannot store; index with --tokens float32"):
        index(huge, tmp_path / "library", media)
    assert current_number(tmp_path / "library") is None
    index(huge, tmp_path / "other", media, tokens="float32")
    assert np.abs(Snapshot.open(tmp_path / "other").frame_tokens([0], [0])).max() > 5e7


def test_candidates_are_what_segments_says(bundle: Bundle, media: Path, tmp_path: Path) -> None:
    index(bundle, tmp_path / "library", media)
    snapshot = Snapshot.open(tmp_path / "library")
    rows = np.array([2, 0, 3, 0, 1])
    frames = snapshot.segment_frames(rows)
    salience, counts = frames.salience, frames.counts
    assert (salience.dtype, salience.shape) == (np.dtype(np.float32), (5, 16, 16))
    for i, segment in enumerate(snapshot.segments(rows)):
        n = counts[i]
        assert n == len(segment.frame_ids)
        np.testing.assert_array_equal(salience[i, :n], segment.frame_salience)
        assert not salience[i, n:].any()
    assert sorted(counts.tolist()) == [1, 16, 16, 16, 16]
    # Each frame of the library once, in the order of the segments.
    segments = snapshot.segments(range(snapshot.num_segments))
    every = np.concatenate([tokens_of_segment(snapshot, segment) for segment in segments])
    stored = open_table(tmp_path / "library", "frames").to_table(columns=["tokens", "token_scale"])
    values = fixed_to_numpy(stored["tokens"]).reshape(-1, 4, 3)
    np.testing.assert_array_equal(
        every, dequantise(QuantisedTokens(values, fixed_to_numpy(stored["token_scale"])))
    )
    frames = snapshot.segment_frames([])
    empty, none = frames.salience, frames.counts
    assert (empty.shape, none.shape) == ((0, 16, 16), (0,))
    assert snapshot.frame_tokens([], []).shape == (0, 4, 3)
    one = next(segment.row for segment in segments if len(segment.frame_ids) == 1)
    other = 0 if one else 1
    with pytest.raises(ValueError, match=r"segment row 4 is not in 0\.\.3"):
        snapshot.segment_frames([0, 4])
    with pytest.raises(ValueError, match="row -1"):
        snapshot.segment_frames([-1])
    for segment_rows, frame_indices, message in [
        ([0, 4], [0, 0], "segment row 4 is not in 0..3"),
        ([-1], [0], "segment row -1 is not in 0..3"),
        ([other, other], [15, 16], f"frame 16 of segment row {other} is not in 0..15"),
        ([other, one], [1, 1], f"frame 1 of segment row {one} is not in 0..0"),
        ([other], [-1], "frame -1 of segment row"),
        ([0, 1], [0], "1 frame indices for 2 segment rows"),
    ]:
        with pytest.raises(ValueError, match=message):
            snapshot.frame_tokens(segment_rows, frame_indices)


def test_salient_frames_match_what_they_show(bundle: Bundle, media: Path, tmp_path: Path) -> None:
    """The whole way of a query: candidates, their salient frames, the stored tokens, the matcher."""
    index(bundle, tmp_path / "library", media)
    snapshot = Snapshot.open(tmp_path / "library")
    text = bundle.encode_text(["blue"], tokens=True)
    _, rows = snapshot.search(text.embedding, 10)
    frames = snapshot.segment_frames(rows[0])
    salience, counts = frames.salience, frames.counts
    chosen, mask = select_salient(relevance(salience, text.salience[0]), counts, 2)
    tokens = snapshot.frame_tokens(np.repeat(rows[0], mask.sum(axis=1)), chosen[mask])
    logits = bundle.match(text, np.zeros(len(tokens), np.int64), tokens)
    segments = snapshot.segments(rows[0])
    names = []
    for i in np.repeat(np.arange(len(segments)), mask.sum(axis=1)):
        video = snapshot.video(segments[i].video_id)
        assert video is not None
        names.append((video.file.stem, segments[i].segment_index))
    blue = [("long", 0), ("long", 1)]
    assert {name for name, logit in zip(names, logits, strict=True) if logit > 3.5} == set(blue)
    assert all(logit < 0 for name, logit in zip(names, logits, strict=True) if name not in blue)


def test_replacing_removing_and_joining_keep_frames_with_their_tokens(bundle: Bundle, tmp_path: Path) -> None:
    colours = list(toy.COLOURS)
    for turn in range(11):
        make_video(tmp_path / f"media/{turn}.mp4", parts=[(colours[turn % 8], 0.3)])
        if turn == 5:
            make_video(tmp_path / "media/1.mp4", parts=[("magenta", 33.0)], fps=1)
            (tmp_path / "media/0.mp4").unlink()
        index(
            bundle, tmp_path / "library", tmp_path / "media", prune=True, keep_snapshots=3, keep_seconds=0.0
        )
        compare(bundle, Snapshot.open(tmp_path / "library"), 4, exact=False)
    assert len(open_table(tmp_path / "library", "frames").get_fragments()) < 9
    assert verify_library(tmp_path / "library").ok
    rollback(tmp_path / "library")
    assert verify_library(tmp_path / "library").ok
    compare(bundle, Snapshot.open(tmp_path / "library"), 4, exact=False)


def test_a_long_video_goes_to_disk_by_the_memory_it_takes(
    bundle: Bundle, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.library.writer._SPILL_BYTES", 1)
    monkeypatch.setattr("indexer.sink._FLUSH_BYTES", 1)
    index(bundle, tmp_path / "library", media)
    compare(bundle, Snapshot.open(tmp_path / "library"), 4, exact=False)
    # Every segment was a fragment of its own.
    assert len(open_table(tmp_path / "library", "frames").get_fragments()) == 4


def test_many_threads_read_tokens(bundle: Bundle, media: Path, tmp_path: Path) -> None:
    index(bundle, tmp_path / "library", media)
    snapshot = Snapshot.open(tmp_path / "library")
    segments = snapshot.segments(range(snapshot.num_segments))
    pairs = np.array([(segment.row, i) for segment in segments for i in range(len(segment.frame_ids))])
    expected = snapshot.frame_tokens(*pairs.T)
    wrong = []

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(10):
            rows = rng.integers(0, len(expected), 20)
            if not np.array_equal(snapshot.frame_tokens(*pairs[rows].T), expected[rows]):
                wrong.append(seed)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# Damage, and libraries of another version


def test_every_changed_byte_of_tokens_is_noticed(bundle: Bundle, media: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    index(bundle, library, media)
    stored = Snapshot.open(library).frame_tokens([0], [0])[0]
    scale = np.abs(stored).max(axis=1) / 127
    needle = np.rint(stored / scale[:, None]).astype(np.int8).tobytes()
    hits = 0
    for name in read_snapshot_manifest(library, 1).files:
        path = library / name
        data = path.read_bytes()
        if name.startswith("frames.lance/data") and needle in data:
            hits += 1
            at = data.index(needle) + 3
            path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            report = verify_library(library)
            assert any("SHA-256 differs" in problem for s in report.snapshots for problem in s.problems)
            path.write_bytes(data)
    assert hits == 1
    assert verify_library(library).ok


def with_metadata(library: Path, change: dict[bytes, bytes], tables: tuple[str, ...]) -> None:
    """Write tables anew, as a program of another version would have them."""
    for table in tables:
        path = library / f"{table}.lance"
        content = lance.dataset(str(path)).to_table()
        shutil.rmtree(path)
        schema = content.schema
        lance.write_dataset(
            content.cast(schema.with_metadata({**schema.metadata, **change})), str(path), mode="create"
        )


@pytest.mark.parametrize("version", [1, SCHEMA_VERSION + 1])
def test_a_library_of_another_version_is_refused_with_the_remedy(
    bundle: Bundle, media: Path, tmp_path: Path, version: int
) -> None:
    library = tmp_path / "library"
    index(bundle, library, media / "one.mp4")
    with_metadata(library, {b"reelfind.schema_version": str(version).encode()}, ("segments",))
    message = rf"schema version {version}, this program reads {SCHEMA_VERSION}; .*or index into a new folder"
    with pytest.raises(LibraryError, match=message):
        index(bundle, library, media)
    with pytest.raises(LibraryError, match=message):
        Library.open(library)


def test_a_snapshot_of_the_first_version_is_refused_with_the_remedy(
    bundle: Bundle, media: Path, tmp_path: Path
) -> None:
    library = tmp_path / "library"
    index(bundle, library, media / "one.mp4")
    path = library / "snapshots/1/manifest.json"
    body = json.loads(path.read_text())
    del body["checksum"]
    body["format_version"] = 1
    path.write_text(json.dumps({"checksum": _checksum(body), **body}))
    with pytest.raises(
        LibraryError, match=r"format version 1, this program reads 2 to 5: .*index into a new folder"
    ):
        Snapshot.open(library)


# The commands


def reelfind(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def test_the_commands_take_and_show_the_layout(bundle: Bundle, media: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    run = ("index", media / "two.mp4", "--library", library, "--bundle", bundle.folder, "--workers", 0)
    assert reelfind(*run, "--tokens", "float32", "--tokens-per-frame", 2).exit_code == 0
    refused = reelfind(*run, "--tokens", "int8")
    assert refused.exit_code == 2
    assert "--tokens is int8" in refused.stderr
    assert reelfind(*run, "--tokens", "int4").exit_code == 2
    assert reelfind(*run, "--tokens-per-frame", 0).exit_code == 2
    assert reelfind(*run).exit_code == 0
    info = json.loads(reelfind("library", "info", "--library", library, "--json").stdout)
    assert info["tokens"] == {"stored": "float32", "per_frame": 2, "dim": 3}
    assert "2 × 3 a frame, float32" in reelfind("library", "info", "--library", library).stdout
