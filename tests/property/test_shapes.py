"""Shaping moves energy inside an entry and nowhere else, whatever Prometheus saw."""

from __future__ import annotations

import itertools
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.accounting.samples import CounterCurve
from orchestrator.accounting.shapes import shaped
from tests.unit.ledger import at, entry
from workers.contract import Phase
from workers.units import NS_PER_S


@given(
    seen=st.lists(st.tuples(st.integers(-30, 60), st.integers(-5, 5_000)), max_size=40),
    energy_mj=st.integers(0, 10**7),
    witness_mj=st.none() | st.integers(0, 10**7),
    offset_s=st.integers(-5, 5),
)
def test_energy_ends_and_account_of_an_entry_stay_what_they_are(
    seen: list[tuple[int, int]], energy_mj: int, witness_mj: int | None, offset_s: int
) -> None:
    whole = replace(entry(0, 30, 0, Phase.TRAIN), energy_mj=energy_mj, witness_mj=witness_mj)
    curve = CounterCurve([(at(second), float(joules)) for second, joules in seen])
    parts = shaped([whole], {(1, "GPU-a"): (curve, offset_s * NS_PER_S)})
    assert sum(part.energy_mj for part in parts) == energy_mj
    assert all(part.energy_mj >= 0 for part in parts)
    if witness_mj is not None:
        assert sum(part.witness_mj or 0 for part in parts) == witness_mj
    assert (parts[0].start_ns, parts[-1].end_ns) == (whole.start_ns, whole.end_ns)
    assert all(one.end_ns == other.start_ns for one, other in itertools.pairwise(parts))
    same = {replace(part, start_ns=0, end_ns=0, energy_mj=0, witness_mj=None) for part in parts}
    assert same == {replace(whole, start_ns=0, end_ns=0, energy_mj=0, witness_mj=None)}


@given(energy_mj=st.integers(0, 10**6))
def test_a_device_nobody_sampled_stays_as_it_is(energy_mj: int) -> None:
    whole = replace(entry(0, 30, 0), energy_mj=energy_mj)
    assert shaped([whole], {(1, "GPU-b"): (CounterCurve([(at(0), 0.0), (at(30), 9.0)]), 0)}) == (whole,)
