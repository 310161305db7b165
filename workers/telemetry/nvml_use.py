"""Who keeps an NVIDIA board busy, by process, as the driver samples it (``nvmlDeviceGetProcessUtilization``).

The driver keeps samples of a board's multiprocessors per process, one every 1/6 s to 1 s, of the processes that were
busy in it. Between two samples the latest are taken to go on, for ``HOLD_NS`` at most. Processes are numbered as the
driver's host numbers them: in a container with numbers of its own they are strangers. Nothing is sampled on a board
that is cut into slices (MIG), nor by drivers before Maxwell's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from workers.units import NS_PER_S, NS_PER_US

HOLD_NS = 2 * NS_PER_S
"""Samples come at least every second, so when twice that has brought none, nobody is busy."""
ASK_EVERY_NS = NS_PER_S // 20
"""There are no more than six samples a second, so looks that are close together need not ask each time."""
_WHOLE = 100
"""Per cent; the driver has been seen to hand out entries it never filled in, with more."""


class Sample(Protocol):
    """What counts of an ``nvmlProcessUtilizationSample_t``: ``timeStamp`` in µs since the epoch, ``smUtil`` in %."""

    pid: int
    timeStamp: int  # noqa: N815 - NVML's names
    smUtil: int  # noqa: N815


@dataclass(kw_only=True)
class ProcessUse:
    """One board's use since it was last asked, at ``asked_ns``; pure: samples come in with the time.

    Attributes:
        percents: of the latest samples, those that came together, the sum by pid, over so many ``periods``.
        sampled_ns: when they came.
        is_told: whether the board took samples when it was asked last.
    """

    asked_ns: int
    percents: Counter[int] = field(default_factory=Counter)
    periods: int = 1
    sampled_ns: int = 0
    is_told: bool = False
    _seen_us: int = 0
    _polled_ns: int = 0

    def is_due(self, now_ns: int) -> bool:
        """Whether there may be new samples; once they are asked for it is not, for a while."""
        is_due = not 0 <= now_ns - self._polled_ns < ASK_EVERY_NS
        self._polled_ns = now_ns if is_due else self._polled_ns
        return is_due

    def since_us(self, now_ns: int) -> int:
        """The time after which samples are new, µs; a clock that was set back must not make all of them old."""
        self._seen_us = min(self._seen_us or self.asked_ns // NS_PER_US, now_ns // NS_PER_US)
        return self._seen_us

    def take(self, samples: Sequence[Sample], now_ns: int) -> dict[int, int]:
        """Busy nanoseconds by pid since the last call, by the samples that are new now."""
        fresh = [each for each in samples if each.timeStamp > self.since_us(now_ns) and each.smUtil <= _WHOLE]
        if fresh:
            # A time to come would make all later samples old.
            self._seen_us = min(max(each.timeStamp for each in fresh), now_ns // NS_PER_US)
            self.percents, self.sampled_ns = Counter[int](), now_ns
            for each in fresh:
                self.percents[each.pid] += each.smUtil
            # A process is in those periods alone in which it was busy.
            self.periods = max(Counter(each.pid for each in fresh).values())
        elif not 0 <= now_ns - self.sampled_ns <= HOLD_NS:
            self.percents = Counter()
        elapsed_ns, self.asked_ns = max(0, now_ns - self.asked_ns), now_ns
        # Rounded before it is shared out, so that the same samples give exactly the same shares.
        unit_ns = elapsed_ns // (_WHOLE * self.periods)
        return {pid: unit_ns * percent for pid, percent in self.percents.items()}
