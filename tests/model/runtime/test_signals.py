"""Signals reach the handler, and afterwards do what they did before."""

from __future__ import annotations

import signal
import threading

import pytest

from model.runtime.signals import STOP_SIGNALS, handling_signals


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_handler_is_called_and_the_old_one_comes_back(number: signal.Signals) -> None:
    received: list[int] = []
    before = signal.getsignal(number)
    with handling_signals(received.append):
        signal.raise_signal(number)
        signal.raise_signal(number)
    assert received == [number, number]
    assert signal.getsignal(number) is before


def test_an_error_restores_the_handlers() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError), handling_signals(lambda _: None):
        raise RuntimeError
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_the_main_thread_nothing_changes() -> None:
    before = signal.getsignal(signal.SIGTERM)
    inside: list[object] = []

    def work() -> None:
        with handling_signals(lambda _: None):
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [before]
