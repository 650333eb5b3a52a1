"""The folder that a key is limited to, and whether a file lies in it."""

from dataclasses import dataclass
from pathlib import Path

from model.runtime.remote.path import real_path


@dataclass(frozen=True)
class Folder:
    """A folder of videos. Paths are compared byte by byte, as the library stores them: absolute, no `..`."""

    path: Path

    @classmethod
    def named(cls, text: str) -> "Folder":
        """The folder that a user names, as the indexer would store it: absolute, with links resolved.

        Raises:
            ValueError: the text cannot be a path.
        """
        if not text or "\0" in text:
            raise ValueError("a folder has a name without zero bytes")
        return cls(real_path(text))

    def holds(self, path: Path) -> bool:
        """Whether a file lies in the folder or below it.

        A path with `..` lies nowhere: what it leads to is not what it says.
        """
        own, parts = self.path.parts, path.parts
        return len(parts) > len(own) and parts[: len(own)] == own and ".." not in parts
