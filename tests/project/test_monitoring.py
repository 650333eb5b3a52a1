"""Alerts and dashboard, checked against what `/metrics` of a real server shows."""

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from service.settings import Settings, variable_of
from tests.support.paths import ROOT
from tests.support.server import running_server
from tests.support.toy_library import make_library

ALERTS = ROOT / "deploy/prometheus/alerts.yml"
DASHBOARD = ROOT / "deploy/grafana/reelfind.json"
#: Labels that Prometheus gives every metric, and those of its own metric of a scrape.
OF_TARGETS = {"job", "instance"}
#: What Grafana puts in place of a variable, for a parser that knows none.
VARIABLES = {"$__rate_interval": "5m", "$job": ".+", "$instance": ".+"}

#: Each metric's labels, and the values of each.
Shown = Mapping[str, Mapping[str, set[str]]]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """What a server shows that has answered a search. Of routes, all that it has."""
    toy = make_library(tmp_path_factory.mktemp("library"), {"red.mp4": [("red", 1.0)]})
    with running_server(*toy.options) as server:
        server.search("red")
        text = server.client.get("/metrics").text
        routes = set(server.client.get("/openapi.json").json()["paths"])
    metrics: dict[str, dict[str, set[str]]] = {"up": {}}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = metrics.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    for labels in metrics.values():
        if "route" in labels:
            labels["route"] |= routes
        if "status" in labels:
            labels["status"] |= {str(status) for status in range(200, 600)}
    return metrics


@dataclass(frozen=True)
class Rule:
    """An alert."""

    name: str
    expression: str
    texts: Sequence[str]


def read_rules() -> list[Rule]:
    (group,) = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [Rule(rule["alert"], rule["expr"], [*rule["annotations"].values()]) for rule in group["rules"]]


def read_panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return panels


def expressions_of(panels: Sequence[Mapping[str, Any]]) -> list[str]:
    """The expressions of a dashboard, without variables."""
    found = []
    for panel in panels:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            found.append(expression)
    return found


RULES = read_rules()
PANELS = read_panels()
EXPRESSIONS = [*(rule.expression for rule in RULES), *expressions_of(PANELS)]


def parts_of(expression: object) -> Iterator[object]:
    """A parsed expression and all within it."""
    yield expression
    for name in ("expr", "lhs", "rhs", "param", "vector_selector"):
        if (part := getattr(expression, name, None)) is not None:
            yield from parts_of(part)
    for part in getattr(expression, "args", ()):
        yield from parts_of(part)


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_an_expression_asks_for_metrics_and_labels_that_there_are(text: str, shown: Shown) -> None:
    parts = list(parts_of(promql_parser.parse(text)))
    selectors = [part for part in parts if isinstance(part, promql_parser.VectorSelector)]
    assert selectors
    labels = set(OF_TARGETS)
    for selector in selectors:
        assert selector.name is not None
        assert selector.name in shown, selector.name
        values = shown[selector.name]
        labels |= values.keys()
        for matcher in selector.matchers.matchers:
            if matcher.name in OF_TARGETS:
                continue
            assert matcher.name in values, f"{selector.name} has no label {matcher.name}"
            if matcher.op == promql_parser.MatchOp.Equal:
                assert matcher.value in values[matcher.name]
            else:
                assert matcher.op == promql_parser.MatchOp.Re
                assert any(re.fullmatch(matcher.value, value) for value in values[matcher.name])
    for part in parts:
        modifier = getattr(part, "modifier", None)
        if isinstance(part, promql_parser.AggregateExpr) and modifier is not None:
            assert set(modifier.labels) <= labels


def test_every_metric_is_on_the_dashboard(shown: Shown) -> None:
    parts = [part for text in expressions_of(PANELS) for part in parts_of(promql_parser.parse(text))]
    used = {str(part.name) for part in parts if isinstance(part, promql_parser.VectorSelector)}
    ends = re.compile(r"_(bucket|count|sum|total|created)$")
    missing = {ends.sub("", name) for name in shown if name.startswith("reelfind_")}
    assert missing == {ends.sub("", name) for name in used if name.startswith("reelfind_")}


def test_the_dashboard_is_one_that_grafana_lays_out() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    cells: Counter[tuple[int, int]] = Counter()
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for column in range(place["x"], place["x"] + place["w"]):
            cells.update((column, line) for line in range(place["y"], place["y"] + place["h"]))
    assert max(cells.values()) == 1, "two panels overlap"
    variables = json.loads(DASHBOARD.read_text(encoding="utf-8"))["templating"]["list"]
    named = {f"${variable['name']}" for variable in variables}
    assert VARIABLES.keys() - {"$__rate_interval"} == named - {"$datasource"}
    for panel in PANELS:
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == "${datasource}"


def test_alerts_say_what_to_do_and_name_settings_that_there_are() -> None:
    settings = {variable_of(name) for name in Settings.model_fields}
    assert len({rule.name for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert len(rule.texts) == 2, "a summary and a description"
    text = ALERTS.read_text(encoding="utf-8") + DASHBOARD.read_text(encoding="utf-8")
    assert set(re.findall(r"REELFIND_\w+", text)) <= settings


def test_promtool_accepts_the_alerts_and_they_fire_when_they_should() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    for command, file in (("check", ALERTS), ("test", ROOT / "tests/project/alerts.test.yml")):
        run = subprocess.run([promtool, command, "rules", file], capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout + run.stderr
