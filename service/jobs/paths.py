"""Which files and folders a client may have indexed: those in the media folders."""

import os
from collections.abc import Iterable
from pathlib import Path

from model.runtime.errors import InputError
from model.runtime.messages import shorten
from model.runtime.remote.path import is_remote_text, parse_remote
from service.errors import JobsOffError, QueryError


def allowed_path(text: str, roots: Iterable[Path], within: Path | None, pointer: str) -> Path:
    """The real path that a client names.

    What does not exist and what lies elsewhere get the same answer: nobody learns what there is outside.

    Args:
        text: an absolute path.
        roots: the media folders, with links resolved.
        within: the folder that the client is limited to; None: it is not.
        pointer: where the request names it, for errors.

    Raises:
        JobsOffError: there is no media folder.
        QueryError: it lies in none of them, does not exist, or is neither a file nor a folder.
    """
    roots = tuple(roots)
    if not roots:
        raise JobsOffError(
            "No folder may be indexed over HTTP. Name the folders of your videos in REELFIND_MEDIA_ROOTS "
            "(reelfind serve --media FOLDER)."
        )
    refused = QueryError(
        f"{shorten(text)} is no file or folder in the folders that you may index. Name an absolute path, "
        "or one as lists of videos show it, without links that lead out of these folders, and without `..`.",
        pointer,
    )
    if is_remote_text(text):
        return _allowed_address(text, roots, within, refused)
    if "\0" in text or not text.startswith("/") or ".." in text.split("/"):
        raise refused
    try:
        path = Path(os.path.realpath(text, strict=True))
        is_there = path.is_dir() or path.is_file()
    except (OSError, ValueError):
        raise refused from None
    if not is_there or not is_allowed(path, roots, within):
        raise refused
    return path


def _allowed_address(text: str, roots: Iterable[Path], within: Path | None, refused: QueryError) -> Path:
    try:
        path = parse_remote(text)
        # Nothing is asked of a server that the client may not name.
        if is_allowed(path, roots, within) and (path.is_dir() or path.is_file()):
            return path
    except (InputError, OSError):
        raise refused from None
    raise refused


def is_allowed(path: Path, roots: Iterable[Path], within: Path | None) -> bool:
    """Whether a real path is one of the media folders or lies in one, and in the client's own folder."""
    return any(path.is_relative_to(root) for root in roots) and (
        within is None or path.is_relative_to(within)
    )
