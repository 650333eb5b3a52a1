"""The state folder, where the service keeps what is its own: keys and jobs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model.runtime.errors import InputError


@contextmanager
def making_state(folder: Path) -> Iterator[None]:
    """Make the folder for its user alone, where it does not exist; what is made in it belongs in the context.

    Raises:
        InputError: it, or what is in it, cannot be made or read.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise InputError(
            f"state {folder} cannot be used: {error.strerror}. Make the folder for the user that runs the "
            f"service (install -d -m 700 -o USER {folder}), or set REELFIND_STATE to another one",
            field="state",
        ) from error
