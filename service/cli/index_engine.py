"""The options of `reelfind index` that say where it decodes and encodes: here, or on a Ray cluster."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer

from indexer.engines.base import Engine
from indexer.options import IndexOptions
from indexer.run import decoder_bounds
from model.runtime.bundle import Provider
from model.runtime.errors import InputError


class EngineName(StrEnum):
    """Where to decode and encode."""

    LOCAL = "local"
    RAY = "ray"


EngineOption = Annotated[
    EngineName,
    typer.Option(
        help="Where to decode and encode: on this machine (local), or on a Ray cluster (ray), which needs "
        "the extra 'ray', and the videos and the bundle at the same paths on all nodes."
    ),
]
RayAddressOption = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Ray cluster to use; 'auto': the one that this machine is a node of. Default: one that is "
        "started on this machine, for this run.",
        show_default=False,
    ),
]
RayEncodersOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Encoding actors on Ray. Default: as many as its GPUs hold, or its CPUs with --provider cpu.",
        show_default=False,
    ),
]
RayGpusOption = Annotated[
    float, typer.Option(help="What an encoding actor takes of a GPU: 0.5 lets two share one.")
]


@dataclass(frozen=True)
class RayRequest:
    """What the command line says of Ray; for the fields, see `RayOptions`."""

    address: str | None
    decoders: int | None
    encoders: int | None
    gpus: float
    provider: Provider


def chosen_engine(name: EngineName, options: IndexOptions, request: RayRequest) -> Engine | None:
    """The engine that the command line asks for; None: that of this machine.

    Raises:
        InputError: Ray is not installed, does not answer, or an option is for Ray alone.
    """
    if name == EngineName.LOCAL:
        if request.encoders is not None:
            raise InputError("`ray_encoders` says nothing without `engine` ray: give both, or neither")
        return None
    # Late: nobody else needs it.
    from indexer.engines.ray import RayEngine
    from indexer.engines.ray_cluster import RayOptions

    ray_options = RayOptions(
        request.address, request.decoders, request.encoders, request.gpus, request.provider
    )
    return RayEngine(ray_options, decoder_bounds(options))
