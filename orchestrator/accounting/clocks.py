"""How far a node's clock is from the head's: measured with each run, kept per node, and taken off where times meet.

What a node writes (energy log, metric log) is in its own time; Prometheus' samples are in the time of the server, which
is taken to be the head's. A file per node, one measurement a line, only ever appended to.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from workers.home import Home
from workers.units import NS_PER_S

SKEW_NS = NS_PER_S
"""A clock further off than this is told of: spans of a second would land in each other."""
EXCHANGES = 5
"""Exchanges of one measurement; the quickest counts, since its answer was under way for the shortest time."""


@dataclass(frozen=True, kw_only=True)
class ClockReading:
    """One measurement.

    Attributes:
        node: whose clock.
        time_ns: when, by the head's clock, ns since the epoch.
        offset_ns: the node's clock less the head's; positive where the node's is ahead.
        uncertainty_ns: half the time the exchange was under way: the offset is not further off than this.
    """

    node: str
    time_ns: int
    offset_ns: int
    uncertainty_ns: int

    @property
    def is_skewed(self) -> bool:
        """Whether the clocks surely differ by more than a reader of spans may overlook."""
        return abs(self.offset_ns) - self.uncertainty_ns > SKEW_NS


def offset_of(sent_ns: int, received_ns: int, answered_ns: int, heard_ns: int) -> tuple[int, int]:
    """Offset and uncertainty of one exchange, as NTP has them (RFC 5905, section 8), ns.

    Args:
        sent_ns: the head asks, by its clock.
        received_ns: the node gets the question, by its own.
        answered_ns: the node answers, by its own.
        heard_ns: the head has the answer, by its clock.
    """
    offset_ns = ((received_ns - sent_ns) + (answered_ns - heard_ns)) // 2
    under_way_ns = (heard_ns - sent_ns) - (answered_ns - received_ns)
    return offset_ns, max(0, -(-under_way_ns // 2))


def measure(node: str, ask: Callable[[], tuple[int, int]], clock_ns: Callable[[], int]) -> ClockReading:
    """Compare a node's clock with this one's: the quickest of a few exchanges.

    Args:
        node: whose clock is compared.
        ask: gives when the node got the question and when it answered, by its clock, ns.
        clock_ns: this clock.
    """
    exchanges = []
    for _ in range(EXCHANGES):
        sent_ns = clock_ns()
        received_ns, answered_ns = ask()
        exchanges.append(offset_of(sent_ns, received_ns, answered_ns, clock_ns()))
    offset_ns, uncertainty_ns = min(exchanges, key=lambda exchange: exchange[1])
    return ClockReading(node=node, time_ns=clock_ns(), offset_ns=offset_ns, uncertainty_ns=uncertainty_ns)


def note_clocks(home: Home, readings: Iterable[ClockReading]) -> None:
    """Keep measurements. A ledger that cannot be written goes without, which is no error."""
    for reading in readings:
        path = home.clock(reading.node)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(reading)) + "\n")


def read_clock(home: Home, node: str) -> tuple[ClockReading, ...]:
    """A node's measurements in order of time; a torn line is none."""
    try:
        lines = home.clock(node).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    found = []
    for line in lines:
        with contextlib.suppress(ValueError, TypeError):
            found.append(ClockReading(**json.loads(line)))
    return tuple(sorted(found, key=lambda reading: reading.time_ns))


def clock_at(readings: Sequence[ClockReading], time_ns: int) -> ClockReading | None:
    """The measurement nearest in time; ``None`` where the node's clock was never measured."""
    return min(readings, key=lambda reading: abs(reading.time_ns - time_ns), default=None)


class Clocks:
    """The measured clocks of a ledger's nodes; each node's file is read once."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._read: dict[str, tuple[ClockReading, ...]] = {}

    def of(self, node: str | None, time_ns: int) -> ClockReading | None:
        """The node's clock at a time; ``None`` where the node or its clock is not known."""
        if node is None:
            return None
        if node not in self._read:
            self._read[node] = read_clock(self._home, node)
        return clock_at(self._read[node], time_ns)

    def offset_ns(self, node: str | None, time_ns: int) -> int:
        """What to take off a time of the node to have the head's; 0 where it is not known."""
        found = self.of(node, time_ns)
        return 0 if found is None else found.offset_ns


def skews(clocks: Clocks, nodes: Mapping[str, int]) -> tuple[str, ...]:
    """A sentence for each node whose clock is off by more than a second; ``nodes`` to a time, ns."""
    told = []
    for node, time_ns in sorted(nodes.items()):
        found = clocks.of(node, time_ns)
        if found is not None and found.is_skewed:
            way = "ahead of" if found.offset_ns > 0 else "behind"
            told.append(
                f"the clock of {node} is {abs(found.offset_ns) / NS_PER_S:.3g} s {way} the head's: its times were "
                "corrected; have it keep time (chrony, NTP)"
            )
    return tuple(told)
