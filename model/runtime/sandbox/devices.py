"""What a process must reach for decoding by a GPU: a driver's devices, what it reads, its libraries.

The driver of a GPU asks for far more than a decoder: see `confine_for_file`.
"""

import ctypes
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

#: What NVIDIA's driver reads when it starts.
_READABLE = ("/proc/driver/nvidia", "/proc/devices", "/proc/sys/vm", "/sys/devices/system")
_LIBRARIES = ("libcuda.so.1", "libnvcuvid.so.1")


@dataclass(frozen=True)
class Devices:
    """What a confined process may reach besides its file.

    Attributes:
        nodes: character devices, for reading, writing and control.
        readable: files and folders, for reading.
    """

    nodes: tuple[bytes, ...]
    readable: tuple[bytes, ...]


def nvidia_devices(folder: Path = Path("/dev")) -> Devices:
    """The devices of NVIDIA's driver, in `folder` and in its folder `nvidia-caps`; none where it is not."""
    found = sorted([*folder.glob("nvidia*"), *folder.glob("nvidia-caps/*")])
    nodes = tuple(os.fsencode(path) for path in found if stat.S_ISCHR(path.stat().st_mode))
    return Devices(nodes, tuple(map(os.fsencode, _READABLE)) if nodes else ())


def load_nvidia_libraries() -> None:
    """Load what FFmpeg would load when it opens the GPU: a process that is confined to one file cannot."""
    for name in _LIBRARIES:
        with suppress(OSError):
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
