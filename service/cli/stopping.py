"""Ends a run on Ctrl-C or SIGTERM: in order at first, at once when asked again."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from model.runtime.signals import handling_signals


@contextmanager
def stopping(stop: threading.Event) -> Iterator[list[int]]:
    """Set `stop` on the first Ctrl-C or SIGTERM; the second one ends the process.

    Gives the list of the signals received so far.
    """
    received: list[int] = []

    def handle(number: int) -> None:
        received.append(number)
        if len(received) == 1:
            stop.set()
            # Not through the console: the interrupted code may hold its lock.
            sys.stderr.write("\nstopping after the current batch; press Ctrl-C again to stop at once\n")
        else:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    with handling_signals(handle):
        yield received
