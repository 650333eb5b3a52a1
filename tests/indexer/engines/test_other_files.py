"""Formats that name other files or addresses: a decoder opens none of them, confined or not."""

from __future__ import annotations

import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.decode import DecodeSpec, FileVerdict
from indexer.engines.local_decoders import Bounds, ProcessDecoder
from model.runtime.preprocessing import Resizing
from tests.support.network import strace
from tests.support.paths import ROOT
from tests.support.toy_videos import make_video

pytestmark = pytest.mark.slow

#: Decodes files one after the other and prints their verdicts.
_DECODE = """
import sys, threading
from pathlib import Path
from indexer.decode import DecodeSpec
from indexer.engines.local_decoders import Bounds, ProcessDecoder
from model.runtime.preprocessing import Resizing
decoder = ProcessDecoder(Bounds(sandbox="off"), threading.Event())
for name in sys.argv[1:]:
    *_, outcome = decoder.read(DecodeSpec("pyav", Resizing(32), 32.0, 4).job(Path(name)))
    print(outcome.verdict)
decoder.close()
"""


def concat(secret: Path, _port: int) -> bytes:
    return f"ffconcat version 1.0\nfile '{secret}'\nduration 5\n".encode()


def hls(secret: Path, port: int) -> bytes:
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:10"]
    for place in (
        str(secret),
        f"file://{secret}",
        f"http://127.0.0.1:{port}/x.ts",
        f"concat:{secret}|{secret}",
    ):
        lines += ["#EXTINF:10,", place]
    return "\n".join([*lines, "#EXT-X-ENDLIST", ""]).encode()


def dash(secret: Path, port: int) -> bytes:
    return (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT5S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" '
        f'bandwidth="1"><BaseURL>http://127.0.0.1:{port}/</BaseURL><SegmentList duration="5">'
        f'<Initialization sourceURL="{secret}"/><SegmentURL media="file://{secret}"/></SegmentList>'
        "</Representation></AdaptationSet></Period></MPD>"
    ).encode()


def smil(secret: Path, _port: int) -> bytes:
    return f'<smil><body><video src="{secret}"/></body></smil>'.encode()


def sdp(_secret: Path, port: int) -> bytes:
    return (
        f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n".encode()
    )


def movie_with_its_data_elsewhere(secret: Path, _port: int) -> bytes:
    """A MOV whose samples are in another file, named as QuickTime does (`alis`, an absolute path)."""
    clip = make_video(secret.with_name("reference.mov"), parts=[("red", 1.0)])
    data = clip.read_bytes()
    path = os.fsencode(secret)
    path += b"\0" * (len(path) % 2)
    alias = bytes(10) + b"\x04disk".ljust(28, b"\0") + bytes(12) + b"\x06secret".ljust(64, b"\0") + bytes(16)
    alias += struct.pack(">HH", 1, 1) + bytes(16)
    alias += struct.pack(">HH", 2, len(path)) + path + struct.pack(">HH", 0xFFFF, 0)
    alias = alias.ljust(200, b"\0")
    entry = struct.pack(">I4sI", 12 + len(alias), b"alis", 0) + alias
    return _replace_box(data, (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"), entry)


def _replace_box(data: bytes, path: tuple[bytes, ...], entry: bytes) -> bytes:
    """Put an entry in the place of what `dref` holds, and correct the sizes of the boxes around it."""
    at, out = 0, b""
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + size]
        if kind == path[0]:
            body = body[:8] + entry if len(path) == 1 else _replace_box(body, path[1:], entry)
        out += struct.pack(">I4s", 8 + len(body), kind) + body
        at += size
    return out


TRAPS: dict[str, Callable[[Path, int], bytes]] = {
    "concat.mp4": concat,
    "concat.ffconcat": concat,
    "hls.mp4": hls,
    "hls.m3u8": hls,
    "dash.mpd": dash,
    "dash.mp4": dash,
    "smil.mkv": smil,
    "sdp.mp4": sdp,
    "alias.mov": movie_with_its_data_elsewhere,
}


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video that no file under test may show."""
    return make_video(tmp_path_factory.mktemp("private") / "secret.ts", parts=[("blue", 5.0)])


def traps(folder: Path, secret: Path, port: int) -> list[Path]:
    folder.mkdir()
    for name, make in TRAPS.items():
        (folder / name).write_bytes(make(secret, port))
    # A pattern of FFmpeg's image2, and a protocol, as names of files.
    for name in ("shot%03d.mp4", "concat:a|b.mp4", "http:x.mp4"):
        (folder / name).write_bytes(b"#EXTM3U\n" + os.fsencode(secret))
    shutil.copy(secret, folder / "shot001.mp4")
    return sorted(folder.iterdir())


def test_no_other_file_is_opened_and_nobody_contacted(tmp_path: Path, secret: Path) -> None:
    """Not confined: the formats themselves are refused."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        files = traps(tmp_path / "media", secret, server.getsockname()[1])
        log = tmp_path / "log"
        traced = [strace(), "-f", "-qq", "-s", "300", "-e", "trace=%file,%network", "-o", str(log)]
        command = [*traced, sys.executable, "-P", "-c", _DECODE, *map(str, files)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert done.returncode == 0, done.stderr
    verdicts = dict(zip((path.name for path in files), done.stdout.split(), strict=True))
    good = {name for name, verdict in verdicts.items() if verdict in ("ok", "partial")}
    # The reference movie's own data may be shown.
    assert good <= {"shot001.mp4", "alias.mov"}
    assert "shot001.mp4" in good
    calls = log.read_text()
    assert not re.search(rf'open(at)?\(.*"[^"]*{re.escape(str(secret))}', calls)
    assert not re.search(r"(connect|sendto)\(.*sin_addr", calls)
    # Each is opened as itself.
    opened = set(re.findall(r'open(?:at)?\([^"]*"([^"]*/media/[^"]*)"', calls))
    assert opened == {str(path) for path in files}


def test_confined_they_have_the_same_verdicts(tmp_path: Path, secret: Path) -> None:
    files = traps(tmp_path / "media", secret, 9)
    spec = DecodeSpec("pyav", Resizing(32), 32.0, 4)
    outcomes = []
    for sandbox in ("auto", "off"):
        decoder = ProcessDecoder(Bounds(sandbox=sandbox), threading.Event())
        outcomes.append([list(decoder.read(spec.job(path)))[-1] for path in files])
        decoder.close()
    assert outcomes[0] == outcomes[1]
    assert all(isinstance(outcome, FileVerdict) for outcome in outcomes[0])
