"""What an attempt's work talks to while it runs: phases begin and end, steps are counted, scores are kept.

One call here keeps four records in step: the lease's phase, the metric log, the progress file, and, on a simulated
device, its pace.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from workers import metric_log
from workers.contract import Phase
from workers.metric_log import MetricLog
from workers.progress import Progress, write_progress
from workers.telemetry.client import HeldLease
from workers.units import NS_PER_S

PROGRESS_EVERY_NS = NS_PER_S // 4
"""A person cannot follow more, and each update is a rename."""


class Session:
    """One rank's records. ``phases`` are those it will go through, in order, for the progress.

    Args:
        folder: where the progress is written; ``None`` for ranks that leave that to the first.
    """

    def __init__(
        self,
        *,
        lease: HeldLease,
        log: MetricLog,
        folder: Path | None,
        phases: Sequence[Phase],
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._lease, self._log, self._folder, self._clock_ns = lease, log, folder, clock_ns
        self._phases = tuple(phases)
        self._phase: Phase | None = None
        self._done = self._total = self._carried = self._shown_ns = 0
        self._started_ns = self._phase_started_ns = 0
        self._expected: dict[Phase, int] = {}
        self._behind = self._behind_carried = 0

    def expect(self, steps: Mapping[Phase, int]) -> None:
        """So many steps, or batches, each phase of the attempt will have."""
        self._expected = dict(steps)

    def carry(self, steps: int) -> None:
        """Of the present phase, an earlier attempt did so many steps."""
        self._done = self._carried = steps

    @contextlib.contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Everything inside belongs to ``phase``. A phase left by an error stays open in the metric log: cut short."""
        self._lease.set_phase(phase)
        now_ns = self._clock_ns()
        self._started_ns, self._phase_started_ns = self._started_ns or now_ns, now_ns
        self._behind, self._behind_carried = self._behind + self._done, self._behind_carried + self._carried
        self._phase, self._done, self._total, self._carried, self._shown_ns = phase, 0, 0, 0, 0
        self._log.log(metric_log.PHASE_START, 1.0, phase=phase)
        self._show(None)
        yield
        self._log.log(metric_log.PHASE_END, 1.0, phase=phase)

    @contextlib.contextmanager
    def between_phases(self) -> Iterator[None]:
        """Everything inside is the job's and no phase's: what would make the figures of any phase wrong."""
        self._lease.set_phase(None)
        self._phase = None
        yield

    def step(self, *, step: int, steps: int, samples: int, loss: float | None, tokens: int | None = None) -> None:
        """One optimiser step or batch of the present phase is done; waits when the device is slower than this host.

        ``tokens`` are those read and written in it; ``None`` where there are none.
        """
        self._lease.pace()
        self._done, self._total = step, steps
        self._log.log(metric_log.SAMPLES, samples, phase=self._phase, step=step)
        if tokens is not None:
            self._log.log(metric_log.TOKENS, tokens, phase=self._phase, step=step)
        if loss is not None:
            self._log.log(metric_log.LOSS, loss, phase=self._phase, step=step)
        self._show(loss)

    def begin_work(self) -> None:
        """The next step begins now: what was waited for since the last one is not the device's work."""
        self._lease.begin_work()

    def warm(self) -> None:
        """Work that is not counted was done: keep the device's pace and nothing else."""
        self._lease.pace()

    def record(
        self,
        name: str,
        value: float,
        *,
        step: int | None = None,
        time_ns: int | None = None,
        phase: Phase | None = None,
    ) -> None:
        """Keep one figure in the metric log, of ``time_ns`` (ns since the epoch) or now; of ``phase`` or this one."""
        self._log.log(name, value, phase=phase or self._phase, step=step, time_ns=time_ns)

    def score(self, metric: str, value: float) -> None:
        """Keep one score of the present phase."""
        self.record(f"{metric_log.SCORE_PREFIX}{metric}", value)

    def _show(self, loss: float | None) -> None:
        """Write the progress, unless it was written a moment ago."""
        now_ns = self._clock_ns()
        if self._folder is None or self._phase is None:
            return
        if now_ns - self._shown_ns < PROGRESS_EVERY_NS and self._done < self._total:
            return
        self._shown_ns = now_ns
        write_progress(
            self._folder,
            Progress(
                phase=self._phase,
                position=self._phases.index(self._phase) + 1,
                phases=len(self._phases),
                done=self._done,
                total=self._total,
                loss=loss,
                updated_ns=now_ns,
                started_ns=self._started_ns,
                phase_started_ns=self._phase_started_ns,
                carried=self._carried,
                job_done=self._behind + self._done,
                job_total=sum(self._expected.values()),
                job_carried=self._behind_carried + self._carried,
            ),
        )
