"""`reelfind serve`: runs the HTTP server with the web page."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from model.runtime.tracing import tracing
from service.cli.options import (
    BundleOption,
    LibraryOption,
    ProviderOption,
    StateOption,
    ThreadsOption,
    setting_option,
)
from service.cli.searcher import check_bundle_path
from service.live import open_served_bundle
from service.memory import limit_blas_threads, limit_lance_threads, share_heaps
from service.settings import load_settings


def serve_command(
    library: LibraryOption = None,
    host: Annotated[str | None, setting_option("host", "Address to listen on.")] = None,
    port: Annotated[int | None, setting_option("port", "Port to listen on; 0 chooses a free one.")] = None,
    allowed_hosts: Annotated[
        str | None,
        setting_option(
            "allowed_hosts",
            "Names under which the service may be reached, besides localhost and IP addresses; separated by "
            "commas.",
        ),
    ] = None,
    auth: Annotated[
        Literal["none", "keys", "proxy"] | None,
        setting_option(
            "auth",
            "Who may ask: everybody (none, only on this computer), who has a key, or whom a proxy names.",
            metavar="none|keys|proxy",
        ),
    ] = None,
    insecure: Annotated[
        bool | None,
        setting_option(
            "insecure",
            "Let everybody do everything, also where other computers can reach the service.",
            "--insecure",
        ),
    ] = None,
    state: StateOption = None,
    media: Annotated[
        list[Path] | None,
        setting_option(
            "media_roots",
            "Folder, or address (s3://BUCKET/PREFIX), whose videos may be played; may be repeated. Default: "
            "those that `reelfind index` was given for this library.",
            "--media",
        ),
    ] = None,
    writes: Annotated[
        bool | None,
        setting_option(
            "writes", "Whether clients may change titles, tags and notes, and remove videos from the library."
        ),
    ] = None,
    allow_delete_media: Annotated[
        bool | None,
        setting_option(
            "allow_delete_media", "Whether clients that may remove a video may also delete its file."
        ),
    ] = None,
    jobs: Annotated[bool | None, setting_option("jobs", "Whether clients may start indexing runs.")] = None,
    upload_folder: Annotated[
        Path | None,
        setting_option(
            "upload_folder",
            "Folder for the videos that clients upload, in one of the media folders. Default: they may not "
            "upload any.",
        ),
    ] = None,
    bundle: BundleOption = None,
    provider: ProviderOption = None,
    threads: ThreadsOption = None,
    search_threads: Annotated[
        int | None, setting_option("search_threads", "Number of searches that run at the same time.")
    ] = None,
    deadline_ms: Annotated[
        int | None,
        setting_option(
            "deadline_ms",
            "Milliseconds that a search may take; as many candidates are re-ranked as can be in time.",
        ),
    ] = None,
    reload_seconds: Annotated[
        float | None,
        setting_option(
            "reload_seconds", "Seconds between checks for a new snapshot; 0 turns the checks off."
        ),
    ] = None,
    access_log: Annotated[
        bool | None, setting_option("access_log", "Whether to log one line per request.")
    ] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None,
        setting_option(
            "log_level", "Least severe messages to log: debug, info, warning or error.", metavar="LEVEL"
        ),
    ] = None,
) -> None:
    """Serve a library over HTTP: the API under /v1, the web page at /."""
    share_heaps()
    limit_lance_threads()
    limit_blas_threads()
    # FastAPI takes a fifth of a second to import, which the other commands do without.
    from service.api.exposure import check_exposure
    from service.api.server import address_of, bind, run_server

    settings = load_settings(
        {
            "library": library,
            "host": host,
            "port": port,
            "allowed_hosts": allowed_hosts,
            "auth": auth,
            "insecure": insecure,
            "state": state,
            "media_roots": tuple(media) if media else None,
            "writes": writes,
            "allow_delete_media": allow_delete_media,
            "jobs": jobs,
            "upload_folder": upload_folder,
            "bundle": bundle,
            "provider": provider,
            "threads": threads,
            "search_threads": search_threads,
            "deadline_ms": deadline_ms,
            "reload_seconds": reload_seconds,
            "access_log": access_log,
            "log_level": log_level,
        }
    )
    check_bundle_path(settings)
    with bind(settings.host, settings.port) as listener:
        check_exposure(settings, listener)
        address = address_of(listener)
        with tracing():
            run_server(
                settings,
                open_served_bundle(settings),
                listener,
                on_started=lambda: typer.echo(f"Reelfind is at {address} (Ctrl-C stops it)"),
            )
