"""Makes features of videos with the frame encoder of a bundle: a vector for every so many seconds.

The folder gets `NAME.npz` for each video, with `features` float32 [M, F], `duration_seconds` and
`video_bytes`, and `features.json`, which says how they were made. Shapes: M vectors, F features.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.arrays import Array
from model.data.datasets.files import VIDEO_EXTENSIONS, MediaFolder
from model.data.features.base import KEY
from model.data.features.files import DURATION_KEY, MANIFEST
from model.progress import Progress, Report, silent
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError, OutputError, VideoError
from model.runtime.files import replace_text, replacing
from model.runtime.video import Frame, VideoReader

_VERSION = 1
_BYTES_KEY = "video_bytes"
_FRAMES_A_PASS = 32
# A rest this short, in parts of an interval, comes from rounding: 60.0000001 s have 40 intervals of 1.5 s.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class FeatureManifest:
    """How the features of a folder were made; `bundle_sha256` is the checksum of `bundle.json`."""

    version: int
    every_seconds: float
    width: int
    bundle: str
    bundle_sha256: str


@dataclass(frozen=True)
class MadeFeatures:
    """What `make_features` did: videos written, videos that were there, and the errors of the others."""

    written: int
    kept: int
    failed: tuple[str, ...]


def interval_middles(duration_seconds: float, every_seconds: float) -> NDArray[np.float64]:
    """The middle of each interval of a video; the last one may be shorter. → float64 [M], M at least 1.

    Raises:
        ValueError: a length is not finite, the duration is negative, or the interval is not above 0.
    """
    if not (0 <= duration_seconds < math.inf and 0 < every_seconds < math.inf):
        raise ValueError(
            f"no intervals of {every_seconds} s in {duration_seconds} s: must be 0 or more, above 0"
        )
    count = max(1, math.ceil(duration_seconds / every_seconds - _ROUNDING))
    starts = every_seconds * np.arange(count, dtype=np.float64)
    ends = np.minimum(starts + every_seconds, duration_seconds)
    middles: NDArray[np.float64] = (starts + np.maximum(ends, starts)) / 2
    return middles


def find_videos(path: Path) -> tuple[Path, ...]:
    """The video files in a folder and below, by name, or the one that is named.

    Raises:
        InputError: there is none, or two have one name.
    """
    if path.is_file():
        return (path,)
    if not path.exists():
        raise InputError(f"{path} does not exist: name a folder of videos, or a video")
    folder = MediaFolder(path, VIDEO_EXTENSIONS, "VIDEOS")
    if folder.repeated:
        first, second = folder.repeated[0]
        raise InputError(
            f"{first} and {second} have one name: rename one, or make the features of each folder"
        )
    if not folder.stems:
        raise InputError(
            f"no video in {path} and below: name a folder with {', '.join(VIDEO_EXTENSIONS)} files"
        )
    return tuple(file for _, file in sorted(folder.stems.items()))


def make_features(
    videos: Sequence[Path],
    bundle: Bundle,
    output: Path,
    every_seconds: float = 1.5,
    report: Report = silent,
    threads: int | None = None,
) -> MadeFeatures:
    """Encode the frame in the middle of each interval of some videos, and write the vectors.

    Resumes after an interruption: a video is done again only if its file has another size now. A video that
    cannot be read is reported and left out. Memory does not grow with a video's length.

    Args:
        videos: files with different names.
        bundle: encodes the frames.
        output: becomes the folder of the features.
        every_seconds: the seconds that one vector stands for.
        report: told of progress and of videos that cannot be read.
        threads: threads of the decoder; None lets it choose.

    Raises:
        InputError: `every_seconds` is not above 0, or the folder holds other features or other files.
        BundleError: the bundle fails for every video alike.
    """
    if not 0 < every_seconds < math.inf:
        raise InputError(f"every is {every_seconds}: it must be a number of seconds above 0", "every")
    width = bundle.manifest.embedding_dim
    _prepare(output, FeatureManifest(_VERSION, every_seconds, width, bundle.manifest.name, bundle.checksum))
    written, kept, failed = 0, 0, list[str]()
    progress = Progress("videos", len(videos), report)
    for video in videos:
        path = output / f"{video.stem}.npz"
        if _is_done(path, video):
            kept += 1
        else:
            try:
                _make(video, bundle, path, every_seconds, report, threads)
                written += 1
            except (VideoError, OutputError, OSError) as error:
                if isinstance(error, OSError) and not _is_of(error, video):
                    raise InputError(f"output {output} cannot be written: {error}", "output") from error
                message = f"{video}: {error}" if isinstance(error, OutputError) else str(error)
                failed.append(message)
                report(f"{message}; left out")
        progress.step()
    return MadeFeatures(written, kept, tuple(failed))


def _make(video: Path, bundle: Bundle, path: Path, every: float, report: Report, threads: int | None) -> None:
    size = video.stat().st_size
    with VideoReader(video, threads=threads) as reader:
        duration = reader.info.duration_seconds
        times = interval_middles(duration, every)
        features = _encode(reader.get_frames_played_at(times.tolist()), bundle)
        damage = reader.damage
    if not len(features):
        raise VideoError(f"{video} has no frame that can be read", "corrupt")
    if len(features) < len(times):
        duration = len(features) * every
        damage = damage or f"no frame after {duration:g} s can be read"
    if damage:
        report(f"{video}: {damage}; what can be read counts")
    values: dict[str, Any] = {KEY: features, DURATION_KEY: np.float64(duration), _BYTES_KEY: np.int64(size)}
    with replacing(path) as temporary:
        np.savez(temporary, **values)


def _encode(frames: Iterator[Frame], bundle: Bundle) -> Array:
    """The embedding of each frame; one that is shown several times in a row is encoded once. → [M, F]"""
    resizing = bundle.manifest.image.resizing
    parts: list[Array] = []
    rows: list[int] = []
    distinct = -1
    last: float | None = None

    def new_frames() -> Iterator[NDArray[np.uint8]]:
        nonlocal distinct, last
        for frame in frames:
            if frame.pts_seconds != last:
                distinct, last = distinct + 1, frame.pts_seconds
                rows.append(distinct)
                yield resizing.frames(frame.data[None])[0]
            else:
                rows.append(distinct)

    resized = new_frames()
    while batch := list(itertools.islice(resized, _FRAMES_A_PASS)):
        parts.append(bundle.encode_frames(np.stack(batch)).embedding)
    if not parts:
        return np.zeros((0, bundle.manifest.embedding_dim), np.float32)
    joined: Array = np.concatenate(parts)[rows]
    return joined


def _prepare(output: Path, manifest: FeatureManifest) -> None:
    """Make the folder and its manifest, or check that it has this manifest.

    Raises:
        InputError: it has another one, holds other files, or cannot be written.
    """
    path = output / MANIFEST
    wanted = asdict(manifest)
    try:
        if path.is_file():
            stored = json.loads(path.read_bytes())
            found = stored if isinstance(stored, dict) else {}
            changed = [
                f"{key} {found.get(key)!r} instead of {value!r}"
                for key, value in wanted.items()
                if found.get(key) != value
            ]
            if changed:
                raise InputError(
                    f"output {output} has features with {', '.join(changed)}: choose another folder", "output"
                )
            return
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise InputError(f"output {output} holds other files: choose a new or an empty folder", "output")
        output.mkdir(parents=True, exist_ok=True)
        replace_text(path, json.dumps(wanted, indent=2) + "\n")
    except json.JSONDecodeError as error:
        raise InputError(
            f"output {output} has a damaged {path.name} ({error}): choose another folder", "output"
        ) from error
    except OSError as error:
        raise InputError(f"output {output} cannot be written: {error}", "output") from error


def _is_done(path: Path, video: Path) -> bool:
    """Whether the features are there, of the video's file as it is now."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return bool(int(stored[_BYTES_KEY]) == video.stat().st_size and len(stored[KEY]) > 0)
    # NumPy and zipfile raise almost anything for damaged files, which are made again.
    except Exception:
        return False


def _is_of(error: OSError, video: Path) -> bool:
    """Whether an error is about reading this video."""
    return error.filename is not None and Path(error.filename) == video
