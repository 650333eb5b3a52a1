"""Decoded frames on disk: training reads them in every epoch, and decodes each video once.

`<folder>/frame_cache.json` holds the settings. Each video has one file: a line of JSON, then its distinct
candidate frames as JPEGs.
Shapes: N frame slots, C candidates a slot, n distinct frames, s side in pixels.
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from model.arrays import Frames, Rows
from model.data.datasets.decoding import decode_frames, is_photo, part_shares
from model.data.datasets.records import CaptionedVideo
from model.progress import Report, silent
from model.runtime.errors import InputError
from model.runtime.files import replacing

_FILE, _VERSION, _QUALITY = "frame_cache.json", 1, 95


@dataclass(frozen=True)
class CacheSettings:
    """What decides the cached frames. Of an odd number of candidates, one is in the middle of its part."""

    frames: int
    image_size: int
    candidates: int = 5
    quality: int = _QUALITY
    version: int = _VERSION


class FrameCache:
    """Candidate frames of videos: `candidates` in each of `frames` equal parts.

    Args:
        folder: created if it is missing.
        frames: N.
        image_size: s.
        candidates: C, odd.

    Raises:
        InputError: the folder holds a cache of other settings, or something else.
    """

    def __init__(self, folder: Path, frames: int, image_size: int, candidates: int = 5) -> None:
        if candidates < 1 or candidates % 2 == 0:
            raise InputError(f"candidates={candidates} must be odd, so that one is in the middle of its part")
        self.folder = folder
        self.settings = CacheSettings(frames, image_size, candidates)
        path, settings = folder / _FILE, asdict(self.settings)
        if path.is_file():
            stored = _read_settings(path)
            if stored != settings:
                changed = ", ".join(
                    f"{k} {stored.get(k)} instead of {v}" for k, v in settings.items() if stored.get(k) != v
                )
                raise InputError(
                    f"frame cache {folder} has {changed}: set data.frame_cache to another folder"
                )
            return
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"{folder} holds other files: set data.frame_cache to a new or an empty folder")
        folder.mkdir(parents=True, exist_ok=True)
        _write(path, json.dumps(settings).encode())

    def check(self, frames: int, image_size: int) -> None:
        """Check that the cache holds what is asked for.

        Raises:
            InputError: it holds another number of frames, or another size.
        """
        cached = (self.settings.frames, self.settings.image_size)
        if (frames, image_size) != cached:
            raise InputError(
                f"frame cache {self.folder} holds {cached[0]} frames of {cached[1]} pixels, "
                f"not {frames} of {image_size}"
            )

    def path_of(self, item: CaptionedVideo) -> Path:
        """The file of a video; files are spread over 256 folders."""
        key = hashlib.sha256(json.dumps([item.video_id, item.span_seconds]).encode()).hexdigest()[:32]
        return self.folder / key[:2] / f"{key}.frames"

    def has(self, item: CaptionedVideo) -> bool:
        """Whether a video's frames are cached, from the video file as it is now."""
        try:
            with self.path_of(item).open("rb") as file:
                return bool(_head(file.readline())["bytes"] == item.path.stat().st_size)
        except (OSError, ValueError, KeyError):
            return False

    def frames(self, item: CaptionedVideo, rng: np.random.Generator | None) -> Frames:
        """A random candidate of each part, or the middle ones if `rng` is None; equal ones once.

        A video that is not cached is decoded first. Shape [n, s, s, 3], 1 ≤ n ≤ N.

        Raises:
            InputError: a file cannot be read.
        """
        if not self.has(item):
            self.add(item)
        parts, each = self.settings.frames, self.settings.candidates
        choice = np.full(parts, each // 2) if rng is None else rng.integers(0, each, parts)
        return self._read(self.path_of(item), np.arange(parts) * each + choice)

    def add(self, item: CaptionedVideo) -> None:
        """Decode a video and write its candidates.

        Raises:
            InputError: the file cannot be read.
        """
        shares = part_shares(self.settings.frames * self.settings.candidates)
        size = item.path.stat().st_size
        frames, slots = decode_frames(item, shares, self.settings.image_size)
        jpegs = []
        for frame in frames:
            buffer = io.BytesIO()
            # Full colour resolution: frames are small, and models see every pixel.
            Image.fromarray(frame).save(buffer, "JPEG", quality=self.settings.quality, subsampling=0)
            jpegs.append(buffer.getvalue())
        head = {
            "video": item.video_id,
            "bytes": size,
            "slots": slots.tolist(),
            "lengths": [len(jpeg) for jpeg in jpegs],
        }
        path = self.path_of(item)
        path.parent.mkdir(exist_ok=True)
        _write(path, json.dumps(head).encode() + b"\n" + b"".join(jpegs))

    def _read(self, path: Path, candidates: Rows) -> Frames:
        """The distinct frames of some candidates. Shape int64 [N] → [n, s, s, 3].

        Raises:
            InputError: the file is damaged.
        """
        try:
            with path.open("rb") as file:
                line = file.readline()
                head = _head(line)
                starts = np.concatenate([[0], np.cumsum(head["lengths"])]) + len(line)
                out = []
                for number in np.unique(np.array(head["slots"])[candidates]):
                    file.seek(int(starts[number]))
                    frame = Image.open(io.BytesIO(file.read(head["lengths"][number])))
                    out.append(np.asarray(frame.convert("RGB")))
            return np.stack(out)
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise InputError(f"{path} is damaged ({error}): delete it, and it will be made again") from error


def _head(line: bytes) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(line)
    if not isinstance(values, dict):
        raise ValueError("its first line is not an object")
    return values


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        return _head(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}): delete the frame cache's folder") from error


def _write(path: Path, content: bytes) -> None:
    """Write a file whole. Processes and threads that share the cache may write the same one."""
    with replacing(path, shared=True) as temporary:
        temporary.write_bytes(content)


@dataclass(frozen=True)
class Filled:
    """What `fill_cache` did: videos written, videos that were cached already, and errors of the others."""

    written: int
    kept: int
    failed: tuple[str, ...]


def fill_cache(
    cache: FrameCache,
    items: Iterable[CaptionedVideo],
    workers: int = 2,
    report: Report = silent,
) -> Filled:
    """Decode all videos that the cache lacks, in `workers` processes. Resumes after an interruption.

    With fewer than two workers this process decodes. Photos are not cached: their own files are read as fast.
    """
    videos = [item for item in items if not is_photo(item.path)]
    lacking = [item for item in videos if not cache.has(item)]
    kept, failed = len(videos) - len(lacking), list[str]()
    report(f"frame cache {cache.folder}: {kept} videos are cached, {len(lacking)} to decode")
    step = max(1, len(lacking) // 20)
    for done, message in enumerate(_add_all(cache, lacking, min(workers, len(lacking))), 1):
        if message:
            failed.append(message)
        if done % step == 0 or done == len(lacking):
            report(f"frame cache: {done} of {len(lacking)} videos, {len(failed)} failed")
    return Filled(len(lacking) - len(failed), kept, tuple(sorted(failed)))


def _add_all(cache: FrameCache, items: Sequence[CaptionedVideo], workers: int) -> Iterator[str]:
    """Add videos, in any order. → the error of each, or an empty text."""
    if workers < 2:
        yield from (_add(cache, item) for item in items)
        return
    # Spawned, since threads of libraries do not survive a fork.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(_add, cache, item) for item in items]):
            yield future.result()


def _add(cache: FrameCache, item: CaptionedVideo) -> str:
    """Add one video. → its error, or an empty text."""
    try:
        cache.add(item)
    except InputError as error:
        return str(error)
    return ""
