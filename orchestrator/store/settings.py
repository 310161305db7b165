"""What people set (budgets, quotas) and what controllers say of themselves."""

from __future__ import annotations

from orchestrator.quotas import Quota, QuotaScope
from orchestrator.store.database import Database
from orchestrator.store.records import BudgetPeriod, BudgetRecord, BudgetScope, ControllerRecord
from workers.errors import InputError


class Settings(Database):
    """Rows that belong to no job."""

    def set_budget(self, budget: BudgetRecord) -> None:
        """Set what somebody may use in a period, in the place of what was set for that before."""
        with self.together():
            self._change(
                "INSERT OR REPLACE INTO budgets (scope, name, period, energy_kwh, co2e_kg, set_ns) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (budget.scope, budget.name, budget.period, budget.energy_kwh, budget.co2e_kg, budget.set_ns),
            )

    def remove_budget(self, scope: BudgetScope, name: str, period: BudgetPeriod) -> None:
        """Take a budget back.

        Raises:
            InputError: there is none.
        """
        with self.together():
            gone = self._change(
                "DELETE FROM budgets WHERE scope = ? AND name = ? AND period = ?", (scope, name, period)
            )
        if not gone:
            raise InputError(f"{scope} {name} has no budget per {period}. See those there are: wattledger budget show")

    def budgets(self) -> tuple[BudgetRecord, ...]:
        """All that are set, by scope, name and period."""
        rows = self._rows("SELECT scope, name, period, energy_kwh, co2e_kg, set_ns FROM budgets ORDER BY 1, 2, 3")
        return tuple(
            BudgetRecord(scope=a, name=b, period=c, energy_kwh=d, co2e_kg=e, set_ns=f) for a, b, c, d, e, f in rows
        )

    def set_quota(self, quota: Quota, *, now_ns: int) -> None:
        """Set what somebody may hold at once, in the place of what was set before."""
        with self.together():
            self._change(
                "INSERT OR REPLACE INTO quotas (scope, name, gpus, queued_jobs, set_ns) VALUES (?, ?, ?, ?, ?)",
                (quota.scope, quota.name, quota.gpus, quota.queued_jobs, now_ns),
            )

    def remove_quota(self, scope: QuotaScope, name: str) -> None:
        """Take a quota back.

        Raises:
            InputError: there is none.
        """
        with self.together():
            gone = self._change("DELETE FROM quotas WHERE scope = ? AND name = ?", (scope, name))
        if not gone:
            raise InputError(f"{scope} {name} has no quota. See those there are: wattledger quota show")

    def quotas(self) -> tuple[Quota, ...]:
        """All that are set, by scope and name."""
        rows = self._rows("SELECT scope, name, gpus, queued_jobs FROM quotas ORDER BY 1, 2")
        return tuple(Quota(scope=a, name=b, gpus=c, queued_jobs=d) for a, b, c, d in rows)

    def note_controller(self, record: ControllerRecord) -> None:
        """Note that a controller lives, and what it sees, in the place of what it said before."""
        with self.together():
            self._change(
                "INSERT OR REPLACE INTO controllers "
                "(name, host, pid, address, targets_url, started_ns, beat_ns, trouble, cluster) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    record.name,
                    record.host,
                    record.pid,
                    record.address,
                    record.targets_url,
                    record.started_ns,
                    record.beat_ns,
                    record.trouble,
                    record.cluster,
                ),
            )

    def drop_controller(self, name: str) -> None:
        """Forget a controller that has ended; one that is not known does no harm."""
        with self.together():
            self._change("DELETE FROM controllers WHERE name = ?", (name,))

    def controllers(self) -> tuple[ControllerRecord, ...]:
        """All that said that they live and did not take leave, by name; ``beat_ns`` tells the dead ones."""
        rows = self._rows(
            "SELECT name, host, pid, address, targets_url, started_ns, beat_ns, trouble, cluster "
            "FROM controllers ORDER BY name"
        )
        return tuple(
            ControllerRecord(
                name=a, host=b, pid=c, address=d, targets_url=e, started_ns=f, beat_ns=g, trouble=h, cluster=i
            )
            for a, b, c, d, e, f, g, h, i in rows
        )
