"""``python -m workers.attempt``: one job on one machine, metered and logged; however it ends, its joules are booked."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.agents import has_ended, running_agent
from tests.clusters import wait_until
from workers import lifeline
from workers.contract import EnergyEntry, Method, Phase, Training
from workers.home import Home
from workers.metric_log import SCORE_PREFIX, MetricSample, read_metrics
from workers.progress import read_progress
from workers.tasks import TASKS
from workers.telemetry.energy_read import read_energy
from workers.training.models import MODELS

QUICK = {
    "job_id": "quick",
    "task": "digits",
    "model": "tiny/vit",
    "adapter": {"method": "lora"},
    "training": {"max_steps": 4},
    "evaluation": {"max_samples": 100},
    "inference": {"requests": 30, "warmup": 4},
}


@dataclass(frozen=True)
class Ran:
    """An attempt that ended, and its ledger."""

    code: int
    out: str
    err: str
    home: Home

    def metrics(self) -> tuple[MetricSample, ...]:
        return read_metrics(self.home, "quick", 1)

    def values(self, name: str) -> list[tuple[Phase | None, float]]:
        return [(sample.phase, sample.value) for sample in self.metrics() if sample.name == name]

    def entries(self) -> tuple[EnergyEntry, ...]:
        return read_energy(self.home, job_ids=["quick"])


def write_job(folder: Path, **changes: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "job.json"
    path.write_text(json.dumps({**QUICK, **changes}))
    return path


def command(job: Path, *arguments: str, meter: str = "simulated:H100") -> list[str]:
    return [sys.executable, "-m", "workers.attempt", *arguments_of(job, *arguments, meter=meter)]


def arguments_of(job: Path, *arguments: str, meter: str = "simulated:H100") -> list[str]:
    return [str(job), "--home", str(job.parent / "home"), "--meter", meter, "--cpu", "none", *arguments]


def run(job: Path, *arguments: str, meter: str = "simulated:H100") -> Ran:
    ended = subprocess.run(
        command(job, *arguments, meter=meter), capture_output=True, text=True, check=False, timeout=120
    )
    return Ran(ended.returncode, ended.stdout, ended.stderr, Home(job.parent / "home"))


def start(job: Path) -> subprocess.Popen[bytes]:
    """An attempt in a process group of its own, as a launcher starts it."""
    with (job.parent / "out.txt").open("wb") as out:
        return subprocess.Popen(command(job), stdout=out, stderr=out, start_new_session=True)


def wait_until_it_trains(job: Path, process: subprocess.Popen[bytes]) -> int:
    """Wait for the first steps of the load phase; gives the process id of the attempt's own agent."""

    def has_worked() -> bool:
        assert process.poll() is None, (job.parent / "out.txt").read_text()
        progress = read_progress(Home(job.parent / "home"), "quick", 1)
        return progress is not None and progress.done > 0

    wait_until(has_worked, what="the attempt's first steps")
    (agent,) = psutil.Process(process.pid).children()
    return agent.pid


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A fine-tune that measures inference as well."""
    return run(write_job(tmp_path_factory.mktemp("finetune")))


def last_line(log: Path) -> str:
    """The one thing an attempt said after its first line, which names its devices."""
    _, line = log.read_text().splitlines()
    return line


def assert_refused(ran: Ran, folder: Path, code: int, lines: Sequence[str]) -> None:
    """One message, on standard error and beside the job file, and no traceback."""
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.splitlines() == list(lines)
    assert (folder / "reason.txt").read_text() == "\n".join(lines)
    assert ran.entries() == ()


def test_a_job_that_cannot_be_used_lists_every_problem(tmp_path: Path) -> None:
    job = write_job(tmp_path, training={"epochs": 0, "speed": 1}, kind="bake", model=None)
    assert_refused(
        run(job),
        tmp_path,
        2,
        [
            f"{job} cannot be used:",
            "  kind: input should be 'finetune', 'evaluate' or 'inference' (given \"bake\")",
            "  model: input should be a valid string (given null)",
            "  training.epochs: input should be greater than or equal to 1 (given 0)",
            f"  training.speed: unknown key; known: {', '.join(Training.model_fields)}",
        ],
    )


def test_a_job_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    job = tmp_path / "job.json"
    sentence = f"{job} cannot be read: [Errno 2] No such file or directory: '{job}'. Name a job.json."
    assert_refused(run(job), tmp_path, 2, [sentence])


def test_an_unknown_model_lists_the_known_and_costs_no_energy(tmp_path: Path) -> None:
    sentence = f"unknown model 'tiny/vit2'. Did you mean 'tiny/vit'? Known: {', '.join(sorted(MODELS))}."
    assert_refused(run(write_job(tmp_path, model="tiny/vit2")), tmp_path, 2, [sentence])
    assert not (tmp_path / "home").exists()


def test_an_unknown_task_lists_the_known_and_costs_no_energy(tmp_path: Path) -> None:
    sentence = f"unknown task 'digit'. Did you mean 'digits'? Known: {', '.join(sorted(TASKS))}."
    assert_refused(run(write_job(tmp_path, task="digit")), tmp_path, 2, [sentence])
    assert not (tmp_path / "home").exists()


def test_an_agent_that_does_not_answer_is_exit_code_3(tmp_path: Path) -> None:
    ran = run(write_job(tmp_path), "--agent", str(tmp_path / "none.sock"))
    assert ran.code == 3
    assert ran.err.startswith(f"no agent answers at {tmp_path / 'none.sock'}")


def test_an_own_agent_that_cannot_start_says_why_itself(tmp_path: Path) -> None:
    ran = run(write_job(tmp_path), meter="abacus")
    assert ran.code == 3
    assert ran.err.splitlines() == [
        "unknown meter 'abacus'. Known: auto, nvml, simulated:TYPE[,TYPE...], replay:PATH[,PATH...].",
        "the job's own agent did not start; it said why above.",
    ]


def test_a_ledger_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    job = write_job(tmp_path)
    (tmp_path / "home").write_text("in the way")
    ran = run(job)
    assert ran.code == 1
    *of_the_agent, sentence = ran.err.splitlines()
    assert sentence.startswith("a file cannot be used: [Errno 20] Not a directory")
    assert sentence.endswith("Make room, or name another ledger with --home.")
    assert all("energy log" in line for line in of_the_agent)


def test_what_an_agent_refuses_reaches_the_user_as_one_sentence_and_the_right_exit_code(tmp_path: Path) -> None:
    with running_agent(tmp_path) as agent:
        (uuid,) = [device["uuid"] for device in agent.info["devices"]]
        with_agent = ("--agent", str(agent.socket))
        unknown = run(write_job(tmp_path / "unknown"), *with_agent, "--device", "5")
        many = run(write_job(tmp_path / "many", resources={"gpus": 2}), *with_agent)
        capped = run(write_job(tmp_path / "capped", power={"cap_watts": 50}), *with_agent)
        twice = run(write_job(tmp_path / "twice", power={"cap_watts": 300, "cap_percent": 50}), *with_agent)
    assert_refused(unknown, tmp_path / "unknown", 2, [f"unknown device '5'. Known: 0 ({uuid})."])
    assert_refused(many, tmp_path / "many", 2, [f"unknown device '1'. Known: 0 ({uuid})."])
    sentence = f"{uuid} cannot be limited to 50 W: it takes 200 to 700 W. Set power.cap_watts or power.cap_percent"
    assert_refused(capped, tmp_path / "capped", 1, [f"{sentence} within that range."])
    sentence = "power.cap_watts and power.cap_percent are both given. Give one."
    assert_refused(twice, tmp_path / "twice", 2, [sentence])


def test_an_attempt_that_is_killed_with_its_group_has_its_joules_booked_by_its_agent(tmp_path: Path) -> None:
    job = write_job(tmp_path)
    process = start(job)
    agent = wait_until_it_trains(job, process)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    wait_until(lambda: has_ended(agent), timeout_s=10, what="its agent to end")
    entries = read_energy(Home(tmp_path / "home"), job_ids=["quick"])
    assert sum(entry.energy_mj for entry in entries) > 0
    assert {entry.phase for entry in entries} == {Phase.LOAD}


def test_an_attempt_that_runs_out_of_memory_says_so_with_the_remedy_and_its_joules_are_booked(tmp_path: Path) -> None:
    job = write_job(tmp_path, training={"max_steps": 4, "batch_size": 100_000})
    process = start(job)
    agent = wait_until_it_trains(job, process)
    attempt = psutil.Process(process.pid)
    # Room for the base model's small batches, and not for one of all samples.
    room_bytes = attempt.memory_info().vms + 64 * 2**20
    attempt.rlimit(psutil.RLIMIT_AS, (room_bytes, room_bytes))
    assert process.wait(60) == 1
    assert has_ended(agent)
    sentence = (
        "the host ran out of memory at a batch size of 100000; lower the batch size, choose a smaller model, or ask "
        "for more in resources.memory_gb."
    )
    assert last_line(tmp_path / "out.txt") == sentence
    assert (tmp_path / "reason.txt").read_text() == sentence
    entries = read_energy(Home(tmp_path / "home"), job_ids=["quick"])
    assert {entry.phase for entry in entries} == {Phase.LOAD, Phase.BASELINE, Phase.TRAIN}


def test_a_cancelled_attempt_says_so_and_keeps_what_was_measured(tmp_path: Path) -> None:
    job = write_job(tmp_path)
    process = start(job)
    agent = wait_until_it_trains(job, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 130
    assert has_ended(agent)
    assert last_line(tmp_path / "out.txt") == "cancelled; what was measured so far is in the ledger."
    home = Home(tmp_path / "home")
    assert sum(entry.energy_mj for entry in read_energy(home, job_ids=["quick"])) > 0
    logged = [(sample.name, sample.phase) for sample in read_metrics(home, "quick", 1)]
    assert logged[0] == ("phase_start", Phase.LOAD)
    assert ("phase_end", Phase.LOAD) not in logged


def test_an_attempt_that_is_asked_to_leave_before_it_trains_leaves_at_once(tmp_path: Path) -> None:
    job = write_job(tmp_path)
    process = start(job)
    agent = wait_until_it_trains(job, process)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(20) == 75
    assert has_ended(agent)
    assert last_line(tmp_path / "out.txt") == "left as asked; the job goes on from its newest checkpoint."
    assert not Home(tmp_path / "home").checkpoints("quick").exists()
    assert sum(entry.energy_mj for entry in read_energy(Home(tmp_path / "home"), job_ids=["quick"])) > 0


def test_an_attempt_whose_parent_lets_go_leaves_as_if_cancelled(tmp_path: Path) -> None:
    job = write_job(tmp_path)
    with (tmp_path / "out.txt").open("wb") as out:
        child = lifeline.spawn("workers.attempt", arguments_of(job), stdout=out, stderr=out)
    agent = wait_until_it_trains(job, child.process)
    assert child.release(timeout_s=20) == 130
    assert has_ended(agent)
    assert sum(entry.energy_mj for entry in read_energy(Home(tmp_path / "home"), job_ids=["quick"])) > 0


def test_a_fine_tune_goes_through_its_phases_in_order_and_scores_before_and_after(finetuned: Ran) -> None:
    assert (finetuned.code, finetuned.err) == (0, "")
    edges = [(s.name, s.phase) for s in finetuned.metrics() if s.name in {"phase_start", "phase_end"}]
    phases = (Phase.LOAD, Phase.BASELINE, Phase.TRAIN, Phase.EVALUATE, Phase.INFERENCE)
    assert edges == [(name, phase) for phase in phases for name in ("phase_start", "phase_end")]
    for metric in ("score/accuracy", "score/f1_macro"):
        assert [phase for phase, _ in finetuned.values(metric)] == [Phase.BASELINE, Phase.EVALUATE]
        assert all(0 <= value <= 1 for _, value in finetuned.values(metric))
    assert [phase for phase, _ in finetuned.values("loss") if phase is Phase.TRAIN] == [Phase.TRAIN] * 4
    (trainable,), (total,) = (finetuned.values(f"{name}_parameters") for name in ("trainable", "total"))
    assert 0 < trainable[1] < total[1]


def test_a_fine_tunes_joules_are_booked_by_phase_as_simulated_and_add_up_to_what_it_says(finetuned: Ran) -> None:
    entries = finetuned.entries()
    assert {entry.phase for entry in entries} == {*Phase, None}, "what warms inference up is of no phase"
    assert {(entry.model, entry.method, entry.attempt) for entry in entries} == {("H100", Method.SIMULATED, 1)}
    said = re.fullmatch(r"quick: attempt 1 on \S+\nquick: done, ([\d,.]+) J booked; logs in (.*)\n", finetuned.out)
    assert said is not None, finetuned.out
    assert said[1] == f"{sum(entry.energy_mj for entry in entries) / 1000:,.1f}"
    assert Path(said[2]) == finetuned.home.metrics("quick", 1)


def test_a_fine_tune_leaves_predictions_an_adapter_and_what_it_ran_in(finetuned: Ran) -> None:
    folder = finetuned.home.attempt_folder("quick", 1)
    for name in ("baseline", "evaluate"):
        with (folder / f"predictions-{name}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [int(row["index"]) for row in rows] == list(range(100))
        right = sum(row["label"] == row["prediction"] for row in rows)
        (score,) = [value for phase, value in finetuned.values("score/accuracy") if phase == name]
        assert score == right / 100
    assert any((folder / "adapter").iterdir())
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["spec"]["training"]["max_steps"] == 4
    assert "torch" in environment["packages"]
    assert environment["unmetered"] == dict.fromkeys(("cpu", "dram"), "the node's agent runs with --cpu none")


def test_a_fine_tune_that_is_to_measure_inference_does_so_with_the_adapted_model(finetuned: Ran) -> None:
    assert finetuned.values("inferences") == [(Phase.INFERENCE, 30.0)]
    assert sum(value for phase, value in finetuned.values("samples") if phase is Phase.INFERENCE) == 30
    assert len(finetuned.values("trainable_parameters")) == 1, "what was trained is counted once, while it can train"


@pytest.mark.parametrize(("method", "gpus"), [("lora", 1), pytest.param("full", 0, marks=pytest.mark.heavy)])
def test_a_job_takes_the_weights_that_another_trained_and_scores_as_that_one_did(
    tmp_path: Path, method: str, gpus: int
) -> None:
    tuned = run(
        write_job(tmp_path, adapter={"method": method}, baseline_job="shared", inference=None), "--attempt", "2"
    )
    assert (tuned.code, tuned.err) == (0, "")
    samples = read_metrics(tuned.home, "quick", 2)
    scores = [(s.phase, s.value) for s in samples if s.name == f"{SCORE_PREFIX}accuracy"]
    assert [phase for phase, _ in scores] == [Phase.EVALUATE], "the baseline is another job's"
    assert {entry.phase for entry in tuned.entries()} == {Phase.LOAD, Phase.TRAIN, None, Phase.EVALUATE}
    assert [s for s in samples if s.name == "inferences"] == [], "it said nothing of inference"
    taking = {"job_id": "takes", "adapter": {"method": method, "trained_by": "quick"}, "adapter_job": "quick"}
    evaluated = run(write_job(tmp_path, kind="evaluate", resources={"gpus": gpus}, inference=None, **taking))
    assert (evaluated.code, evaluated.err) == (0, "")
    samples = read_metrics(tuned.home, "takes", 1)
    assert [(s.phase, s.value) for s in samples if s.name == f"{SCORE_PREFIX}accuracy"] == scores
    entries = read_energy(tuned.home, job_ids=["takes"])
    if gpus:
        assert {entry.phase for entry in entries} == {Phase.LOAD, Phase.EVALUATE}
    else:
        assert evaluated.out.startswith("takes: attempt 1 on no device\ntakes: done, no metered device; logs in ")
        assert entries == (), "without a GPU it claims no joule"


def test_weights_that_another_job_did_not_leave_end_the_job_with_the_remedy(tmp_path: Path) -> None:
    ran = run(write_job(tmp_path, kind="inference", adapter_job="gone"))
    assert ran.code == 1
    assert ran.err.startswith("there are no fine-tuned weights in ")
    assert "Run the job that trains them again" in ran.err
    assert ran.values("loss") == [], "no base is made for weights that are not there"


@pytest.mark.heavy
def test_the_weights_of_a_job_are_looked_for_in_no_other_folder(tmp_path: Path) -> None:
    ran = run(write_job(tmp_path, kind="evaluate", adapter_job="../../elsewhere"))
    assert (ran.code, ran.err.partition(":")[0]) == (2, "'../../elsewhere' cannot be a job id")


def test_an_inference_job_counts_its_inferences_and_not_the_warm_up_under_the_cap_it_asked_for(tmp_path: Path) -> None:
    ran = run(write_job(tmp_path, kind="inference", power={"cap_watts": 650}))
    assert (ran.code, ran.err) == (0, "")
    assert ran.values("inferences") == [(Phase.INFERENCE, 30.0)]
    assert sum(value for phase, value in ran.values("samples") if phase is Phase.INFERENCE) == 30
    assert ran.values("power_cap_watts") == [(None, 650.0)]
    assert {entry.phase for entry in ran.entries()} == {Phase.LOAD, None, Phase.INFERENCE}
    assert ran.values("score/accuracy") == []
