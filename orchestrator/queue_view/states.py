"""How a job moves, as a picture and a table, made from ``lifecycle.TABLE``: the README shows what the code obeys.

``python -m orchestrator.queue_view.states README.md`` writes both anew between the file's markers.
"""

from __future__ import annotations

import sys
from pathlib import Path

from orchestrator.lifecycle import TABLE, JobState
from workers.errors import InputError

BEGIN, END = "<!-- states: made by `make states` -->", "<!-- end of states -->"
FIRST = JobState.QUEUED


def followers(state: JobState) -> tuple[JobState, ...]:
    """What may follow a state, in the order of the table."""
    return tuple(then for then in JobState if then in TABLE[state].then)


def rows() -> list[tuple[str, str, str, str]]:
    """State, what it means, who sets it, what may follow: one row each, in the order of the table."""
    return [(state.value, rule.means, rule.set_by, ", ".join(followers(state)) or "–") for state, rule in TABLE.items()]


def as_dicts() -> list[dict[str, object]]:
    """The table, JSON-ready."""
    return [
        {"state": state.value, "means": rule.means, "set_by": rule.set_by, "then": [*map(str, followers(state))]}
        for state, rule in TABLE.items()
    ]


def mermaid() -> str:
    """The picture, as a Mermaid state diagram."""
    steps = [f"    {state} --> {then}" for state in TABLE for then in followers(state)]
    ends = [f"    {state} --> [*]" for state in TABLE if state.is_final]
    return "\n".join(["stateDiagram-v2", "    direction LR", f"    [*] --> {FIRST}", *steps, *ends])


def markdown() -> str:
    """The picture and the table, as Markdown."""
    head = ["| state | what it means | set by | what may follow |", "|---|---|---|---|"]
    table = [*head, *(f"| {' | '.join([f'`{state}`', *rest])} |" for state, *rest in rows())]
    return "\n".join(["```mermaid", mermaid(), "```", "", *table])


def updated(page: str, *, source: str = "the page") -> str:
    """``page`` with what is between the markers made anew.

    Raises:
        InputError: it has not both markers, once each and in order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise InputError(f"{source} has no place for the states. Add two lines where they belong: {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{markdown()}\n{END}{after}"


def main() -> None:
    """Write the file that is named anew."""
    path = Path(sys.argv[1])
    path.write_text(updated(path.read_text(encoding="utf-8"), source=str(path)), encoding="utf-8")


if __name__ == "__main__":
    main()
