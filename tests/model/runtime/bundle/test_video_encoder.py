"""Bundles with a video encoder: what it returns, short segments, and which bundles are refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from model.runtime.bundle import Bundle, default_bundle_path, write_bundle
from model.runtime.bundle.manifest import MANIFEST_NAME, Moments, SalienceMatch, parse_manifest
from model.runtime.bundle.segments import encode_whole_segments
from model.runtime.errors import BundleError
from tests.model.runtime.bundle.test_damage import change_manifest, replace_file
from tests.support import toy_bundle as toy
from tests.support.command_line import invoke

FRAMES = 16
#: How many frames the segments of one batch have.
COUNTS = (FRAMES, 1, 3, 15, 16)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[bool | Literal["salience"], Path]:
    """A bundle that says nothing of single frames, and one that does."""
    home = tmp_path_factory.mktemp("bundles")
    return {
        True: toy.make_toy_bundle(home / "plain", video=True),
        "salience": toy.make_toy_bundle(home / "salience", video="salience"),
    }


@pytest.fixture
def copy(folders: dict[Any, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(folders[True], tmp_path / "copy"))


def segments_of(counts: tuple[int, ...] = COUNTS) -> list[NDArray[np.uint8]]:
    """Segments of noise whose frames have different colours."""
    frames = toy.random_frames(sum(counts)) // 4
    frames += np.random.default_rng(1).integers(0, 192, (len(frames), 1, 1, 3), dtype=np.uint8)
    return list(np.split(frames, np.cumsum(counts)[:-1]))


def twin(segments: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    return np.concatenate(
        [
            toy.segment_embedding(toy.frame_embedding(frames)[None], np.ones((1, len(frames)), np.bool_))
            for frames in segments
        ]
    )


@pytest.mark.parametrize("kind", [True, "salience"])
@pytest.mark.parametrize(("max_batch", "pad_to"), [(1, None), (32, None), (64, 48)])
def test_segments_are_those_of_their_real_frames(
    folders: dict[Any, Path], kind: Any, max_batch: int, pad_to: int | None
) -> None:
    bundle = Bundle.open(folders[kind], threads=1, max_batch=max_batch)
    segments = segments_of()
    frames = np.concatenate(segments)
    found = encode_whole_segments(bundle, frames, COUNTS, pad_to=pad_to)
    np.testing.assert_allclose(found.embedding, twin(segments), atol=1e-5)
    assert found.tokens is None
    if kind == "salience":
        expected = toy.salience(toy.frame_embedding(frames))
        np.testing.assert_allclose(found.salience, expected, atol=1e-5)
    else:
        assert found.salience.shape == (len(frames), 0)
    # Whatever follows the real frames.
    shown = np.full((len(COUNTS), FRAMES, *frames.shape[1:]), 77, np.uint8)
    mask = np.arange(FRAMES) < np.array(COUNTS)[:, None]
    shown[mask] = frames
    np.testing.assert_allclose(bundle.encode_videos(shown, mask).embedding, found.embedding, atol=1e-6)


def test_a_bundle_by_frames_gives_the_same(tmp_path: Path) -> None:
    bundle = Bundle.open(toy.make_toy_bundle(tmp_path / "frames"), threads=1)
    segments = segments_of()
    frames = np.concatenate(segments)
    found = encode_whole_segments(bundle, frames, COUNTS, tokens=True, pad_to=48)
    np.testing.assert_allclose(found.embedding, twin(segments), atol=1e-5)
    np.testing.assert_allclose(found.salience, toy.salience(toy.frame_embedding(frames)), atol=1e-5)
    assert found.tokens is not None
    np.testing.assert_allclose(found.tokens, toy.frame_tokens(frames), atol=1e-5)


def test_what_the_bundles_can_do(folders: dict[Any, Path]) -> None:
    plain, salience = (Bundle.open(folders[kind], threads=1) for kind in (True, "salience"))
    assert plain.capabilities == frozenset()
    assert salience.capabilities == {"salient_frames"}
    text = plain.encode_text(["red", "a blue one"])
    assert (text.embedding.shape, text.salience.shape) == ((2, toy.DIM), (2, 0))
    np.testing.assert_allclose(text.embedding[0], toy.text_embedding("red"), atol=1e-5)
    assert salience.encode_text(["red"]).salience.shape == (1, 2 * toy.DIM)
    for bundle in (plain, salience):
        bundle.check()
        with pytest.raises(BundleError, match=r"reads the frames of a whole segment.*frame_encoder"):
            bundle.encode_frames(toy.random_frames(1))
        with pytest.raises(BundleError, match="reads the frames of a whole segment"):
            bundle.encode_segments(np.ones((1, 1, toy.DIM), np.float32), np.ones((1, 1), np.bool_))
        with pytest.raises(BundleError, match="has no tokens"):
            encode_whole_segments(bundle, toy.random_frames(1), [1], tokens=True)
    shown = invoke("bundle", "info", folders[True]).stdout
    assert "no salience of single frames: moments are whole segments" in shown
    assert "16 frames of at most 32 seconds, read at once" in shown
    assert "\ncapabilities none besides retrieval\n" in shown


def test_a_moment_head_reads_the_salience(tmp_path: Path) -> None:
    folder = toy.make_toy_bundle(tmp_path / "toy", video="salience", moments="edges")
    bundle = Bundle.open(folder, threads=1)
    assert bundle.capabilities == {"salient_frames", "moments"}
    assert bundle.manifest.embedding_in_salience


@pytest.mark.parametrize(
    ("frames", "mask", "said"),
    [
        ((1, FRAMES, 32, 32, 3), np.zeros((1, FRAMES)), r"frame_mask\[0\] has no frame"),
        ((1, FRAMES, 32, 32, 3), np.arange(FRAMES)[None] > 3, "real frames behind others"),
        ((1, FRAMES, 32, 32, 3), np.ones((1, 3)), r"frame_mask has shape \[1, 3\]: pass \[1, 16\]"),
        ((1, 3, 32, 32, 3), np.ones((1, 3)), r"frames are uint8 \[1, 3, 32, 32, 3\]: pass uint8 \['B', 16"),
        ((0, FRAMES, 32, 32, 3), np.ones((0, FRAMES)), "with B ≥ 1"),
    ],
)
def test_wrong_arguments(
    folders: dict[Any, Path], frames: tuple[int, ...], mask: NDArray[Any], said: str
) -> None:
    bundle = Bundle.open(folders[True], threads=1)
    with pytest.raises(ValueError, match=said):
        bundle.encode_videos(np.zeros(frames, np.uint8), mask.astype(np.float32))


def test_frame_by_frame_bundles_have_none(tmp_path: Path) -> None:
    bundle = Bundle.open(toy.make_toy_bundle(tmp_path / "frames"), threads=1)
    with pytest.raises(BundleError, match=r"has no video_encoder\.onnx: use encode_frames"):
        bundle.encode_videos(np.zeros((1, FRAMES, 32, 32, 3), np.uint8), np.ones((1, FRAMES), np.bool_))


def written(folder: Path, graphs: dict[str, bytes], **changes: Any) -> None:
    tokenizer = folder.with_name("words.json")
    toy.toy_tokenizer().save(str(tokenizer))
    write_bundle(folder, graphs, toy.describe(**{"tokens": False, **changes}), tokenizer)


NO_SALIENCE: dict[str, Any] = {"salience_dim": None, "salience_strategy": None}
BY_FRAMES = toy.toy_graphs(tokens=False)
VIDEO = toy.toy_video_graphs(salience=False)


@pytest.mark.parametrize(
    ("graphs", "changes", "said"),
    [
        (
            {**VIDEO, "frame_encoder.onnx": BY_FRAMES["frame_encoder.onnx"]},
            NO_SALIENCE,
            r"takes the place of .*, but files lists 'frame_encoder\.onnx' too: leave out the one or",
        ),
        (
            {**VIDEO, "segment_encoder.onnx": BY_FRAMES["segment_encoder.onnx"]},
            NO_SALIENCE,
            r"lists 'segment_encoder\.onnx' too",
        ),
        (
            {name: BY_FRAMES[name] for name in ("frame_encoder.onnx", "text_encoder.onnx")},
            {},
            r"the graph 'segment_encoder\.onnx' is missing",
        ),
        (
            {"video_encoder.onnx": VIDEO["video_encoder.onnx"]},
            NO_SALIENCE,
            r"the graph 'text_encoder\.onnx' is missing",
        ),
        (BY_FRAMES, NO_SALIENCE, "salience_dim is null, but the frame encoder returns frame_salience"),
        (VIDEO, {"salience_dim": None}, "salience_dim and salience_strategy must both be null, or neither"),
        (VIDEO, {}, r"text_encoder\.onnx has the outputs|video_encoder\.onnx has the outputs"),
        (
            {**VIDEO, "video_encoder.onnx": toy.toy_video_encoder(salience=False, frames=8)},
            NO_SALIENCE,
            r"video_encoder\.onnx: input 'frames' is tensor\(uint8\) \['B', 8, .*instead of .*16",
        ),
        (
            VIDEO,
            {**NO_SALIENCE, "salience_match": SalienceMatch(scale=1.0, bias=0.0)},
            "salience_match reads the salience of frames, of which 'video_encoder.onnx' returns none",
        ),
        (
            {**VIDEO, "moment_head.onnx": toy.toy_moment_head()},
            {**NO_SALIENCE, "moments": Moments(every_seconds=1.0)},
            "moments reads the salience of frames",
        ),
        (
            VIDEO,
            {**NO_SALIENCE, "tokens": True},
            "'video_encoder.onnx' returns no tokens: .* must be null",
        ),
        (
            {**VIDEO, "matcher.onnx": toy.toy_matcher()},
            NO_SALIENCE,
            r"matcher\.onnx reads frame_tokens, but the encoders return no tokens",
        ),
        (
            {**VIDEO, "video_encoder.onnx": toy.toy_video_encoder(salience=False, masked=False)},
            NO_SALIENCE,
            r"video_encoder\.onnx lets frames count that frame_mask leaves out",
        ),
    ],
)
def test_wrong_bundles_are_not_written(
    tmp_path: Path, graphs: dict[str, bytes], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(BundleError, match=said):
        written(tmp_path / "bundle", graphs, **changes)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content.update(salience_dim=0), "salience_dim: Input should be greater than 0"),
        (lambda content: content.pop("salience_dim"), "salience_dim: Field required"),
        (lambda content: content.update(salience_dim=16, salience_strategy="simdot"), "has the outputs"),
    ],
)
def test_changed_manifests_are_refused(
    copy: Path, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    change_manifest(copy, change)
    with pytest.raises(BundleError, match=said):
        Bundle.open(copy, threads=1).check()


def test_a_stranger_beside_the_video_encoder_is_refused(copy: Path) -> None:
    replace_file(copy, "frame_encoder.onnx", BY_FRAMES["frame_encoder.onnx"])
    with pytest.raises(BundleError, match="takes the place of"):
        Bundle.open(copy)


@pytest.mark.parametrize("video", [False, True])
def test_a_manifest_is_written_as_it_was_read(folders: dict[Any, Path], tmp_path: Path, video: bool) -> None:
    """Bundles of earlier versions byte for byte: nothing new stands in them."""
    folder = folders[True] if video else default_bundle_path()
    data = (folder / MANIFEST_NAME).read_bytes()
    manifest = parse_manifest(data, folder / MANIFEST_NAME)
    assert manifest.to_json() == data
    assert manifest.has_video_encoder == video
