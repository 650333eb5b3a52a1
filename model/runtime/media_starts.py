"""The names and the first bytes of video files. Imports nothing: a decoding process starts fast."""

from __future__ import annotations

#: How much of a file is read to tell what it is. A transport stream shows itself within three packets.
START_BYTES = 2048

#: Containers and raw streams that phones, cameras, recorders, discs and the web write, and nothing else.
_VIDEO = (
    # MP4 and QuickTime, under the names that phones, GoPro, Insta360 and DJI give them as well
    "mp4 m4v mp4v mpg4 mpeg4 mov qt mqv hdmov f4v f4p 3gp 3gpp 3gp2 3gpp2 3g2 3p2 k3g ismv mj2 insv osv lrv",
    # MPEG program and transport streams, from discs and television too
    "mpg mpeg mpe mp2v mpeg1 mpeg2 mpgv m1v m2v m2p pva vob vro evo m2t m2ts ssif trp",
    # Matroska, Ogg, and what computers and the web had before
    "mkv mk3d webm ogv ogm ogx avi divx xvid wmv wm asf wtv dvr-ms flv rmvb amv nsv gif fli flc mxf gxf",
    # Raw streams, of surveillance recorders too
    "mjpeg mjpg y4m ivf h264 h265 hevc dav",
)
#: Extensions that text files have too: TypeScript, translations, scripts, playlists, numbered parts.
_OR_TEXT = "ts mts tod tp rec rm dv nut mpv 264 265 360"
#: Extensions that other binary formats have too (music and kernel modules, books, PostScript, any data):
#: a file counts only if it begins as a video does.
_ONLY_IF_VIDEO = "mod mp dat ogg ps lrf skm"

AMBIGUOUS = frozenset(f".{name}" for name in _ONLY_IF_VIDEO.split())
MAYBE_TEXT = frozenset(f".{name}" for name in _OR_TEXT.split())
#: Every extension that a folder is searched for.
EXTENSIONS = frozenset(f".{name}" for names in _VIDEO for name in names.split()) | MAYBE_TEXT | AMBIGUOUS

#: Names of the boxes with which a file of the MP4 family may begin.
_MP4_BOXES = frozenset(
    {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp", b"moof", b"uuid"}
)
_STARTS = (
    b"\x00\x00\x01\xba",  # MPEG program stream
    b"\x00\x00\x01\xb3",  # MPEG video
    b"\x1a\x45\xdf\xa3",  # Matroska
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF
    b"FLV\x01",
    b".RMF",
    b"DHAV",
)


def begins_as_video(start: bytes) -> bool:
    """Whether a file that starts with these bytes is a container or a raw stream that holds videos."""
    if start.startswith(_STARTS) or start[4:8] in _MP4_BOXES:
        return True
    if start.startswith(b"RIFF"):
        # AVI, or a Video CD's sectors; not WAVE, WebP and the like.
        return start[8:12] in (b"AVI ", b"CDXA")
    if start.startswith(b"OggS"):
        return b"\x80theora" in start[:256] or b"\x01video" in start[:256]
    return _has_packets(start)


def begins_as_text(start: bytes) -> bool:
    """Whether a file that starts with these bytes is text, in UTF-8, UTF-16, Latin-1 or the like."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    controls = frozenset(range(32)) - frozenset(b"\t\n\v\f\r\x1b")
    return not controls & frozenset(start) and not _has_packets(start)


def _has_packets(start: bytes) -> bool:
    """Whether the packets of a transport stream follow each other: 188 bytes, or with 4 or 16 bytes more."""
    for offset, size in ((0, 188), (4, 192), (0, 192), (0, 204)):
        if len(start) > offset + 2 * size and start[offset : offset + 2 * size + 1 : size] == b"GGG":
            return True
    return False
