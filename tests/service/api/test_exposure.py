"""Where everybody may do everything, the service starts only where nobody else can reach it."""

from __future__ import annotations

import socket
import subprocess

import pytest

from model.runtime.errors import InputError
from service.api.exposure import check_exposure
from service.api.server import bind
from service.settings import load_settings
from tests.support.server import REELFIND, clean_environment


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1.2.3", "::1"])
def test_this_computer_alone_needs_nothing(host: str) -> None:
    with bind(host, 0) as listener:
        check_exposure(load_settings({"host": host}), listener)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_all_addresses_need_keys_or_a_word(host: str) -> None:
    with bind(host, 0) as listener:
        with pytest.raises(
            InputError, match=r"reelfind keys create --scope admin --state .*-state` and start"
        ):
            check_exposure(load_settings({"host": host}), listener)
        check_exposure(load_settings({"host": host, "insecure": True}), listener)
        check_exposure(load_settings({"host": host, "auth": "keys"}), listener)


def test_an_ipv4_loopback_in_ipv6_is_this_computer() -> None:
    with socket.socket(socket.AF_INET6) as listener:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::ffff:127.0.0.1", 0))
        check_exposure(load_settings({"host": "x"}), listener)


def test_the_command_refuses_and_says_what_to_do() -> None:
    command = [*REELFIND, "serve", "--host", "0.0.0.0", "--port", "0", "--library", "/nowhere/library"]
    done = subprocess.run(
        command, env=clean_environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("reelfind: --host 0.0.0.0 can be reached from other computers")
    assert "`reelfind keys create --scope admin --state /nowhere/library-state`" in done.stderr
    assert len(done.stderr.splitlines()) == 1
