"""Writes questions about photos or frames of videos, made of their captions, in MSVD-QA's form."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from model.data.datasets.questions import MAPPING_FILE, QUESTION_FILES, question_word
from model.data.question_rules import make_questions
from model.data.stills import read_captions, read_splits
from model.progress import Report, silent
from model.runtime.errors import InputError
from model.runtime.files import replace_text


def write_questions(folders: Sequence[Path], output: Path, report: Report = silent) -> dict[str, int]:
    """Make questions of all captions of some folders, and write them as `read_mapped_qa` reads them.

    The same folders give the same files. An item gets each pair of a question and an answer once.

    Args:
        folders: folders with captions.csv, and frames.csv for frames of videos.
        output: becomes the folder of the files; files of an earlier run are replaced.
        report: told how many questions there are.

    Returns:
        the number of questions of each split that has captions.

    Raises:
        InputError: a folder has no captions, two items have one name, or the files cannot be written.
    """
    numbers: dict[str, int] = {}
    counts: dict[str, int] = {}
    contents: dict[str, str] = {}
    for split, file in QUESTION_FILES.items():
        captions: dict[str, tuple[str, ...]] = {}
        for folder in folders:
            if split in read_splits(folder):
                _add(captions, read_captions(folder, split), folder)
        rows: list[dict[str, str | int]] = []
        words = Counter[str]()
        for name, texts in captions.items():
            made = dict.fromkeys(question for text in texts for question in make_questions(text))
            if made and name in numbers:
                raise InputError(f"{name} occurs in two splits or folders: give each item a name of its own")
            for asked in made:
                words[question_word(asked.question)] += 1
                rows.append(
                    {
                        "answer": asked.answer,
                        "category_id": 0,
                        "id": sum(counts.values()) + len(rows),
                        "question": asked.question,
                        "video_id": numbers.setdefault(name, len(numbers) + 1),
                    }
                )
        if captions:
            counts[split] = len(rows)
            contents[file] = "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"
            shares = ", ".join(f"{word} {count:,}" for word, count in words.most_common())
            report(f"{split}: {len(rows):,} questions about {len(captions):,} items ({shares or 'none'})")
    if not numbers:
        names = ", ".join(str(folder) for folder in folders)
        raise InputError(f"no caption of {names} can be made a question: are they English sentences?")
    contents[MAPPING_FILE] = "".join(f"{name} vid{number}\n" for name, number in numbers.items())
    try:
        output.mkdir(parents=True, exist_ok=True)
        for file, content in contents.items():
            replace_text(output / file, content)
    except OSError as error:
        raise InputError(f"output={output} cannot be written ({error}): name a folder", "output") from error
    return counts


def _add(captions: dict[str, tuple[str, ...]], others: dict[str, tuple[str, ...]], folder: Path) -> None:
    """Join the captions of another folder.

    Raises:
        InputError: an item of this name is there already.
    """
    for name, texts in others.items():
        if name in captions:
            raise InputError(f"{name} of {folder} occurs in another folder too: give each item its own name")
        captions[name] = texts
