"""FEEL's ablation: rows that differ in pre-training alone, what is measured of them, and the tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from model.cli import app
from model.experiments.feel_ablation import COLUMNS, ROWS, Recipes, feel_tables, run_feel_ablation
from model.experiments.feel_film_sets import make_film_set
from model.experiments.feel_films import FilmOptions
from model.experiments.feel_measures import ADDED_WORDS, add_words, ranks_of
from model.experiments.feel_report import write_figures
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError
from tests.support.paths import ROOT
from tests.support.tiny_feel import tiny_tokenizer
from tests.support.tiny_photos import COLOURS, PLACES, SIZES, make_photos_with_test
from tests.support.toy_bundle import make_toy_bundle

TINY = (
    "model.text=tiny",
    "model.text_shape=",
    "model.feature_dim=8",
    "model.hidden=16",
    "model.heads=2",
    "model.intermediate=16",
    "train.epochs=2",
    "train.batch_size=4",
    "train.threads=1",
    "train.precision=float32",
    "train.device=cpu",
)
RECIPE = ROOT / "model" / "recipes" / "feel_ablation.yaml"
RECIPES = Recipes(RECIPE, RECIPE.with_name("feel_ablation_finetuning.yaml"), TINY)


def test_words_of_other_texts_are_added() -> None:
    texts = ["a red car", "a dog runs along", "two cats"]
    for count in (1, 5):
        for text, changed in zip(texts, add_words(texts, count, np.random.default_rng(0)), strict=True):
            words, now = text.split(), changed.split()
            assert len(now) == len(words) + count
            added = list(now)
            rest = iter(now)
            assert all(word in rest for word in words), "the text's own words stay in order"
            for word in words:
                added.remove(word)
            others = {word for other in texts if other != text for word in other.split()} - set(words)
            assert set(added) <= others


def test_ranks_against_loops() -> None:
    rng = np.random.default_rng(0)
    similarity = rng.integers(0, 4, (6, 5)).astype(np.float32)
    rows = rng.integers(0, 5, 6)
    expected = [sum(bool(x >= line[row]) for x in line) for line, row in zip(similarity, rows, strict=True)]
    assert ranks_of(similarity, rows).tolist() == expected


def test_rows_differ_in_pretraining_alone(tmp_path: Path) -> None:
    loaded = [RECIPES.load(row, tmp_path / "films", tmp_path / "run", 3) for row in ROWS]
    assert loaded[0][0] is None
    weights = [(c.loss.mlm, c.loss.mfm, c.loss.gmr, c.loss.cs) for c, _ in loaded if c is not None]
    assert weights == [(1, 1, 0, 0), (1, 1, 1, 0), (1, 1, 1, 1)]
    first, second = loaded[1]
    assert first is not None
    for config, _ in loaded[2:]:
        assert config is not None
        assert replace(config, loss=first.loss) == first
    assert all(config == second for _, config in loaded[2:])
    assert loaded[0][1] == replace(second, train=replace(second.train, start_from=""))
    assert second.train.start_from == f"{first.output}/last.pt"
    assert (first.model, first.train.seed) == (second.model, 3)
    assert (first.loss.task, second.loss.task) == ("pretraining", "finetuning")


def test_the_recipes_have_one_model() -> None:
    first, second = Recipes(RECIPES.pretraining, RECIPES.finetuning).load(ROWS[3], Path(), Path(), 0)
    assert first is not None
    assert first.model == second.model
    assert first.model.text_shape == "layers=2"


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Films of toy photos, and a tokenizer of their words."""
    folder = tmp_path_factory.mktemp("films")
    photos = make_photos_with_test(folder / "photos")
    options = FilmOptions(views=1, finetuning=0.5, pretraining_rounds=2, training_rounds=2)
    bundle = Bundle.open(make_toy_bundle(folder / "toy"))
    make_film_set(photos, None, bundle, folder / "films", options, lambda _: None)
    words = ["a", "block", "is", *COLOURS, *PLACES, *SIZES]
    tiny_tokenizer(words=words).tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "films", folder / "tokenizer.json"


@pytest.fixture(scope="module")
def results(
    films: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, Any]]]:
    output = tmp_path_factory.mktemp("runs")
    return output, run_feel_ablation(films[0], RECIPES, output, [0, 1], print, ROWS[1:], films[1])


def test_each_row_and_seed_is_measured(results: tuple[Path, list[dict[str, Any]]]) -> None:
    output, found = results
    assert [(r["row"], r["seed"]) for r in found] == [(row.name, s) for s in (0, 1) for row in ROWS[1:]]
    for result in found:
        count, ranks = len(result["asked"]), result["ranks"]
        assert len(ranks) == len(result["first"]) == count > 4
        recall = 100 * np.mean(np.array(ranks) == 1)
        assert result["metrics"]["VR"]["r1"] == pytest.approx(recall, abs=0.01)
        named = np.mean([a["film"] == f for a, f in zip(result["asked"], result["first"], strict=True)])
        assert 100 * named == pytest.approx(recall, abs=0.01)
        assert [point["words"] for point in result["sensitivity"]] == [0, *ADDED_WORDS]
        wanted = {"mlm", "mfm"} | ({"gmr"} if "GMR" in result["row"] else set())
        assert wanted <= set(result["pretraining"])
        assert ("cs" in result["pretraining"]) == ("CS" in result["row"])
        assert ("diagnosis" in result) == ("GMR" in result["row"])
        side = len(result["films"])
        assert np.shape(result["similarity"]) == (side, side)
        assert all(
            task in result["metrics"] and key in result["metrics"][task] for task, key in COLUMNS.values()
        )
    assert not list(output.rglob("*.pt")), "checkpoints are deleted"
    assert found[0]["similarity"] != found[1]["similarity"]


def test_finished_runs_are_not_repeated(
    films: tuple[Path, Path], results: tuple[Path, list[dict[str, Any]]]
) -> None:
    output, found = results
    said: list[str] = []
    again = run_feel_ablation(films[0], RECIPES, output, [0, 1], said.append, ROWS[1:], films[1])
    assert again == found
    assert not any("training" in line or "tuning" in line for line in said)
    other = replace(RECIPES, only_pretraining=("loss.margin=0.5",))
    with pytest.raises(InputError, match="was measured with other settings or films"):
        run_feel_ablation(films[0], other, output, [0], print, ROWS[1:2], films[1])


def test_figures_are_written(
    films: tuple[Path, Path], results: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    write_figures(results[1], films[0], tmp_path, [films[0].parent / "photos"])
    assert {path.name for path in tmp_path.iterdir()} == {"sensitivity.png", "similarity.png", "cases.html"}


def _result(row: str, seed: int, value: float) -> dict[str, Any]:
    metrics: dict[str, dict[str, float]] = {"VR": {}, "VCMR": {}}
    for task, key in COLUMNS.values():
        metrics[task][key] = value
    metrics["VR_by_type"] = {"v-r1": value / 2, "vt-r1": value}
    return {"row": row, "seed": seed, "metrics": metrics, "asked": [0] * 9, "count": 4}


def test_the_tables_give_means_and_differences_within_seeds() -> None:
    found = [_result("less", 0, 10), _result("more", 0, 14), _result("less", 2, 12), _result("more", 2, 13)]
    lines = feel_tables(found).splitlines()
    assert lines[0] == "4 test films, 9 queries, seeds [0, 2]; percent."
    assert lines[4].startswith("| less | 11.0 ± 1.4 | 11.0 ± 1.4 |")
    assert "| more | 6.8 ± 0.4 | 13.5 ± 0.7 |" in lines
    assert lines[-1].startswith("| more − less | +4.0, +1.0: 2.5 ± 2.1 |")
    told = [{**r, "pretraining": {"mlm": 2.0 + r["seed"], "gmr_t2v": 0.5}} for r in found]
    assert "| less | 3.000 |  | 0.500 |  |  |  |" in feel_tables(told).splitlines()
    known = {"constant": 0.5, "once": 0.25, "alone": 0.5, "twice": 0.05, "active": 0.4, "told": 0.3}
    judged = [{**r, "diagnosis": {"v": known, "t": {**known, "constant": 0.25}}} for r in found[1::2]]
    lines = feel_tables([found[0], *judged]).splitlines()
    assert "| more | 0.50 | 1.00 | 0.10 | 1.00 | 2.00 | 0.20 | 30 | 30 | 40 |" in lines
    assert "−" not in feel_tables(found[:1])
    alone = feel_tables(found[:2]).splitlines()
    assert alone[-1].startswith("| more − less | +4.0: 4.0 |")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--seeds", "a"], "error: --seeds is 'a': write whole numbers separated by commas"),
        (["--rows", "4"], "error: --rows is '4': there are rows 0 to 3"),
        ([], "make the films with `reelfind-model feel-films` first"),
        (["loss.margn=1"], "unknown setting loss.margn"),
    ],
)
def test_bad_input_is_an_error_with_a_remedy(more: list[str], message: str, tmp_path: Path) -> None:
    words = ["feel-ablation", str(tmp_path), "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*words, *more])
    assert done.exit_code == 2, done.output
    assert message in done.output.replace("\n", " ")
