"""Saves a body to a file: under a temporary name beside it, which is renamed when all of it is there."""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import httpx

#: Is told the number of bytes that are done, and of all of them; None: that is not known.
Progress: TypeAlias = Callable[[int, int | None], None]
_MOST_NAME_CHARACTERS = 100


@dataclass(frozen=True)
class Download:
    """Where to save a body.

    Attributes:
        to: a file, which is replaced if it exists; or a folder, in which the file gets the name that the
            service gives it.
        default_name: the name in a folder if the service gives none.
        progress: see `Progress`.
    """

    to: Path
    default_name: str
    progress: Progress | None = None

    def path(self, response: httpx.Response) -> Path:
        """The file that a body is saved to."""
        return self.to / (_name_of(response) or self.default_name) if self.to.is_dir() else self.to

    @contextmanager
    def writer(self, response: httpx.Response) -> Iterator[Callable[[bytes], None]]:
        """A function that takes the body, part by part. After an error, nothing is left of it.

        Raises:
            OSError: the file cannot be written.
        """
        path = self.path(response)
        length = response.headers.get("content-length", "")
        total = int(length) if length.isdecimal() and "content-encoding" not in response.headers else None
        done = 0
        part = path.with_name(f".{path.name[:_MOST_NAME_CHARACTERS]}.{secrets.token_hex(4)}.part")
        try:
            with part.open("xb") as file:

                def write(data: bytes) -> None:
                    nonlocal done
                    file.write(data)
                    done += len(data)
                    if self.progress is not None:
                        self.progress(done, total)

                yield write
            os.replace(part, path)  # noqa: PTH105 - says that it replaces
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _name_of(response: httpx.Response) -> str | None:
    """The name of `Content-Disposition` without any folder; None if there is none."""
    header = Message()
    header["content-disposition"] = response.headers.get("content-disposition", "")
    name = PurePosixPath((header.get_filename() or "").replace("\\", "/")).name
    return None if name in ("", "..") or "\0" in name else name
