"""The Grafana dashboard, generated from ``panels``; the only module that imports ``grafana_foundation_sdk``.

``python -m orchestrator.monitoring.dashboard`` writes it where Grafana's provisioning finds it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models

from orchestrator.monitoring.panels import ROWS, VARIABLES, Panel, Query

TITLE = "Wattledger: power and energy"
UID = "wattledger-power"
DEFAULT_PATH = Path("deploy/grafana/wattledger.json")
DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
PANEL_HEIGHT = {"stat": 5, "timeseries": 9, "bargauge": 9}
"""Rows of Grafana's grid, 30 pixels each."""

PanelBuilder = timeseries.Panel | stat.Panel | bargauge.Panel


def build_dashboard() -> str:
    """The dashboard as JSON text; the same text every time, so that it can be compared and reviewed."""
    builder = (
        dashboard.Dashboard(TITLE)
        .uid(UID)
        .description("Power and energy of devices and jobs, as Wattledger's agents export them.")
        .tags(["wattledger"])
        .readonly()
        .time("now-30m", "now")
        .refresh("5s")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for name, query in VARIABLES.items():
        builder.with_variable(_variable(name, query))
    panel_id = 0
    for title, panels in ROWS.items():
        panel_id += 1
        builder.with_row(dashboard.Row(title).id(panel_id))
        for panel in panels:
            panel_id += 1
            builder.with_panel(_panel(panel).id(panel_id))
    return json.dumps(builder.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def queries(dashboard_json: str) -> list[tuple[str, str]]:
    """``(panel title, PromQL)`` of every query in a dashboard's JSON, in order."""
    panels = json.loads(dashboard_json)["panels"]
    return [(panel["title"], target["expr"]) for panel in panels for target in panel.get("targets", ())]


def _variable(name: str, query: str) -> dashboard.QueryVariable:
    """A drop-down of several choices, all of them at first."""
    return (
        dashboard.QueryVariable(name)
        .label(name.capitalize())
        .datasource(DATASOURCE)
        .query({"query": query, "refId": name})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def _panel(panel: Panel) -> PanelBuilder:
    kinds = {"timeseries": _timeseries, "stat": _stat, "bargauge": _bargauge}
    builder = (
        kinds[panel.kind](panel)
        .title(panel.title)
        .description(panel.description)
        .datasource(DATASOURCE)
        .unit(panel.unit)
        .span(panel.width)
        .height(PANEL_HEIGHT[panel.kind])
    )
    for position, query in enumerate(panel.queries):
        builder.with_target(_target(query, _ref_id(position)))
    return builder


def _timeseries(panel: Panel) -> PanelBuilder:
    builder = (
        timeseries.Panel()
        .min(0)
        .line_width(1)
        .fill_opacity(30 if panel.stacked else 0)
        .show_points(common_models.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(common_models.LegendDisplayMode.LIST)
            .placement(common_models.LegendPlacement.BOTTOM)
        )
        .tooltip(common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI))
    )
    if panel.stacked:
        builder.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL).group("A"))
    for position, query in enumerate(panel.queries):
        if query.dashed:
            style = models.DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [10, 10]})
            builder.override_by_query(_ref_id(position), [style])
    return builder


def _stat(_panel: Panel) -> PanelBuilder:
    return (
        stat.Panel()
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(common_models.BigValueGraphMode.NONE)
        .text_mode(common_models.BigValueTextMode.VALUE_AND_NAME)
    )


def _bargauge(_panel: Panel) -> PanelBuilder:
    return (
        bargauge.Panel()
        .min(0)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .orientation(common_models.VizOrientation.HORIZONTAL)
        .display_mode(common_models.BarGaugeDisplayMode.BASIC)
    )


def _target(query: Query, ref_id: str) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(ref_id).datasource(DATASOURCE)
    return target.instant() if query.instant else target.range()


def _ref_id(position: int) -> str:
    return "ABCDEFGH"[position]


def main(arguments: Sequence[str]) -> int:
    """Write the dashboard to the path given, else to ``deploy/grafana/wattledger.json``."""
    path = Path(arguments[0]) if arguments else DEFAULT_PATH
    path.write_text(build_dashboard())
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
