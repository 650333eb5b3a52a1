"""Files with several streams of pictures: covers, thumbnails, angles."""

from pathlib import Path

from tests.support.clips import ffmpeg

FILM_WIDTH = 160
OTHER_WIDTH = 320
FILM = "testsrc2=size=160x120:rate=25:duration=4"
ONE = "testsrc2=size=320x240:rate=1:duration=1"
THUMBNAILS = "testsrc2=size=320x240:rate=1:duration=4"
ANGLE = "testsrc2=size=320x240:rate=25:duration=4"
#: The other stream's source and encoder, which stream comes first, which are default ones, the formats.
CASES: dict[str, tuple[str, str, str, str, tuple[str, ...]]] = {
    "a cover first": (ONE, "mjpeg", "other", "other", ("mp4", "mkv", "mov", "avi")),
    "a cover of PNG first": (ONE, "png", "other", "other", ("mp4", "mkv")),
    "a cover of a film's codec first": (ONE, "libx264", "other", "other", ("mp4", "mkv")),
    "a cover that a broadcast never sends": (ONE, "mpeg2video", "other", "", ("ts",)),
    "a cover last": (ONE, "mjpeg", "film", "other", ("mp4", "mkv")),
    "thumbnails first": (THUMBNAILS, "mjpeg", "other", "other", ("mp4", "mkv", "mov")),
    "an angle that is larger": (ANGLE, "libx264", "film", "film other", ("mp4", "mkv")),
    "no default": (ANGLE, "libx264", "film", "", ("mp4", "mkv", "ts")),
    "the default one last": (ANGLE, "libx264", "other", "film", ("mp4", "mkv")),
}
FILES = [(name, extension) for name, case in CASES.items() for extension in case[4]]


def make(folder: Path, name: str, extension: str) -> Path:
    """Write a file with the film (160 pixels wide) and another stream (320 pixels wide)."""
    source, codec, first, defaults, _ = CASES[name]
    kinds = ["film", "other"] if first == "film" else ["other", "film"]
    sources = {"film": FILM, "other": source}
    codecs = {"film": "libx264", "other": codec}
    arguments: list[str] = []
    for kind in kinds:
        arguments += ["-f", "lavfi", "-i", sources[kind]]
    for number, kind in enumerate(kinds):
        arguments += ["-map", str(number), f"-c:v:{number}", codecs[kind]]
        arguments += [f"-disposition:v:{number}", "default" if kind in defaults.split() else "0"]
        if codecs[kind] == "libx264":
            arguments += [f"-pix_fmt:v:{number}", "yuv420p", f"-preset:v:{number}", "ultrafast"]
    path = folder / f"film.{extension}"
    ffmpeg(*arguments, str(path))
    return path
