"""The test clips, and their frames as the ffmpeg program cuts them.

Clips are made on first use, with the program that comes with `imageio-ffmpeg`, in a folder of the session.
They show its moving test picture in changing hues, so that every frame differs from its neighbours.
"""

import os
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from numpy.typing import NDArray

SOURCE = "testsrc2=size={size}:rate={rate}:duration={seconds},hue=h=37*n"
# Where chroma samples sit between the pixels: H.264's and HEVC's rule, and the program's own guess.
LEFT = "in_h_chr_pos=0:in_v_chr_pos=128"
GUESSED = "flags=bicubic"
B_FRAMES = "-preset fast -x264-params keyint=24:bframes=3:b-adapt=0:b-pyramid=normal:scenecut=0"
OPEN_GOP = "-preset fast -x264-params keyint=12:min-keyint=12:bframes=3:b-adapt=0:open-gop=1:scenecut=0"
JITTER = "setpts='(N+0.45*random(1))/12.5/TB',settb=1/1000"


@dataclass(frozen=True)
class Clip:
    """How to make a clip: `encode` for the test picture, or `remux` (given the source clip's file)."""

    file: str
    encode: str = ""
    size: str = "96x72"
    rate: int = 25
    seconds: float = 3.0
    filters: str = ""
    audio: str = ""
    source: str = ""
    remux: str = ""
    before: str = ""
    siting: str = LEFT


X264 = "-c:v libx264 -pix_fmt yuv420p"
X265 = "-c:v libx265 -preset ultrafast"
FAST = f"{X264} -preset ultrafast"
CLIPS: dict[str, Clip] = {
    # Time
    "constant": Clip("constant.mp4", f"{FAST} -g 25"),
    "variable": Clip("variable.mp4", f"{X264} {B_FRAMES} -fps_mode vfr", filters=JITTER),
    "variable_mkv": Clip("variable.mkv", f"{X264} {B_FRAMES} -fps_mode vfr", filters=JITTER),
    "long_pauses": Clip(
        "long_pauses.mp4", f"{FAST} -fps_mode vfr", filters="select='not(between(mod(n,25),3,21))'", seconds=5
    ),
    "offset": Clip("offset.ts", f"{X264} {B_FRAMES} -output_ts_offset 10", audio="-c:a mp2"),
    "edit_list": Clip("edit_list.mp4", source="b_frames", before="-ss 0.7", remux="-c copy"),
    "late_video": Clip("late.mp4", FAST, audio="-c:a aac", before="-itsoffset 1.3"),
    "late_video_mkv": Clip("late.mkv", FAST, audio="-c:a aac", before="-itsoffset 1.3"),
    "long_audio": Clip("long_audio.mp4", f"{FAST} -t 2", audio="-c:a aac -t 4"),
    "no_times": Clip("raw.h264", f"{X264} {B_FRAMES}"),
    "no_duration": Clip("live.mkv", f"{FAST} -g 20 -live 1"),
    "fragments": Clip(
        "fragments.mp4", f"{X264} {B_FRAMES} -movflags +frag_keyframe+empty_moov+default_base_moof"
    ),
    "one_frame": Clip("one.mp4", f"{FAST} -frames:v 1"),
    "one_key_frame": Clip("one_key.mp4", f"{FAST} -g 1000 -bf 2"),
    "all_key_frames": Clip("all_key.mp4", f"{FAST} -g 1"),
    "all_key_frames_mkv": Clip("all_key.mkv", source="all_key_frames", remux="-c copy"),
    "all_key_frames_ts": Clip("all_key.ts", source="all_key_frames", remux="-c copy"),
    # Order
    "b_frames": Clip("b_frames.mp4", f"{X264} {B_FRAMES}"),
    "open_gop": Clip("open_gop.mp4", f"{X264} {OPEN_GOP}"),
    "open_gop_ts": Clip("open_gop.ts", source="open_gop", remux="-c copy"),
    "open_gop_mkv": Clip("open_gop.mkv", source="open_gop", remux="-c copy"),
    "intra_refresh": Clip(
        "refresh.ts", f"{X264} -preset fast -x264-params intra-refresh=1:keyint=20:bframes=0"
    ),
    "fields": Clip(
        "fields.ts",
        f"{X264} -preset fast -flags +ildct+ilme -x264-params tff=1:keyint=12:bframes=2:colormatrix=bt709",
    ),
    "fields_mkv": Clip("fields.mkv", source="fields", remux="-c copy"),
    "intra_refresh_mp4": Clip("refresh.mp4", source="intra_refresh", remux="-c copy"),
    # Turned and stretched
    **{
        f"rotated_{angle}": Clip(
            f"rot{angle}.mp4", source="b_frames", before=f"-display_rotation {angle}", remux="-c copy"
        )
        for angle in (90, 180, 270)
    },
    "mirrored": Clip("mirrored.mp4", source="constant", before="-display_hflip", remux="-c copy"),
    "turned_and_mirrored": Clip(
        "over.mp4", source="constant", before="-display_rotation 90 -display_hflip", remux="-c copy"
    ),
    "odd_size": Clip("odd.mkv", "-c:v libx264 -pix_fmt yuv444p -preset ultrafast", filters="scale=65:49"),
    "odd_size_vp9": Clip(
        "odd.webm",
        "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -pix_fmt yuv420p",
        filters="scale=65:49",
        siting=GUESSED,
    ),
    "wide_pixels": Clip("sar.mp4", FAST, filters="setsar=3/2"),
    "tall_pixels": Clip("sar_tall.mp4", FAST, filters="setsar=2/3"),
    # Colour
    **{
        f"{matrix}_{levels}_{depth}": Clip(
            f"{matrix}_{levels}_{depth}.mp4",
            f"-c:v libx264 -preset ultrafast -colorspace {space} -color_range {levels}",
            filters=f"scale=out_color_matrix={matrix}:out_range={levels},format={pixels}",
            seconds=1,
        )
        for matrix, space in (("bt601", "smpte170m"), ("bt709", "bt709"), ("bt2020", "bt2020nc"))
        for levels in ("tv", "pc")
        for depth, pixels in (("8", "yuv420p"), ("10", "yuv420p10le"))
    },
    # Codecs
    "hevc": Clip(
        "hevc.mp4",
        f"{X265} -pix_fmt yuv420p -x265-params keyint=12:bframes=3:log-level=none",
    ),
    "hevc_10": Clip(
        "hevc10.mkv",
        f"{X265} -pix_fmt yuv420p10le -x265-params keyint=12:log-level=none",
    ),
    "hevc_layers": Clip(
        "layers.mp4",
        f"{X265} -pix_fmt yuv420p -x265-params keyint=24:bframes=3:temporal-layers=3:log-level=none",
    ),
    "vp8": Clip("vp8.webm", "-c:v libvpx -deadline realtime -cpu-used 8 -auto-alt-ref 1 -g 10", seconds=1),
    "vp9": Clip(
        "vp9.webm",
        "-c:v libvpx-vp9 -deadline good -cpu-used 5 -auto-alt-ref 1 -lag-in-frames 12 -g 30 -pix_fmt yuv420p",
    ),
    "vp9_10": Clip(
        "vp9_10.webm",
        "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 20 -pix_fmt yuv420p10le",
        siting=GUESSED,
    ),
    "av1": Clip("av1.mp4", "-c:v libsvtav1 -preset 12 -g 20 -pix_fmt yuv420p -svtav1-params lookahead=0"),
    "av1_10": Clip("av1_10.webm", "-c:v libsvtav1 -preset 12 -g 20 -pix_fmt yuv420p10le", siting=GUESSED),
    "mpeg4_avi": Clip("mpeg4.avi", "-c:v mpeg4 -bf 2 -g 12 -q:v 4"),
    "mpeg2_ts": Clip("mpeg2.ts", "-c:v mpeg2video -bf 2 -g 12 -q:v 4"),
    "mpeg2_ps": Clip("mpeg2.mpg", "-c:v mpeg2video -bf 2 -g 12 -q:v 4"),
    "flv": Clip("h264.flv", f"{X264} {B_FRAMES}"),
    "mjpeg": Clip("mjpeg.avi", "-c:v mjpeg -q:v 3 -pix_fmt yuvj420p"),
    "prores": Clip("prores.mov", "-c:v prores -profile:v 0", siting=GUESSED),
    "gif": Clip("anim.gif", "-c:v gif", rate=10),
}


@cache
def encoders() -> frozenset[str]:
    """Names of the encoders in this build of ffmpeg."""
    text = subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-encoders"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return frozenset(re.findall(r"^ [VAS][A-Z.]{5} (\S+)", text, re.M))


def ffmpeg(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run the ffmpeg program; its log is in `stderr`."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-nostdin", "-hide_banner", "-threads", "2", *arguments]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr.decode(errors='replace')[-2000:]}")
    return done


class Clips:
    """Makes clips in a folder, each once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str) -> Path:
        """Give the file of a clip, or skip the test where ffmpeg lacks the encoder."""
        clip = CLIPS[name]
        path = self.folder / clip.file
        if path.exists():
            return path
        codec = re.search(r"-c:v (\S+)", clip.encode)
        if codec and codec[1] not in encoders():
            pytest.skip(f"this build of ffmpeg has no encoder {codec[1]}")
        if clip.source:
            ffmpeg(*clip.before.split(), "-i", str(self(clip.source)), *clip.remux.split(), str(path))
            return path
        source = SOURCE.format(size=clip.size, rate=clip.rate, seconds=clip.seconds)
        source += f",{clip.filters}" if clip.filters else ""
        inputs = [*clip.before.split(), "-f", "lavfi", "-i", source]
        if clip.audio:
            inputs += ["-f", "lavfi", "-i", f"sine=frequency=440:duration={max(clip.seconds, 4)}"]
        audio = ["-map", "0:v", "-map", "1:a", *clip.audio.split()] if clip.audio else []
        ffmpeg(*inputs, *audio, *clip.encode.split(), str(path))
        return path


@dataclass(frozen=True)
class Reference:
    """Every frame of a file as the ffmpeg program shows it."""

    frames: NDArray[np.uint8]
    times: NDArray[np.float64]

    def at(self, seconds: float) -> int:
        """The frame on display: the last one at or before `seconds`, else the first."""
        return max(0, int(np.searchsorted(self.times, seconds + 1e-6, side="right")) - 1)


def reference(path: Path, size: tuple[int, int], siting: str = LEFT) -> Reference:
    """Decode a whole file with the ffmpeg program to RGB of `size` (width, height), with its times.

    The program counts from the container's start, turns frames upright, leaves out what an edit list hides.
    """
    filters = f"scale={size[0]}:{size[1]}:{siting},format=rgb24,setsar=1,showinfo=checksum=0"
    done = ffmpeg(
        *("-i", str(path), "-map", "0:v:0", "-vf", filters),
        *("-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"),
        # A stream that is not used would not count for the start.
        *("-map", "0", "-c", "copy", "-f", "null", os.devnull),
    )
    times = [float(t) for t in re.findall(rb" pts_time:\s*(\S+)", done.stderr)]
    frames = np.frombuffer(done.stdout, np.uint8).reshape(-1, size[1], size[0], 3)
    if len(times) != len(frames):
        raise RuntimeError(f"{path}: ffmpeg gave {len(frames)} frames and {len(times)} times")
    return Reference(frames, np.array(times))


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    """The clips, made in a folder that the modules of this session share."""
    folder = tmp_path_factory.getbasetemp() / "clips"
    folder.mkdir(exist_ok=True)
    return Clips(folder)
