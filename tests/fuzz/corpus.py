"""Damaged files by number: the same seed and number give the same file on every machine."""

import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.fuzz.elements import Element, elements
from tests.fuzz.mutations import MAX_BYTES, MUTATIONS, Good
from tests.fuzz.seed_files import seeds

#: Of the files, how many have the extension of another container.
_WRONG_EXTENSION = 0.05
#: How often one, two and three kinds of damage meet in a file.
_SEVERAL = (0.7, 0.2, 0.1)


@dataclass(frozen=True)
class DamagedFile:
    """A damaged file: its number, its name, which tells how it was made, and its bytes."""

    number: int
    name: str
    data: bytes


class Corpus:
    """The damaged files of one seed, numbered from 0.

    Good files and kinds of damage take turns: 1,166 files in a row have every pair of them.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    @cached_property
    def _seeds(self) -> list[tuple[Path, bytes, list[Element]]]:
        files = [(path, path.read_bytes()) for path in seeds()]
        return [(path, data, elements(path.name, data)) for path, data in files]

    def file(self, number: int) -> DamagedFile:
        """Make one damaged file."""
        chance = random.Random(f"{self.seed}/{number}")
        path, data, pieces = self._seeds[number % len(self._seeds)]
        names = list(MUTATIONS)
        turn, place = divmod(number, len(self._seeds))
        first = names[(turn + place) % len(names)]
        count = chance.choices((1, 2, 3), _SEVERAL)[0]
        kinds = [first, *chance.choices(names, k=count - 1)]
        for kind in kinds:
            other = chance.choice(self._seeds)[1]
            known = [piece for piece in pieces if piece.end <= len(data)]
            whole = Element(0, min(16, len(data)), len(data))
            if data:
                data = MUTATIONS[kind](Good(data, known or [whole], other), chance)[:MAX_BYTES]
        extension = path.suffix
        if chance.random() < _WRONG_EXTENSION:
            extension = chance.choice(self._seeds)[0].suffix
        return DamagedFile(number, f"{number:06d}-{path.stem}-{'-'.join(kinds)}{extension}", data)

    def write(self, number: int, folder: Path) -> Path:
        """Make one damaged file in a folder."""
        made = self.file(number)
        path = folder / made.name
        path.write_bytes(made.data)
        return path
