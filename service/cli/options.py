"""Options that several commands share, and what the command line calls the fields of the core."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from model.runtime.bundle import Provider
from service.settings import Settings, variable_of

#: The option for each field that an error of the core may name.
OPTION_OF_FIELD: Mapping[str, str] = {
    "batch_frames": "--batch-size",
    "bundle": "--bundle",
    "encoders": "--threads",
    "host": "--host",
    "index_factory": "--index-factory",
    "keep_snapshots": "--keep-snapshots",
    "library": "--library",
    "port": "--port",
    "prune": "--prune",
    "prune_empty": "--prune-empty",
    "timeout_seconds": "--timeout",
    "tokens": "--tokens",
    "tokens_per_frame": "--tokens-per-frame",
    "workers": "--workers",
}


def setting_option(setting: str, help_text: str, *declarations: str, **details: Any) -> Any:
    """An option that wins over a setting's environment variable, which its help names.

    The option itself does not read the variable: `load_settings` does, and says which of the two is wrong.
    """
    if setting not in Settings.model_fields:
        raise KeyError(f"no setting {setting!r}")
    shown = rf"{help_text} [dim yellow]\[env var: {variable_of(setting)}][/]"
    return typer.Option(*declarations, help=shown, **details)


_LIBRARY_HELP = "The library's folder."

LibraryOption = Annotated[Path | None, setting_option("library", _LIBRARY_HELP, "--library")]
RequiredLibraryOption = Annotated[
    Path, typer.Option("--library", envvar=variable_of("library"), help=_LIBRARY_HELP, show_default=False)
]
BundleOption = Annotated[
    Path | None,
    setting_option("bundle", "The model bundle's folder; without it, the one installed.", "--bundle"),
]
ProviderOption = Annotated[
    Provider | None,
    setting_option("provider", "Where the model runs: cpu, cuda or tensorrt.", "--provider", metavar="NAME"),
]
ThreadsOption = Annotated[
    int | None,
    setting_option(
        "threads", "Threads of one model call; without it, the model runtime's choice.", "--threads"
    ),
]
RerankOption = Annotated[
    bool, typer.Option("--rerank/--no-rerank", help="Re-rank the best segments by their salient frames.")
]
CandidatesOption = Annotated[
    int | None, typer.Option("--num-candidates", help="The most segments to re-rank.", show_default="model's")
]
SalientOption = Annotated[
    int | None,
    typer.Option("--num-salient-frames", help="Frames of a segment to match.", show_default="model's"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.")]
