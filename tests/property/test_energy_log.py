"""The energy log conserves energy whatever is written to it, and cutting entries into phases does too."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.accounting.energy import in_phases, sum_of
from orchestrator.accounting.phases import PhaseSpan
from workers.contract import EnergyEntry, Method, Phase, Quality
from workers.home import Home
from workers.telemetry.energy_log import EnergyLog
from workers.telemetry.energy_read import read_energy
from workers.units import NS_PER_US

TIMES_NS = st.integers(0, 4_000_000_000_000_000).map(lambda us: us * NS_PER_US)


@st.composite
def entries(draw: st.DrawFn) -> EnergyEntry:
    start_ns, end_ns = sorted((draw(TIMES_NS), draw(TIMES_NS)))
    job_id = draw(st.none() | st.sampled_from(["a", "b"]))
    return EnergyEntry(
        start_ns=start_ns,
        end_ns=end_ns,
        device=draw(st.sampled_from(["GPU-1", "GPU-2"])),
        model="H100",
        kind=draw(st.sampled_from(["gpu", "cpu", "dram"])),
        energy_mj=draw(st.integers(0, 2**63 - 1)),
        job_id=job_id,
        attempt=None if job_id is None else draw(st.integers(1, 9)),
        phase=None if job_id is None else draw(st.none() | st.sampled_from(Phase)),
        share=draw(st.floats(0, 1)),
        method=draw(st.sampled_from(Method)),
        quality=draw(st.frozensets(st.sampled_from(Quality))),
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(entries(), max_size=6), max_size=4))
def test_what_is_written_is_read_back_once(batches: list[list[EnergyEntry]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        log = EnergyLog(home.energy("n"), boot="b")
        for batch in batches:
            log.write(batch)
        read = read_energy(home)
    written = [entry for batch in batches for entry in batch]
    assert sorted(map(repr_of, read)) == sorted(map(repr_of, written))


def repr_of(entry: EnergyEntry) -> str:
    """A frozenset shows its members in no order of its own."""
    return f"{dataclasses.replace(entry, quality=frozenset())} {sorted(entry.quality)}"


SPANS = st.lists(st.tuples(TIMES_NS, st.sampled_from(Phase)), max_size=5, unique_by=lambda pair: pair[1])


@given(st.lists(entries(), max_size=6), SPANS, TIMES_NS)
def test_cutting_entries_into_phases_conserves_energy_and_time(
    booked: list[EnergyEntry], starts: list[tuple[int, Phase]], end_ns: int
) -> None:
    edges = sorted(start for start, _ in starts)
    edges.append(max([end_ns, *edges]))
    spans = [
        PhaseSpan(phase=phase, start_ns=start, end_ns=end, complete=True)
        for (_, phase), (start, end) in zip(starts, itertools.pairwise(edges), strict=True)
    ]
    cut = in_phases(booked, spans)
    before, after = sum_of(booked), sum_of(cut)
    assert (before is None) == (after is None)
    if before is not None and after is not None:
        assert after.energy_mj == before.energy_mj
        assert after.method == before.method
        assert before.quality <= after.quality <= before.quality | {Quality.FALLBACK}
    assert sum(e.end_ns - e.start_ns for e in cut) == sum(e.end_ns - e.start_ns for e in booked)
