"""What the dashboard asks Prometheus, as data; ``dashboard`` turns it into Grafana's JSON.

Metric names come from the catalogue. Series are first aggregated to the labels of the contract, so that an agent
that came back at another address is still one line. Wherever watts or joules are shown, ``method`` is in the legend:
a simulated figure is never without the word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from workers.telemetry import catalogue

NODE = 'node=~"$node"'
NODE_JOB = f'{NODE}, job_id=~"$job"'
DEVICE = "node, device, model, method"
DEVICE_LEGEND = "{{node}} {{model}} {{device}} ({{method}})"

ENERGY = f"{catalogue.DEVICE_ENERGY.name}{{{NODE}}}"
POWER = f"{catalogue.DEVICE_POWER.name}{{{NODE}}}"
GPU_POWER = f'{catalogue.DEVICE_POWER.name}{{{NODE}, kind="gpu"}}'
"""Nobody leases the host's CPU: that no lease holds it says nothing."""
LIMIT = f"{catalogue.DEVICE_POWER_LIMIT.name}{{{NODE}}}"
UTILIZATION = f"{catalogue.DEVICE_UTILIZATION.name}{{{NODE}}}"
UP = f"{catalogue.DEVICE_UP.name}{{{NODE}}}"
LEASES = f"{catalogue.LEASE_INFO.name}{{{NODE}}}"
LEASES_OF_JOB = f"{catalogue.LEASE_INFO.name}{{{NODE_JOB}}}"
JOB_ENERGY = f"{catalogue.JOB_ENERGY.name}{{{NODE_JOB}}}"
READ_ERRORS = f"{catalogue.READ_ERRORS.name}{{{NODE}}}"
READ_SECONDS = f"{catalogue.READ_SECONDS.name}{{{NODE}}}"

POWER_PER_LEASE = (
    f"{LEASES_OF_JOB} * on (node, device) group_left (method) "
    f"(max by (node, device, method) ({POWER}) / on (node, device) group_left () count by (node, device) ({LEASES}))"
)
"""Leases are the many side, devices the one: a device held twice is split, never counted whole for each holder."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """One query of a panel.

    Attributes:
        legend: Grafana's template over the labels of the result.
        instant: only the value now, as a bar or a number shows it.
        dashed: drawn as a dashed line, as limits are.
    """

    expr: str
    legend: str
    instant: bool = False
    dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel.

    Attributes:
        description: what a reader must know before trusting it.
        unit: Grafana's name of the unit.
        width: of 24 columns.
        stacked: series are drawn on top of each other, because their sum means something.
    """

    title: str
    description: str
    kind: Literal["timeseries", "stat", "bargauge"]
    unit: Literal["watt", "joule", "percentunit", "s", "short"]
    queries: tuple[Query, ...]
    width: int = 12
    stacked: bool = False


OVERVIEW = (
    Panel(
        title="Power now",
        description="Sum over the devices that are up, per method.",
        kind="stat",
        unit="watt",
        queries=(Query(expr=f"sum by (method) ({POWER})", legend="{{method}}", instant=True),),
        width=6,
    ),
    Panel(
        title="Energy in the time shown",
        description="Sum over all devices, per method. Prometheus extrapolates to the edges of the range; "
        "the ledger has the exact figures.",
        kind="stat",
        unit="joule",
        queries=(Query(expr=f"sum by (method) (increase({ENERGY}[$__range]))", legend="{{method}}", instant=True),),
        width=6,
    ),
    Panel(
        title="Devices",
        description="Devices whose last read worked, and devices the agents know.",
        kind="stat",
        unit="short",
        queries=(
            Query(expr=f"sum({UP})", legend="up", instant=True),
            Query(expr=f"count({UP})", legend="known", instant=True),
        ),
        width=6,
    ),
    Panel(
        title="Jobs holding a device",
        description="Jobs with an open lease; empty when there is none.",
        kind="stat",
        unit="short",
        queries=(Query(expr=f"count(count by (job_id) ({LEASES_OF_JOB}))", legend="jobs", instant=True),),
        width=6,
    ),
)

JOBS = (
    Panel(
        title="Power per job",
        description="Power of the devices each attempt holds, by phase. A device held by several attempts is split "
        "equally here; the energy beside it is what was really booked.",
        kind="timeseries",
        unit="watt",
        queries=(
            Query(
                expr=f"sum by (job_id, attempt, phase, method) ({POWER_PER_LEASE})",
                legend="{{job_id}} #{{attempt}} {{phase}} ({{method}})",
            ),
        ),
        stacked=True,
    ),
    Panel(
        title="Energy per job",
        description="Energy booked to each attempt since it began, finished ones included while their node's agent "
        "was seen in the time shown. The method is the weakest of its devices.",
        kind="bargauge",
        unit="joule",
        queries=(
            Query(
                expr=f"sum by (job_id, attempt, method) (max_over_time({JOB_ENERGY}[$__range]))",
                legend="{{job_id}} #{{attempt}} ({{method}})",
                instant=True,
            ),
        ),
    ),
)

DEVICES = (
    Panel(
        title="Power and power limit per device",
        description="Dashed lines are the limits the devices enforce: a cap shows as a lower line while it holds.",
        kind="timeseries",
        unit="watt",
        queries=(
            Query(expr=f"max by ({DEVICE}) ({POWER})", legend=DEVICE_LEGEND),
            Query(expr=f"max by ({DEVICE}) ({LIMIT})", legend=f"limit {DEVICE_LEGEND}", dashed=True),
        ),
    ),
    Panel(
        title="Share of the power limit",
        description="Power over limit: a device that stays near 100 % is held back by its limit.",
        kind="timeseries",
        unit="percentunit",
        queries=(Query(expr=f"max by ({DEVICE}) ({POWER} / {LIMIT})", legend=DEVICE_LEGEND),),
    ),
    Panel(
        title="Utilisation per device",
        description="Busy share of each device.",
        kind="timeseries",
        unit="percentunit",
        queries=(Query(expr=f"max by ({DEVICE}) ({UTILIZATION})", legend=DEVICE_LEGEND),),
    ),
    Panel(
        title="Energy per device in the time shown",
        description="Difference of the device's counter. Prometheus extrapolates to the edges of the range; "
        "the ledger has the exact figures.",
        kind="bargauge",
        unit="joule",
        queries=(Query(expr=f"sum by ({DEVICE}) (increase({ENERGY}[$__range]))", legend=DEVICE_LEGEND, instant=True),),
    ),
    Panel(
        title="Power no job holds",
        description="Power of GPUs without a lease: what idling costs.",
        kind="timeseries",
        unit="watt",
        queries=(
            Query(
                expr=f"max by ({DEVICE}) ({GPU_POWER} unless on (node, device) {LEASES})",
                legend=DEVICE_LEGEND,
            ),
        ),
        stacked=True,
    ),
)

METERS = (
    Panel(
        title="Devices that can be read",
        description="1 while reads work, 0 while they fail; a device that is down has no other figures.",
        kind="timeseries",
        unit="short",
        queries=(Query(expr=f"min by ({DEVICE}) ({UP})", legend=DEVICE_LEGEND),),
        width=8,
    ),
    Panel(
        title="Failed reads",
        description="Reads of a device that failed, per interval.",
        kind="timeseries",
        unit="short",
        queries=(
            Query(
                expr=f"sum by (node, device) (increase({READ_ERRORS}[$__rate_interval]))",
                legend="{{node}} {{device}}",
            ),
        ),
        width=8,
    ),
    Panel(
        title="Duration of a look at all devices",
        description="What metering takes; near the sampling period it begins to miss samples.",
        kind="timeseries",
        unit="s",
        queries=(Query(expr=f"max by (node) ({READ_SECONDS})", legend="{{node}}"),),
        width=8,
    ),
)

ROWS: dict[str, tuple[Panel, ...]] = {
    "Overview": OVERVIEW,
    "Jobs": JOBS,
    "Devices": DEVICES,
    "Meters": METERS,
}
"""The dashboard from top to bottom: title of each row, and its panels from left to right."""

VARIABLES: dict[str, str] = {
    "node": f"label_values({catalogue.DEVICE_UP.name}, node)",
    "job": f"label_values({catalogue.JOB_ENERGY.name}{{{NODE}}}, job_id)",
}
"""What the reader may choose, and where the choices come from."""
