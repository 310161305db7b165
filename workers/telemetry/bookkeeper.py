"""Gets what was booked onto the disk, whatever the disk says to that.

Once per flush the entries booked since, and where the books stand, go to the journal; once per roll the journal becomes
Parquet files. A disk that refuses costs no joule and stops no metering: the entries are kept, merged coarser when they
are many, and written when it takes them again.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from workers.contract import EnergyEntry
from workers.errors import MeterError
from workers.telemetry.energy_log import EnergyLog, utc_date
from workers.telemetry.journal import State
from workers.telemetry.merging import merge
from workers.units import mj_to_joules

KEPT_ENTRIES = 5_000
"""About 3 MB, and ten minutes of eight boards: a disk that refuses for longer costs resolution in time, not memory."""

Take = Callable[[], tuple[list[EnergyEntry], State]]
"""Hands over the entries booked since the last call, and where the books stand with them."""


class Bookkeeper:
    """Writes an agent's energy log. May be used from several threads at once.

    Args:
        log: the log; ``recover`` was called.
        take: where the entries come from.
        roll_s: time between Parquet files.
        remedy: what to do about a disk that refuses, as a sentence.

    Attributes:
        write_errors: times the disk refused; ``is_refused``: whether it did the last time.
    """

    def __init__(
        self,
        log: EnergyLog,
        take: Take,
        *,
        roll_s: float,
        remedy: str,
        clock_ns: Callable[[], int] = time.time_ns,
        monotonic_s: Callable[[], float] = time.monotonic,
        kept: int = KEPT_ENTRIES,
    ) -> None:
        self._log, self._take, self._roll_s, self._remedy, self._kept = log, take, roll_s, remedy, kept
        self._clock_ns, self._monotonic_s = clock_ns, monotonic_s
        self._lock = threading.Lock()
        self._unwritten: list[EnergyEntry] = []
        self._rolled_s, self._date = monotonic_s(), utc_date(clock_ns())
        self.is_refused = False
        self.write_errors = 0

    def begin(self) -> None:
        """Have Parquet files made of what an agent that was killed has left; where the disk refuses, at a roll."""
        with self._lock:
            self._settle(self._log.begin)

    def write(self) -> None:
        """Put what was booked into the journal, and that into Parquet files when it is time; a refusal is said once."""
        with self._lock:
            try:
                self._append()
            except MeterError as error:
                self._say_once(str(error))
                return
            self.is_refused = False
            if self._monotonic_s() - self._rolled_s >= self._roll_s or utc_date(self._clock_ns()) != self._date:
                self._roll()
            else:
                self._settle(self._log.collect)

    def flush(self) -> None:
        """Put everything booked so far on disk, in the journal.

        Raises:
            MeterError: the disk refuses; the entries are kept, and written later.
        """
        with self._lock:
            self._append()

    def finish(self) -> None:
        """Put everything on disk and close the books; what cannot be written is named on standard error."""
        with self._lock:
            try:
                self._append()
                self._log.finish()
            except (MeterError, OSError) as error:
                self._say_once(str(error))
            if self._unwritten:
                lost_j = mj_to_joules(sum(entry.energy_mj for entry in self._unwritten))
                _say(f"{lost_j:,.1f} J could not be written to the energy log and are lost with this agent")

    def _append(self) -> None:
        entries, state = self._take()
        # As a rule nothing is left over, and what a book hands over is merged already.
        self._unwritten = bounded(merge([*self._unwritten, *entries]), self._kept) if self._unwritten else entries
        try:
            self._log.append(self._unwritten, state)
        except OSError as error:
            self.write_errors += 1
            raise MeterError(
                f"the energy log cannot be written: {error}. "
                f"Its entries are kept in memory and tried again; {self._remedy}"
            ) from error
        self._unwritten = []

    def _roll(self) -> None:
        self._rolled_s, self._date = self._monotonic_s(), utc_date(self._clock_ns())
        self._settle(self._log.roll)

    def _settle(self, act: Callable[[], None]) -> None:
        """What becomes a Parquet file is in the journal and stays there when the disk refuses: nobody waits for it."""
        try:
            act()
        except OSError as error:
            self.write_errors += 1
            self._say_once(f"the energy log's journal cannot become a Parquet file, and stays: {error}.")

    def _say_once(self, sentence: str) -> None:
        if not self.is_refused:
            _say(sentence)
        self.is_refused = True


def bounded(entries: Sequence[EnergyEntry], limit: int) -> list[EnergyEntry]:
    """At most ``limit`` entries where that can be had: all of one account become one, over any gaps between them.

    Energy per device, account, phase, method and quality is kept exactly; ``share`` becomes the mean over the whole
    span, in which what was not this account's counts as 0.
    """
    if len(entries) <= limit:
        return list(entries)
    accounts: dict[tuple[object, ...], list[EnergyEntry]] = {}
    for entry in entries:
        key = (entry.device, entry.kind, entry.job_id, entry.attempt, entry.phase, entry.method, entry.quality)
        accounts.setdefault(key, []).append(entry)
    return sorted((_as_one(part) for part in accounts.values()), key=lambda entry: (entry.start_ns, entry.end_ns))


def _as_one(entries: Sequence[EnergyEntry]) -> EnergyEntry:
    start_ns, end_ns = min(entry.start_ns for entry in entries), max(entry.end_ns for entry in entries)
    held = sum(entry.share * (entry.end_ns - entry.start_ns) for entry in entries)
    share = min(1.0, held / (end_ns - start_ns)) if end_ns > start_ns else entries[0].share
    energy_mj = sum(entry.energy_mj for entry in entries)
    seconds = [entry.witness_mj for entry in entries if entry.witness_mj is not None]
    witness_mj = sum(seconds) if len(seconds) == len(entries) else None
    return replace(
        entries[0], start_ns=start_ns, end_ns=end_ns, energy_mj=energy_mj, share=share, witness_mj=witness_mj
    )


def _say(sentence: str) -> None:
    """On standard error, which may be a file on the very disk that refuses."""
    try:
        sys.stderr.write(f"{sentence}\n")
        sys.stderr.flush()
    except OSError:
        return
