"""The entries of thousands of jobs, which one by one are more than a machine holds."""

from __future__ import annotations

from collections.abc import Collection

from workers.contract import EnergyEntry
from workers.home import Home
from workers.parquet import partition_labels
from workers.telemetry.energy_read import EnergyRead, journalled, read_energy_logs, read_journals

MANY_JOBS = 200
"""From how many jobs on their entries are joined within each hour."""


def read_many(home: Home, job_ids: Collection[str]) -> EnergyRead:
    """The same as ``read_energy_logs`` for every sum, method, flag, hour and edge, in far fewer entries.

    Those of one account that touch are one within each hour; a figure of less than a phase says so (``resolution_s``).

    Raises:
        UnreachableError: another process holds the derived database.
    """
    # Imported here: loading duckdb takes a tenth of a second that a report of few jobs should not pay.
    from orchestrator.books.database import open_books  # noqa: PLC0415
    from orchestrator.books.entries import joined_entries  # noqa: PLC0415
    from orchestrator.books.refresh import refresh  # noqa: PLC0415

    # Journals first, as everywhere: what becomes a file meanwhile is then seen in both, and never in neither.
    journals = read_journals(home.energy())
    with open_books(home) as books:
        refresh(books)
        found = joined_entries(books, job_ids)
        counted = [home.root / path for (path,) in books.rows("SELECT path FROM files WHERE problem IS NULL")]
    node_of, latest = dict(found.node_of), list[EnergyEntry]()
    wanted = set(job_ids) - found.unphased
    for path, _, entry in journalled(journals, counted=counted):
        if entry.job_id in wanted:
            latest.append(entry)
            node_of[entry.device] = partition_labels(path)["node"]
    rest = read_energy_logs(home, job_ids=found.unphased) if found.unphased else None
    entries = [*found.entries, *latest, *(rest.entries if rest else ())]
    entries.sort(key=lambda entry: (entry.start_ns, entry.device))
    return EnergyRead(entries=tuple(entries), node_of={**node_of, **(rest.node_of if rest else {})}, lost=found.lost)
