"""Shared by `search` and `eval`: opens the library, and says why nothing was re-ranked."""

from model.runtime.errors import InputError
from model.runtime.messages import for_shell
from model.runtime.names import near
from service.cli.exits import note
from service.live import open_searcher
from service.search.results import RerankSkipped
from service.search.searcher import Searcher
from service.settings import Settings


def open_checked_searcher(settings: Settings) -> Searcher:
    """Open the searcher of the settings' library, after checking that its folders exist.

    Raises:
        InputError: the library or the bundle does not exist.
        LibraryError: the library has no snapshot, or it is damaged.
        BundleError: the bundle that its snapshot was made with cannot be found or read.
    """
    check_bundle_path(settings)
    if not settings.library.exists():
        raise InputError(
            f"no library at {settings.library}{near(settings.library)}: create one with "
            f"`reelfind index PATH --library {for_shell(settings.library)}`"
        )
    return open_searcher(settings)


def note_skipped(skipped: RerankSkipped | None) -> None:
    """Say on stderr why nothing was re-ranked, unless the user asked for that."""
    reasons = {
        "no_matcher": "the bundle has no match",
        "no_tokens": "the library stores no frame tokens; index into a new library to store them",
        "no_text": "the bundle's matching head reads texts, and there is none",
        "unreadable_tokens": "the tokens of some candidates cannot be read",
    }
    if skipped in reasons:
        note(f"note: not re-ranked: {reasons[skipped]}")


def check_bundle_path(settings: Settings) -> None:
    """Check that the bundle that the settings name exists.

    Raises:
        InputError: it does not.
    """
    if settings.bundle is not None and not settings.bundle.exists():
        raise InputError(
            f"no bundle at {settings.bundle}{near(settings.bundle)}: name the folder that holds bundle.json"
        )
