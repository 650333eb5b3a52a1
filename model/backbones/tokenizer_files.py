"""The `tokenizer.json` of published weights, or one made of RoBERTa's vocabulary and merges."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import RobertaProcessing

from model.runtime.errors import InputError

_BEGIN, _PAD, _END, _UNKNOWN, _MASK = "<s>", "<pad>", "</s>", "<unk>", "<mask>"


def published_tokenizer(folder: Path) -> Path:
    """The `tokenizer.json` of a folder; one made of `vocab.json` and `merges.txt` where it lacks one.

    A file that is made lies in a temporary folder, which is removed when the process ends.

    Raises:
        InputError: the folder has neither, or a file is damaged.
    """
    path = folder / "tokenizer.json"
    if path.is_file():
        return path
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    if vocabulary.is_file() and merges.is_file():
        made = _temporary_folder(folder.resolve()) / path.name
        if not made.exists():
            byte_pair_tokenizer(vocabulary, merges).save(str(made))
        return made
    raise InputError(
        f"no {path.name} in {folder}: write one with transformers, "
        "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR), or add RoBERTa's vocab.json and merges.txt"
    )


def byte_pair_tokenizer(vocabulary: Path, merges: Path) -> Tokenizer:
    """RoBERTa's byte-level BPE (Liu et al., 2019), of its two published files.

    Raises:
        InputError: a file is missing or damaged, or the vocabulary lacks one of RoBERTa's special tokens.
    """
    try:
        tokenizer = Tokenizer(BPE.from_file(str(vocabulary), str(merges)))
    # The package raises a bare Exception.
    except Exception as error:
        raise InputError(f"{vocabulary} and {merges.name} are no readable BPE: {error}") from error
    special = (_BEGIN, _PAD, _END, _UNKNOWN, _MASK)
    known = tokenizer.get_vocab()
    missing = [token for token in special if token not in known]
    if missing:
        raise InputError(f"{vocabulary} lacks {', '.join(missing)}: it must hold RoBERTa's vocabulary")
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.post_processor = RobertaProcessing(
        (_END, known[_END]), (_BEGIN, known[_BEGIN]), add_prefix_space=False
    )
    # The mask takes the space before it, as a word does.
    tokenizer.add_special_tokens([AddedToken(t, lstrip=t == _MASK, normalized=False) for t in special])
    return tokenizer


@lru_cache(maxsize=8)
def _temporary_folder(folder: Path) -> Path:  # noqa: ARG001
    """A temporary folder of this process, one for each folder of weights."""
    made = Path(tempfile.mkdtemp(prefix="reelfind-tokenizer-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made
