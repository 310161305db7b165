"""The dashboard is what is generated, and asks only for what is exported."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.monitoring.dashboard import TITLE, build_dashboard, main, queries
from workers.telemetry.catalogue import CATALOGUE, MetricInfo

DEPLOY = Path(__file__).parents[2] / "deploy" / "grafana"
DASHBOARD: dict[str, Any] = json.loads(build_dashboard())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS = [(panel["title"], target) for panel in PANELS for target in panel["targets"]]
EXPRESSIONS = [(title, target["expr"]) for title, target in TARGETS]
each_query = pytest.mark.parametrize(("title", "target"), TARGETS, ids=[f"{t} {q['refId']}" for t, q in TARGETS])


def selectors(expr: str) -> Iterator[tuple[str, set[str]]]:
    """Each metric name in a query, with the labels its matchers name."""
    for name, matchers in re.findall(r"\b(wattledger_\w+)(?:\{([^}]*)\})?", expr):
        yield name, set(re.findall(r"(\w+)\s*=~?", matchers))


def grouping_labels(expr: str) -> set[str]:
    """The labels in by, on and group_left clauses."""
    clauses = re.findall(r"\b(?:by|on|group_left)\s*\(([^)]*)\)", expr)
    return {label.strip() for clause in clauses for label in clause.split(",") if label.strip()}


def result_labels(expr: str) -> set[str]:
    """The labels of a query's result: what its outermost aggregation keeps."""
    outermost = re.match(r"(?:sum|max|min|count) by \(([^)]*)\)", expr)
    return {label.strip() for label in outermost.group(1).split(",")} if outermost else set()


def metrics_of(expr: str) -> list[MetricInfo]:
    return [CATALOGUE[name] for name, _ in selectors(expr)]


def test_the_committed_dashboard_is_the_generated_one() -> None:
    committed = (DEPLOY / "wattledger.json").read_text()
    assert committed == build_dashboard(), "run: python -m orchestrator.monitoring.dashboard"


def test_the_dashboard_is_the_same_every_time() -> None:
    assert build_dashboard() == build_dashboard()


def test_the_command_writes_it_where_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "board.json")]) == 0
    assert (tmp_path / "board.json").read_text() == build_dashboard()
    assert capsys.readouterr().out == f"wrote {tmp_path / 'board.json'}\n"


def test_queries_lists_every_query_of_every_panel() -> None:
    assert queries(build_dashboard()) == EXPRESSIONS
    assert DASHBOARD["title"] == TITLE == "Wattledger: power and energy"


@each_query
def test_a_query_asks_only_for_metrics_that_are_exported(title: str, target: dict[str, Any]) -> None:
    names = [name for name, _ in selectors(target["expr"])]
    assert names
    assert [name for name in names if name not in CATALOGUE or not CATALOGUE[name].exported] == []


@each_query
def test_a_query_uses_only_labels_its_metrics_have(title: str, target: dict[str, Any]) -> None:
    for name, labels in selectors(target["expr"]):
        assert labels <= set(CATALOGUE[name].labels)
    known = {label for metric in metrics_of(target["expr"]) for label in metric.labels}
    assert grouping_labels(target["expr"]) <= known


@each_query
def test_a_legend_names_only_labels_of_the_result(title: str, target: dict[str, Any]) -> None:
    assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= result_labels(target["expr"])


@each_query
def test_watts_and_joules_are_never_shown_without_their_method(title: str, target: dict[str, Any]) -> None:
    shows_energy = {"watts", "joules"} & {metric.unit for metric in metrics_of(target["expr"])}
    assert not shows_energy or "{{method}}" in target["legendFormat"]


@each_query
def test_every_query_follows_the_chosen_node(title: str, target: dict[str, Any]) -> None:
    assert all("node" in labels for _, labels in selectors(target["expr"]))


def test_panels_are_in_the_unit_of_what_they_show() -> None:
    assert {panel["title"]: panel["fieldConfig"]["defaults"]["unit"] for panel in PANELS} == {
        "Power now": "watt",
        "Energy in the time shown": "joule",
        "Devices": "short",
        "Jobs holding a device": "short",
        "Power per job": "watt",
        "Energy per job": "joule",
        "Power and power limit per device": "watt",
        "Share of the power limit": "percentunit",
        "Utilisation per device": "percentunit",
        "Energy per device in the time shown": "joule",
        "Power no job holds": "watt",
        "Devices that can be read": "short",
        "Failed reads": "short",
        "Duration of a look at all devices": "s",
    }


def test_every_panel_is_described_and_on_the_chosen_data_source() -> None:
    for panel in PANELS:
        assert panel["description"].endswith(".")
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


def test_panels_fill_rows_of_24_columns_without_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_reader_chooses_data_source_node_and_job() -> None:
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert list(variables) == ["datasource", "node", "job"]
    for name in ("node", "job"):
        ((metric, labels),) = selectors(variables[name]["query"]["query"])
        asked = re.search(r", (\w+)\)$", variables[name]["query"]["query"])
        assert asked is not None
        assert {asked.group(1), *labels} <= set(CATALOGUE[metric].labels)
        assert variables[name]["multi"]
        assert variables[name]["allValue"] == ".*"


def test_limits_are_dashed() -> None:
    (panel,) = [panel for panel in PANELS if panel["title"] == "Power and power limit per device"]
    limits = [target["refId"] for target in panel["targets"] if "power_limit" in target["expr"]]
    dashed = [rule["matcher"] for rule in panel["fieldConfig"]["overrides"]]
    assert dashed == [{"id": "byFrameRefID", "options": ref_id} for ref_id in limits]


def test_provisioning_points_at_the_dashboard_and_a_prometheus_data_source() -> None:
    sources = yaml.safe_load((DEPLOY / "provisioning" / "datasources" / "wattledger.yaml").read_text())
    boards = yaml.safe_load((DEPLOY / "provisioning" / "dashboards" / "wattledger.yaml").read_text())
    assert [source["type"] for source in sources["datasources"]] == ["prometheus"]
    assert [provider["options"]["path"] for provider in boards["providers"]] == ["$WATTLEDGER_DASHBOARDS"]
    told = (DEPLOY / "README.md").read_text()
    for variable in ("WATTLEDGER_PROMETHEUS_URL", "WATTLEDGER_DASHBOARDS"):
        assert f"-e {variable}=" in told
