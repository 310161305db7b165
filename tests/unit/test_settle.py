"""Parquet files are written by a child, so that the agent never loads what it takes, and waits for nobody."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.driver.driver import ROOT
from tests.unit.test_journal import entry, files, leave_journal, log_of
from workers.home import Home
from workers.telemetry.energy_read import read_energy
from workers.telemetry.journal import Record, journals_below
from workers.telemetry.settle import ChildSettler


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_a_disk_that_refuses_is_an_error_with_its_reason_and_the_next_roll_tries_again(home: Home) -> None:
    log = log_of(home, settler=ChildSettler())
    log.append([entry(1)], {})
    in_the_way = home.energy("n") / "date=2024-01-01"
    in_the_way.write_text("in the way")
    log.roll()
    with pytest.raises(OSError, match=r"File exists: .*date=2024-01-01"):
        log.collect(wait=True)
    log.collect(wait=True)
    assert read_energy(home) == (entry(1),)
    in_the_way.unlink()
    log.roll()
    log.collect(wait=True)
    assert read_energy(home) == (entry(1),)
    log.append([entry(2)], {})
    assert files(home) == [".jsonl", ".parquet"]


def test_nothing_waits_for_the_child_and_nothing_counts_twice(home: Home) -> None:
    log = log_of(home, settler=ChildSettler())
    log.append([entry(1)], {})
    log.roll()
    log.append([entry(2)], {})
    # Another roll while the child may still be at the first.
    log.roll()
    log.append([entry(3)], {})
    assert read_energy(home) == (entry(1), entry(2), entry(3))
    log.finish()
    assert read_energy(home) == (entry(1), entry(2), entry(3))
    assert files(home) == [".parquet"] * 3


def test_a_child_that_is_killed_is_an_error_and_its_journal_counts(home: Home) -> None:
    settler = ChildSettler()
    log = log_of(home, settler=settler)
    log.append([entry(1)], {})
    log.roll()
    assert settler.pid is not None
    subprocess.run(["kill", "-9", str(settler.pid)], check=True)
    with pytest.raises(OSError, match="its process ended with code -9"):
        log.collect(wait=True)
    assert read_energy(home) == (entry(1),)
    log.finish()
    assert files(home) == [".parquet"]


def test_what_a_killed_agent_left_is_settled_at_the_start_and_nothing_is_when_it_left_nothing(home: Home) -> None:
    settler = ChildSettler()
    leave_journal(home, "a", [Record(number=1, entries=(entry(1),), state={"at": 1})])
    log = log_of(home, "b", settler=settler)
    assert log.recover() == {"at": 1}
    log.begin()
    log.collect(wait=True)
    log.append([entry(5)], {"at": 5})
    assert files(home) == [".jsonl", ".parquet"]
    assert read_energy(home) == (entry(1), entry(5))
    log.begin()
    assert settler.pid is None


def test_a_journal_that_is_not_there_becomes_no_file(home: Home) -> None:
    settler = ChildSettler()
    gone = home.energy("n") / ".journal-1-b-1-000000.jsonl"
    settler.start([gone])
    assert settler.done(wait=True) == (gone,)
    assert settler.done() == ()
    assert journals_below(home.root) == []


def test_an_agent_loads_no_pyarrow() -> None:
    heavy = "{'pyarrow', 'numpy', 'pandas', 'rich', 'multiprocessing', 'httpx', 'asyncio'}"
    code = f"import sys, workers.agent, workers.telemetry.nvml; print(sorted({heavy} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"
