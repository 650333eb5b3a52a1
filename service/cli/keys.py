"""`reelfind keys`: makes, lists and revokes the keys that let people and programs use the service."""

import getpass
import os
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from model.runtime.errors import InputError
from model.runtime.messages import shorten
from service.cli.exits import CheckedCommand, note
from service.cli.options import JsonOption, LibraryOption, StateOption
from service.cli.printing import plain, print_json, say
from service.rights.audit import AuditEntry, open_audit_log
from service.rights.folders import Folder
from service.rights.keys import ApiKey
from service.rights.lifetimes import expiry_of
from service.rights.scopes import SCOPES, WHOLE_LIBRARY, Scope, smallest
from service.rights.store import FILE_NAME, AccessStore
from service.settings import Settings, how_to_make_a_key, load_settings

keys_app = typer.Typer(
    name="keys",
    help="Make, list and revoke the keys that let people and programs use the service.",
    no_args_is_help=True,
)


@keys_app.command("create", cls=CheckedCommand)
def keys_create_command(
    scope: Annotated[
        list[str],
        typer.Option(
            help="What its holder may do; may be repeated. media includes search, admin includes all.",
            metavar="|".join(SCOPES),
        ),
    ],
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Folder of videos, as the service sees it: for the key's holder there is nothing else.",
            show_default=False,
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(
            help="When the key stops to count: 12h, 30d, 8w, or a date. Default: never.",
            metavar="SPAN|DATE",
            show_default=False,
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="What to call it in lists and in the log.")] = "",
    library: LibraryOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it, once: only its hash is stored."""
    settings = load_settings({"library": library, "state": state})
    scopes = smallest(_checked_scope(each) for each in scope)
    if folder is not None and set(scopes) & WHOLE_LIBRARY:
        raise InputError(
            f"folder {folder} cannot limit the scope {scopes[-1]}, which speaks of the whole library: leave "
            "one of them out",
            field="folder",
        )
    if not (len(name) <= 100 and (name.isprintable() or not name)):
        raise InputError("name must have at most 100 characters, all of them printable", field="name")
    limited = None if folder is None else Folder.named(os.fspath(folder))
    now = datetime.now().astimezone()
    ends = None if expires is None else expiry_of(expires, now)
    with closing(AccessStore(settings.state_folder)) as store:
        text, key = store.create(
            scopes, name=name, folder=limited, expires_at=None if ends is None else ends.timestamp()
        )
    _audit(settings, "key.create", key.key_id)
    if as_json:
        print_json({"key": str(text), **_object(key)})
        return
    say(str(text))
    until = "" if ends is None else f", until {ends:%Y-%m-%d %H:%M}"
    where = "" if limited is None else f", for {limited.path} alone"
    shown = " and ".join(scopes)
    note(f"key {key.key_id} has the scope {shown}{where}{until}. It is not shown again.")
    if limited is not None and not limited.path.is_dir():
        note(f"there is no folder {limited.path} here: check that the service has it at this path")


@keys_app.command("list", cls=CheckedCommand)
def keys_list_command(
    library: LibraryOption = None, state: StateOption = None, as_json: JsonOption = False
) -> None:
    """List the keys, also those that were revoked or have expired."""
    with closing(_existing_store(load_settings({"library": library, "state": state}))) as store:
        keys = store.all_keys()
    if as_json:
        print_json({"keys": [_object(key) for key in keys]})
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("id", "name", "scope", "folder", "made", "expires", "state"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("id", "made", "expires", "state"))
    for key in keys:
        folder = "" if key.folder is None else os.fspath(key.folder.path)
        expires = "never" if key.expires_at is None else _day(key.expires_at)
        texts = (key.key_id, key.name, " ".join(key.scopes), folder, _day(key.created_at), expires)
        table.add_row(*map(plain, texts), plain(_state(key)))
    Console(highlight=False).print(table)


@keys_app.command("revoke", cls=CheckedCommand)
def keys_revoke_command(
    key_id: Annotated[list[str], typer.Argument(help="Ids of keys, from `reelfind keys list`.")],
    library: LibraryOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let keys count no more, nor the sessions and signed addresses that were made with them. At once."""
    settings = load_settings({"library": library, "state": state})
    with closing(_existing_store(settings)) as store:
        for each in key_id:
            if store.find(each) is None:
                raise InputError(f"there is no key {shorten(each)}: `reelfind keys list` shows the ids")
        revoked = [each for each in key_id if store.revoke(each)]
    for each in revoked:
        _audit(settings, "key.revoke", each)
    if as_json:
        print_json({"revoked": revoked})
        return
    for each in key_id:
        say(f"key {each} {'is revoked' if each in revoked else 'was revoked before'}")


def _checked_scope(text: str) -> Scope:
    for scope in SCOPES:
        if text == scope:
            return scope
    raise InputError(f"scope {shorten(text)} is not one of {', '.join(SCOPES)}", field="scope")


def _existing_store(settings: Settings) -> AccessStore:
    """The store. Listing keys makes none.

    Raises:
        InputError: there is none yet.
    """
    path = settings.state_folder / FILE_NAME
    if not path.exists():
        raise InputError(
            f"there are no keys at {path}: make one with `{how_to_make_a_key(settings)}`, or name the folder "
            "of the service with `state`"
        )
    return AccessStore(settings.state_folder)


def _audit(settings: Settings, action: str, key_id: str) -> None:
    # Keys may be made before the service is told to ask for them.
    log = open_audit_log(settings.model_copy(update={"auth": "keys"}))
    if log is not None:
        log.write(AuditEntry(action, "done", who=_user(), via="command", target=key_id))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def _object(key: ApiKey) -> dict[str, Any]:
    return {
        "key_id": key.key_id,
        "name": key.name,
        "scopes": list(key.scopes),
        "folder": None if key.folder is None else os.fspath(key.folder.path),
        "created_at": _time(key.created_at),
        "expires_at": _time(key.expires_at),
        "revoked_at": _time(key.revoked_at),
        "state": _state(key),
    }


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.why_invalid else "counts"


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _day(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M}"
