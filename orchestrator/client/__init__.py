"""The Python API: the verbs of the command line as functions, without a terminal.

Each long one takes an ``Observer`` that is told what happens; the command line's draws progress bars. ``up`` and
``down`` have and end a controller on a Ray cluster; ``submit``, ``run`` and ``cancel`` write into the ledger, and
follow there what the controller does. ``status``, ``explain``, ``logs`` and ``quotas`` read it.
"""

from orchestrator.client.controllers import down, live_controller, serving_controller, up
from orchestrator.client.following import cancel
from orchestrator.client.ledger import PROMETHEUS_VARIABLE, accounts, budgets, find_run, open_store, prometheus_url
from orchestrator.client.observer import Observer
from orchestrator.client.reads import explain, follow_logs, logs, quotas, status
from orchestrator.client.running import RunResult, run
from orchestrator.client.submission import Submission, checked_plan, expand_on, submit
from orchestrator.client.target import Target, view_of
from orchestrator.cluster.options import LOOPBACK, ControllerOptions

__all__ = [
    "LOOPBACK",
    "PROMETHEUS_VARIABLE",
    "ControllerOptions",
    "Observer",
    "RunResult",
    "Submission",
    "Target",
    "accounts",
    "budgets",
    "cancel",
    "checked_plan",
    "down",
    "expand_on",
    "explain",
    "find_run",
    "follow_logs",
    "live_controller",
    "logs",
    "open_store",
    "prometheus_url",
    "quotas",
    "run",
    "serving_controller",
    "status",
    "submit",
    "up",
    "view_of",
]
