"""What a command and all its processes contact, seen by strace."""

from __future__ import annotations

import ipaddress
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest

_CALLS = re.compile(r"\b(?:connect|sendto|sendmsg|sendmmsg)\(.*")
_INTERNET = re.compile(
    r'sin6?_port=htons\((\d+)\).*?(?:inet_addr\("|inet_pton\(AF_INET6, ")(?P<address>[^"]+)"'
)
_DNS_PORT = 53


@cache
def strace() -> str:
    """strace's path; skips the test where it is missing or may not trace."""
    found = shutil.which("strace")
    if found is None:
        pytest.skip("strace is not installed (apt-get install strace)")
    tried = subprocess.run([found, "-f", "-e", "trace=%network", "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"strace may not trace here: {tried.stderr.strip()}")
    return found


def traced_command(command: Sequence[str], log: Path) -> list[str]:
    """`command`, to be run so that strace writes its network calls to `log`."""
    return [strace(), "-f", "-qq", "-s", "200", "-e", "trace=%network", "-o", str(log), *command]


def contacts(log: Path) -> list[str]:
    """The calls in `log` that ask for a name or go to an address that is not of this machine's loopback."""
    return [call for line in log.read_text().splitlines() if (call := _contact(line)) is not None]


def run_traced(
    command: Sequence[str], log: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run `command` to its end; its network calls go to `log`."""
    return subprocess.run(
        traced_command(command, log), env=dict(environment), capture_output=True, text=True, timeout=300
    )


def python(code: str) -> list[str]:
    """A command that runs Python code."""
    return [sys.executable, "-c", code]


def _contact(line: str) -> str | None:
    call = _CALLS.search(line)
    if call is None:
        return None
    text = call.group()
    if "io.systemd.Resolve" in text:
        return text
    found = _INTERNET.search(text)
    if found is None:
        return None
    # A resolver on the loopback asks others.
    asks_a_name = int(found.group(1)) == _DNS_PORT
    return text if asks_a_name or not ipaddress.ip_address(found["address"]).is_loopback else None
