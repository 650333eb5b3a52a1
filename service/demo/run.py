"""Runs the demo: makes the films, indexes them and serves them."""

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from indexer.library.errors import LibraryError
from indexer.library.folder import Library
from indexer.library.manifest import FORMAT_VERSIONS, current_number, snapshot_folder
from indexer.library.storage.base import MANIFEST_FILE
from model.runtime.bundle import Bundle, default_bundle_path
from model.runtime.errors import ReelfindError
from model.runtime.exits import FAILED
from model.runtime.signals import handling_signals
from service.demo.films import NOTICE, collect
from service.server_process import REELFIND, ServerProcess, running_server


class IndexingFailed(ReelfindError):  # noqa: N818 - named after what happened
    """`reelfind index` ended with an exit code other than 0, and has printed the reason."""

    def __init__(self, code: int) -> None:
        super().__init__(f"`reelfind index` ended with exit code {code}")
        self.code = code


@contextmanager
def demo_server(
    library: Path, *, host: str, port: int, bundle: Path | None, keep: bool, console: Console
) -> Iterator[ServerProcess]:
    """Make the films beside the library, index them, and serve the library while the context is open.

    Args:
        library: the library's folder; the films go beside it, in a folder of the same name with `-films`.
        host: the address to listen on.
        port: the port to listen on; 0: any free port.
        bundle: the model bundle's folder; None: the installed one.
        keep: False deletes the folders that this run created at the end.
        console: shows progress.

    Raises:
        IndexingFailed: the videos could not be indexed.
        LibraryError: the library is somebody's, and was made with another bundle.
        ReelfindError: a package of the demo is missing, or the server does not become ready.
    """
    library = library if library.name else library.absolute()  # "." has no name to build on
    films = library.with_name(f"{library.name}-films")
    created = [folder for folder in (films, library) if not folder.exists()]
    try:
        _prepare(films, library, bundle, console)
        with running_server(library, bundle=bundle, media=films, host=host, port=port) as server:
            yield server
    finally:
        if not keep:
            for folder in created:
                shutil.rmtree(folder, ignore_errors=True)


def _prepare(films: Path, library: Path, bundle: Path | None, console: Console) -> None:
    with console.status("making the films") as status:
        videos = collect(films, on_made=lambda name: status.update(f"made {name}"))
    console.print(f"{len(videos)} videos in {films} (their sources: {films / NOTICE})")
    if is_stale(films, library, bundle):
        console.print(f"{library} was made with another bundle or version of Reelfind: making it again")
        shutil.rmtree(library)
    _check_bundle(library, bundle)
    command = ["index", str(films), "--library", str(library)]
    command += ["--bundle", str(bundle)] if bundle is not None else []
    console.print(f"[bold]reelfind {' '.join(command)}[/bold]", soft_wrap=True)
    # In a session of its own: Ctrl-C reaches only this process, which passes it on.
    process = subprocess.Popen([*REELFIND, *command], start_new_session=True)
    stopped = False

    def stop(_signal: int) -> None:
        nonlocal stopped
        stopped = True
        process.send_signal(signal.SIGINT)

    with handling_signals(stop):
        code = process.wait()  # after a signal, too: it keeps what it has encoded
    if stopped:
        raise KeyboardInterrupt
    if code != 0:  # it has printed the reason
        raise IndexingFailed(code if code > 0 else FAILED)


def _check_bundle(library: Path, bundle: Path | None) -> None:
    """Refuse a library of somebody's that was made with another bundle: no generation is built in it.

    Raises:
        LibraryError: it was.
    """
    if not Library.exists(library):
        return
    try:
        layout = Library.open(library).layout
    except LibraryError:
        # Indexing continues it, or reports what is wrong.
        return
    if layout.bundle_checksum != Bundle.open(bundle or default_bundle_path()).checksum:
        raise LibraryError(
            f"{library} was made with the bundle {layout.bundle_name!r}, and holds more than the demo's "
            "films: choose another folder"
        )


def is_stale(films: Path, library: Path, bundle: Path | None) -> bool:
    """Whether the library holds only the demo's films, but was made with another bundle or version."""
    media_roots = [str(films.resolve())]
    try:
        snapshot = Library.open(library).current()
    except LibraryError:
        # Indexing creates it, repairs it, or reports what is wrong, unless another version of Reelfind made
        # it.
        manifest = _manifest_of_another_version(library)
        return manifest is not None and manifest.get("media_roots") == media_roots
    if [str(root) for root in snapshot.media_roots] != media_roots:
        return False
    return snapshot.bundle_checksum != Bundle.open(bundle or default_bundle_path()).checksum


def _manifest_of_another_version(library: Path) -> dict[str, Any] | None:
    try:
        number = current_number(library)
        if number is None:
            return None
        manifest = json.loads((snapshot_folder(library, number) / MANIFEST_FILE).read_bytes())
    except (LibraryError, OSError, ValueError):
        return None
    if not isinstance(manifest, dict) or manifest.get("format_version") in FORMAT_VERSIONS:
        return None
    return manifest
