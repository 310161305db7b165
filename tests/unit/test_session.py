"""An attempt's records stay in step, a simulated device keeps its pace, and a real one is never slowed."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from tests.metering import START_NS, Clock
from workers.contract import Phase, Power
from workers.errors import UnreachableError
from workers.home import Home
from workers.metric_log import MetricLog, read_metrics
from workers.progress import FILE_NAME, Progress, read_progress
from workers.session import Session
from workers.telemetry.client import HeldLease


class Agent:
    """Stands in for the connection to an agent whose device runs at ``speed``; remembers what it was asked."""

    def __init__(self, speed: float | None) -> None:
        self.speed = speed
        self.asked: list[tuple[str, object]] = []
        self.gone = False
        self.path = Path("/nonexistent/agent.sock")
        self._closed = threading.Event()
        self.is_closed = False

    def wait_until_gone(self) -> None:
        self._closed.wait()

    def close(self) -> None:
        self._closed.set()

    def ask(self, operation: str, *, timeout_s: float | None = None, **fields: object) -> dict[str, object]:
        if self.gone:
            raise UnreachableError("the agent has gone. See its log, and start it again.")
        self.asked.append((operation, fields.get("phase")))
        return {"speed": self.speed, "devices": ["GPU-1", "GPU-2"], "cap_watts": None, "energy_mj": 5}


class Timer:
    """Monotonic seconds; sleeping passes them and is remembered."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


def held(agent: Agent, timer: Timer) -> HeldLease:
    return HeldLease(
        agent,
        job_id="a",
        attempt=1,
        devices=["0"],
        cpus=1.0,
        phase=Phase.LOAD,
        power=Power(),
        monotonic_s=timer,
        sleep_s=timer.sleep,
    )


def session(folder: Path, agent: Agent, timer: Timer, clock: Clock) -> tuple[Session, MetricLog]:
    home = Home(folder)
    home.attempt_folder("a", 1).mkdir(parents=True)
    log = MetricLog(home.metrics("a", 1), clock_ns=clock)
    phases = (Phase.LOAD, Phase.TRAIN)
    made = Session(lease=held(agent, timer), log=log, folder=home.attempt_folder("a", 1), phases=phases, clock_ns=clock)
    return made, log


def test_a_real_device_is_neither_slowed_nor_is_its_agent_asked() -> None:
    agent, timer = Agent(speed=None), Timer()
    lease = held(agent, timer)
    for _ in range(100):
        timer.now_s += 10
        lease.pace()
    assert timer.slept == []
    assert agent.asked == [("open", "load")]


def test_a_simulated_device_as_fast_as_this_host_is_not_slowed() -> None:
    agent, timer = Agent(speed=1.0), Timer()
    lease = held(agent, timer)
    timer.now_s += 0.4
    lease.pace()
    assert timer.slept == []


def test_work_on_a_slower_device_waits_for_the_rest_of_its_time() -> None:
    agent, timer = Agent(speed=0.25), Timer()
    lease = held(agent, timer)
    timer.now_s += 0.125
    lease.pace()
    # An eighth of a second here is half a second there.
    assert timer.slept == [0.375]
    timer.now_s += 0.0625
    lease.pace()
    assert timer.slept == [0.375, 0.1875]


def test_waiting_is_not_work() -> None:
    agent, timer = Agent(speed=0.5), Timer()
    lease = held(agent, timer)
    for _ in range(3):
        timer.now_s += 0.125
        lease.pace()
    assert timer.slept == [0.125] * 3


def test_a_changed_pace_is_taken_up_within_half_a_second() -> None:
    agent, timer = Agent(speed=0.5), Timer()
    lease = held(agent, timer)
    agent.speed = 0.25
    timer.now_s += 0.25
    lease.pace()
    timer.now_s += 0.25
    lease.pace()
    assert timer.slept == [0.25, 0.75]
    assert agent.asked == [("open", "load"), ("pace", None)]


def test_a_new_phase_brings_the_pace_along_and_starts_the_work_anew() -> None:
    agent, timer = Agent(speed=0.5), Timer()
    lease = held(agent, timer)
    agent.speed = 0.25
    timer.now_s += 7
    lease.set_phase(Phase.TRAIN)
    timer.now_s += 0.125
    lease.pace()
    assert timer.slept == [0.375]
    assert agent.asked == [("open", "load"), ("phase", "train")]


def test_work_is_bound_to_the_leased_devices_and_simulated_work_to_none() -> None:
    assert held(Agent(speed=None), Timer()).visible_devices == "GPU-1,GPU-2"
    assert held(Agent(speed=0.5), Timer()).visible_devices == ""


def test_an_agent_that_is_gone_does_not_end_the_work_and_the_pace_is_kept(tmp_path: Path) -> None:
    agent, timer = Agent(speed=0.5), Timer()
    made, log = session(tmp_path, agent, timer, Clock())
    agent.gone = True
    with log, made.phase(Phase.TRAIN):
        timer.now_s += 0.25
        made.step(step=1, steps=1, samples=1, loss=None)
    assert [(s.name, s.phase) for s in read_metrics(Home(tmp_path), "a", 1)] == [
        (name, Phase.TRAIN) for name in ("phase_start", "samples", "phase_end")
    ]
    assert timer.slept == [0.25]


def test_a_phase_left_by_an_error_stays_open_in_the_log(tmp_path: Path) -> None:
    made, log = session(tmp_path, Agent(speed=None), Timer(), Clock())
    with log, pytest.raises(ZeroDivisionError), made.phase(Phase.LOAD):
        raise ZeroDivisionError
    assert [(s.name, s.phase) for s in read_metrics(Home(tmp_path), "a", 1)] == [("phase_start", Phase.LOAD)]


def test_what_is_between_phases_is_logged_and_booked_without_one_and_shows_no_progress(tmp_path: Path) -> None:
    agent, timer = Agent(speed=0.5), Timer()
    made, log = session(tmp_path, agent, timer, Clock())
    with log:
        with made.phase(Phase.TRAIN):
            made.step(step=1, steps=1, samples=1, loss=None)
        shown = read_progress(Home(tmp_path), "a", 1)
        with made.between_phases():
            timer.now_s += 0.25
            made.warm()
            made.record("total_parameters", 10)
    assert agent.asked == [("open", "load"), ("phase", "train"), ("phase", None)]
    assert timer.slept[-1:] == [0.25]
    assert [s.phase for s in read_metrics(Home(tmp_path), "a", 1) if s.name == "total_parameters"] == [None]
    assert read_progress(Home(tmp_path), "a", 1) == shown


def test_one_phase_keeps_lease_log_and_progress_in_step(tmp_path: Path) -> None:
    agent, clock = Agent(speed=None), Clock()
    made, log = session(tmp_path, agent, Timer(), clock)
    with log, made.phase(Phase.TRAIN):
        made.step(step=1, steps=2, samples=32, loss=0.5)
        made.warm()
        made.step(step=2, steps=2, samples=31, loss=None)
        made.score("accuracy", 0.75)
        made.record("total_parameters", 10)
    assert agent.asked == [("open", "load"), ("phase", "train")]
    rows = [(s.name, s.value, s.phase, s.step) for s in read_metrics(Home(tmp_path), "a", 1)]
    assert rows == [
        ("phase_start", 1.0, Phase.TRAIN, None),
        ("samples", 32.0, Phase.TRAIN, 1),
        ("loss", 0.5, Phase.TRAIN, 1),
        ("samples", 31.0, Phase.TRAIN, 2),
        ("score/accuracy", 0.75, Phase.TRAIN, None),
        ("total_parameters", 10.0, Phase.TRAIN, None),
        ("phase_end", 1.0, Phase.TRAIN, None),
    ]
    assert read_progress(Home(tmp_path), "a", 1) == Progress(
        phase=Phase.TRAIN,
        position=2,
        phases=2,
        done=2,
        total=2,
        loss=None,
        updated_ns=START_NS,
        started_ns=START_NS,
        phase_started_ns=START_NS,
        job_done=2,
    )


def test_progress_tells_what_an_estimate_needs_and_what_an_earlier_attempt_did(tmp_path: Path) -> None:
    clock = Clock()
    made, log = session(tmp_path, Agent(speed=None), Timer(), clock)
    with log:
        with made.phase(Phase.LOAD):
            made.expect({Phase.LOAD: 3, Phase.TRAIN: 10})
            made.step(step=3, steps=3, samples=1, loss=None)
            clock.pass_ms(500)
        with made.phase(Phase.TRAIN):
            made.carry(6)
            clock.pass_ms(500)
            made.step(step=7, steps=10, samples=1, loss=None)
    found = read_progress(Home(tmp_path), "a", 1)
    assert found is not None
    assert (found.done, found.total, found.carried) == (7, 10, 6)
    assert (found.job_done, found.job_total, found.job_carried, found.fraction) == (10, 13, 6, 10 / 13)
    assert (found.started_ns, found.phase_started_ns) == (START_NS, START_NS + 500_000_000)
    assert found.updated_ns == START_NS + 1_000_000_000


def test_a_progress_of_another_version_is_read_as_far_as_it_is_known(tmp_path: Path) -> None:
    folder = Home(tmp_path).attempt_folder("a", 1)
    folder.mkdir(parents=True)
    old = {"phase": "train", "position": 2, "phases": 4, "done": 5, "total": 10, "loss": None, "updated_ns": 7}
    (folder / FILE_NAME).write_text(json.dumps({**old, "mood": "good"}))
    found = read_progress(Home(tmp_path), "a", 1)
    assert found == Progress(phase=Phase.TRAIN, position=2, phases=4, done=5, total=10, loss=None, updated_ns=7)
    assert found.fraction == 0.375


def test_ranks_but_the_first_write_no_progress_and_work_begins_when_all_go_on(tmp_path: Path) -> None:
    agent, timer = Agent(speed=0.5), Timer()
    log = MetricLog(Home(tmp_path).metrics("a", 1), rank=1, clock_ns=Clock())
    made = Session(lease=held(agent, timer), log=log, folder=None, phases=(Phase.TRAIN,), clock_ns=Clock())
    with log, made.phase(Phase.TRAIN):
        timer.now_s += 5
        made.begin_work()
        timer.now_s += 0.25
        made.step(step=1, steps=1, samples=1, loss=0.5)
    assert timer.slept == [0.25]
    assert {s.rank for s in read_metrics(Home(tmp_path), "a", 1)} == {1}
    assert read_progress(Home(tmp_path), "a", 1) is None


def test_progress_is_written_four_times_a_second_at_most_and_always_at_the_end(tmp_path: Path) -> None:
    clock = Clock()
    made, log = session(tmp_path, Agent(speed=None), Timer(), clock)
    shown = []
    with log, made.phase(Phase.TRAIN):
        for step in range(1, 11):
            clock.pass_ms(100)
            made.step(step=step, steps=10, samples=1, loss=0.5)
            progress = read_progress(Home(tmp_path), "a", 1)
            assert progress is not None
            shown.append(progress.done)
    assert shown == [0, 0, 3, 3, 3, 6, 6, 6, 9, 10]


def test_before_its_first_progress_an_attempt_has_none(tmp_path: Path) -> None:
    assert read_progress(Home(tmp_path), "a", 1) is None
    folder = Home(tmp_path).attempt_folder("a", 1)
    folder.mkdir(parents=True)
    (folder / FILE_NAME).write_text('{"phase": "tr')
    assert read_progress(Home(tmp_path), "a", 1) is None


@pytest.mark.parametrize(
    ("position", "done", "total", "fraction"), [(1, 0, 0, 0.0), (1, 5, 10, 0.125), (4, 0, 0, 0.75), (4, 10, 10, 1.0)]
)
def test_each_phase_counts_alike_in_the_fraction(position: int, done: int, total: int, fraction: float) -> None:
    progress = Progress(phase=Phase.TRAIN, position=position, phases=4, done=done, total=total, loss=None, updated_ns=0)
    assert progress.fraction == fraction
