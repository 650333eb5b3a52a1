"""`reelfind library exclude|remove|include|excluded`: what users keep out of a library."""

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from indexer.library.curated import CuratedSnapshot
from indexer.library.curation import Curation
from indexer.library.errors import BusyError
from indexer.library.exclusions import Exclusion, ExclusionKind, NewExclusion
from indexer.library.folder import Library
from indexer.library.records import VideoRecord, displayable
from indexer.library.snapshot import Snapshot
from indexer.removal import remove_excluded
from model.runtime.errors import InputError
from model.runtime.remote.path import RemotePath, media_path, real_path
from service.cli.exits import note
from service.cli.options import JsonOption, RequiredLibraryOption
from service.cli.printing import plain, print_json, say

_PAGE = 1000

TargetArgument = Annotated[
    str, typer.Argument(metavar="PATH_OR_ID", help="A file, a folder, or the id of a video.")
]
ReasonOption = Annotated[str | None, typer.Option(help="Why, for `reelfind library excluded`.")]


def library_exclude_command(
    target: TargetArgument,
    library: RequiredLibraryOption,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a file, or a folder with all that is or will be in it, out of a library; or a content, by its id.

    It is in no answer any more, and is not indexed again. `reelfind library include` undoes that.
    """
    home = Library.open(library)
    snapshot = home.current()
    video = _video_with_id(snapshot, target)
    if video is not None:
        new = [NewExclusion.of_video(video, "excluded", reason)]
    else:
        new = [NewExclusion("excluded", reason, os.fsencode(_place(snapshot, target)))]
    _keep_out(home, new, "excluded", as_json=as_json)


def library_remove_command(
    target: TargetArgument,
    library: RequiredLibraryOption,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove a video, or all in a folder, from a library. The files stay.

    They are not indexed again as long as they exist with the same content; other files that come to the
    folder are. `reelfind library include` undoes that.
    """
    home = Library.open(library)
    snapshot = home.current()
    video = _video_with_id(snapshot, target)
    videos = [video] if video is not None else _videos_below(snapshot, _place(snapshot, target))
    if not videos:
        raise InputError(
            f"the library has no video at or below {target!r}: `reelfind library exclude` keeps out what may "
            "come there"
        )
    new = [NewExclusion.of_video(each, "removed", reason) for each in videos]
    _keep_out(home, new, "removed", as_json=as_json)


def library_include_command(
    target: TargetArgument, library: RequiredLibraryOption, as_json: JsonOption = False
) -> None:
    """Undo `exclude` and `remove` of a file, of a folder and all in it, or of a content."""
    home = Library.open(library)
    snapshot = home.current()
    with closing(Curation(home.path)) as curation:
        before = curation.read()
        places = _named(target)
        found = [each for each in before.exclusions.items if _is_meant(each, target, places)]
        if not found:
            above = next(
                filter(None, (before.exclusions.of_path(os.fsencode(each)) for each in places)), None
            )
            remedy = "`reelfind library excluded` lists what is"
            if above is not None:
                remedy = f"its folder {above.shown} is: include that"
            raise InputError(f"{target!r} is not excluded: {remedy}")
        curation.include(each.number for each in found)
        after = curation.read()
    shown_before = CuratedSnapshot.of(snapshot, before).count_videos()
    shown = CuratedSnapshot.of(snapshot, after).count_videos() - shown_before
    if as_json:
        print_json({"library": str(home.path), "included": len(found), "shown_again": shown})
        return
    say(f"included again: {', '.join(each.shown for each in found[:5])}{' …' if len(found) > 5 else ''}")
    if shown:
        say(f"videos that are found again at once: {shown}")
    else:
        say("the next `reelfind index` reads it again")


def library_excluded_command(library: RequiredLibraryOption, as_json: JsonOption = False) -> None:
    """List what is kept out of a library."""
    home = Library.open(library)
    with closing(Curation(home.path)) as curation:
        items = curation.read().exclusions.items
    if as_json:
        print_json({"library": str(home.path), "excluded": [_object(each) for each in items]})
    elif not items:
        say("nothing is excluded")
    else:
        table = Table(box=None, pad_edge=False)
        for heading in ("kind", "what", "since", "reason"):
            table.add_column(heading, overflow="fold")
        for each in items:
            what = each.shown if each.content is None else f"{each.shown} (content {each.content.video_id})"
            since = each.created.astimezone().strftime("%Y-%m-%d %H:%M")
            table.add_row(each.kind, plain(what), since, plain(each.reason or ""))
        Console().print(table)


def _keep_out(home: Library, new: Sequence[NewExclusion], kind: ExclusionKind, *, as_json: bool) -> None:
    """Store exclusions, remove what is stored of the videos if no run holds the lock, and say so."""
    with closing(Curation(home.path)) as curation:
        hidden_before = _count_hidden(home, curation)
        curation.exclude(new)
        hidden = _count_hidden(home, curation) - hidden_before
    removed: int | None = None
    try:
        removed = remove_excluded(home)
    except BusyError as error:
        note(f"note: {error}; the next `reelfind index` removes what is stored of it")
    if as_json:
        print_json({"library": str(home.path), "kind": kind, "hidden": hidden, "removed": removed})
        return
    say(f"{kind}: {_names(new)}; videos that are not found any more: {hidden}")


def _count_hidden(home: Library, curation: Curation) -> int:
    snapshot = home.current()
    return snapshot.count_videos() - CuratedSnapshot.of(snapshot, curation.read()).count_videos()


def _names(new: Sequence[NewExclusion]) -> str:
    names = [displayable(each.path if each.path is not None else each.places[0].path) for each in new[:3]]
    return ", ".join(names) + (f" and {len(new) - 3} more" if len(new) > 3 else "")


def _video_with_id(snapshot: Snapshot, target: str) -> VideoRecord | None:
    """The video with an id, if the library has it; a path that looks like one is written with a slash."""
    return None if os.sep in target else snapshot.video(target)


def _named(target: str) -> list[Path]:
    """The absolute paths that a user may mean: links may be in them, or not."""
    real = real_path(target)
    if isinstance(real, RemotePath):
        return [real]
    return list(dict.fromkeys([Path(os.path.abspath(target)), real]))  # noqa: PTH100


def _place(snapshot: Snapshot, target: str) -> Path:
    """The path that a user means, as the library has it.

    Raises:
        InputError: there is nothing, and the library has no video there.
    """
    named = _named(target)
    for path in named:
        if _videos_below(snapshot, path):
            return path
    if not named[-1].exists():
        raise InputError(
            f"there is no file or folder {target!r}, and the library has no video with this path or id: "
            "`GET /v1/videos` lists both"
        )
    return named[-1]


def _videos_below(snapshot: Snapshot, place: Path) -> list[VideoRecord]:
    found = []
    for offset in range(0, snapshot.count_videos(), _PAGE):
        videos = snapshot.videos(offset, _PAGE)
        found += [each for each in videos if any(file.path.is_relative_to(place) for file in each.files)]
    return found


def _is_meant(exclusion: Exclusion, target: str, places: Sequence[Path]) -> bool:
    """Whether an exclusion is of a path at or below `places`, or of a content that was there or has an id."""
    if exclusion.content is not None and target in (exclusion.content.video_id, exclusion.content.sha256):
        return True
    own = [place.path for place in exclusion.places] if exclusion.path is None else [exclusion.path]
    return any(media_path(path).is_relative_to(place) for path in own for place in places)


def _object(exclusion: Exclusion) -> dict[str, Any]:
    content = exclusion.content
    return {
        "kind": exclusion.kind,
        "path": None if exclusion.path is None else displayable(exclusion.path),
        "video_id": None if content is None else content.video_id,
        "sha256": None if content is None else content.sha256,
        "places": [displayable(place.path) for place in exclusion.places],
        "reason": exclusion.reason,
        "created": exclusion.created.isoformat(timespec="seconds"),
    }


#: The commands, by their names.
COMMANDS: dict[str, Callable[..., None]] = {
    "exclude": library_exclude_command,
    "remove": library_remove_command,
    "include": library_include_command,
    "excluded": library_excluded_command,
}
