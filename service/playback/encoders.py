"""How many streams and clips are made at the same time, and for whom. Used in the event loop's thread."""

from __future__ import annotations

from collections.abc import Callable

from service.errors import EncodersBusyError, NoEncodersError

#: When to try again, in seconds: viewers leave, and short clips are made.
_RETRY_SECONDS = 2.0


class Encoders:
    """The places for processes that encode.

    Args:
        most: how many there are; 0: nothing is made.
        show: is called with the number of places that are taken, whenever it changes.
    """

    def __init__(self, most: int, show: Callable[[int], None]) -> None:
        self._most = most
        self._show = show
        self._taken: dict[Place, None] = {}

    def take(self, viewer: tuple[str, str] | None) -> Place:
        """Take a place. A viewer has one: who asks again gets that of what is made for them now, which ends.

        Args:
            viewer: whom it is for; None: nobody who has asked before.

        Raises:
            EncodersBusyError: all are taken.
            NoEncodersError: there are none.
        """
        if not self._most:
            raise NoEncodersError(
                "No streams and clips are made here: REELFIND_MAX_ENCODERS is 0. Download the file instead."
            )
        for place in list(self._taken):
            if viewer is not None and place.viewer == viewer:
                place.end()
        if len(self._taken) >= self._most:
            raise EncodersBusyError(
                f"{len(self._taken)} streams and clips are being made, which is the limit. Try again in a "
                "moment, or raise REELFIND_MAX_ENCODERS.",
                retry_seconds=_RETRY_SECONDS,
            )
        place = Place(self, viewer)
        self._taken[place] = None
        self._show(len(self._taken))
        return place

    def end_all(self) -> None:
        """End all that is being made."""
        for place in list(self._taken):
            place.end()

    def release(self, place: Place) -> None:
        """A place is free again."""
        if place in self._taken:
            del self._taken[place]
            self._show(len(self._taken))


class Place:
    """A place that is taken.

    Attributes:
        viewer: whom it is for.
        has_ended: what is made in it was ended.
        stop: ends what is made in it; set once that has begun.
    """

    def __init__(self, encoders: Encoders, viewer: tuple[str, str] | None) -> None:
        self._encoders = encoders
        self.viewer = viewer
        self.has_ended = False
        self.stop: Callable[[], None] | None = None

    def end(self) -> None:
        """End what is made in it, and free it."""
        self.has_ended = True
        if self.stop is not None:
            self.stop()
        self._encoders.release(self)
