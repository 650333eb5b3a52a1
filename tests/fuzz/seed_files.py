"""The small good files that are damaged: containers × codecs, committed in `seeds/`.

`python -m tests.fuzz.seed_files` makes them anew with the ffmpeg program of `imageio-ffmpeg`. They are
committed because another version of an encoder may write other bytes, and a damaged file is known by its
number only as long as its seed stays the same.
"""

import sys
from pathlib import Path

from tests.support.clips import ffmpeg

FOLDER = Path(__file__).parent / "seeds"

_PICTURE = "testsrc2=size=64x64:rate=8:duration=0.75,hue=h=37*n"
_TONE = "sine=frequency=440:duration=0.75:sample_rate=16000"
_X264 = "-c:v libx264 -pix_fmt yuv420p -preset ultrafast -g 4 -bf 1 -crf 35"
_X265_OPTIONS = "keyint=4:log-level=none:info=0:pools=none"
_X265 = f"-c:v libx265 -pix_fmt yuv420p -preset ultrafast -crf 38 -x265-params {_X265_OPTIONS}"
_MPEG4 = "-c:v mpeg4 -g 4 -bf 1 -q:v 16"
_VP8 = "-c:v libvpx -deadline realtime -cpu-used 8 -g 4 -b:v 30k"
_VP9 = "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 4 -b:v 60k -pix_fmt yuv420p"
_AV1 = "-c:v libaom-av1 -cpu-used 8 -usage realtime -g 4 -crf 50 -pix_fmt yuv420p"
_MPEG2 = "-c:v mpeg2video -g 4 -bf 1 -q:v 16"
_MPEG1 = "-c:v mpeg1video -g 4 -q:v 16 -r 25"
_MJPEG = "-c:v mjpeg -q:v 24 -pix_fmt yuvj420p"
_PQ = "-vf setparams=color_primaries=bt2020:color_trc=smpte2084:colorspace=bt2020nc"
_FEW = "-frames:v 2"
_AAC = "-c:a aac -b:a 16k"

#: How ffmpeg encodes each seed; with an audio codec, the seed has sound.
RECIPES: dict[str, str] = {
    "h264_aac.mp4": f"{_X264} {_AAC}",
    "h264_fragments.mp4": f"{_X264} -movflags +frag_keyframe+empty_moov+default_base_moof",
    "h264_index_first.mp4": f"{_X264} -movflags +faststart",
    "hevc.mp4": f"{_X265} -tag:v hvc1",
    "hevc_hdr.mp4": f"{_X265} -pix_fmt yuv420p10le -tag:v hvc1 {_PQ}",
    "mpeg4.mp4": _MPEG4,
    "av1.mp4": _AV1,
    "vp9.mp4": _VP9,
    "mjpeg.mov": f"{_MJPEG} -frames:v 4",
    "prores.mov": f"-c:v prores -profile:v 0 {_FEW}",
    "png.mov": f"-c:v png {_FEW}",
    "animation.mov": "-c:v qtrle -frames:v 2 -vf scale=32:32",
    "h263.3gp": "-c:v h263 -s 128x96 -q:v 24 -frames:v 4",
    "h264.m4v": _X264,
    "h264_aac.mkv": f"{_X264} {_AAC}",
    "hevc.mkv": _X265,
    "ffv1.mkv": f"-c:v ffv1 -level 3 {_FEW}",
    "mpeg2.mkv": _MPEG2,
    "vp8_vorbis.webm": f"{_VP8} -frames:v 4 -c:a libvorbis",
    "vp9.webm": _VP9,
    "vp8_alpha.webm": f"{_VP8} -pix_fmt yuva420p -auto-alt-ref 0 -frames:v 3",
    "av1.webm": _AV1,
    "mjpeg.avi": f"{_MJPEG} -frames:v 4",
    "mpeg4_mp3.avi": f"{_MPEG4} -frames:v 4 -c:a libmp3lame -b:a 8k",
    "msmpeg4.avi": "-c:v msmpeg4 -g 4 -q:v 16",
    "raw.avi": "-c:v rawvideo -pix_fmt yuv420p -frames:v 2 -vf scale=32:32",
    "huffyuv.avi": "-c:v huffyuv -pix_fmt yuv422p -frames:v 2 -vf scale=32:32",
    "cinepak.avi": "-c:v cinepak -frames:v 2 -vf scale=32:32",
    "h264.ts": f"{_X264} -frames:v 4",
    "hevc.ts": _X265,
    "mpeg2_mp2.ts": f"{_MPEG2} -frames:v 4 -c:a mp2 -b:a 32k",
    "interlaced.ts": f"{_MPEG2} -bf 0 -flags +ildct+ilme -frames:v 4",
    "h264.m2ts": f"{_X264} -frames:v 4 -mpegts_m2ts_mode 1",
    "mpeg2_mp2.vob": f"{_MPEG2} -c:a mp2 -b:a 32k -f vob",
    "mpeg1.mpg": f"{_MPEG1} -frames:v 6",
    "flv1_mp3.flv": "-c:v flv -g 4 -q:v 16 -c:a libmp3lame -ar 11025 -b:a 8k",
    "h264.flv": _X264,
    "theora_vorbis.ogv": "-c:v libtheora -g 4 -q:v 1 -frames:v 4 -c:a libvorbis",
    "theora.ogv": "-c:v libtheora -g 4 -q:v 1",
    "anim.gif": "-c:v gif -frames:v 3",
    "wmv2_wma.wmv": "-c:v wmv2 -g 4 -q:v 16 -c:a wmav2 -b:a 24k",
    "msmpeg4.asf": "-c:v msmpeg4 -g 4 -q:v 16",
    "mpeg2.mxf": f"{_MPEG2} -r 25 -frames:v 2 -pix_fmt yuv420p",
    "mpeg4.nut": _MPEG4,
    "ffv1.nut": f"-c:v ffv1 {_FEW}",
    "raw.h264": f"{_X264} -f h264",
    "raw.hevc": f"{_X265} -f hevc",
    "raw.mjpeg": f"{_MJPEG} -frames:v 4 -f mjpeg",
    "raw.m2v": f"{_MPEG2} -f mpeg2video",
    "raw.y4m": "-pix_fmt yuv420p -frames:v 2 -vf scale=32:32",
    "vp8.ivf": _VP8,
    "av1.ivf": _AV1,
    "rv10.rm": "-c:v rv10 -s 128x96 -g 4 -q:v 24 -frames:v 4",
}


def seeds() -> list[Path]:
    """The committed seeds, sorted by name."""
    return [FOLDER / name for name in sorted(RECIPES)]


def make(folder: Path, name: str) -> Path:
    """Encode one seed into a folder."""
    recipe = RECIPES[name].split()
    inputs = ["-f", "lavfi", "-i", _PICTURE]
    if "-c:a" in recipe:
        inputs += ["-f", "lavfi", "-i", _TONE]
    # One thread, and no versions or dates in the file.
    exact = ["-threads", "1", "-bitexact", "-flags", "+bitexact", "-map_metadata", "-1"]
    path = folder / name
    ffmpeg(*inputs, *recipe, *exact, str(path))
    return path


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for seed in RECIPES:
        sys.stdout.write(f"{make(FOLDER, seed).stat().st_size:>7} {seed}\n")
