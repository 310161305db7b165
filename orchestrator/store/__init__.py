"""Decisions, in SQLite: which jobs there are, what state they are in and why, and what happened to them.

One file, write-ahead logged, so that a reader (``wattledger status``) never waits for the controller. Every change of
state goes through the table of ``lifecycle`` and leaves an event; measurements are not here. It is the mailbox, too:
a command writes rows, and the controller finds them.
"""

from orchestrator.store.decisions import Store
from orchestrator.store.records import (
    AttemptSpan,
    BudgetPeriod,
    BudgetRecord,
    BudgetScope,
    ControllerRecord,
    RunRecord,
)
from orchestrator.store.schema import SCHEMA_VERSION

__all__ = [
    "SCHEMA_VERSION",
    "AttemptSpan",
    "BudgetPeriod",
    "BudgetRecord",
    "BudgetScope",
    "ControllerRecord",
    "RunRecord",
    "Store",
]
