"""`reelfind-model frames`, as it is typed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

pytest.importorskip("torch")


from typer.testing import CliRunner

from model.cli import app
from tests.support.annotations import write_msrvtt
from tests.support.toy_videos import make_video


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    recipe = {
        "data": {
            "kind": "msrvtt",
            "msrvtt": "full",
            "annotations": str(write_msrvtt(tmp_path)),
            "videos": str(tmp_path / "videos"),
            "frame_cache": str(tmp_path / "frames"),
        },
        "model": {"frames": 2, "image_size": 32, "num_salient_frames": 1},
        "train": {"evaluate": False},
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    for i in range(7):
        make_video(tmp_path / "videos" / f"video{i}.mp4", parts=(("red", 0.3),), size=(32, 32))
    return ["frames", str(tmp_path / "tiny.yaml"), "data.max_views=1", "--workers", "1"]


def test_frames_of_the_chosen_splits_are_decoded_once(words: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "frame cache: 6 of 6 videos, 0 failed" in done.output
    assert len(list((tmp_path / "frames").rglob("*.frames"))) == 6
    more = CliRunner().invoke(app, [*words, "--split", "train", "--split", "val"])
    assert "6 videos are cached, 0 to decode" in more.output
    assert "frame cache: 1 of 1 videos, 0 failed" in more.output


def test_what_cannot_be_read_is_listed_after_the_others_are_done(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "videos" / "video3.mp4").write_bytes(b"no video at all")
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert "error: 1 videos cannot be read, see the lines above; all others are in the cache" in done.output
    assert "video3.mp4: is text, not a video" in done.output
    assert len(list((tmp_path / "frames").rglob("*.frames"))) == 5


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data.frame_cache=", "error: no data.frame_cache: set it to the folder"),
        ("data.annotations=/missing/notes", "error: data.annotations=/missing/notes does not exist"),
        ("model.frames=0", "error: model.frames=0 must be positive"),
    ],
)
def test_mistakes_are_one_line(words: list[str], word: str, message: str) -> None:
    done = CliRunner().invoke(app, [*words, word])
    assert done.exit_code == 2
    assert message in done.output
    assert "Traceback" not in done.output
