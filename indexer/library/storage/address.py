"""Addresses of libraries in object stores, and the folders of this computer that stand for them."""

import hashlib
import json
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from model.runtime.errors import InputError
from model.runtime.files import replace_text
from model.runtime.messages import shorten, show_as
from model.runtime.remote.address import SCHEMES, Address, endpoint_of, is_address, is_bucket

_PREFIX = re.compile(r"[A-Za-z0-9_.=-]+(/[A-Za-z0-9_.=-]+)*")
#: In the folder of an address: what it is the folder of.
_ADDRESS_FILE = "address.json"
_WORKING_FOLDER = "library"


def library_folder(text: str | Path) -> Path:
    """The folder of a library that is named by a path, or by an address such as `s3://bucket/prefix`.

    For a library in an object store it is the working folder, which is made where there is none. Nothing is
    asked of the store.

    Raises:
        InputError: the address is invalid, or this user has no folder for working folders.
    """
    name = os.fspath(text)
    if not is_address(name):
        return Path(name)
    if name.lower().startswith("file://"):
        return _local(name)
    address = parse_address(name)
    folder = _working_folders() / _key(address)
    content = {"address": str(address), "endpoint": endpoint_of(address.scheme)}
    try:
        (folder / _WORKING_FOLDER).mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (folder / _ADDRESS_FILE).exists():
            replace_text(folder / _ADDRESS_FILE, json.dumps(content) + "\n", shared=True)
    except OSError as error:
        raise InputError(
            f"library is {name!r}, for which {folder} cannot be made: {error.strerror}; set XDG_CACHE_HOME "
            "to a folder that can be written"
        ) from error
    show_as(folder / _WORKING_FOLDER, str(address))
    return folder / _WORKING_FOLDER


def parse_address(text: str) -> Address:
    """Read an address.

    Raises:
        InputError: it is invalid.
    """
    parts = urlsplit(text)
    prefix = parts.path.strip("/")
    problem = None
    if parts.scheme not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        problem = f"an address begins with {known} or file://"
    elif "@" in parts.netloc or "?" in text or "#" in text:
        problem = "an address holds a bucket and a prefix alone; keys come from the environment"
    elif not is_bucket(parts.netloc):
        problem = f"{shorten(parts.netloc)} is no name of a bucket"
    elif prefix and (_PREFIX.fullmatch(prefix) is None or {".", ".."} & set(prefix.split("/"))):
        problem = f"{shorten(prefix)} is no prefix: use letters, digits and any of _.=- between slashes"
    if problem is not None:
        raise InputError(f"library is {text!r}: {problem}", field="library")
    return Address(parts.scheme, parts.netloc, prefix)


def address_of(path: Path) -> tuple[Path, Address, str] | None:
    """What a path belongs to if it lies in a working folder.

    Returns:
        The working folder, its address, and the endpoint that the address was used with; None: the path lies
        elsewhere.

    Raises:
        InputError: the working folder does not say what it is.
    """
    try:
        base = _working_folders()
        inside = path.relative_to(base).parts
    except (InputError, ValueError):
        return None
    if len(inside) < 2 or inside[1] != _WORKING_FOLDER:
        return None
    folder = base / inside[0]
    try:
        content = json.loads((folder / _ADDRESS_FILE).read_text(encoding="utf-8"))
        address = parse_address(content["address"])
        endpoint = str(content["endpoint"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} is no working folder of a library: remove it") from error
    show_as(folder / _WORKING_FOLDER, str(address))
    return folder / _WORKING_FOLDER, address, endpoint


def place_name(path: Path) -> str:
    """What names the same place on another computer: an address, or the path; see `library_folder`."""
    found = address_of(path)
    if found is None:
        return os.fspath(path)
    folder, address, _ = found
    inside = path.relative_to(folder).as_posix()
    return str(address) if inside == "." else f"{address}/{inside}"


def _local(text: str) -> Path:
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost") or not parts.path or parts.query or parts.fragment:
        raise InputError(
            f"library is {text!r}: a file address is file:///absolute/path, on this computer",
            field="library",
        )
    return Path(unquote(parts.path))


def _key(address: Address) -> str:
    """The name of the folder of an address: one for each server, bucket and prefix."""
    named = f"{address} {endpoint_of(address.scheme)}"
    shown = re.sub(r"[^A-Za-z0-9]+", "-", f"{address.scheme}-{address.bucket}-{address.prefix}").strip("-")
    return f"{shown[:60]}-{hashlib.sha256(named.encode()).hexdigest()[:12]}"


def _working_folders() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        cache = Path(base) if base.startswith("/") else Path.home() / ".cache"
    except RuntimeError as error:
        raise InputError(
            "this user has no folder for copies of libraries in object stores: set XDG_CACHE_HOME to a "
            "folder that can be written"
        ) from error
    return cache / "reelfind" / "libraries"
