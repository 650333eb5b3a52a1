"""Runs a bundle's text encoder for all searches: texts that wait at the same time share its calls.

A search that finds the encoder idle encodes its text at once, in its own thread: nobody waits for others to
come. Texts that come while the encoder works are encoded together by its next call: `_LEAST_ROOM` of them, or
as many as take `_CALL_SECONDS`. A text's encoding is that of the text alone, but for rounding: texts are
padded, and the graph leaves padding out. Where a bundle's encodings depend on the texts beside them (see
`Bundle.encodes_texts_apart`), each search has calls of its own.

Shapes: B texts, L text tokens.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from model.runtime.bundle import Bundle, TextEncoding
from model.runtime.bundle.encodings import stack_texts, text_lengths
from model.runtime.cores import Cores
from model.runtime.preprocessing import TokenBatch
from service.errors import OverloadedError
from service.search.shared_calls import CallObserver, CallTerms, Job, Piece, SharedCalls, first_stage_terms

#: A call is no larger than what takes about this long: so long do texts that come wait for it, at most.
_CALL_SECONDS = 0.05
#: But so many texts share a call in any case: calls of fewer make the queue of a busy machine longer.
_LEAST_ROOM = 8
# Weight of one call in the running estimate of the time per text.
_LEARNING = 0.2
# Texts of up to so many tokens share calls. Longer ones share them with those of up to twice their length:
# all texts of a call take as long as its longest.
_SHORT = 16


class TextEncoder(Protocol):
    """What encodes texts: a bundle, or a bundle's queue on the terms of one search."""

    def encode_text(self, texts: Sequence[str], *, tokens: bool = False) -> TextEncoding:
        """See `Bundle.encode_text`."""
        ...


@dataclass(frozen=True)
class _Texts:
    """Tokenised texts [B, L], whether their tokens are wanted, and the encodings that there are, in order."""

    batch: TokenBatch
    tokens: bool
    encodings: list[TextEncoding] = field(default_factory=list)


class TextQueue(SharedCalls[_Texts]):
    """Batches the texts of all searches for the text encoder of one bundle.

    Every method may be called from any thread.
    """

    def __init__(
        self,
        bundle: Bundle,
        observe: CallObserver | None = None,
        *,
        is_shared: bool = True,
        cores: Cores | None = None,
    ) -> None:
        """`observe` is told the texts and the searches of each call; without `is_shared`, none is shared.

        `cores` are those that searches take turns on.
        """
        super().__init__("reelfind-texts", cores)
        self.bundle = bundle
        self.observe = observe
        self._is_shared = is_shared
        self._text_seconds: float | None = None

    def on_terms(self, terms: CallTerms) -> TextEncoder:
        """The encoder as one search uses it."""
        return _OnTerms(self, terms)

    def encode(
        self, texts: Sequence[str], *, tokens: bool = False, terms: CallTerms | None = None
    ) -> TextEncoding:
        """Encode texts, as `Bundle.encode_text` does. Waits for the texts that came before.

        Args:
            texts: at least one, each with at least one word.
            tokens: also compute the tokens.
            terms: whose turns it takes, and until when it may wait. A deadline that has passed already does
                not count: the first stage of a search always answers.

        Raises:
            ValueError: there is no text, or a text is empty or not a string.
            OverloadedError: the deadline passed while the texts waited, or nobody waits for them any more.
            NotReadyError: the queue was closed.
            BundleError: the text encoder fails on these texts.
        """
        # Here, since tokenisers fail on single texts.
        batch = self.bundle.tokenizer(texts)
        if not self._is_shared:
            return self.bundle.encode_tokens(batch, tokens=tokens)
        longest = max(_SHORT, batch.input_ids.shape[1])
        work = _Texts(batch, tokens)
        job = Job(work, len(texts), first_stage_terms(terms), key=(tokens, (longest - 1).bit_length()))
        self._run(job, alone=job.size <= self._room())
        if job.completed < job.size:
            raise OverloadedError(
                "The deadline of this search passed while its text waited for the encoder. Try again later, "
                "or raise deadline_ms."
            )
        return work.encodings[0] if len(work.encodings) == 1 else stack_texts(work.encodings)

    def _room(self) -> int:
        if self._text_seconds is None:
            return self.bundle.max_batch
        return min(self.bundle.max_batch, max(_LEAST_ROOM, int(_CALL_SECONDS / self._text_seconds)))

    def _call(self, pieces: Sequence[Piece[_Texts]]) -> None:
        if len(pieces) > 1 and not self.bundle.encodes_texts_apart:
            for piece in pieces:
                self._call([piece])
            return
        tokenizer = self.bundle.tokenizer
        batch = tokenizer.join([_part(job.work.batch, part) for job, part in pieces])
        count = len(batch.input_ids)
        started = time.perf_counter()
        encoding = self.bundle.encode_tokens(batch, tokens=pieces[0][0].work.tokens)
        self._learn((time.perf_counter() - started) / count)
        if self.observe is not None:
            self.observe(count, len(pieces))
        first = 0
        for job, part in pieces:
            stop = first + part.stop - part.start
            job.work.encodings.append(_rows(encoding, first, stop))
            first = stop

    def _learn(self, text_seconds: float) -> None:
        if self._text_seconds is None:
            self._text_seconds = text_seconds
        self._text_seconds += _LEARNING * (text_seconds - self._text_seconds)


@dataclass(frozen=True)
class _OnTerms:
    queue: TextQueue
    terms: CallTerms

    def encode_text(self, texts: Sequence[str], *, tokens: bool = False) -> TextEncoding:
        return self.queue.encode(texts, tokens=tokens, terms=self.terms)


def _part(batch: TokenBatch, part: slice) -> TokenBatch:
    return TokenBatch(batch.input_ids[part], batch.attention_mask[part])


def _rows(encoding: TextEncoding, start: int, stop: int) -> TextEncoding:
    """Some of the texts, cut to the longest of them, in arrays of their own: so others are not kept too."""
    part = slice(start, stop)
    if part == slice(0, len(encoding.attention_mask)):
        return encoding
    length = int(text_lengths(encoding.attention_mask[part]).max())
    return TextEncoding(
        encoding.embedding[part].copy(),
        encoding.salience[part].copy(),
        None if encoding.tokens is None else encoding.tokens[part, :length].copy(),
        encoding.attention_mask[part, :length].copy(),
        encoding.input_ids[part, :length].copy(),
    )
