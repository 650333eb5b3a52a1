"""`reelfind index` and `reelfind library` as a user runs them."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from indexer.events import FileDone, FileStarted, Note, Published, Scanned, SegmentEncoded
from service.cli.app import app
from service.cli.index_progress import ProgressView
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_videos import make_audio, make_video

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy")


@pytest.fixture
def media(tmp_path: Path) -> Path:
    make_video(tmp_path / "media/red.mp4", parts=[("red", 0.5)])
    make_video(tmp_path / "media/blue sky.mp4", parts=[("blue", 0.5)])
    (tmp_path / "media/empty.mp4").touch()
    make_audio(tmp_path / "media/sound.mp4")
    return tmp_path / "media"


def reelfind(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def index(bundle: Path, library: Path, *args: object) -> Result:
    return reelfind("index", "--library", library, "--bundle", bundle, "--workers", 0, *args)


def test_index_prints_a_summary_and_failures_with_reasons(bundle: Path, media: Path, tmp_path: Path) -> None:
    result = index(bundle, tmp_path / "library", media)
    assert result.exit_code == 0
    for expected in ("ok               2", "corrupt          1", "unsupported      1", "empty.mp4: "):
        assert expected in result.stdout
    assert f"snapshot 1 of {tmp_path / 'library'}: 2 videos, 2 segments" in result.stdout
    again = index(bundle, tmp_path / "library", media)
    assert again.exit_code == 0
    assert "unchanged (2 failed before)" in again.stdout
    assert "--retry-failed" in again.stdout


def test_index_as_json_is_one_object(bundle: Path, media: Path, tmp_path: Path) -> None:
    result = index(bundle, tmp_path / "library", media, "--json")
    body = json.loads(result.stdout)
    assert body["verdicts"] == {"ok": 2, "partial": 0, "corrupt": 1, "unsupported": 1, "timed_out": 0}
    assert {Path(failure["path"]).name for failure in body["failures"]} == {"empty.mp4", "sound.mp4"}
    assert (body["files"], body["num_videos"], body["snapshot"], body["published"]) == (4, 2, 1, True)
    assert body["interrupted"] is False


def test_gone_files_are_mentioned_and_pruned(bundle: Path, media: Path, tmp_path: Path) -> None:
    index(bundle, tmp_path / "library", media)
    (media / "red.mp4").unlink()
    said = index(bundle, tmp_path / "library", media).stdout
    assert "1 videos no longer exist on disk and count as missing: `--prune`" in said
    result = index(bundle, tmp_path / "library", media, "--prune", "--json")
    assert json.loads(result.stdout)["removed"] == 1
    for path in media.iterdir():
        path.unlink()
    refused = index(bundle, tmp_path / "library", media, "--prune")
    assert refused.exit_code == 2
    assert "and --prune would remove the 3" in refused.stderr
    assert "is its disk mounted? Give --prune-empty if" in refused.stderr
    emptied = index(bundle, tmp_path / "library", media, "--prune", "--prune-empty", "--json")
    assert json.loads(emptied.stdout)["removed"] == 3


def test_what_is_passed_over_is_counted_and_listed(bundle: Path, media: Path, tmp_path: Path) -> None:
    (media / "a.jpg").touch()
    (media / "b.jpg").touch()
    (media / "app.ts").write_text("export const answer = 42;")
    counted = index(bundle, tmp_path / "library", media).stdout
    assert "3 files passed over: 2 .jpg, 1 .ts that is no video; `--list-passed-over` lists them" in counted
    listed = index(bundle, tmp_path / "library", media, "--list-passed-over").stdout
    assert f"passed over (.jpg): {media}/a.jpg" in listed
    assert "lists them" not in listed
    kinds = {".jpg": 2, ".ts that is no video": 1}
    body = json.loads(index(bundle, tmp_path / "library", media, "--json").stdout)
    assert body["passed_over"] == {"files": 3, "kinds": kinds}
    assert body["not_reachable"] == []
    body = json.loads(index(bundle, tmp_path / "library", media, "--json", "--list-passed-over").stdout)
    assert sorted(Path(item["path"]).name for item in body["passed_over"]["list"]) == [
        "a.jpg",
        "app.ts",
        "b.jpg",
    ]
    # Also where no video is found at all.
    (tmp_path / "photos").mkdir()
    (media / "a.jpg").rename(tmp_path / "photos/a.jpg")
    assert "1 files passed over: 1 .jpg" in index(bundle, tmp_path / "none", tmp_path / "photos").stdout


def test_files_out_of_reach_are_named_and_lose_nothing(bundle: Path, media: Path, tmp_path: Path) -> None:
    index(bundle, tmp_path / "library", media)
    (media / "red.mp4").unlink()
    (media / "red.mp4").symlink_to("/proc/self/mem")
    result = index(bundle, tmp_path / "library", media)
    assert result.exit_code == 0
    assert f"not reachable: {media}/red.mp4: cannot be read: Input/output error" in result.stdout
    assert f"not reachable: {media}/red.mp4: cannot be read" in result.stderr
    assert "what was indexed of these files stays" in result.stdout
    body = json.loads(index(bundle, tmp_path / "library", media, "--json").stdout)
    assert body["not_reachable"] == [
        {"path": f"{media}/red.mp4", "reason": "cannot be read: Input/output error"}
    ]
    assert (body["num_videos"], body["failures"]) == (2, [])


def test_an_engine_cache_is_for_tensorrt_alone(bundle: Path, media: Path, tmp_path: Path) -> None:
    cache = tmp_path / "engines"
    run = index(bundle, tmp_path / "library", media, "--engine-cache", cache)
    assert run.exit_code == 0
    assert not cache.exists()
    refused = index(bundle, tmp_path / "library", media, "--engine-cache", cache, "--provider", "tensorrt")
    if refused.exit_code:
        assert (refused.exit_code, "'tensorrt' is not active" in refused.stderr) == (3, True)
    else:
        assert any(cache.iterdir())


def test_exit_codes_tell_nothing_found_bad_input_and_failure_apart(
    bundle: Path, media: Path, tmp_path: Path
) -> None:
    library = tmp_path / "library"
    (tmp_path / "none").mkdir()
    nothing = index(bundle, library, tmp_path / "none")
    assert nothing.exit_code == 1
    assert "no video files found" in nothing.stdout
    assert index(bundle, library, media / "empty.mp4").exit_code == 1

    missing = index(bundle, library, tmp_path / "nope")
    assert missing.exit_code == 2
    assert "nope" in missing.stderr
    assert reelfind("index", "--library", library).exit_code == 2
    for option, value in [
        ("--timeout", 0),
        ("--workers", -1),
        ("--index-factory", "Nonsense"),
        ("--decoder", "x"),
    ]:
        refused = index(bundle, library, media, option, value)
        assert refused.exit_code == 2, option
        assert "Traceback" not in refused.output

    elsewhere = index(bundle, media, media)
    assert elsewhere.exit_code == 3
    assert "not a library and not empty" in elsewhere.stderr


def test_library_info_verify_and_rollback(bundle: Path, media: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    index(bundle, library, media)
    make_video(media / "green.mp4", parts=[("green", 0.5)])
    index(bundle, library, media)

    info = json.loads(reelfind("library", "info", "--library", library, "--json").stdout)
    assert (info["snapshot"], info["num_videos"], info["verdicts"]["corrupt"]) == (2, 3, 1)
    assert info["media_roots"] == [str(media)]
    assert [s["number"] for s in info["snapshots"]] == [1, 2]
    assert info["lines"] == {"speech": 0, "name": 3, "transcript": 0, "screen": 0}
    assert info["stages"] == {"speech": 0, "screen": 0, "shots": 0}
    assert "snapshot   2, published" in reelfind("library", "info", "--library", library).stdout

    whole = reelfind("library", "verify", "--library", library)
    assert whole.exit_code == 0
    assert "snapshot 2, served: intact" in whole.stdout

    damaged = library / "snapshots/2/segments.faiss"
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    found = reelfind("library", "verify", "--library", library, "--json")
    assert found.exit_code == 3
    body = json.loads(found.stdout)
    assert body["ok"] is False
    assert [s["ok"] for s in body["snapshots"]] == [True, False]
    assert str(damaged) in body["snapshots"][1]["problems"][0]
    assert re.search("rollback --library .* --to 1`", body["remedy"])

    back = reelfind("library", "rollback", "--library", library, "--json")
    assert json.loads(back.stdout) == {"library": str(library), "snapshot": 1}
    assert reelfind("library", "rollback", "--library", library, "--to", 2).exit_code == 3
    assert reelfind("library", "info", "--library", tmp_path / "no").exit_code == 3
    assert reelfind("library", "verify", "--library", tmp_path / "no").exit_code == 3


def test_a_full_disk_is_one_line_and_what_was_served_stays(bundle: Path, media: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands in for the full disk: writes fail midway in the same way."""
    library = tmp_path / "library"
    index(bundle, library, media / "red.mp4")
    make_video(media / "long.mp4", parts=[("green", 300.0)], fps=1)
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        "from service.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "index", str(media), "--library", str(library)]
    command += ["--bundle", str(bundle), "--workers", "0"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 3
    assert "Traceback" not in result.stderr
    assert str(library) in result.stderr.splitlines()[-1]
    verified = reelfind("library", "verify", "--library", library)
    assert verified.exit_code == 0, verified.output
    assert index(bundle, library, media).exit_code == 0


def test_progress_without_a_terminal_is_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressView(Console(stderr=True, force_terminal=False)) as view:
        view(Scanned(3, 2, 1, 0, ((Path("/shut"), "Permission denied"),)))
        view(FileStarted(Path("/a.mp4")))
        view(SegmentEncoded(Path("/a.mp4"), 32.0))
        view(FileDone(Path("/a.mp4"), "corrupt", "[red]no[/red]", 0.0, 0))
        view(Note("something to know"))
        view(Published(1, 1, 1))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.split("\n") == [
        "/shut: Permission denied; skipped",
        "3 files found, 1 unchanged, 2 to read",
        "corrupt: /a.mp4: [red]no[/red]",
        "something to know",
        "snapshot 1 is published: 1 videos, 1 segments",
        "",
    ]


def test_progress_on_a_terminal_shows_files_speed_and_time_left() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120, record=True)
    with ProgressView(console) as view:
        view(Scanned(2, 2, 0, 0, ()))
        view(FileStarted(Path("/media/[x] clip.mp4")))
        view(SegmentEncoded(Path("/media/[x] clip.mp4"), 32.0))
        view(FileDone(Path("/media/[x] clip.mp4"), "ok", None, 32.0, 1))
        assert view._bar is not None
        console.print(view._bar)
        text = console.export_text()
    for expected in ("1/2 files", "h of video/h", "left", "[x] clip.mp4"):
        assert expected in text
