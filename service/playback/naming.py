"""The name of the file that a clip is saved as."""

from __future__ import annotations

import re

from model.runtime.messages import printable

#: What Windows does not allow in names, and separators of folders elsewhere.
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\ufffd]')
#: Bytes of a name: most file systems allow 255, and browsers add to it where the name is taken.
_MOST_BYTES = 200


def clip_name(name: str, start_seconds: float, end_seconds: float) -> str:
    """The name of a clip: that of the video's file, and the times, such as `film_0.01.05.2-0.01.12.mp4`.

    Args:
        name: the name of the file, which may be any text.
        start_seconds: where the clip starts.
        end_seconds: where it ends.
    """
    times = f"_{_clock(start_seconds)}-{_clock(end_seconds)}.mp4"
    stem = name.rpartition(".")[0] or name
    stem = _FORBIDDEN.sub("_", printable(stem)).strip(" .") or "clip"
    most = _MOST_BYTES - len(times)
    return stem.encode("utf-8", "replace")[:most].decode("utf-8", "ignore").rstrip() + times


def _clock(seconds: float) -> str:
    """Seconds as h.mm.ss, with as many decimals as they have, three at most."""
    milliseconds = round(seconds * 1000)
    whole, fraction = divmod(milliseconds, 1000)
    decimals = f".{fraction:03d}".rstrip("0").rstrip(".")
    return f"{whole // 3600}.{whole // 60 % 60:02d}.{whole % 60:02d}{decimals}"
