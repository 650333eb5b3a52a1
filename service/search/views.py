"""What of a library somebody sees, and how its paths look to them. Every path that is shown goes through
`PathNames`.

- Who sees whole paths sees them as they are.
- Who is limited to a folder sees paths from that folder on, the folder's own name first. What lies above or
  beside the folder does not show, nor does it change how paths look.
- Everybody else sees paths from the media folder on in which they lie, the innermost of several, with the
  name of that folder first: `/srv/films/2019/a.mp4` below `/srv/films` is `films/2019/a.mp4`. Where several
  media folders have the same last name, the first of them by path has it, and the others are `films (2)`,
  `films (3)`.
- A path in none of the media folders is shown as the name of its file alone.
"""

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.library.records import displayable


@dataclass(frozen=True)
class View:
    """What somebody sees.

    Attributes:
        folder: the folder besides which there is nothing; None: everything is there.
        whole_paths: whether paths are shown as they are.
    """

    folder: Path | None = None
    whole_paths: bool = True


#: What an administrator sees, and the command line.
WHOLE = View()


class PathNames:
    """How paths look in a view.

    Attributes:
        view: the view.

    Args:
        view: the view.
        roots: the media folders of the snapshot.
    """

    def __init__(self, view: View, roots: Iterable[Path]) -> None:
        if view.folder is None:
            names = root_names([displayable(root) for root in roots])
        else:
            names = root_names([displayable(view.folder)])
        self.view = view
        self._shows_all = view.whole_paths
        # The innermost first.
        self._names = [(root.rstrip("/") + "/", names[root]) for root in sorted(names, key=len, reverse=True)]

    def shown(self, path: str) -> str:
        """A path, as `displayable` gives it, as it looks in the view."""
        if self._shows_all:
            return path
        for root, name in self._names:
            if path.startswith(root):
                return f"{name}/{path[len(root) :]}"
        return posixpath.basename(path)

    def meant(self, shown: str) -> str:
        """The path that looks so in the view, also that of a media folder. Any other text stays as it is."""
        for root, name in self._names:
            if shown == name or shown.startswith(f"{name}/"):
                return root.rstrip("/") + shown[len(name) :]
        return shown


def root_names(roots: Sequence[str]) -> dict[str, str]:
    """The name of each folder: its last part, with a number where another has that name already."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for root in sorted(set(roots)):
        plain = posixpath.basename(root) or "root"
        name, number = plain, 2
        while name in taken:
            name, number = f"{plain} ({number})", number + 1
        taken.add(name)
        names[root] = name
    return names


#: Paths as they are.
ALL_PATHS = PathNames(WHOLE, ())
