"""Which attempts a job's result stands on: the last one, and those whose checkpoints it went on from. Pure.

An attempt outside of that chain came to nothing; so did the chain, as far as is known, while its last attempt is one
that failed or was lost: another attempt may still go on from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orchestrator.lifecycle import AttemptRecord, AttemptState

ResumedFrom = Callable[[int], int | None]
"""Number of an attempt to that of the attempt whose checkpoint it went on from; ``None``: it began at the beginning."""


def chain_of(attempts: Sequence[AttemptRecord], resumed_from: ResumedFrom) -> tuple[int, ...]:
    """Numbers of the attempts the last one stands on, itself included, in order; empty before the first attempt."""
    known = {attempt.number for attempt in attempts}
    chain = [attempts[-1].number] if attempts else []
    while chain:
        before = resumed_from(chain[-1])
        # What a log claims of a later attempt, or of none, is no log of ours.
        if before is None or before not in known or before >= chain[-1]:
            break
        chain.append(before)
    return tuple(reversed(chain))


def wasted_in(attempts: Sequence[AttemptRecord], chain: Sequence[int]) -> frozenset[int]:
    """Numbers of the attempts that came to nothing: with those of the chain that counts they are all attempts."""
    numbers = frozenset(attempt.number for attempt in attempts)
    if attempts and attempts[-1].state in (AttemptState.FAILED, AttemptState.LOST):
        return numbers
    return numbers - frozenset(chain)
