"""Options that several commands share, and the option for each field that an error may name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from indexer.library.storage.address import library_folder
from model.runtime.bundle import Provider
from model.runtime.errors import InputError
from service.settings import Settings, variable_of

#: The option for each field that an `InputError` may name.
OPTION_OF_FIELD: Mapping[str, str] = {
    "auth": "--auth",
    "events": "--events",
    "batch_frames": "--batch-size",
    "bundle": "--bundle",
    "cpu_seconds": "--cpu-seconds",
    "cpu_seconds_per_megabyte": "--cpu-seconds-per-megabyte",
    "embedding_dim": "--embedding-dim",
    "encoders": "--threads",
    "engine": "--engine",
    "exclude": "--exclude",
    "expires": "--expires",
    "file_timeout_seconds": "--file-timeout",
    "folder": "--folder",
    "forget_missing_days": "--forget-missing",
    "gpus": "--gpus",
    "host": "--host",
    "hwaccel": "--hwaccel",
    "include": "--include",
    "index_backend": "--index-backend",
    "index_factory": "--index-factory",
    "keep_seconds": "--keep-minutes",
    "keep_snapshots": "--keep-snapshots",
    "library": "--library",
    "max_hours": "--max-hours",
    "max_pixels": "--max-pixels",
    "name": "--name",
    "poll_seconds": "--poll-seconds",
    "port": "--port",
    "provider": "--provider",
    "prune": "--prune",
    "prune_empty": "--prune-empty",
    "ray_address": "--ray-address",
    "ray_encoders": "--ray-encoders",
    "ray_gpus": "--ray-gpus",
    "reason": "--reason",
    "rescan_hours": "--rescan-hours",
    "sandbox": "--sandbox",
    "scope": "--scope",
    "screen": "--screen",
    "settle_seconds": "--settle",
    "shots": "--shots",
    "speech": "--speech",
    "state": "--state",
    "stored_bytes_per_byte": "--stored-bytes-per-byte",
    "stored_megabytes": "--stored-megabytes",
    "threads": "--threads",
    "timeout_seconds": "--timeout",
    "tokens": "--tokens",
    "tokens_per_frame": "--tokens-per-frame",
    "worker_memory": "--worker-memory",
    "workers": "--workers",
}


def setting_option(setting: str, help_text: str, *declarations: str, **details: Any) -> Any:
    """An option for a setting, whose help also names the setting's environment variable.

    The option does not read the variable: `load_settings` does, and its error says which of the two is wrong.
    """
    if setting not in Settings.model_fields:
        raise KeyError(f"no setting {setting!r}")
    shown = rf"{help_text} [dim yellow]\[env var: {variable_of(setting)}][/]"
    return typer.Option(*declarations, help=shown, **details)


def _library_folder(value: str | Path) -> Path:
    """The folder of a library, or the working folder of an address. BadParameter when it is invalid."""
    try:
        return library_folder(value)
    except InputError as error:
        raise typer.BadParameter(str(error)) from error


_LIBRARY_HELP = "Folder of the library, or its address in an object store, such as s3://BUCKET/PREFIX."

LibraryOption = Annotated[
    Path | None,
    setting_option("library", _LIBRARY_HELP, "--library", parser=_library_folder, metavar="PATH"),
]
RequiredLibraryOption = Annotated[
    Path,
    typer.Option(
        "--library",
        envvar=variable_of("library"),
        help=_LIBRARY_HELP,
        show_default=False,
        parser=_library_folder,
        metavar="PATH",
    ),
]
IndexBackendOption = Annotated[
    str | None,
    typer.Option(
        help="What stores and searches vectors: 'faiss' in memory, 'lance' on the disk, or 'milvus', the "
        "server that REELFIND_VECTORS names. Remembered for later runs. 'auto', as in a new library, takes "
        "milvus where that is set, else lance for more than 2 million segments.",
        show_default=False,
    ),
]
StateOption = Annotated[
    Path | None,
    setting_option(
        "state", "Folder for what the service itself keeps. Default: beside the library, LIBRARY-state."
    ),
]
BundleOption = Annotated[
    Path | None,
    setting_option(
        "bundle", "Folder of the model bundle. Default: the one that ships with Reelfind.", "--bundle"
    ),
]
ProviderOption = Annotated[
    Provider | None,
    setting_option("provider", "Where the model runs: cpu, cuda or tensorrt.", "--provider", metavar="NAME"),
]
ThreadsOption = Annotated[
    int | None,
    setting_option(
        "threads", "CPU threads for one call of the model. Default: ONNX Runtime chooses.", "--threads"
    ),
]
RerankOption = Annotated[
    bool,
    typer.Option(
        "--rerank/--no-rerank", help="Whether to re-rank the best segments by their salient frames."
    ),
]
CandidatesOption = Annotated[
    int | None,
    typer.Option("--num-candidates", help="Number of segments to re-rank.", show_default="set by the bundle"),
]
SalientOption = Annotated[
    int | None,
    typer.Option(
        "--num-salient-frames",
        help="Number of frames of each segment to match with the query.",
        show_default="set by the bundle",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")]
