"""All that confines a decoding process, in the order in which it is put in force, and what became of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from model.runtime.sandbox.devices import Devices
from model.runtime.sandbox.landlock import allow_one_file
from model.runtime.sandbox.rights import (
    drop_capabilities,
    forbid_new_privileges,
    leave_network,
    limit_resources,
)
from model.runtime.sandbox.seccomp import filter_system_calls

#: "auto": what the system has; "required": refuse to decode without `NEEDED`; "off": nothing.
SandboxMode = Literal["auto", "required", "off"]
SANDBOX_MODES: tuple[SandboxMode, ...] = get_args(SandboxMode)

NETWORK, LIMITS, PRIVILEGES, CAPABILITIES = "network", "limits", "privileges", "capabilities"
FILES, SYSTEM_CALLS = "files", "system calls"
#: Without these a decoder reaches other files, the network or other processes.
NEEDED = (PRIVILEGES, FILES, SYSTEM_CALLS)
#: Decoders open the file a few times at once, and no other.
_OPEN_FILES = 64
#: The driver of a GPU opens its devices again and again.
_OPEN_FILES_WITH_DEVICES = 512


@dataclass(frozen=True)
class Part:
    """One part of the confinement.

    Attributes:
        name: what it concerns.
        effect: what it does.
        missing: why it is not in force; None: it is.
    """

    name: str
    effect: str
    missing: str | None


@dataclass(frozen=True)
class Confinement:
    """What is in force for the processes that decode.

    Attributes:
        parts: none where it is off.
        hwaccel: whether a GPU decodes; None: it was not asked for.
    """

    parts: tuple[Part, ...] = ()
    hwaccel: Part | None = None

    def lacks(self) -> tuple[Part, ...]:
        """The parts that are needed but not in force."""
        if not self.parts:
            return tuple(Part(name, "", "the sandbox is off") for name in NEEDED)
        return tuple(part for part in self.parts if part.name in NEEDED and part.missing is not None)

    def __str__(self) -> str:
        """One line: what is in force, then what is missing and why, then whether a GPU decodes."""
        return self._confined() + hwaccel_text(self.hwaccel)

    def _confined(self) -> str:
        if not self.parts:
            return "decoders are not confined (--sandbox off)"
        there = [part.effect for part in self.parts if part.missing is None]
        missing = [f"no {part.name} ({part.missing})" for part in self.parts if part.missing is not None]
        text = f"decoders are confined: {', '.join(there)}" if there else "decoders are not confined"
        return f"{text}; missing: {', '.join(missing)}" if missing else text


def hwaccel_text(part: Part | None) -> str:
    """What to add to the line that says how decoders are confined."""
    if part is None:
        return ""
    if part.missing is not None:
        return f"; software decodes, not {part.name}: {part.missing}"
    return f"; {part.effect}"


@dataclass(frozen=True)
class Limits:
    """The resources of the process that decodes one file.

    Attributes:
        memory_bytes: of address space.
        cpu_seconds: of all its threads together.
        file_bytes: size of a file that it may write.
    """

    memory_bytes: int
    cpu_seconds: int
    file_bytes: int = 0


def confine_for_run() -> Part:
    """Confine a process that has one thread, and what it will start, for a whole run: no network."""
    return _put_in_force(NETWORK, "no network", leave_network)


def confine_for_file(path: bytes, limits: Limits, devices: Devices | None = None) -> tuple[Part, ...]:
    """Confine a process that has one thread to reading one file. What is missing is passed over.

    The driver of a GPU reserves far more address space than there is memory, and its calls of `ioctl` reach
    deep into the kernel: with `devices`, neither the address space nor system calls are limited.

    Args:
        path: the file.
        limits: what it may use.
        devices: what it may reach to decode by a GPU; None: software decodes.
    """
    nodes, readable = (devices.nodes, devices.readable) if devices else ((), ())
    unlimited = Part(SYSTEM_CALLS, "seccomp filter", "the driver of the GPU needs calls of all kinds")
    # Each needs those before it; after the last, none could be put in force.
    return (
        limit_only(limits, with_devices=devices is not None),
        _put_in_force(PRIVILEGES, "no new privileges", forbid_new_privileges),
        _put_in_force(CAPABILITIES, "no capabilities", drop_capabilities),
        _put_in_force(FILES, _landlock_effect(nodes), lambda: allow_one_file(path, nodes, readable)),
        unlimited if devices else _put_in_force(SYSTEM_CALLS, "seccomp filter", filter_system_calls),
    )


def _landlock_effect(nodes: Sequence[bytes]) -> str:
    return f"Landlock for one file and {len(nodes)} devices" if nodes else "Landlock for one file"


def limit_only(limits: Limits, *, with_devices: bool = False) -> Part:
    """Limit what this process may use, and nothing else; `with_devices`, its address space is not."""
    gib = limits.memory_bytes / (1 << 30)
    set_limits = partial(
        limit_resources,
        memory_bytes=None if with_devices else limits.memory_bytes,
        cpu_seconds=limits.cpu_seconds,
        open_files=_OPEN_FILES_WITH_DEVICES if with_devices else _OPEN_FILES,
        file_bytes=limits.file_bytes,
    )
    effect = "limited CPU time" if with_devices else f"{gib:.1f} GiB of address space"
    return _put_in_force(LIMITS, effect, set_limits)


def _put_in_force(name: str, effect: str, act: Callable[[], object]) -> Part:
    try:
        act()
    except (OSError, AttributeError) as error:  # a C library without the function
        return Part(name, effect, getattr(error, "strerror", None) or str(error))
    return Part(name, effect, None)
