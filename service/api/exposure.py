"""Refuses to serve everybody where other computers can reach the service."""

import ipaddress
import socket

from model.runtime.errors import InputError
from service.settings import Settings, how_to_make_a_key


def check_exposure(settings: Settings, listener: socket.socket) -> None:
    """Refuse to start where `auth` is `none` and the socket can be reached from other computers.

    Raises:
        InputError: so it is, and `insecure` is not set.
    """
    if settings.auth != "none" or settings.insecure:
        return
    address = str(listener.getsockname()[0])
    if not _is_loopback(address):
        raise InputError(
            f"host {settings.host} can be reached from other computers, and the service would let everybody "
            f"do everything: make a key with `{how_to_make_a_key(settings)}` and start with `--auth keys`, "
            "or listen on 127.0.0.1, or give `--insecure` if only people you trust can reach it",
            field="host",
        )


def _is_loopback(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback
