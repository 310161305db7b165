"""Who holds how much of what they may hold. Exact: GPUs are counted in ``UNITS`` parts."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable

from orchestrator.quotas import Quota, QuotaScope, quota_of
from orchestrator.turn import UNITS, Turn

SCOPES: tuple[QuotaScope, ...] = ("user", "project")


class Limits:
    """The GPU quotas of one decision, and what is held under them.

    Attributes:
        any: whether there are any.
    """

    def __init__(self, quotas: Iterable[Quota]) -> None:
        self._quotas = tuple(quotas)
        self.any = any(quota.gpus is not None for quota in self._quotas)
        self._held: Counter[tuple[QuotaScope, str | None]] = Counter()
        self._most = functools.lru_cache(maxsize=None)(self._most_of)
        self._told: dict[tuple[object, ...], str] = {}

    def hold(self, turn: Turn, gpu_parts: int) -> None:
        """Count what a job holds from now on."""
        for scope in SCOPES:
            self._held[scope, _name(turn, scope)] += gpu_parts

    def refusal(self, turn: Turn, gpu_parts: int) -> str | None:
        """Why the job may not have so much more now, for people; ``None`` when it may."""
        if not self.any or not gpu_parts:
            return None
        for scope in SCOPES:
            name = _name(turn, scope)
            most, held = self._most(scope, name), self._held[scope, name]
            if most is None or held + gpu_parts <= most:
                continue
            key = scope, name, held, gpu_parts
            if key not in self._told:
                self._told[key] = _told(f"{scope} {name}", most, held, gpu_parts)
            return self._told[key]
        return None

    def _most_of(self, scope: QuotaScope, name: str | None) -> int | None:
        quota = quota_of(self._quotas, scope, name)
        return None if quota is None or quota.gpus is None else round(quota.gpus * UNITS)


def _told(who: str, most: int, held: int, gpu_parts: int) -> str:
    may = f"{who} may hold {_gpus(most)} at once"
    if gpu_parts > most:
        return f"waits for a larger quota: {may}, and this job needs {_gpus(gpu_parts)}"
    return f"waits for its quota: {may} and holds {_gpus(held)}, and this job needs {_gpus(gpu_parts)}"


def _name(turn: Turn, scope: QuotaScope) -> str | None:
    return turn.user if scope == "user" else turn.project


def _gpus(parts: int) -> str:
    return f"{parts / UNITS:g} GPU{'' if parts == UNITS else 's'}"
