"""`reelfind-model features`, as it is typed."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from typer.testing import CliRunner

from model.cli import app
from model.data.features import open_features
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_videos import make_video


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    make_video(tmp_path / "videos" / "a.mp4", parts=(("red", 3.0),))
    make_video(tmp_path / "videos" / "below" / "b.mp4", parts=(("blue", 2.0),))
    bundle = make_toy_bundle(tmp_path / "toy")
    return ["features", str(tmp_path / "videos"), "--bundle", str(bundle), "--output", str(tmp_path / "out")]


def test_features_are_made_once(words: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [*words, "--every", "1"])
    assert done.exit_code == 0, done.output
    assert f"features of 2 videos written to {tmp_path / 'out'}, 0 were there" in done.output
    store = open_features([tmp_path / "out"])
    assert [store.length(name) for name in store.names] == [3, 2]
    again = CliRunner().invoke(app, [*words, "--every", "1"])
    assert "features of 0 videos written" in again.output
    assert ", 2 were there" in again.output


def test_a_broken_video_is_reported_and_not_fatal(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "videos" / "c.mp4").write_bytes(b"no video at all")
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "c.mp4: is text, not a video; left out" in done.output
    assert "features of 2 videos written" in done.output
    assert "0 were there, 1 cannot be read, see the lines above" in done.output


def test_only_broken_videos_are_an_error(words: list[str], tmp_path: Path) -> None:
    words[1] = str(tmp_path / "videos" / "c.mp4")
    Path(words[1]).write_bytes(b"no video at all")
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert "error: none of 1 videos can be read, see the lines above" in done.output


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--every", "0"], "error: --every is 0.0: it must be a number of seconds above 0"),
        (["--every", "nan"], "error: --every is nan: it must be"),
        (["--device", "tpu"], "error: --device is 'tpu': choose cpu or cuda"),
        (["--output", "."], "error: --output . holds other files: choose a new or an empty folder"),
        (["--bundle", "missing"], "missing"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], more: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [*words, *more])
    assert done.exit_code in (2, 3)
    assert message in done.output
    assert "Traceback" not in done.output
