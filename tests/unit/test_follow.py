"""A log that is followed: nothing is lost, nothing is told twice, and it ends with the job. Files grow in time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.lifecycle import AttemptRecord, AttemptState, JobState
from orchestrator.queue_view import LogFollower, find_log, last_lines, log_files, read_log
from orchestrator.queue_view.logs import POLL_S, log_path
from tests.unit.ledger import attempt, job
from workers.errors import InputError
from workers.home import Home

RUNNING = AttemptState.RUNNING


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def write(home: Home, text: str | bytes, *, number: int = 1, rank: int = 0) -> None:
    path = log_path(home, "j", attempt=number, rank=rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(text.encode() if isinstance(text, str) else text)


class World:
    """A job whose story goes on each time somebody sleeps; a follower that sleeps past its end is caught."""

    def __init__(self, *steps: Callable[[World], object]) -> None:
        self.job = job(state=JobState.QUEUED)
        self.slept: list[float] = []
        self._steps = list(steps)

    def sleep(self, seconds: float) -> None:
        assert self._steps, "it should have ended"
        self.slept.append(seconds)
        self._steps.pop(0)(self)

    def becomes(self, state: JobState, *attempts: AttemptRecord, reason: str | None = None) -> None:
        self.job = replace(self.job, state=state, attempts=attempts, reason=reason)

    def follow(self, home: Home, **how: int | None) -> list[str]:
        """What was said: log text as it is, notices with a bullet."""
        told = []
        for piece in LogFollower(home, lambda: self.job, sleep=self.sleep, why=lambda job: job.reason, **how).pieces():
            told += [piece.text] if piece.text else []
            told += [f"• {piece.notice}"] if piece.notice else []
        return told


class TestFailures:
    def test_a_job_without_a_log_says_what_it_is_and_where_to_ask_why(self, home: Home) -> None:
        with pytest.raises(InputError) as refused:
            find_log(home, job(state=JobState.QUEUED), attempt=None, rank=0)
        assert str(refused.value) == "j has written no log yet: it is queued. See why: wattledger explain j"

    def test_a_rank_without_a_log_is_answered_with_those_there_are(self, home: Home) -> None:
        write(home, "x")
        write(home, "x", rank=1)
        with pytest.raises(InputError) as refused:
            find_log(home, job(attempt()), attempt=None, rank=7)
        assert str(refused.value) == "j has no log of rank 7. There are: attempt 1 rank 0; attempt 1 rank 1."
        with pytest.raises(InputError, match="no log of rank 0 in attempt 2"):
            find_log(home, job(attempt()), attempt=2, rank=0)

    def test_a_job_that_is_cancelled_while_it_waits_ends_the_following(self, home: Home) -> None:
        world = World(lambda w: w.becomes(JobState.CANCELLED, reason="by ada"))
        assert world.follow(home) == ["• j is queued"]
        assert world.slept == [POLL_S]

    def test_an_attempt_that_never_wrote_a_log_ends_with_its_reason(self, home: Home) -> None:
        world = World()
        world.becomes(JobState.FAILED, replace(attempt(state=AttemptState.LOST), reason="its node is gone"))
        assert world.follow(home) == ["• attempt 1 of j on T4", "• attempt 1 lost: its node is gone"]

    def test_bytes_that_are_no_text_are_shown_and_stop_nothing(self, home: Home) -> None:
        write(home, b"a\xffb\n")
        assert "".join(read_log(log_path(home, "j", attempt=1))) == "a\ufffdb\n"

    def test_a_job_without_attempts_has_no_files_and_no_last_words(self, home: Home) -> None:
        assert log_files(home, job(state=JobState.QUEUED)) == ()
        assert last_lines(home.artifacts("j") / "log.txt", 5) == ()


class TestFollowing:
    def test_what_grows_is_told_once_and_the_end_ends_it(self, home: Home) -> None:
        def ends(world: World) -> None:
            write(home, "last\n")
            world.becomes(JobState.SUCCEEDED, attempt())

        write(home, "first\n")
        world = World(lambda _: write(home, "sec"), lambda _: None, lambda _: write(home, "ond\n"), ends)
        world.becomes(JobState.RUNNING, attempt(state=RUNNING))
        assert world.follow(home) == [
            "• attempt 1 of j on T4",
            "first\n",
            "sec",
            "ond\n",
            "last\n",
            "• attempt 1 succeeded",
        ]
        assert world.slept == [POLL_S] * 4, "it waits between looks"

    def test_a_job_is_followed_from_the_queue_through_a_preemption_to_its_end(self, home: Home) -> None:
        preempted = replace(attempt(state=AttemptState.PREEMPTED), reason="for k")

        def starts(world: World) -> None:
            write(home, "one\n")
            world.becomes(JobState.RUNNING, attempt(state=RUNNING))

        def again(world: World) -> None:
            write(home, "two\n", number=2)
            world.becomes(JobState.SUCCEEDED, preempted, attempt(2))

        world = World(starts, lambda w: w.becomes(JobState.QUEUED, preempted, reason="for k"), again)
        assert world.follow(home) == [
            "• j is queued",
            "• attempt 1 of j on T4",
            "one\n",
            "• attempt 1 preempted: for k",
            "• j is queued: for k",
            "• attempt 2 of j on T4",
            "two\n",
            "• attempt 2 succeeded",
        ]

    def test_one_attempt_alone_ends_with_it_although_the_job_goes_on(self, home: Home) -> None:
        write(home, "one\n")
        world = World()
        world.becomes(JobState.RUNNING, attempt(state=AttemptState.FAILED), attempt(2, RUNNING))
        assert world.follow(home, attempt=1) == ["• attempt 1 of j on T4", "one\n", "• attempt 1 failed: it broke"]

    def test_of_a_log_that_is_there_only_the_tail_is_told_and_all_that_comes(self, home: Home) -> None:
        write(home, "a\nb\nc\n")

        def ends(world: World) -> None:
            write(home, "d\ne\n")
            world.becomes(JobState.SUCCEEDED, attempt())

        world = World(ends)
        world.becomes(JobState.RUNNING, attempt(state=RUNNING))
        assert "".join(world.follow(home, tail=1)).count("\n") == 3

    def test_another_rank_is_followed_in_its_own_file(self, home: Home) -> None:
        write(home, "rank 0\n")
        write(home, "rank 3\n", rank=3)
        world = World()
        world.becomes(JobState.SUCCEEDED, attempt())
        assert "rank 3\n" in world.follow(home, rank=3)
        assert "rank 0\n" not in world.follow(home, rank=3)

    def test_a_sign_cut_in_two_by_a_look_is_told_whole(self, home: Home) -> None:
        sign = "µ".encode()

        def ends(world: World) -> None:
            write(home, sign[1:])
            world.becomes(JobState.SUCCEEDED, attempt())

        write(home, sign[:1])
        world = World(ends)
        world.becomes(JobState.RUNNING, attempt(state=RUNNING))
        assert "µ" in world.follow(home)


def test_files_are_listed_by_attempt_and_rank_and_nothing_else_is(home: Home) -> None:
    for number, rank in [(2, 0), (1, 10), (1, 2), (1, 0)]:
        write(home, "four", number=number, rank=rank)
    (home.attempt_folder("j", 1) / "log-x.txt").write_text("")
    (home.attempt_folder("j", 1) / "logbook.txt").write_text("")
    found = log_files(home, job(attempt(), attempt(2)))
    assert [(log.attempt, log.rank, log.size) for log in found] == [(1, 0, 4), (1, 2, 4), (1, 10, 4), (2, 0, 4)]
    assert find_log(home, job(attempt(), attempt(2)), attempt=None, rank=0) == found[-1]


def test_last_words_are_lines_that_say_something(home: Home) -> None:
    write(home, "a\nb\n\n   \nc  \n\n")
    assert last_lines(log_path(home, "j", attempt=1), 2) == ("b", "c")


LINES = st.lists(st.text(alphabet="aµ\n", max_size=5), max_size=8)


@given(pieces=LINES, count=st.integers(0, 12))
def test_a_tail_is_what_the_last_lines_of_all_are(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[str], count: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "log.txt"
    text = "".join(pieces)
    path.write_text(text, encoding="utf-8")
    lines = text.splitlines(keepends=True)
    assert "".join(read_log(path, tail=count)) == "".join(lines[len(lines) - min(count, len(lines)) :])


def test_a_tail_of_a_long_log_is_found_across_blocks(home: Home) -> None:
    write(home, "".join(f"line {number} {'x' * 100}\n" for number in range(5000)))
    tail = "".join(read_log(log_path(home, "j", attempt=1), tail=2000)).splitlines()
    assert (len(tail), tail[0].split()[1], tail[-1].split()[1]) == (2000, "3000", "4999")
