"""A short round of `make fuzz`, and that its parts do what they say: seeds, damage, the watch over a run."""

import random
from pathlib import Path

import pytest

from indexer.decode import DecodeSpec, FileVerdict, decode_file
from model.runtime.preprocessing import Resizing
from tests.fuzz.__main__ import fuzz, repeat_command
from tests.fuzz.corpus import Corpus
from tests.fuzz.elements import elements
from tests.fuzz.mutations import MUTATIONS, Good
from tests.fuzz.rounds import LIMITS, Fault, Limits, index_round
from tests.fuzz.seed_files import FOLDER, RECIPES, make, seeds
from tests.support.clips import encoders
from tests.support.toy_bundle import make_toy_bundle

SPEC = DecodeSpec("pyav", Resizing(32), segment_seconds=32.0, frames_per_segment=16)


@pytest.mark.slow
def test_damaged_files_all_get_a_verdict(tmp_path: Path) -> None:
    report = fuzz(1, range(200), minutes=5, workers=2, output=tmp_path, quiet=True)
    assert report.passed, "\n".join(report.lines())
    assert len({outcome.verdict for outcome in report.outcomes.values()}) >= 4


@pytest.mark.parametrize("path", seeds(), ids=lambda path: path.name)
def test_a_seed_is_a_good_video_before_it_is_damaged(path: Path) -> None:
    *segments, outcome = decode_file(SPEC.job(path))
    assert isinstance(outcome, FileVerdict)
    assert (outcome.verdict, outcome.reason) == ("ok", None)
    assert segments
    data = path.read_bytes()
    pieces = elements(path.name, data)
    assert all(0 <= piece.start <= piece.content <= len(data) for piece in pieces)
    assert all(piece.start < piece.end <= len(data) for piece in pieces)
    assert len(pieces) >= 5


def test_the_seeds_are_those_of_the_recipes_and_small() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(RECIPES)
    assert sum(path.stat().st_size for path in seeds()) < 300_000


@pytest.mark.parametrize("name", ["h264_aac.mp4", "vp9.webm", "mjpeg.avi"])
def test_a_recipe_makes_a_file_like_its_seed(name: str, tmp_path: Path) -> None:
    if not {"libx264", "libvpx-vp9", "mjpeg"} <= encoders():
        pytest.skip("this build of ffmpeg lacks an encoder")
    made = make(tmp_path, name).read_bytes()
    assert elements(name, made)
    assert abs(len(made) - (FOLDER / name).stat().st_size) < 2000


def test_a_number_and_a_seed_give_the_same_file_each_time() -> None:
    one, same, other = Corpus(3), Corpus(3), Corpus(4)
    files = [one.file(number) for number in range(300)]
    assert [same.file(file.number) for file in reversed(files)] == list(reversed(files))
    assert sum(other.file(file.number).data != file.data for file in files) > 280


def test_every_kind_of_damage_meets_every_seed() -> None:
    corpus = Corpus(0)
    pairs = {
        tuple(corpus.file(n).name.rpartition(".")[0].split("-")[1:3])
        for n in range(len(RECIPES) * len(MUTATIONS))
    }
    stems = {name.rpartition(".")[0] for name in RECIPES}
    assert pairs == {(stem, kind) for stem in stems for kind in MUTATIONS}


@pytest.mark.parametrize("kind", MUTATIONS)
def test_damage_changes_a_file_in_most_cases(kind: str) -> None:
    chance = random.Random(0)
    changed = []
    for path in seeds():
        data = path.read_bytes()
        good = Good(data, elements(path.name, data), seeds()[0].read_bytes())
        changed.append(MUTATIONS[kind](good, chance) != data)
    assert sum(changed) > 0.75 * len(changed)


@pytest.mark.slow
def test_what_must_not_happen_is_seen(tmp_path: Path) -> None:
    """A lost file, too much memory, a hang, a process that dies: each is a fault that says so."""
    bundle = make_toy_bundle(tmp_path / "bundle")
    names = [Corpus(0).file(n).name for n in (0, 1)]

    def index(folder: str, also: str = "", limits: Limits = LIMITS, **environment: str) -> list[Fault]:
        media = tmp_path / folder / "media"
        media.mkdir(parents=True)
        for number in (0, 1):
            Corpus(0).write(number, media)
        wanted = [*names, also] if also else names
        return index_round(
            tmp_path / folder, wanted, bundle, 1, limits=limits, environment=environment
        ).faults

    assert index("good") == []
    assert index("lost", also="missing.mp4") == [Fault("no verdict", ("missing.mp4",))]
    said = [
        fault.what for fault in index("memory", limits=Limits(parent_bytes=1 << 20, worker_bytes=1 << 20))
    ]
    assert any("a decoding process takes" in what for what in said)
    assert any("the indexing process takes" in what for what in said)
    (fault,) = index("hang", limits=Limits(hang_seconds=1), REELFIND_FAULT=f"hang decode.{names[1]} 1")
    assert fault.what == "no verdict after 1 s"
    assert names[1] in fault.names
    (fault,) = index("dies", REELFIND_FAULT="kill publish.manifest 1")
    assert "ended with exit code -9" in fault.what


def test_a_fault_comes_with_the_command_that_repeats_it() -> None:
    name = Corpus(7).file(123).name
    assert repeat_command(7, name) == 'make fuzz ARGS="--seed 7 --only 123"'
