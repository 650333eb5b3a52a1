"""Page tokens: where the next page of an answer starts, for clients to send back.

A token says of which snapshot and for which question it is, and is signed with a key that follows from the
snapshot's manifest: it survives a restart, and fits no other library. What it says is checked against the
question that comes with it: a token opens nothing that the question does not.
"""

import base64
import binascii
import hashlib
import hmac
import struct
from dataclasses import dataclass

from indexer.library.manifest import SnapshotManifest, to_json
from model.runtime.messages import shorten
from service.errors import QueryError

_SIGNATURE_BYTES = 16
#: Version, snapshot, question, first block, block, and the numbers.
_LAYOUT = struct.Struct(">B16s16s8s8sQQi")
_VERSION = 1
_MOST_CHARACTERS = 200


@dataclass(frozen=True)
class PageToken:
    """Where a page starts.

    Attributes:
        snapshot: identifies the snapshot, see `snapshot_mark`.
        question: identifies what was asked, see `question_mark`.
        block: see `Position`; of a list, 0.
        offset: see `Position`; of a list, the number of videos before the page.
        first: identifies the ranking by its first block, see `Blocks.digest`; of a list, zeros.
        current: identifies the block that the page starts in; zeros where it starts with that.
        num_reranked: how many candidates were re-ranked; -1: the first stage answered.
    """

    snapshot: bytes
    question: bytes
    block: int
    offset: int
    first: bytes = bytes(8)
    current: bytes = bytes(8)
    num_reranked: int = -1


def snapshot_mark(manifest: SnapshotManifest) -> bytes:
    """Identifies a snapshot of a library, and tells nothing of it, 16 bytes."""
    return hashlib.sha256(b"mark" + to_json(manifest).encode()).digest()[:16]


def token_key(manifest: SnapshotManifest) -> bytes:
    """The key that tokens of a snapshot are signed with."""
    return hashlib.sha256(b"key" + to_json(manifest).encode()).digest()


def question_mark(*parts: object) -> bytes:
    """Identifies what was asked, 16 bytes. `parts` have a `repr` that says all that matters."""
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).digest()[:16]


def write_token(token: PageToken, key: bytes) -> str:
    """The token as text, signed with the key of its snapshot."""
    packed = _LAYOUT.pack(
        _VERSION,
        token.snapshot,
        token.question,
        token.first,
        token.current,
        token.block,
        token.offset,
        token.num_reranked,
    )
    return base64.urlsafe_b64encode(packed + _signature(packed, key)).rstrip(b"=").decode()


def snapshot_of(text: str, field: str) -> bytes:
    """The snapshot that a token is of, before it is known whether the token is genuine.

    Raises:
        QueryError: it is not a token.
    """
    return _parsed(text, field)[0].snapshot


def read_token(text: str, key: bytes, question: bytes, field: str) -> PageToken:
    """The token that a text is.

    Args:
        text: the text.
        key: that of the token's snapshot.
        question: identifies what is asked now.
        field: the name of the field that holds the text, for errors.

    Raises:
        QueryError: it is not a token that was given for this question.
    """
    token, packed, signature = _parsed(text, field)
    if not hmac.compare_digest(signature, _signature(packed, key)):
        raise _not_a_token(text, field)
    if token.question != question:
        raise QueryError(
            "The page_token was given for another request. Send it with the same query, filter and options, "
            "or leave it out to begin with the first page.",
            field,
        )
    return token


def _parsed(text: str, field: str) -> tuple[PageToken, bytes, bytes]:
    try:
        if len(text) > _MOST_CHARACTERS:
            raise ValueError
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        packed, signature = raw[: _LAYOUT.size], raw[_LAYOUT.size :]
        version, snapshot, question, first, current, block, offset, reranked = _LAYOUT.unpack(packed)
    except (ValueError, UnicodeEncodeError, binascii.Error, struct.error):
        raise _not_a_token(text, field) from None
    if version != _VERSION or len(signature) != _SIGNATURE_BYTES:
        raise _not_a_token(text, field)
    token = PageToken(snapshot, question, block, offset, first, current, reranked)
    return token, packed, signature


def _signature(packed: bytes, key: bytes) -> bytes:
    return hmac.digest(key, packed, "sha256")[:_SIGNATURE_BYTES]


def _not_a_token(text: str, field: str) -> QueryError:
    return QueryError(
        f"{shorten(text)} is not a page_token. Send the next_page_token of an answer as it is, or leave it "
        "out to begin with the first page.",
        field,
    )
