"""The interface of feature files, and the checks that every format shares. Shapes: M vectors, F features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from model.arrays import Array
from model.runtime.errors import InputError

#: the name of the array with the features, where a file can hold several
KEY = "features"
REMEDY = "get the file again or make it again, or remove it and set data.allow_missing=true"


# Of so many videos one must be good, so that a store of damaged files ends with an error.
_TRIED = 20


class FeatureStore(Protocol):
    """The features of many videos. Safe to use from several threads."""

    @property
    def names(self) -> Sequence[str]:
        """The videos, sorted by name."""

    @property
    def width(self) -> int:
        """F.

        Raises:
            InputError: the features of the first videos cannot be read.
        """

    @property
    def every_seconds(self) -> float | None:
        """The seconds of one vector, if the files tell."""

    def __contains__(self, name: object) -> bool:
        """Whether there are features of a video."""

    def length(self, name: str) -> int:
        """M, at less cost than `read` where the format allows that.

        Raises:
            InputError: as `read`.
        """

    def duration_seconds(self, name: str) -> float | None:
        """How long a video is, if the files tell.

        Raises:
            InputError: as `read`.
        """

    def read(self, name: str) -> Array:
        """The features of a video, float32 [M, F].

        Raises:
            InputError: there are none, or they are damaged, empty, not finite, of another width than the
                first video's, or no floating-point numbers; the message names the file and the remedy.
        """


class BaseStore:
    """What the stores share: names, the width, and the checks of each video's features."""

    def __init__(self, where: str, names: Sequence[str]) -> None:
        """Start a store.

        Args:
            where: the folder or file, for messages.
            names: the videos.

        Raises:
            InputError: there is no video.
        """
        if not names:
            raise InputError(f"{where} holds no features: set data.features to the files of the data set")
        self.where = where
        self._names = tuple(sorted(names))
        self._known = frozenset(self._names)
        #: the video whose width all others must have, and that width
        self._model: tuple[str, int] | None = None

    @property
    def names(self) -> Sequence[str]:
        """See `FeatureStore`."""
        return self._names

    @property
    def width(self) -> int:
        """See `FeatureStore`."""
        # Two threads may look at once: both find the same.
        if self._model is None:
            self._model = self._first_good()
        return self._model[1]

    def _first_good(self) -> tuple[str, int]:
        """The first video whose features can be read, and their width."""
        problem: InputError | None = None
        for name in self._names[:_TRIED]:
            try:
                return name, check_features(self._load(name), self._place(name)).shape[1]
            except InputError as error:
                problem = problem or error
        raise problem or AssertionError("a store has a video")

    @property
    def every_seconds(self) -> float | None:
        """See `FeatureStore`."""
        return None

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def length(self, name: str) -> int:
        """See `FeatureStore`."""
        return len(self.read(name))

    def duration_seconds(self, name: str) -> float | None:  # noqa: ARG002
        """See `FeatureStore`."""
        return None

    def read(self, name: str) -> Array:
        """See `FeatureStore`."""
        self._check_known(name)
        features = check_features(self._load(name), self._place(name))
        width = self.width
        if features.shape[1] != width and self._model is not None:
            raise InputError(
                f"{self._place(name)} holds vectors of {features.shape[1]} numbers, and {self._model[0]} of "
                f"{width}: all videos of {self.where} must have the same features; {REMEDY}"
            )
        return features

    def _check_known(self, name: str) -> None:
        if name not in self._known:
            raise InputError(
                f"{self.where} has no features of {name}: get them, or set data.allow_missing=true"
            )

    def _place(self, name: str) -> str:
        """The file of a video, for messages."""
        return f"{self.where}, video {name},"

    def _load(self, name: str) -> Any:
        """The stored array of a video that is there.

        Raises:
            InputError: it cannot be read.
        """
        raise NotImplementedError


def check_features(values: Any, place: str) -> Array:
    """Check the features of one video. → float32 [M, F], M and F at least 1.

    Raises:
        InputError: they have another shape, another type, or NaN or infinity.
    """
    values = np.asarray(values)
    check_shape(values.shape, values.dtype, place)
    with np.errstate(over="ignore"):
        features: Array = np.ascontiguousarray(values, np.float32)
    if not np.isfinite(features).all():
        row = int(np.flatnonzero(~np.isfinite(features).all(1))[0])
        raise InputError(f"{place} holds NaN or infinity in vector {row}: {REMEDY}")
    return features


def check_shape(shape: tuple[int, ...], dtype: np.dtype[Any], place: str) -> None:
    """Check what `check_features` checks before the numbers are read.

    Raises:
        InputError: they have another shape or type.
    """
    if dtype.kind != "f":
        raise InputError(f"{place} holds {dtype}: features must be floating-point numbers")
    if len(shape) != 2:
        raise InputError(f"{place} holds an array of shape {list(shape)}: it must be [vectors, features]")
    if 0 in shape:
        raise InputError(f"{place} is empty, of shape {list(shape)}: {REMEDY}")
