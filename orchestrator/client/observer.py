"""Who is told how a verb goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from orchestrator.lifecycle import JobRecord
from orchestrator.plan import Plan
from workers.home import Home


class Observer(Protocol):
    """Is told how a run goes; called from the thread that runs it."""

    def say(self, text: str) -> None:
        """Something happened that a person may want to know."""
        ...

    def planned(self, plan: Plan) -> None:
        """This is what will run."""
        ...

    def progressed(self, home: Home, jobs: Sequence[JobRecord]) -> None:
        """So the jobs stand now; called several times a second."""
        ...
