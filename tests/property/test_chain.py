"""Whatever happened to a job's attempts, each joule of it counts towards the result or was wasted, never both."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.accounting.rows import build_accounts
from orchestrator.chain import chain_of, wasted_in
from orchestrator.lifecycle import AttemptState, JobState
from tests.unit.ledger import Ledger, attempt, entry, job
from workers.contract import EnergyEntry, Phase
from workers.metric_log import RESUMED_FROM_ATTEMPT
from workers.units import mj_to_kwh

ENDED = [state for state in AttemptState if state not in (AttemptState.RUNNING, AttemptState.SUCCEEDED)]
PHASES = (None, Phase.LOAD, Phase.TRAIN, Phase.EVALUATE)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[AttemptState, int | None, list[tuple[int, Phase | None]]]]:
    """Of each attempt: how it ended, from which it says it went on (which may be nonsense), and what it drew."""
    drawn = st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from(PHASES)), min_size=1, max_size=4)
    count = draw(st.integers(1, 5))
    states = [draw(st.sampled_from(ENDED)) for _ in range(count - 1)] + [draw(st.sampled_from(list(AttemptState)))]
    return [(state, draw(st.none() | st.integers(-1, 6)), draw(drawn)) for state in states]


@given(histories())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_counts_and_what_was_wasted_are_all_that_was_drawn(
    history: list[tuple[AttemptState, int | None, list[tuple[int, Phase | None]]]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ledger, entries = Ledger(Path(folder)), list[EnergyEntry]()
        for number, (_, resumed, drawn) in enumerate(history, start=1):
            for index, (joules, phase) in enumerate(drawn):
                start_s = 100 * number + index
                entries.append(entry(start_s, start_s + 1, joules, phase, number=number, device=f"GPU-{index % 2}"))
            if resumed is not None:
                ledger.log((100 * number, None, RESUMED_FROM_ATTEMPT, resumed), number=number)
        ledger.book(*entries)
        attempts = [attempt(number, state) for number, (state, _, _) in enumerate(history, start=1)]
        (account,) = build_accounts(ledger.home, [job(*attempts, state=JobState.QUEUED)])
    chain = chain_of(attempts, lambda number: history[number - 1][1])
    wasted = wasted_in(attempts, chain)
    counted = {attempt.number for attempt in attempts} - wasted
    assert counted in ({*chain}, set())
    wasted_mj = sum(e.energy_mj for e in entries if e.attempt in wasted)
    assert account.row.energy_kwh == mj_to_kwh(sum(e.energy_mj for e in entries))
    assert account.row.energy_wasted_kwh == mj_to_kwh(wasted_mj)
    assert wasted_mj + sum(e.energy_mj for e in entries if e.attempt in counted) == sum(e.energy_mj for e in entries)
    assert sum(one.energy_mj for one in account.slices if one.wasted) == wasted_mj
    assert sum(one.energy_mj for one in account.slices) == sum(e.energy_mj for e in entries)
    of_chain = {phase.value for phase in Phase if any(e.phase is phase and e.attempt in chain for e in entries)}
    assert set(account.row.energy_by_phase_kwh or ()) == of_chain


@given(st.integers(1, 8), st.dictionaries(st.integers(1, 8), st.integers(-2, 9)))
def test_a_chain_is_in_order_ends_with_the_last_attempt_and_always_ends(count: int, resumed: dict[int, int]) -> None:
    attempts = [attempt(number, AttemptState.LOST) for number in range(1, count + 1)]
    chain = chain_of(attempts, resumed.get)
    assert chain[-1] == count
    assert list(chain) == sorted(set(chain))
    assert set(chain) <= set(range(1, count + 1))
