"""The arguments of `reelfind index`, and those that `reelfind watch` shares with it.

`--speech` may stand without a value, and `--help` says which files are left out.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from indexer.ignore import default_text
from indexer.stages.speech_models import DEFAULT_MODEL, WHISPER_MODELS, is_model_folder
from model.runtime.bundle import Provider
from model.runtime.video import HwaccelName
from service.cli.exits import CheckedCommand
from service.settings import variable_of

PathsArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="PATH...",
        help="Video files, folders of videos, and addresses of both: s3://BUCKET/PREFIX, https://HOST/FILE.",
    ),
]
ModelProviderOption = Annotated[
    Provider, typer.Option("--provider", envvar=variable_of("provider"), help="Where the model runs.")
]
ModelThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        envvar=variable_of("threads"),
        help="CPU threads for the model. Default: one per core.",
    ),
]
HwaccelOption = Annotated[
    HwaccelName | None,
    typer.Option(
        "--hwaccel",
        envvar=variable_of("hwaccel"),
        help="Decode H.264, HEVC, VP8 and VP9 by a GPU (cuda: NVDEC), to the same frames; what it cannot, "
        "software does. Its driver needs more than a confined process may do: no seccomp filter and no limit "
        "of address space then.",
        show_default=False,
    ),
]
PinnedOption = Annotated[
    bool,
    typer.Option(
        "--pinned-memory",
        envvar=variable_of("pinned_memory"),
        help="Copy frames to the GPU, and results from it, by page-locked memory. Changes nothing on a CPU.",
    ),
]
KeepSnapshotsOption = Annotated[int, typer.Option(min=1, help="Number of snapshots to keep for rollback.")]

_OPTION = "--speech"
_PATTERNS = [line for line in default_text().splitlines() if line and not line.startswith("# ")]
#: Below the options of `--help`. With two spaces, so that no `*` is taken for emphasis.
LEFT_OUT = f"Left out unless --include names it: {'  '.join(_PATTERNS)}"


class IndexCommand(CheckedCommand):
    """`reelfind index`: a command of which `--speech` may stand without a value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments of the command line."""
        return super().parse_args(ctx, with_default_model(args))


def with_default_model(arguments: Sequence[str]) -> list[str]:
    """The arguments with the default model where `--speech` stands alone.

    What follows `--speech` is the model, unless it is another option, or a file or a folder that holds no
    model: then it is a path to index. `--speech=MODEL` always names a model.
    """
    found: list[str] = []
    for place, argument in enumerate(arguments):
        if argument == "--":
            return [*found, *arguments[place:]]
        if argument == _OPTION and not _is_model(*arguments[place + 1 : place + 2]):
            argument = f"{_OPTION}={DEFAULT_MODEL}"
        found.append(argument)
    return found


def _is_model(following: str = "-") -> bool:
    if following.startswith("-"):
        return False
    path = Path(following).expanduser()
    return following in WHISPER_MODELS or not path.exists() or is_model_folder(path)
