"""What a name means: a job, a run, a manifest or the beginning of an id; what is not clear is asked back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.queue_view import find_job, find_jobs
from orchestrator.store import RunRecord, Store
from workers.contract import JobSpec
from workers.errors import InputError, UnknownNameError


def submit(store: Store, run_id: str, name: str, *job_ids: str, at_ns: int) -> None:
    run = RunRecord(run_id=run_id, name=name, manifest="", submitted_ns=at_ns, host="h", pid=1)
    store.submit(run, [JobSpec(job_id=one, name=name, task="digits", model="tiny/vit") for one in job_ids])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Two runs of one manifest, and one of another."""
    with contextlib.closing(Store(tmp_path / "state.db")) as made:
        submit(made, "study-1", "study", "study-aa11", "study-ab22", at_ns=1)
        submit(made, "study-2", "study", "study-b333", "study-b444", at_ns=2)
        submit(made, "eval-1", "eval", "eval-cccc", at_ns=3)
        yield made


def ids(store: Store, name: str) -> list[str]:
    return [job.job_id for job in find_jobs(store, name)]


def test_an_unknown_name_is_answered_with_the_nearest(store: Store) -> None:
    with pytest.raises(UnknownNameError) as refused:
        find_jobs(store, "eval-cccd")
    assert "unknown job or run 'eval-cccd'. Did you mean 'eval-cccc'" in str(refused.value)
    assert str(refused.value).endswith(
        "Known: the runs eval-1, study-2, study-1; unfinished jobs of all runs: wattledger status --all."
    )


@pytest.mark.parametrize("name", ["x", ""])
def test_what_is_no_beginning_of_anything_is_unknown(store: Store, name: str) -> None:
    with pytest.raises(UnknownNameError):
        find_jobs(store, name)


def test_a_beginning_of_several_ids_lists_them(store: Store) -> None:
    with pytest.raises(InputError) as refused:
        find_jobs(store, "study-a")
    assert str(refused.value) == ("'study-a' is the beginning of 2 job ids: study-aa11, study-ab22. Type more of one.")


def test_where_one_job_is_wanted_a_run_of_several_lists_them(store: Store) -> None:
    with pytest.raises(InputError) as refused:
        find_job(store, "study-1")
    assert str(refused.value) == "'study-1' means 2 jobs: study-aa11, study-ab22. Name one."


def test_many_matches_are_counted_beyond_the_tenth(store: Store) -> None:
    submit(store, "many-1", "many", *(f"many-{number:02}" for number in range(12)), at_ns=4)
    with pytest.raises(InputError, match="many-08, many-09, and 2 more"):
        find_job(store, "many")


def test_each_kind_of_name_means_its_jobs(store: Store) -> None:
    assert ids(store, "study-aa11") == ["study-aa11"]
    assert ids(store, "study-1") == ["study-aa11", "study-ab22"]
    assert ids(store, "study") == ["study-b333", "study-b444"], "its latest run"
    assert ids(store, "study-aa") == ["study-aa11"]
    assert find_job(store, "eval").job_id == "eval-cccc"
    submit(store, "odd-run", "n", "x-1", "x-2", at_ns=9)
    assert ids(store, "odd") == ["x-1", "x-2"], "what one run's id begins with"


def test_a_whole_id_wins_over_what_it_is_the_beginning_of(store: Store) -> None:
    submit(store, "r", "r", "study-aa", at_ns=5)
    assert ids(store, "study-aa") == ["study-aa"]
