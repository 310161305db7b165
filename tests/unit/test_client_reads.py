"""The read verbs as functions: each looks once, on the ledger alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import client
from orchestrator.lifecycle import AttemptState, JobState, Stop
from orchestrator.quotas import Quota
from tests.unit.queue_ledger import QueueLedger, node
from workers.errors import InputError
from workers.home import Home

H100 = node("node-1", "H100")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[QueueLedger]:
    """Two runs: of ``old-1`` the job has ended, of ``new-1`` two wait."""
    made = QueueLedger(tmp_path)
    made.submit("old-1", "old-a", at_s=-90)
    made.submit("new-1", "new-a", "new-b")
    made.start("old-a", H100)
    made.write_log("old-a", 1, "hello\n")
    made.end("old-a", 1, AttemptState.SUCCEEDED, JobState.SUCCEEDED)
    yield made
    made.store.close()


def test_without_a_ledger_each_says_so(tmp_path: Path) -> None:
    home = Home(tmp_path / "none")
    for read in (client.status, client.quotas):
        with pytest.raises(InputError, match="there is no ledger"):
            read(home)
    for ask in (client.explain, client.logs, lambda *what: next(client.follow_logs(*what))):
        with pytest.raises(InputError, match="there is no ledger"):
            ask(home, "j")


def test_status_is_of_the_latest_run_of_a_name_or_of_the_whole_queue(ledger: QueueLedger) -> None:
    def ids(name: str | None = None, *, everything: bool = False) -> list[str]:
        return [job.job_id for job in client.status(ledger.home, name, everything=everything).jobs]

    assert ids() == ["new-a", "new-b"]
    assert ids("old") == ["old-a"]
    assert ids(everything=True) == ["new-a", "new-b"]


def test_a_job_is_explained_and_its_logs_are_there(ledger: QueueLedger) -> None:
    assert client.explain(ledger.home, "old-a").job.record.state is JobState.SUCCEEDED
    assert [log.path.read_text() for log in client.logs(ledger.home, "old")] == ["hello\n"]
    assert "".join(piece.text for piece in client.follow_logs(ledger.home, "old-a")) == "hello\n"


def test_a_job_that_waits_is_followed_and_says_for_what(ledger: QueueLedger) -> None:
    def cancelled(_: float) -> None:
        ledger.store.request_stop("new-a", Stop.CANCEL, reason="by ada", now_ns=1)

    with pytest.raises(InputError):
        next(client.follow_logs(ledger.home, "nobody"))
    (piece,) = client.follow_logs(ledger.home, "new-a", sleep=cancelled)
    assert piece.notice == "new-a is queued: waits for a controller; start one: wattledger up"


def test_quotas_are_told_with_their_use(ledger: QueueLedger) -> None:
    ledger.store.set_quota(Quota(scope="user", name="ada", gpus=None, queued_jobs=5), now_ns=1)
    (use,) = client.quotas(ledger.home)
    assert (use.name, use.queued_jobs_left) == ("ada", 3)
