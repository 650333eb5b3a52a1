"""What a bundle says of where it comes from: true, or not stated."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

pytest.importorskip("torch")

from model.config import Config
from model.data.record import DatasetRecord, StartRecord, TrainingData
from model.export.provenance import dataset_names, make_provenance
from model.runtime.errors import InputError
from model.settings import DataConfig

HOLIDAY = DatasetRecord("photos", "holiday", items=24, captions=48, captions_sha256="a" * 64)
OTHER = dataclasses.replace(HOLIDAY, name="other")
DATA = TrainingData((HOLIDAY,))
STARTED = TrainingData((HOLIDAY,), StartRecord("cc/best.pt", TrainingData((OTHER,))))
NAME = 'photos "holiday", split train: 24 photos, 48 captions'
WEIGHTS = [{"name": "a backbone", "licence": "MIT", "source": "a paper"}]


def test_the_data_is_named_and_its_licence_not_invented() -> None:
    config = Config(data=DataConfig(path="/home/me/holiday"))
    provenance = make_provenance(config, [DATA], WEIGHTS, metrics={"photos": {"R@1": 20.5}})
    (data,) = provenance.data
    assert (data.name, data.licence, data.source) == (NAME, "not stated", "not stated")
    assert provenance.metrics == {"photos": {"R@1": 20.5}}
    assert [source.name for source in provenance.weights] == ["a backbone"]
    written = provenance.model_dump_json()
    assert "Flickr" not in written
    assert "/home/me" not in written
    recipe = json.loads(provenance.recipe)
    assert (recipe["name"], recipe["averaged"], recipe["data"]["kind"]) == ("mini", 1, "photos")
    assert "start_from" not in recipe


def test_the_user_states_licence_and_source() -> None:
    stated: dict[str, Any] = {"data_licences": ["CC0-1.0"], "data_sources": ["https://example.org/holiday"]}
    (data,) = make_provenance(Config(), [DATA], (), **stated).data
    assert (data.licence, data.source) == ("CC0-1.0", "https://example.org/holiday")
    # One may be known without the other, and one for each set in the order in which they are listed.
    both = make_provenance(Config(), [STARTED], (), data_licences=["CC0-1.0", "research use"])
    assert [(item.name, item.licence, item.source) for item in both.data] == [
        (NAME, "CC0-1.0", "not stated"),
        (f"start_from cc/best.pt: {OTHER}", "research use", "not stated"),
    ]


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        (
            {"data_licences": ["MIT", "MIT", "MIT"]},
            "data_licence: 3 given, 2 needed, one for each data set",
        ),
        (
            {"data_licences": ["MIT"]},
            'in this order: photos "holiday".*; start_from cc/best.pt: photos "other"',
        ),
        ({"data_sources": ["a"]}, "data_source: 1 given, 2 needed"),
        ({"data_sources": ["a", " "]}, "data_source is blank: leave it out, or write 'not stated'"),
    ],
)
def test_wrong_statements_are_refused(stated: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_provenance(Config(), [STARTED], (), **stated)


def test_averaged_checkpoints_name_each_data_set_once() -> None:
    assert dataset_names([DATA, DATA, TrainingData((OTHER,)), STARTED]) == (
        NAME,
        str(OTHER),
        f"start_from cc/best.pt: {OTHER}",
    )
    assert json.loads(make_provenance(Config(), [DATA, DATA], ()).recipe)["averaged"] == 2


def test_the_recipe_names_the_start() -> None:
    config = Config()
    config = dataclasses.replace(
        config, train=dataclasses.replace(config.train, start_from="/home/me/runs/cc/best.pt")
    )
    provenance = make_provenance(config, [STARTED], ())
    assert json.loads(provenance.recipe)["start_from"] == "cc/best.pt"
    assert "/home/me" not in provenance.model_dump_json()
