"""Reads a bundle and runs its graphs. Shapes: B batch or pairs, N frames, P tokens a frame, P' as many or
fewer, L text tokens, H width of frame tokens, T of text tokens, D joint space, S salience, n salient frames,
A answers, F frames of any span of a video.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.runtime.bundle.answers import Answers, check_questions, read_answers, run_answer_head
from model.runtime.bundle.encodings import (
    FrameEncoding,
    SegmentEncoding,
    TextEncoding,
    check_pairs,
    checked_mask,
    stack_texts,
    text_lengths,
)
from model.runtime.bundle.files import EXPORT_AGAIN, FileState, file_state, read_bundle_manifest, verify_file
from model.runtime.bundle.graphs import (
    ANSWER_HEAD,
    FRAME_ENCODER,
    MATCHER,
    MOMENT_HEAD,
    REFERENCE_IMAGES,
    REFERENCE_TEXTS,
    SEGMENT_ENCODER,
    TEXT_ENCODER,
    TEXT_TOKENS,
    VIDEO_ENCODER,
)
from model.runtime.bundle.hubness import HubnessCorrection
from model.runtime.bundle.manifest import (
    MANIFEST_NAME,
    BundleManifest,
    TokenSizes,
    parse_manifest,
)
from model.runtime.bundle.moments import MomentLogits, check_moments, run_moment_head
from model.runtime.bundle.packing import unpack
from model.runtime.bundle.pinned import why_not_pinned
from model.runtime.bundle.references import ReferenceImages, read_references
from model.runtime.bundle.running import run_matcher, run_parts
from model.runtime.bundle.self_check import check_graphs
from model.runtime.bundle.sessions import Provider, Rows, Session, check_provider, open_session
from model.runtime.bundle.text_calls import CALL_TOKENS, calls_by_length
from model.runtime.bundle.text_independence import encodes_texts_apart
from model.runtime.bundle.trial import try_bundle
from model.runtime.errors import BundleError
from model.runtime.preprocessing import TextTokenizer, TokenBatch
from model.runtime.text_reading import TextReader

# Graphs of many short operators: to hand parts of those to other threads takes longer than they do. They run
# in the thread that calls them, and other searches have the other cores.
_SHORT = frozenset({SEGMENT_ENCODER, MOMENT_HEAD})
# How many rows the products of a graph have: a text's few tokens, or a frame's many patches.
_PRODUCTS: dict[str, Rows] = {TEXT_ENCODER: "few rows", FRAME_ENCODER: "many rows"}


class Bundle:
    """An exported model, open. Its methods may be called from any thread.

    Graphs are opened when they are first used: a process that only encodes text holds no frame encoder.
    """

    def __init__(
        self,
        folder: Path,
        manifest: BundleManifest,
        checksum: str,
        states: dict[str, FileState],
        provider: Provider,
        threads: int | None,
        max_batch: int,
        max_pairs: int,
        cache_dir: Path | None,
        *,
        pinned: bool,
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self.checksum = checksum
        self.provider: Provider = provider
        self.threads = threads
        self.max_batch = max_batch
        self.max_pairs = max_pairs
        self.pinned = pinned
        self._cache_dir = cache_dir
        self._states = states
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        try:
            self.tokenizer = TextTokenizer.from_file(
                folder / manifest.text.tokenizer,
                manifest.text.context_length,
                manifest.text.unicode_form or "NFKC",
            )
        except ValueError as error:
            raise BundleError(f"{error}; export the bundle again") from error
        self.text_reader = TextReader(self.tokenizer)
        #: the A answers that `answer` chooses from; empty without the capability "answers"
        self.vocabulary = read_answers(folder) if "answers" in manifest.capabilities else ()
        #: what a search subtracts from similarities; None: nothing
        self.hubness_correction = _hubness_correction(folder, manifest)
        #: images that the calibration compares queries with; None: it does not
        self.reference_images = (
            ReferenceImages.read(folder, manifest.embedding_dim)
            if REFERENCE_IMAGES in manifest.files
            else None
        )

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        provider: Provider = "cpu",
        threads: int | None = None,
        max_batch: int = 32,
        max_pairs: int = 64,
        cache_dir: str | Path | None = None,
        trial: bool = True,
        pinned: bool = False,
    ) -> Bundle:
        """Verify a bundle and open it.

        Checks the SHA-256 of every file. Tries a bundle that this user has not opened before in a process
        with limits. Opens the smallest graph at once, which proves that the provider works; the others are
        opened when they are first used.

        Args:
            folder: where `bundle.json` lies.
            provider: where the graphs must run; there is no silent fallback to the CPU.
            threads: threads of one operator; None leaves it to ONNX Runtime, but for the segment encoder and
                the moment head, which have one.
            max_batch: frames, segments or texts run at once, at most; bounds the memory.
            max_pairs: pairs of a text and a frame that the matcher runs at once, at most.
            cache_dir: where TensorRT caches the engines it builds, which takes minutes each; None: no cache.
            trial: whether to try it first, see `model.runtime.bundle.trial`.
            pinned: whether a GPU copies frames, and what becomes of them, by page-locked memory, see
                `model.runtime.bundle.pinned`; without a GPU it changes nothing.

        Raises:
            BundleError: a file is missing, damaged or of an unknown version, the bundle does harm, or the
                provider is not active.
            ValueError: `threads`, `max_batch` or `max_pairs` is below 1.
        """
        if threads is not None and threads < 1:
            raise ValueError(f"threads is {threads}: it must be at least 1")
        for name, value in (("max_batch", max_batch), ("max_pairs", max_pairs)):
            if value < 1:
                raise ValueError(f"{name} is {value}: it must be at least 1")
        check_provider(provider)
        if pinned and provider != "cpu" and (why := why_not_pinned()) is not None:
            raise BundleError(f"memory cannot be page-locked for the GPU: {why}; leave out --pinned-memory")
        folder = Path(folder).absolute()
        data = read_bundle_manifest(folder)
        manifest = parse_manifest(data, folder / MANIFEST_NAME)
        checksum = hashlib.sha256(data).hexdigest()
        states = {
            name: verify_file(folder / manifest.file_name(name), record)
            for name, record in manifest.files.items()
        }
        if trial:
            try_bundle(folder, manifest, checksum)
        engines = None if cache_dir is None else Path(cache_dir).absolute() / checksum[:16]
        bundle = cls(
            folder,
            manifest,
            checksum,
            states,
            provider,
            threads,
            max_batch,
            max_pairs,
            engines,
            pinned=pinned,
        )
        bundle._session(min(manifest.encoders, key=lambda name: manifest.files[name].memory_bytes))
        return bundle

    def __repr__(self) -> str:
        m = self.manifest
        return f"<Bundle {m.name!r} D={m.embedding_dim} {self.checksum[:12]} on {self.provider}>"

    def encode_frames(self, frames: NDArray[np.uint8], *, tokens: bool = False) -> FrameEncoding:
        """Encode frames that `resize_frames` made square.

        Args:
            frames: uint8, shape [B, size, size, 3], RGB.
            tokens: also compute and return the tokens.

        Raises:
            ValueError: dtype or shape is wrong, or there is no frame.
            BundleError: the bundle reads whole segments, `tokens` is set for a bundle without tokens, the
                graph fails, or its outputs differ from the manifest.
        """
        self._check_reads_single_frames()
        size = self.manifest.image.size
        expected = f"uint8 [B, {size}, {size}, 3] with B ≥ 1"
        if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
            raise ValueError(f"frames are {getattr(frames, 'dtype', type(frames).__name__)}: pass {expected}")
        if frames.ndim != 4 or frames.shape[1:] != (size, size, 3) or len(frames) == 0:
            raise ValueError(
                f"frames have shape {list(frames.shape)}: pass {expected}; resize_frames makes it"
            )
        shapes: dict[str, tuple[int, ...]] = {
            "frame_embedding": (self.manifest.embedding_dim,),
            "frame_salience": (self.manifest.salience_dim or 0,),
        }
        if tokens:
            sizes = self.token_sizes()
            shapes["frame_tokens"] = (sizes.tokens_per_frame, sizes.hidden_dim)
        out = self._run(FRAME_ENCODER, {"frames": frames}, shapes)
        return FrameEncoding(out["frame_embedding"], out["frame_salience"], out.get("frame_tokens"))

    def encode_segments(
        self, frame_embedding: NDArray[np.float32], frame_mask: NDArray[np.bool_] | NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Join the frame embeddings of each segment to one segment embedding.

        Args:
            frame_embedding: float32, shape [B, N, D]; padding frames may hold any finite values.
            frame_mask: bool or 0/1 float, shape [B, N]: which frames are real; at least one of each segment.

        Returns:
            float32, shape [B, D], of unit length.

        Raises:
            ValueError: dtype or shape is wrong, there is no segment, or a segment has no frame or more than
                N.
            BundleError: the bundle reads whole segments, the graph fails, or its outputs differ from the
                manifest.
        """
        self._check_reads_single_frames()
        dim, most = self.manifest.embedding_dim, self.manifest.frames_per_segment
        expected = f"float32 [B, N, {dim}] with B ≥ 1 and 1 ≤ N ≤ {most}"
        shape = np.shape(frame_embedding)
        if getattr(frame_embedding, "dtype", None) != np.float32:
            raise ValueError(f"frame_embedding is {getattr(frame_embedding, 'dtype', '?')}: pass {expected}")
        if len(shape) != 3 or shape[2] != dim or shape[0] == 0 or not 1 <= shape[1] <= most:
            raise ValueError(f"frame_embedding has shape {list(shape)}: pass {expected}")
        if not np.isfinite(frame_embedding).all():
            raise ValueError("frame_embedding holds NaN or infinity: put zeros where there is no frame")
        inputs = {"frame_embedding": frame_embedding, "frame_mask": checked_mask(frame_mask, shape[:2])}
        return self._run(SEGMENT_ENCODER, inputs, {"segment_embedding": (dim,)})["segment_embedding"]

    def encode_videos(
        self, frames: NDArray[np.uint8], frame_mask: NDArray[np.bool_] | NDArray[np.float32]
    ) -> SegmentEncoding:
        """Encode segments by the video encoder, which reads all frames of one at once.

        Args:
            frames: as `resize_frames` made them, uint8, shape [B, N, size, size, 3]; where a segment has
                fewer than N frames, any pixels follow them.
            frame_mask: bool or 0/1 float, shape [B, N]: which frames are real, first in each segment; at
                least one.

        Returns:
            The embeddings, and the salience of the real frames of all segments in order; no tokens.

        Raises:
            ValueError: dtype or shape is wrong, there is no segment, a segment has no frame, or real frames
                follow others.
            BundleError: the bundle has no video encoder, the graph fails, or its outputs differ from the
                manifest.
        """
        m = self.manifest
        if not m.has_video_encoder:
            raise BundleError(f"{self.folder} has no {VIDEO_ENCODER}: use encode_frames and encode_segments")
        shape = (m.frames_per_segment, m.image.size, m.image.size, 3)
        if frames.dtype != np.uint8 or frames.shape[1:] != shape or len(frames) == 0:
            raise ValueError(
                f"frames are {frames.dtype} {list(frames.shape)}: pass uint8 {['B', *shape]} with B ≥ 1"
            )
        mask = checked_mask(frame_mask, frames.shape[:2])
        if (np.diff(mask, axis=1) > 0).any():
            raise ValueError("frame_mask has real frames behind others: put those of each segment first")
        shapes: dict[str, tuple[int, ...]] = {"segment_embedding": (m.embedding_dim,)}
        if m.salience_dim is not None:
            shapes["frame_salience"] = (m.frames_per_segment, m.salience_dim)
        out = run_parts(
            self._session(VIDEO_ENCODER),
            {"frames": frames, "frame_mask": mask},
            shapes,
            max(1, self.max_batch // m.frames_per_segment),
        )
        real = mask > 0
        salience = out.get("frame_salience", np.empty((*mask.shape, 0), np.float32))[real]
        return SegmentEncoding(out["segment_embedding"], salience, None)

    def hubness(self, segment_embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """How near segments are to any text: the mean cosine with the nearest reference texts.

        Args:
            segment_embeddings: float32, shape [B, D], of unit length; or cut, see `cut_embeddings`.

        Returns:
            float32, shape [B].

        Raises:
            ValueError: the shape is wrong.
            BundleError: the bundle has no reference texts.
        """
        if self.hubness_correction is None:
            raise BundleError(
                f"{self.folder} has no reference texts: choose a bundle that was exported with "
                "`--hubness-weight` of `reelfind-model export`"
            )
        return self.hubness_correction.of(segment_embeddings)

    def encode_text(self, texts: Sequence[str], *, tokens: bool = False) -> TextEncoding:
        """Encode texts; long texts are cut to the model's context length.

        Args:
            texts: B strings, each with at least one word.
            tokens: also compute and return the tokens, if there are any: a matcher may read ids alone.

        Raises:
            ValueError: there is no text, or a text is empty or not a string.
            BundleError: `tokens` is set for a bundle without tokens, the graph fails, or its outputs differ
                from the manifest.
        """
        return self.encode_tokens(self.tokenizer(texts), tokens=tokens)

    def encode_tokens(self, batch: TokenBatch, *, tokens: bool = False) -> TextEncoding:
        """Encode texts that `tokenizer` has read.

        Args:
            batch: the token ids of B texts, each with at least one word.
            tokens: see `encode_text`.

        Raises:
            BundleError: see `encode_text`.
        """
        calls = calls_by_length(text_lengths(batch.attention_mask), self.max_batch, CALL_TOKENS)
        if self.provider != "cpu" or len(calls) == 1:
            return self._encode(batch, tokens)
        joined = stack_texts([self._encode(_texts_of(batch, rows), tokens) for rows in calls])
        places = np.argsort(np.concatenate(calls))
        return TextEncoding(
            joined.embedding[places],
            joined.salience[places],
            None if joined.tokens is None else joined.tokens[places],
            batch.attention_mask,
            batch.input_ids,
        )

    def _encode(self, batch: TokenBatch, tokens: bool) -> TextEncoding:
        shapes: dict[str, tuple[int, ...]] = {"text_embedding": (self.manifest.embedding_dim,)}
        if self.manifest.salience_dim is not None:
            shapes["text_salience"] = (self.manifest.salience_dim,)
        if tokens and (width := self.token_sizes().text_hidden_dim) is not None:
            shapes[TEXT_TOKENS] = (batch.input_ids.shape[1], width)
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        out = self._run(TEXT_ENCODER, inputs, shapes)
        return TextEncoding(
            out["text_embedding"],
            out.get("text_salience", np.empty((len(batch.input_ids), 0), np.float32)),
            out.get(TEXT_TOKENS),
            batch.attention_mask,
            batch.input_ids,
        )

    @cached_property
    def encodes_texts_apart(self) -> bool:
        """Whether what a text's encoding is does not depend on the texts that are encoded beside it.

        In whole numbers of 8 bits it does: activations are scaled by the greatest of a call. It is measured
        once, with texts of several lengths.

        Raises:
            BundleError: the text encoder fails.
        """
        return encodes_texts_apart(self)

    @property
    def capabilities(self) -> frozenset[str]:
        """What the bundle can do beyond retrieval.

        "image_query": it reads single pictures, so that one can be a query. "salient_frames": it says how
        well each frame fits a text. "match": it has a matcher. "salience_match": the relevance of salient
        frames re-ranks instead. "answers": it has an answer head. "moments": it has a moment head.
        """
        return self.manifest.capabilities

    def token_sizes(self) -> TokenSizes:
        """Sizes of the encoders' tokens.

        Raises:
            BundleError: the encoders return no tokens.
        """
        if self.manifest.tokens is None:
            raise BundleError(
                f"{self.folder} has no tokens: choose a bundle with a matcher, or encode with tokens=False"
            )
        return self.manifest.tokens

    def match(
        self, text: TextEncoding, text_rows: NDArray[np.int64], frame_tokens: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """How well texts fit frames: logit₁ − logit₀ of each pair, higher is better.

        Args:
            text: texts encoded with `tokens=True`.
            text_rows: int64, shape [B]: each pair's text, by its row in `text`.
            frame_tokens: float32, shape [B, P', H]: each pair's frame; P' < P where tokens were merged.

        Returns:
            float32, shape [B].

        Raises:
            ValueError: dtype or shape is wrong, there is no pair, a row is not in `text`, or `text` has no
                tokens.
            BundleError: the bundle has no matcher, or the graph fails or returns values that are not finite.
        """
        if "match" not in self.capabilities:
            raise BundleError(f"{self.folder} has no {MATCHER}: choose a bundle that was exported with one")
        rows, sizes = np.asarray(text_rows), self.token_sizes()
        check_pairs(text, rows, frame_tokens, sizes.hidden_dim, sizes.tokens_per_frame)
        return run_matcher(self._session(MATCHER), text, rows, frame_tokens, self.max_pairs)

    def answer(
        self,
        text: TextEncoding,
        text_rows: NDArray[np.int64],
        frame_tokens: NDArray[np.float32],
        frame_mask: NDArray[np.bool_] | None = None,
    ) -> Answers:
        """Answer questions about videos from their salient frames (VideoQA, section 4.3 and Table 7 of LGDN).

        Which frames are salient for a question is decided as for a search: by the dot product of the
        question's `text_salience` with each `frame_salience` (SFP, section 3.3).

        Args:
            text: questions encoded with `tokens=True`.
            text_rows: int64, shape [B]: each question, by its row in `text`.
            frame_tokens: float32, shape [B, n, P', H]: its salient frames; P' < P where tokens were merged.
            frame_mask: bool, shape [B, n]: which frames are real; at least one of each row. None: all.

        Raises:
            ValueError: dtype or shape is wrong, there is no question, a row is not in `text`, a question has
                no frame, or `text` has no tokens.
            BundleError: the bundle has no answer head, or the graph fails or returns values that are not
                finite.
        """
        if "answers" not in self.capabilities:
            raise BundleError(
                f"{self.folder} has no {ANSWER_HEAD}: choose a bundle that was exported from a model of "
                "questions, such as one of the recipe msrvtt_qa"
            )
        rows, sizes = np.asarray(text_rows), self.token_sizes()
        all_real = np.ones(np.shape(frame_tokens)[:2], np.float32)
        mask = all_real if frame_mask is None else np.asarray(frame_mask).astype(np.float32)
        check_questions(text, rows, frame_tokens, mask, sizes.hidden_dim, sizes.tokens_per_frame)
        logits = run_answer_head(
            self._session(ANSWER_HEAD), text, rows, frame_tokens, mask, len(self.vocabulary), self.max_pairs
        )
        return Answers(self.vocabulary, logits)

    def moments(
        self,
        text_query: NDArray[np.float32],
        frame_embedding: NDArray[np.float32],
        frame_mask: NDArray[np.bool_] | None = None,
    ) -> MomentLogits:
        """Where in a video a text's moment starts and ends, and which frames are part of no answer.

        `model.runtime.moments` finds spans from the logits. The manifest's `moments.every_seconds` says
        how far apart the frames of training were; other intervals near it work too.

        Args:
            text_query: text embeddings, float32, shape [B, D].
            frame_embedding: embeddings of consecutive frames, float32, shape [B, F, D], of any number F;
                padding frames may hold any finite values.
            frame_mask: bool, shape [B, F]: which frames are real; at least one of each row. None: all.

        Raises:
            ValueError: dtype or shape is wrong, there is no row, or a row has no frame.
            BundleError: the bundle has no moment head, or the graph fails or returns values that are not
                finite.
        """
        if "moments" not in self.capabilities:
            raise BundleError(
                f"{self.folder} has no {MOMENT_HEAD}: `reelfind-model moment-head` adds one, or "
                "choose a bundle that has one"
            )
        all_real = np.ones(np.shape(frame_embedding)[:2], np.bool_)
        mask = all_real if frame_mask is None else np.asarray(frame_mask)
        check_moments(text_query, frame_embedding, mask, self.manifest.embedding_dim)
        session = self._session(MOMENT_HEAD)
        return run_moment_head(session, text_query, frame_embedding, mask > 0, self.max_batch)

    def check(self) -> None:
        """Open every graph and run each once.

        Raises:
            BundleError: a graph cannot be opened or run, or its outputs differ from the manifest.
        """
        check_graphs(self)

    def _check_reads_single_frames(self) -> None:
        if self.manifest.has_video_encoder:
            raise BundleError(
                f"{self.folder} reads the frames of a whole segment at once ({VIDEO_ENCODER}), and no single "
                f"ones: choose a bundle with a {FRAME_ENCODER}"
            )

    def read_graph(self, graph: str) -> bytes:
        """A graph as a program that runs ONNX reads it, unpacked.

        Raises:
            BundleError: its file cannot be read, or changed while the bundle was open.
        """
        path = self._unchanged(graph)
        unpacked = self._unpacked(path, graph)
        try:
            return path.read_bytes() if unpacked is None else unpacked
        except OSError as error:
            raise BundleError(f"{path} cannot be read ({error.strerror}): check its permissions") from error

    def _unchanged(self, graph: str) -> Path:
        """The file of a graph, whose checksum was verified when the bundle was opened."""
        path = self.folder / self.manifest.file_name(graph)
        if not path.is_file() or file_state(path) != self._states[graph]:
            raise BundleError(f"{path} changed while the bundle was open: restart the program")
        return path

    def _unpacked(self, path: Path, graph: str) -> bytes | None:
        """The content of a packed file; None: the file is the graph."""
        size = self.manifest.files[graph].unpacked_bytes
        return None if size is None else unpack(path, size)

    def _session(self, graph: str) -> Session:
        session = self._sessions.get(graph)
        if session is not None:
            return session
        with self._lock:
            if graph not in self._sessions:
                path = self._unchanged(graph)
                self._sessions[graph] = open_session(
                    path,
                    self.manifest.graph_spec(graph),
                    self.manifest.dims() | ({"A": len(self.vocabulary)} if self.vocabulary else {}),
                    self.provider,
                    threads=self.threads or (1 if graph in _SHORT else None),
                    cache_dir=self._cache_dir,
                    integer_products=_PRODUCTS.get(graph),
                    pinned=self.pinned,
                    unpacked=self._unpacked(path, graph),
                )
            return self._sessions[graph]

    def _run(
        self, graph: str, inputs: dict[str, NDArray[Any]], shapes: dict[str, tuple[int, ...]]
    ) -> dict[str, NDArray[np.float32]]:
        return run_parts(self._session(graph), inputs, shapes, self.max_batch)


def _texts_of(batch: TokenBatch, rows: NDArray[np.int64]) -> TokenBatch:
    """Some texts of a batch, cut to the longest of them."""
    longest = int(text_lengths(batch.attention_mask[rows]).max())
    return TokenBatch(batch.input_ids[rows, :longest], batch.attention_mask[rows, :longest])


def _hubness_correction(folder: Path, manifest: BundleManifest) -> HubnessCorrection | None:
    if manifest.hubness is None:
        return None
    references = read_references(folder / REFERENCE_TEXTS, manifest.embedding_dim)
    try:
        return HubnessCorrection(manifest.hubness.weight, manifest.hubness.neighbours, references)
    except ValueError as error:
        raise BundleError(f"{folder}: {error}; {EXPORT_AGAIN}") from error
