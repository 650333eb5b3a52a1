"""Refuses to serve everybody where other computers can reach the service."""

import socket

from model.runtime.errors import InputError
from service.api.connections import address_of
from service.settings import Settings, how_to_make_a_key


def check_exposure(settings: Settings, listener: socket.socket) -> None:
    """Refuse to start where `auth` is `none` and the socket can be reached from other computers.

    Raises:
        InputError: so it is, and `insecure` is not set.
    """
    if settings.auth != "none" or settings.insecure:
        return
    address = address_of(str(listener.getsockname()[0]))
    if address is None or not address.is_loopback:
        raise InputError(
            f"host {settings.host} can be reached from other computers, and the service would let everybody "
            f"do everything: make a key with `{how_to_make_a_key(settings)}` and start with `--auth keys`, "
            "or listen on 127.0.0.1, or give `--insecure` if only people you trust can reach it",
            field="host",
        )
