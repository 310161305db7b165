"""The Prometheus metrics of Wattledger, as data: the one place where a metric name, its unit and its labels live.

The exporter renders from it, and the dashboard's queries are tested against it. Names follow Prometheus' rules:
base units, a unit suffix, ``_total`` on counters. A device is its UUID, never an index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DEVICE_LABELS = ("node", "device", "model", "kind", "method")
"""What every figure of a device carries; ``method`` is how its joules are obtained, so ``simulated`` is never lost."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricInfo:
    """One metric of the contract.

    Attributes:
        unit: joules, watts, seconds or ratio (0 to 1); empty for counts and flags.
        exported_by: ``agent`` (one exporter per node) or ``head``.
        exported: false for a name the contract reserves and nothing exports yet; no dashboard may ask for it.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram", "info"]
    unit: Literal["joules", "watts", "seconds", "ratio", ""]
    labels: tuple[str, ...]
    help: str
    exported_by: Literal["agent", "head"] = "agent"
    exported: bool = True


DEVICE_ENERGY = MetricInfo(
    name="wattledger_device_energy_joules_total",
    kind="counter",
    unit="joules",
    labels=DEVICE_LABELS,
    help="Cumulative energy of the device, in joules, exact to the millijoule.",
)
DEVICE_POWER = MetricInfo(
    name="wattledger_device_power_watts",
    kind="gauge",
    unit="watts",
    labels=DEVICE_LABELS,
    help="Power the device draws, in watts.",
)
DEVICE_POWER_LIMIT = MetricInfo(
    name="wattledger_device_power_limit_watts",
    kind="gauge",
    unit="watts",
    labels=DEVICE_LABELS,
    help="Power limit the device enforces, in watts.",
)
DEVICE_UTILIZATION = MetricInfo(
    name="wattledger_device_utilization_ratio",
    kind="gauge",
    unit="ratio",
    labels=DEVICE_LABELS,
    help="Busy share of the device, 0 to 1.",
)
DEVICE_UP = MetricInfo(
    name="wattledger_device_up",
    kind="gauge",
    unit="",
    labels=DEVICE_LABELS,
    help="1 when the last read of the device worked, 0 when it failed; its figures are absent while it is 0.",
)
LEASE_INFO = MetricInfo(
    name="wattledger_lease_info",
    kind="info",
    unit="",
    labels=("node", "device", "job_id", "attempt", "phase"),
    help="1 for each open lease: which attempt holds the device and the phase it is in, empty before the first.",
)
JOB_ENERGY = MetricInfo(
    name="wattledger_job_energy_joules_total",
    kind="counter",
    unit="joules",
    labels=("node", "job_id", "attempt", "method"),
    help="Energy this node booked to the attempt, in joules; method is the weakest of its devices.",
)
READ_ERRORS = MetricInfo(
    name="wattledger_agent_read_errors_total",
    kind="counter",
    unit="",
    labels=("node", "device"),
    help="Reads of the device that failed since the agent started; a board it could not open is GPU and its index.",
)
READ_SECONDS = MetricInfo(
    name="wattledger_agent_read_seconds",
    kind="gauge",
    unit="seconds",
    labels=("node",),
    help="How long the agent's last look at all its devices took, in seconds.",
)
WRITE_ERRORS = MetricInfo(
    name="wattledger_agent_write_errors_total",
    kind="counter",
    unit="",
    labels=("node",),
    help="Times the disk refused the energy log since the agent started; what it refused is kept and tried again.",
)
JOBS = MetricInfo(
    name="wattledger_jobs",
    kind="gauge",
    unit="",
    labels=("state",),
    help="Jobs in the state.",
    exported_by="head",
    exported=False,
)
QUEUE_WAIT = MetricInfo(
    name="wattledger_queue_wait_seconds",
    kind="histogram",
    unit="seconds",
    labels=(),
    help="How long jobs waited between submission and the start of their first attempt, in seconds.",
    exported_by="head",
    exported=False,
)
BUDGET_USED = MetricInfo(
    name="wattledger_budget_used_ratio",
    kind="gauge",
    unit="ratio",
    labels=("budget",),
    help="Used part of the budget, 0 to 1, above 1 when exceeded.",
    exported_by="head",
    exported=False,
)

CATALOGUE: dict[str, MetricInfo] = {
    metric.name: metric
    for metric in (
        DEVICE_ENERGY,
        DEVICE_POWER,
        DEVICE_POWER_LIMIT,
        DEVICE_UTILIZATION,
        DEVICE_UP,
        LEASE_INFO,
        JOB_ENERGY,
        READ_ERRORS,
        READ_SECONDS,
        WRITE_ERRORS,
        JOBS,
        QUEUE_WAIT,
        BUDGET_USED,
    )
}
"""Every metric by name, in the order they are exported."""
