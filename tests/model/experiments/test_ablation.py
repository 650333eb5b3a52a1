"""The ablation: films of pixels, one pass of the matcher for every cell, and the tables it prints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from model.cli import app
from model.config import config_from_mapping, load_config
from model.data.films import FilmPlan
from model.data.stills import read_stills
from model.evaluation.spliced import SplicedFilms
from model.experiments.ablation import (
    ALL_ROWS,
    ROWS,
    SALIENT_COUNTS,
    Films,
    ablation_tables,
    make_films,
    measure_row,
    run_ablation,
    score_films,
)
from model.families.lgdn.config import STRATEGIES
from model.families.lgdn.network import LGDN
from model.runtime.preprocessing import TextTokenizer
from model.settings import to_mapping
from tests.support.naive_views import naive_view
from tests.support.paths import ROOT
from tests.support.tiny_photos import make_photos, make_tokenizer, tiny_config

SIZE = 48
# A tiny untrained model finds some films equal.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*score the same")]


@pytest.fixture(scope="module")
def photos_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos"))


def test_frames_are_views_cross_fades_and_blanks(photos_folder: Path) -> None:
    photos = read_stills(photos_folder, "val")
    plan = FilmPlan(
        images=np.array([[3, 3], [4, 5], [-2, -2], [3, -1]]),
        views=np.array([[0, 0], [2, 0], [0, 0], [0, 0]]),
        share=np.array([0, 0.25, 0, 0.5], np.float32),
        slots=np.zeros((1, 4), np.int64),
        mask=np.ones((1, 4), np.float32),
        first=np.ones(4, np.bool_),
    )
    rows = slots = np.zeros(0, np.int64)
    plain, fade, white, dark = SplicedFilms(photos, plan, rows, slots, slots, seed=7).frames(SIZE)
    np.testing.assert_array_equal(plain, photos.load(3, SIZE))
    view = naive_view(photos, 4, 2, SIZE, 7).astype(float)
    np.testing.assert_array_equal(fade, np.rint(0.75 * view + 0.25 * photos.load(5, SIZE)))
    assert (white == 255).all()
    np.testing.assert_array_equal(dark, np.rint(photos.load(3, SIZE) * 0.5))


def _films(photos_folder: Path, tmp_path: Path) -> tuple[LGDN, Films, TextTokenizer]:
    config = tiny_config(photos_folder, tmp_path)
    data = replace(config.data, film_share=1.0, film_frames=4, max_views=2)
    model = LGDN(config.model).eval()
    films = make_films(read_stills(photos_folder, "val"), 10, 8, data, model, seed=0)
    return model, films, TextTokenizer.from_file(make_tokenizer(tmp_path / "tokenizer.json"), 16)


def test_films_have_real_frames_first_and_more_than_one(photos_folder: Path, tmp_path: Path) -> None:
    _, films, _ = _films(photos_folder, tmp_path)
    assert films.slots.shape == (10, 4)
    assert len(films.captions) == 10
    assert films.counts.min() >= 2
    assert films.counts.max() <= 4
    assert films.slots.max() < len(films.prepared)


def test_every_cell_of_the_table_is_the_naive_score(photos_folder: Path, tmp_path: Path) -> None:
    model, films, tokenizer = _films(photos_folder, tmp_path)
    scores = score_films(model, films, tokenizer)
    assert scores.logits.shape == (10, len(films.prepared))
    result = measure_row(ROWS[-1], (scores, films), (scores, films))
    for strategy in STRATEGIES:
        for n in SALIENT_COUNTS:
            hits = 0
            for q in range(10):
                local = []
                for g in range(10):
                    shown = films.slots[g, : films.counts[g]]
                    best = sorted(shown, key=lambda f: -scores.relevance[strategy][q, f])[:n]
                    local.append(np.mean([scores.logits[q, f] for f in best]))
                rank = 1 + sum(x > local[q] for x in local) + (sum(x == local[q] for x in local) - 1) / 2
                hits += int(rank <= 1)
            cell = result[strategy][str(n)]["local"]["text_to_video"]
            assert cell["R@1"] == pytest.approx(10.0 * hits), (strategy, n)


def test_a_whole_ablation_runs_resumes_and_prints_its_tables(photos_folder: Path, tmp_path: Path) -> None:
    config = tiny_config(photos_folder, tmp_path / "unused", epochs=1)
    settings = to_mapping(config)
    settings["model"] |= {"frozen_stages": 7, "fusion_dim": 16, "fusion_layers": 1}
    settings["data"] |= {"film_share": 1.0, "film_frames": 4, "max_views": 2, "noise_pool": 4, "workers": 0}
    settings["train"] |= {"tensorboard": False}
    # The tiny text encoder's tokenizer comes with the tests; its test split is its validation split.
    tokenizer = make_tokenizer(tmp_path / "tokenizer.json")
    table_file = photos_folder / "captions.csv"
    rows = table_file.read_text(encoding="utf-8").splitlines()
    rows += [row.replace(",val,", ",test,") for row in rows if ",val," in row]
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "images").symlink_to(photos_folder / "images")
    (folder / "captions.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(settings), encoding="utf-8")
    said: list[str] = []

    films = {"val": 6, "test": 10}

    def run(seeds: Sequence[int] = (0, 1), rows: Sequence[int] = (1, 2, 3, 4, 5)) -> list[dict[str, Any]]:
        runs, data = tmp_path / "runs", [f"data={folder}"]
        return run_ablation(recipe, data, runs, seeds, films, 8, said.append, tokenizer, rows)

    results = run()
    assert [r["row"] for r in results] == [row.name for row in ROWS] * 2
    assert not list((tmp_path / "runs").rglob("*.pt"))
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("result.json")}
    assert run() == results
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    text = ablation_tables(results)
    for words in (
        "seeds [0, 1]",
        "LSFM (w/o SFP) + MFCL (w/o MSL)",
        "| ensemble, 2 frames |",
        "| 16 | local |",
        "crossmom",
    ):
        assert words in text
    first = json.loads((tmp_path / "runs" / "row1-seed0" / "result.json").read_text(encoding="utf-8"))
    second = json.loads((tmp_path / "runs" / "row1-seed1" / "result.json").read_text(encoding="utf-8"))
    pair = [r["collaborative"]["16"]["local"]["text_to_video"]["R@1"] for r in (first, second)]
    assert f"| LSFM (w/o SFP) | local, 16 frames | {np.mean(pair):.1f} ± {np.std(pair, ddof=1):.1f} /" in text
    full = [r for r in results if r["sfp"]]
    gains = [
        r["collaborative"]["2"]["ensemble"]["text_to_video"]["R@1"] - r["global"]["text_to_video"]["R@1"]
        for r in full
    ]
    assert f"| 2 frames: ensemble − global | {gains[0]:+.1f}, {gains[1]:+.1f}: {np.mean(gains):.1f} ±" in text
    compared = run([0], [5, 6, 7])
    assert [r["row"] for r in compared] == [ALL_ROWS[number].name for number in (4, 5, 6)]
    assert compared[0] == results[4]
    weights = [(r["settings"]["loss"]["gmr"], r["settings"]["loss"]["cs"]) for r in compared]
    assert weights == [(0, 0), (1, 0), (1, 1)]
    text = ablation_tables(compared)
    before, after = (r["global"]["text_to_video"]["R@1"] for r in compared[:2])
    assert f"| global: + GMR − without | {after - before:+.1f}: " in text
    assert "| LSFM + MFCL + MVCL + GMR + CS | ensemble, 2 frames |" in text
    assert "w/o SFP" not in text
    assert "Figure 3" not in ablation_tables(compared[1:])
    with pytest.raises(ValueError, match="rows is '5,9': the rows are 1 to 8"):
        run([0], [5, 9])
    films["val"] = 7
    with pytest.raises(ValueError, match=r"result\.json was measured with other settings: choose"):
        run()


def test_too_few_photos_are_refused(photos_folder: Path, tmp_path: Path) -> None:
    config = tiny_config(photos_folder, tmp_path)
    with pytest.raises(ValueError, match="20 films and 8 unrelated photos need more than 24 photos"):
        make_films(read_stills(photos_folder, "val"), 20, 8, config.data, LGDN(config.model), seed=0)


def test_the_recipe_loads_and_freezes_the_backbone() -> None:
    config = load_config(ROOT / "model" / "recipes" / "ablation.yaml")
    assert config.model.frozen_stages == 7
    assert config.train.lr_image == 0
    assert config.data.film_share == 1
    assert config_from_mapping(to_mapping(config)) == config


def test_the_command_refuses_seeds_and_rows_that_are_no_numbers(tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["ablation", "data=x", "--seeds", "0,two", "--output", str(tmp_path / "o")])
    assert ran.exit_code == 2
    assert "--seeds is '0,two': write whole numbers separated by commas" in ran.stderr
    ran = CliRunner().invoke(app, ["ablation", "data=x", "--rows", "6-8", "--output", str(tmp_path / "o")])
    assert ran.exit_code == 2
    assert "--rows is '6-8': write whole numbers separated by commas" in ran.stderr
    assert not (tmp_path / "o").exists()
