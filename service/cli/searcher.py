"""What `search` and `eval` do alike: open the library, and say why nothing was re-ranked."""

from model.runtime.errors import InputError
from service.cli.exits import note
from service.live import open_searcher
from service.search.results import RerankSkipped
from service.search.searcher import Searcher
from service.settings import Settings


def open_checked_searcher(settings: Settings) -> Searcher:
    """The searcher of the settings' library.

    Raises:
        InputError: there is no such library or bundle.
        LibraryError: the library has no snapshot, or it is damaged.
        BundleError: the bundle cannot be read, or the snapshot was made with another one.
    """
    check_bundle_path(settings)
    if not settings.library.exists():
        raise InputError(
            f"no library at {settings.library}: create one with "
            f"`reelfind index PATH --library {settings.library}`"
        )
    return open_searcher(settings)


def note_skipped(skipped: RerankSkipped | None) -> None:
    """Say on stderr why nothing was re-ranked, unless the caller did not want it."""
    reasons = {
        "no_matcher": "the bundle has no matching head",
        "no_tokens": "the library holds no tokens of its frames; index into a new library to have them",
    }
    if skipped in reasons:
        note(f"note: not re-ranked: {reasons[skipped]}")


def check_bundle_path(settings: Settings) -> None:
    """InputError when the settings name a bundle that does not exist."""
    if settings.bundle is not None and not settings.bundle.exists():
        raise InputError(f"no bundle at {settings.bundle}: name the folder that holds bundle.json")
