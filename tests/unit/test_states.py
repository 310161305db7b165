"""The state picture and table: made from the code, and the README shows them as they are now."""

from __future__ import annotations

import re

import pytest

from orchestrator.lifecycle import TABLE, JobState
from orchestrator.queue_view.states import BEGIN, END, as_dicts, markdown, mermaid, updated
from tests.clusters import ROOT
from workers.errors import InputError

README = ROOT / "README.md"
STEPS = {(now.value, then.value) for now in TABLE for then in TABLE[now].then}


@pytest.mark.parametrize("page", ["", BEGIN, END, f"{END}\n{BEGIN}", f"{BEGIN}\n{END}\n{BEGIN}\n{END}"])
def test_a_page_without_one_place_for_them_is_refused(page: str) -> None:
    with pytest.raises(InputError, match=r"README.md has no place for the states\. Add two lines"):
        updated(page, source="README.md")


def test_the_readme_shows_the_states_as_the_code_has_them() -> None:
    page = README.read_text(encoding="utf-8")
    assert updated(page) == page, "write it anew: make states"


def test_what_is_around_the_markers_stays() -> None:
    page = updated(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert page == f"before\n{BEGIN}\n{markdown()}\n{END}\nafter\n"
    assert updated(page) == page


def test_the_picture_has_every_step_and_no_other() -> None:
    drawn = re.findall(r"^ +(\S+) --> (\S+)$", mermaid(), flags=re.MULTILINE)
    ends = {(state.value, "[*]") for state in JobState if state.is_final}
    assert set(drawn) == STEPS | ends | {("[*]", "queued")}
    assert len(drawn) == len(set(drawn))


def test_the_table_has_every_state_with_what_may_follow() -> None:
    table = as_dicts()
    assert [row["state"] for row in table] == [state.value for state in TABLE]
    assert {(row["state"], then) for row in table for then in row["then"]} == STEPS
    for row in table:
        assert f"| `{row['state']}` | {row['means']} | {row['set_by']} |" in markdown()
