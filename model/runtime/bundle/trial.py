"""Tries a bundle in a process with limits before it is opened: once for each bundle and user.

A tokenizer or a graph can be made to end the process that opens it, or to take all memory or time. A bundle
that reports an ordinary error is left to the reader, which raises the same one. Whether a graph is harmless
for every input cannot be told: the trial runs it on a few.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from model.runtime.bundle.files import EXPORT_AGAIN, default_bundle_path
from model.runtime.bundle.graphs import GRAPHS
from model.runtime.bundle.manifest import MANIFEST_NAME, BundleManifest
from model.runtime.errors import BundleError
from model.runtime.limited import ChildEndedError, Limits, answer, ask_child, limit_this_process
from model.runtime.remembered import recall, remember

if TYPE_CHECKING:
    from model.runtime.bundle.reader import Bundle

_KIND = "bundles"
#: Those that this process has tried: where nothing can be remembered, one trial is enough too.
_passed: set[str] = set()
_MEMORY = 2 << 30
_SECONDS = 60
_BYTES_PER_SECOND = 10_000_000
#: How libraries say that memory ran out.
_OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "Failed to allocate", "out of memory", "MemoryError")
#: Texts as people type them, and what patterns and replacements may blow up on.
_TEXTS = (
    "a",
    "a dog runs along the beach",
    "a" * 200,
    "x" * 200 + "y",
    "1 2 3 " * 40,
    "früher 映画 \u200d👩‍👧",
    "." * 200,
)


def remember_tried(checksum: str) -> None:
    """Remember that a bundle need not be tried, such as one that this program has just written."""
    remember(_KIND, checksum)


def try_bundle(folder: Path, manifest: BundleManifest, checksum: str, limits: Limits | None = None) -> None:
    """Try a bundle whose files are as its manifest says, unless that was done before.

    Args:
        folder: the bundle's folder.
        manifest: its manifest.
        checksum: the SHA-256 of `bundle.json`.
        limits: what the trial may use; None: what a bundle of its size may need.

    Raises:
        BundleError: the bundle ended the process that tried it, or used up its memory or time.
    """
    if checksum in _passed or checksum == _checksum_of_ours() or recall(_KIND, checksum) is not None:
        return
    size = sum(record.memory_bytes for record in manifest.files.values())
    limits = limits or Limits(_MEMORY + 4 * size, _SECONDS + size // _BYTES_PER_SECOND)
    try:
        problems = ask_child(__spec__.name, [str(folder)], limits)
    except ChildEndedError as error:
        raise BundleError(f"{folder} ended the process that tried it ({error}): {_REMEDY}") from error
    for problem in problems:
        if any(words in problem for words in _OUT_OF_MEMORY):
            raise BundleError(f"{folder} takes more memory than a bundle may ({problem}): {_REMEDY}")
    _passed.add(checksum)
    if not problems:
        remember(_KIND, checksum)


_REMEDY = f"do not use it if it is not from somebody you trust; else {EXPORT_AGAIN}"


@cache
def _checksum_of_ours() -> str:
    """The checksum of the bundle that is installed with the package."""
    try:
        return hashlib.sha256((default_bundle_path() / MANIFEST_NAME).read_bytes()).hexdigest()
    except OSError:
        return ""


def _problems(folder: Path) -> list[str]:
    """Open and run each part of a bundle, and return the ordinary errors."""
    from model.runtime.bundle.reader import Bundle

    problems: list[str] = []

    def attempt(step: Callable[[], object]) -> None:
        try:
            step()
        except (BundleError, ValueError, MemoryError) as error:
            problems.append(f"{type(error).__name__}: {error}")

    bundle: Bundle | None = None

    def open_bundle() -> None:
        nonlocal bundle
        bundle = Bundle.open(folder, threads=1, trial=False)

    attempt(open_bundle)
    if bundle is not None:
        for step in _steps(bundle):
            attempt(step)
    return problems


def _steps(bundle: Bundle) -> list[Callable[[], object]]:
    """What opens and runs each graph, independently of the others."""
    manifest = bundle.manifest
    count, dim, size = manifest.frames_per_segment, manifest.embedding_dim, manifest.image.size
    tokens = manifest.tokens

    def frames() -> None:
        bundle.encode_frames(np.zeros((2, size, size, 3), np.uint8), tokens=tokens is not None)

    def segments() -> None:
        embedding = np.full((2, count, dim), dim**-0.5, np.float32)
        bundle.encode_segments(embedding, np.ones((2, count), np.bool_))

    def videos() -> None:
        shown = np.zeros((2, count, size, size, 3), np.uint8)
        bundle.encode_videos(shown, np.ones((2, count), np.bool_))

    def match() -> None:
        text = bundle.encode_text(["a", "a dog runs"], tokens=True)
        if tokens is not None:
            shape = (2, tokens.tokens_per_frame, tokens.hidden_dim)
            bundle.match(text, np.array([0, 1]), np.zeros(shape, np.float32))

    def answer_questions() -> None:
        text = bundle.encode_text(["a", "a dog runs"], tokens=True)
        if tokens is not None:
            shape = (2, manifest.num_salient_frames, tokens.tokens_per_frame, tokens.hidden_dim)
            bundle.answer(text, np.array([0, 1]), np.zeros(shape, np.float32))

    def find_moments() -> None:
        text = bundle.encode_text(["a", "a dog runs"])
        bundle.moments(text.embedding, np.full((2, 40, dim), dim**-0.5, np.float32))

    heads = {"match": match, "answers": answer_questions, "moments": find_moments}
    steps: list[Callable[[], object]] = [
        partial(bundle._session, name) for name in GRAPHS if name in manifest.files
    ]
    steps += [videos] if manifest.has_video_encoder else [frames, segments]
    steps.append(lambda: bundle.encode_text(_TEXTS, tokens=tokens is not None))
    steps += [partial(bundle.text_reader.read, text, 8) for text in _TEXTS]
    return steps + [step for capability, step in heads.items() if capability in bundle.capabilities]


if __name__ == "__main__":
    answer(_problems(Path(limit_this_process(sys.argv[1:])[0])))
