"""Films whose picture and sound tell the time: at each whole second a white square and a tone, for 0.1 s."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.clips import encoders, ffmpeg

TONE = "aevalsrc='if(lt(mod(t,1),0.1),0.5*sin(2*PI*1000*t),0)':s=48000:d={seconds}"
BOX = "drawbox=x=0:y=0:w=iw/4:h=ih/4:t=fill"
SQUARE = f"{BOX}:color=white:enable='lt(mod(t+0.001,1),0.1)'"
PICTURE = f"testsrc2=size={{size}}:rate={{rate}}:duration={{seconds}},format=yuv420p,{BOX}:color=black"
FLASH_SECONDS = 0.1


@dataclass(frozen=True)
class Film:
    """How a film is made: its file, and the options of the ffmpeg program for picture and sound."""

    file: str
    picture: str
    sound: str = ""
    size: str = "128x96"
    rate: str = "25"
    seconds: float = 4.0
    sound_seconds: float | None = None
    filters: str = ""
    before: str = ""
    after: str = ""


X264 = "-c:v libx264 -preset ultrafast"
X265 = "-c:v libx265 -preset ultrafast -x265-params log-level=none:keyint=50"
KEYS = "-sc_threshold 0"
FILMS = {
    "hevc": Film("hevc.mp4", f"{X265} -pix_fmt yuv420p", "-c:a aac"),
    "hevc of 10 bits": Film("hevc10.mkv", f"{X265} -pix_fmt yuv420p10le", "-c:a eac3"),
    "avi": Film("film.avi", "-c:v mpeg4 -bf 2 -g 50 -q:v 3", "-c:a libmp3lame"),
    "mpeg2": Film("film.mpg", "-c:v mpeg2video -bf 2 -g 12 -q:v 3", "-c:a mp2"),
    "interlaced": Film(
        "fields.ts",
        "-c:v mpeg2video -flags +ildct+ilme -q:v 2",
        "-c:a ac3",
        rate="50",
        filters="tinterlace=interleave_top",
    ),
    "vp9": Film("vp9.mkv", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 40", "-c:a ac3"),
    "flac": Film("flac.mkv", f"{X264} -g 30 -bf 2", "-c:a flac"),
    "pcm": Film("pcm.mov", "-c:v mjpeg -q:v 3 -pix_fmt yuvj420p", "-c:a pcm_s16le -ar 44100 -ac 1"),
    "variable": Film(
        "variable.mkv",
        f"{X264} -bf 2 -fps_mode vfr",
        "-c:a libopus",
        filters="settb=1/1000,setpts='(N+0.45*random(1))/25/TB'",
    ),
    "pauses": Film(
        "pauses.mp4",
        f"{X264} -bf 0 -fps_mode vfr",
        "-c:a aac",
        filters="select='not(between(mod(n,75),13,70))'",
        seconds=6.0,
    ),
    "turned": Film("turned.mp4", f"{X264} -g 25", "-c:a aac", before="-display_rotation 90"),
    "late": Film("late.mkv", f"{X264} -g 25", "-c:a aac", before="-itsoffset 1.3"),
    "from 10 s on": Film("offset.ts", f"{X264} -bf 2 -g 25", "-c:a mp2", after="-output_ts_offset 10"),
    "odd size": Film(
        "odd.mkv", f"{X264} -pix_fmt yuv444p", "-c:a libvorbis", size="131x97", filters="format=yuv444p"
    ),
    "wide pixels": Film("wide.mp4", X264, filters="setsar=3/2"),
    "without sound": Film("silent.avi", "-c:v mpeg4 -q:v 3"),
    "longer sound": Film("longer.mkv", X264, "-c:a pcm_s16le", seconds=2.0, sound_seconds=4.0),
    "shorter sound": Film("shorter.mkv", X264, "-c:a pcm_s24le", sound_seconds=2.0),
    "six channels": Film("six.mkv", X264, "-c:a ac3 -ac 6"),
    "high dynamic range": Film(
        "hdr.mp4",
        f"{X265}:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc -pix_fmt yuv420p10le",
        "-c:a aac",
    ),
    # Every second, a picture that needs no other.
    "h264": Film("keys.mp4", f"{X264} -g 25 -bf 3 {KEYS}", "-c:a aac"),
    "h264 in mkv": Film("keys.mkv", f"{X264} -g 25 -bf 3 {KEYS}", "-c:a libmp3lame"),
    "h264 in ts": Film("keys.ts", f"{X264} -g 25 -bf 2 {KEYS}", "-c:a aac"),
    "h264 in flv": Film("keys.flv", f"{X264} -g 25 -bf 2 {KEYS}", "-c:a aac"),
    "h264 turned": Film("keys turned.mp4", f"{X264} -g 25 {KEYS}", "-c:a aac", before="-display_rotation 90"),
    "h264 of wide pixels": Film("keys wide.mp4", f"{X264} -g 25 {KEYS}", filters="setsar=3/2"),
    "vp9 in webm": Film("keys.webm", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 25", "-c:a libopus"),
    "open groups": Film(
        "open.mp4",
        "-c:v libx264 -preset fast -x264-params keyint=25:bframes=3:open-gop=1:scenecut=0",
        "-c:a aac",
    ),
    "fast": Film("fast.mp4", f"{X264} -g 50 -bf 3", "-c:a aac", rate="60000/1001"),
}


class Films:
    """Makes films in a folder, each once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str) -> Path:
        """Give the file of a film, or skip the test where ffmpeg lacks the encoder."""
        film = FILMS[name]
        path = self.folder / film.file
        codec = film.picture.split()[1]
        if codec not in encoders():
            pytest.skip(f"this build of ffmpeg has no encoder {codec}")
        if not path.exists():
            picture = PICTURE.format(size=film.size, rate=film.rate, seconds=film.seconds)
            filters = ",".join(filter(None, [picture, SQUARE, film.filters]))
            arguments = [*film.before.split()] if "itsoffset" in film.before else []
            arguments += ["-f", "lavfi", "-i", filters]
            if film.sound:
                tone = TONE.format(seconds=film.sound_seconds or film.seconds)
                arguments += ["-f", "lavfi", "-i", tone, *film.sound.split()]
            arguments += [*film.picture.split(), *film.after.split()]
            if "display" in film.before:
                upright = path.with_stem(f"{path.stem} upright")
                ffmpeg(*arguments, str(upright))
                arguments = [*film.before.split(), "-i", str(upright), "-c", "copy"]
            ffmpeg(*arguments, str(path))
        return path

    def long(self, name: str, times: int) -> Path:
        """A film that repeats another so many times."""
        path = self(name)
        made = path.with_stem(f"{path.stem} x {times}")
        if not made.exists():
            ffmpeg("-stream_loop", str(times - 1), "-i", str(path), "-c", "copy", str(made))
        return made


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Films:
    """The films, made in a folder that the modules of this session share."""
    folder = tmp_path_factory.getbasetemp() / "flashes"
    folder.mkdir(exist_ok=True)
    return Films(folder)


@dataclass(frozen=True, eq=False)
class Decoded:
    """A file, decoded whole.

    Attributes:
        times: of its pictures, seconds, [n].
        pictures: RGB uint8 [n, h, w, 3].
        sound: 48,000 samples a second from time 0 on, [m]; None without a stream of sound.
    """

    times: NDArray[np.float64]
    pictures: NDArray[np.uint8]
    sound: NDArray[np.float64] | None

    def tones(self) -> list[float]:
        """When the tones begin, seconds."""
        if self.sound is None:
            return []
        loud = np.abs(self.sound) > 0.15
        places = np.flatnonzero(loud)
        begins = places[np.diff(places, prepend=-10_000) > 9600]
        return [float(place) / 48000 for place in begins]


def decode(path: Path) -> Decoded:
    """Decode an MP4 file with PyAV, by its own times."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [(_seconds(frame), frame.to_ndarray(format="rgb24")) for frame in container.decode(stream)]
    sound: NDArray[np.float64] | None = None
    with av.open(str(path)) as container:
        if container.streams.audio:
            sound = np.zeros(48000 * 60)
            resampler = av.AudioResampler(format="flt", layout="mono", rate=48000)
            end = 0
            for heard in container.decode(container.streams.audio[0]):
                first = round(_seconds(heard) * 48000)
                for part in resampler.resample(heard):
                    samples = part.to_ndarray().reshape(-1)
                    begin = max(0, -first)
                    sound[first + begin : first + len(samples)] = samples[begin:]
                    end = max(end, first + len(samples))
            sound = sound[:end]
    pictures = np.stack([picture for _, picture in frames]).astype(np.uint8, copy=False)
    return Decoded(np.array([seconds for seconds, _ in frames]), pictures, sound)


def _seconds(frame: av.VideoFrame | av.AudioFrame) -> float:
    assert frame.pts is not None
    assert frame.time_base is not None
    return float(frame.pts * frame.time_base)
