"""What the command line says of stages, and how it reads `--speech`, whose value may be left out."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from indexer.events import (
    IndexSummary,
    ReadingProblem,
    Scanned,
    StageFileDone,
    StageFileStarted,
    StageRead,
    StageStarted,
    StageSummary,
)
from service.cli.index_arguments import with_default_model
from service.cli.index_progress import ProgressView
from service.cli.index_report import print_summary, summary_object
from tests.support.command_line import check_error, invoke

SUMMARY = IndexSummary(
    files=3,
    unchanged=3,
    snapshot=7,
    num_videos=3,
    stages={
        "speech": StageSummary(
            videos=2,
            done_before=5,
            left=1,
            lines=40,
            problems=[
                ReadingProblem(Path("/m/a.mp4"), "partial", "damaged packets of sound: 3"),
                ReadingProblem(Path("/m/b.mp4"), None, "cannot be reached: No such file or directory"),
            ],
            video_seconds=600.0,
            elapsed_seconds=50.0,
        ),
        "shots": StageSummary(videos=1, cuts=12),
    },
)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("MEDIA --speech", "MEDIA --speech=base"),
        ("--speech --json MEDIA", "--speech=base --json MEDIA"),
        ("--speech MEDIA", "--speech=base MEDIA"),
        ("--speech MEDIA/film.mp4", "--speech=base MEDIA/film.mp4"),
        ("--speech MODEL MEDIA", "--speech MODEL MEDIA"),
        ("--speech tiny MEDIA", "--speech tiny MEDIA"),
        ("--speech some-package MEDIA", "--speech some-package MEDIA"),
        ("--speech=tiny MEDIA", "--speech=tiny MEDIA"),
        ("--speech=MEDIA MEDIA", "--speech=MEDIA MEDIA"),
        ("MEDIA -- --speech", "MEDIA -- --speech"),
        ("MEDIA", "MEDIA"),
    ],
)
def test_the_model_may_be_left_out(
    given: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("MEDIA/film.mp4", "MODEL/model.bin", "tiny/film.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert with_default_model(given.split()) == expected.split()


def test_errors_name_the_option(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media/a.mp4").write_bytes(b"x")
    result = invoke("index", tmp_path / "media", "--library", tmp_path / "library", "--speech=no-such-model")
    check_error(result, 2, "--speech is 'no-such-model'")
    result = invoke("index", tmp_path / "media", "--library", tmp_path / "library", f"--speech={tmp_path}")
    check_error(result, 2, "holds no Whisper model")


def test_the_report_says_what_each_stage_did() -> None:
    out = io.StringIO()
    print_summary(SUMMARY, Path("library"), Console(file=out, width=300))
    lines = out.getvalue().splitlines()
    done = "speech: 2 videos read, 40 lines found in 50.0 s (12.0 × real time)"
    assert f"{done}; 5 read before; 1 left for the next run" in lines
    assert "  speech partial: /m/a.mp4: damaged packets of sound: 3" in lines
    assert "  speech not reachable: /m/b.mp4: cannot be reached: No such file or directory" in lines
    assert "shots: 1 videos read, 12 cuts found" in lines
    stages = summary_object(SUMMARY, Path("library"))["stages"]
    assert list(stages) == ["speech", "shots"]
    assert stages["speech"] == {
        "videos": 2,
        "done_before": 5,
        "left": 1,
        "lines": 40,
        "cuts": 0,
        "problems": [
            {"path": "/m/a.mp4", "verdict": "partial", "reason": "damaged packets of sound: 3"},
            {
                "path": "/m/b.mp4",
                "verdict": "not_reachable",
                "reason": "cannot be reached: No such file or directory",
            },
        ],
        "video_seconds": 600.0,
        "elapsed_seconds": 50.0,
    }


def test_progress_counts_anew_for_each_stage() -> None:
    out = io.StringIO()
    with ProgressView(Console(file=out, width=200)) as view:
        view(Scanned(files=9, to_read=0, unchanged=9, failed_before=0, problems=()))
        view(StageStarted("speech", 2))
        for name in ("a", "b"):
            view(StageFileStarted("speech", Path(f"/m/{name}.mp4")))
            view(StageRead("speech", Path(f"/m/{name}.mp4"), 60.0))
            view(StageFileDone("speech", Path(f"/m/{name}.mp4"), "it crashed" if name == "b" else None))
        assert view.throughput > 0
        view(StageStarted("shots", 0))
        assert view.throughput == 0
    assert out.getvalue().splitlines() == [
        "9 files found, 9 unchanged, 0 to read",
        "hearing speech in 2 videos",
        "speech: /m/b.mp4: it crashed",
    ]


def test_progress_on_a_terminal() -> None:
    out = io.StringIO()
    with ProgressView(Console(file=out, width=200, force_terminal=True)) as view:
        view(StageStarted("screen", 3))
        view(StageFileStarted("screen", Path("/m/holiday.mp4")))
        view(StageFileDone("screen", Path("/m/holiday.mp4"), None))
        view._bar.refresh() if view._bar else None
    assert "1/3" in out.getvalue()
    assert "holiday.mp4" in out.getvalue()
