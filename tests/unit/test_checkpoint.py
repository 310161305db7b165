"""A fine-tune that was cut goes on from its newest whole checkpoint, and ends as if it had never been cut."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from workers.contract import Adapter, JobSpec, Training
from workers.leaving import Leaving, Left
from workers.tasks.data import Split
from workers.training.adapters import adapt
from workers.training.checkpoint import BEST, FROZEN, RECORD, STATE, WEIGHTS, Checkpoint, Checkpoints, digest_of
from workers.training.families.images import ImageExamples
from workers.training.group import Group
from workers.training.keeping import EVERY_S, Keeping
from workers.training.load import build_base, fit_source
from workers.training.loop import fit
from workers.training.models import MODELS
from workers.training.ranks import Ranks
from workers.training.run import Run
from workers.training.steps import StepResult

CPU = torch.device("cpu")
VIT = MODELS["tiny/vit"]
TRAINING = Training(max_steps=6, epochs=6, batch_size=16, learning_rate=3e-3, weight_decay=0.01)
SCORES = {"accuracy": 0.25, "f1_macro": 0.125}
LORA = Adapter(method="lora", rank=4, dropout=0.25)
FULL = Adapter(method="full")


pytestmark = pytest.mark.usefixtures("one_thread")


def noise(samples: int) -> ImageExamples:
    random = np.random.default_rng(0)
    inputs = random.uniform(-1, 1, (samples, 1, 8, 8)).astype(np.float32)
    return ImageExamples(Split(inputs=inputs, labels=random.integers(0, 10, samples)))


# Not a multiple of the batch: two steps and a short one are an epoch.
DATA = noise(40)


class Timer:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Trained:
    """One attempt at a fine-tune, as far as it comes."""

    def __init__(
        self,
        folder: Path,
        adapter: Adapter,
        *,
        attempt: int = 1,
        leave_after: int | None = None,
        every_steps: int | None = None,
        on_step: Callable[[int], None] = lambda step: None,
        timer: Timer | None = None,
        seed: int = 3,
        training: Training = TRAINING,
    ) -> None:
        self.losses: dict[int, float | None] = {}
        self.looks: dict[int, float] = {}
        self.checkpoints = Checkpoints(folder, digest=digest_of(spec(adapter, training=training)), attempt=attempt)
        self.found, self.notes = self.checkpoints.newest()
        torch.manual_seed(seed)
        base: nn.Module = build_base(VIT, classes=10, seed=0)
        if self.found is None:
            fit_source(base, VIT, noise(16), seed=0, device=CPU, on_step=lambda result: None)
        self.model = adapt(base, adapter, VIT)
        leaving = Leaving()
        keeping = Keeping(
            checkpoints=self.checkpoints,
            group=Group(Ranks()),
            leaving=leaving,
            found=self.found,
            scores=SCORES,
            every_steps=every_steps,
            seed=seed,
            go_on=lambda: None,
            monotonic_s=timer or Timer(),
        )

        def count(result: StepResult) -> None:
            self.losses[result.step] = result.loss
            if result.eval_loss is not None:
                self.looks[result.step] = result.eval_loss
            on_step(result.step)
            if result.step == leave_after:
                leaving.ask(10, None)

        self.left = False
        try:
            with leaving.between_steps():
                fit(self.model, DATA, training, seed=3, device=CPU, on_step=count, keeper=keeping)
        except Left:
            self.left = True

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}


def spec(adapter: Adapter = LORA, **changed: object) -> JobSpec:
    fields = {"task": "digits", "model": "tiny/vit", "adapter": adapter, "training": TRAINING}
    return JobSpec.model_validate({**fields, **changed})


def steps_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def assert_equal(one: Trained, other: Trained) -> None:
    ours, theirs = one.weights(), other.weights()
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    """Uninterrupted runs, by method."""
    folder = tmp_path_factory.mktemp("whole")
    torch.set_num_threads(1)
    return {adapter.method: Trained(folder / adapter.method, adapter) for adapter in (LORA, FULL)}


# What is torn, foreign or cannot be written


@pytest.mark.parametrize("file", [WEIGHTS, STATE, RECORD])
def test_a_torn_checkpoint_is_passed_over_for_the_one_before_and_the_log_says_so(
    tmp_path: Path, whole: dict[str, Trained], file: str
) -> None:
    Trained(tmp_path, LORA, every_steps=2, leave_after=4)
    torn = tmp_path / "step-4" / file
    torn.write_bytes(torn.read_bytes()[:-7])
    again = Trained(tmp_path, LORA, attempt=2)
    assert again.found is not None
    assert again.found.step == 2
    (note,) = again.notes
    assert note.startswith("checkpoint step-4 is not used: it")
    assert_equal(again, whole["lora"])


def test_a_checkpoint_whose_frozen_weights_are_damaged_is_not_used(tmp_path: Path) -> None:
    Trained(tmp_path, LORA, leave_after=2)
    frozen = tmp_path / FROZEN
    content = bytearray(frozen.read_bytes())
    content[-1] ^= 1
    frozen.write_bytes(content)
    found, notes = Checkpoints(tmp_path, digest=digest_of(spec()), attempt=2).newest()
    assert (found, notes) == (None, (f"checkpoint step-2 is not used: its {FROZEN} is damaged.",))


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 4},
        {"model": "tiny/convnext"},
        {"adapter": Adapter(method="lora", rank=8)},
        {"training": TRAINING.model_copy(update={"learning_rate": 1e-4})},
        {"dataset": "digits-rotated"},
        {"evaluation": {"max_samples": 10}},
    ],
)
def test_a_checkpoint_of_another_spec_is_not_used_and_the_log_says_why(
    tmp_path: Path, changed: dict[str, object]
) -> None:
    (tmp_path / "step-3").mkdir()
    record = {"format": 1, "job": digest_of(spec()), "step": 3, "attempt": 1, "scores": {}, "digests": {}}
    (tmp_path / "step-3" / RECORD).write_text(json.dumps(record))
    assert Checkpoints(tmp_path, digest=digest_of(spec()), attempt=2).newest()[0] is not None
    found, notes = Checkpoints(tmp_path, digest=digest_of(spec(**changed)), attempt=2).newest()
    assert found is None
    assert notes == (
        "checkpoint step-3 is not used: "
        "it is of another model, adapter, training, seed or data, or of another version.",
    )


def test_how_often_checkpoints_are_written_and_what_the_job_is_called_do_not_matter_to_them() -> None:
    training = TRAINING.model_copy(update={"checkpoint_steps": 7})
    assert digest_of(spec()) == digest_of(spec(training=training, job_id="other", resources={"gpus": 4}))


def test_a_disk_that_refuses_a_checkpoint_costs_a_warning_and_not_the_job(
    tmp_path: Path, whole: dict[str, Trained], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoints").write_text("in the way")
    ran = Trained(tmp_path / "checkpoints", LORA, every_steps=3)
    assert_equal(ran, whole["lora"])
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" can be")[0] for line in lines] == [
        "warning: no checkpoint of step 3",
        "warning: no checkpoint of step 6",
    ]
    assert all(line.endswith("Make room.") for line in lines)


def test_a_disk_that_fills_up_leaves_the_checkpoint_before_whole(tmp_path: Path) -> None:
    room = tmp_path / "checkpoints"

    def fill(step: int) -> None:
        if step == 4:
            # As a full disk does, nothing new can be made there.
            shutil.move(room, tmp_path / "kept")
            room.write_text("full")

    Trained(room, LORA, every_steps=2, leave_after=4, on_step=fill)
    found, _ = Checkpoints(tmp_path / "kept", digest=digest_of(spec()), attempt=2).newest()
    assert found is not None
    assert found.step == 2


# Going on


@pytest.mark.parametrize("adapter", [LORA, FULL], ids=["lora", "full"])
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(leave_after=st.integers(1, 6))
def test_a_run_that_left_at_any_step_and_went_on_equals_an_uninterrupted_one_bit_by_bit(
    tmp_path_factory: pytest.TempPathFactory, whole: dict[str, Trained], adapter: Adapter, leave_after: int
) -> None:
    folder = tmp_path_factory.mktemp("left")
    first = Trained(folder, adapter, leave_after=leave_after)
    assert (first.left, list(first.losses)) == (True, list(range(1, leave_after + 1)))
    # Another seed before: nothing of the process it goes on in matters.
    second = Trained(folder, adapter, attempt=2, seed=99)
    assert (second.left, list(second.losses)) == (False, list(range(leave_after + 1, 7)))
    assert first.losses | second.losses == whole[adapter.method].losses
    assert_equal(second, whole[adapter.method])


STOPPING = TRAINING.model_copy(
    update={"learning_rate": 0.05, "early_stopping_patience": 2, "eval_steps": 1, "epochs": 10, "max_steps": None}
)


def test_a_run_that_left_before_its_early_stop_ends_with_the_same_best_weights(tmp_path: Path) -> None:
    whole = Trained(tmp_path / "whole", LORA, training=STOPPING)
    steps = len(whole.losses)
    best = min(whole.looks, key=lambda step: whole.looks[step])
    assert (steps, list(whole.looks)) == (best + 2, list(range(1, steps + 1)))
    # Before the best, at it, after it, and when it was over already.
    for left in sorted({1, best, best + 1, steps}):
        first = Trained(tmp_path / str(left), LORA, leave_after=left, training=STOPPING)
        second = Trained(tmp_path / str(left), LORA, attempt=2, seed=99, training=STOPPING)
        assert first.losses | second.losses == whole.losses
        assert first.looks | second.looks == whole.looks
        assert_equal(second, whole)


def test_a_checkpoint_whose_best_weights_are_damaged_is_not_used(tmp_path: Path) -> None:
    Trained(tmp_path, LORA, leave_after=2, training=STOPPING)
    torn = tmp_path / "step-2" / BEST
    torn.write_bytes(torn.read_bytes()[:-7])
    _, notes = Checkpoints(tmp_path, digest=digest_of(spec(training=STOPPING)), attempt=2).newest()
    assert notes == (f"checkpoint step-2 is not used: its {BEST} is damaged.",)


def test_what_is_found_tells_whose_it_is_and_the_scores_that_need_not_be_taken_again(tmp_path: Path) -> None:
    Trained(tmp_path, LORA, attempt=4, leave_after=2)
    found, notes = Checkpoints(tmp_path, digest=digest_of(spec()), attempt=5).newest()
    assert isinstance(found, Checkpoint)
    assert (found.step, found.attempt, found.scores, notes) == (2, 4, SCORES, ())


def test_the_last_two_are_kept_and_the_frozen_weights_once(tmp_path: Path) -> None:
    first = Trained(tmp_path, LORA, every_steps=1, leave_after=4)
    assert steps_in(tmp_path) == ["step-3", "step-4"]
    written = (tmp_path / FROZEN).stat().st_mtime_ns
    Trained(tmp_path, LORA, attempt=2, every_steps=1, leave_after=5)
    assert steps_in(tmp_path) == ["step-4", "step-5"]
    assert (tmp_path / FROZEN).stat().st_mtime_ns == written
    first.checkpoints.remove()
    assert not tmp_path.exists()


def test_a_full_fine_tune_has_no_frozen_weights_to_keep(tmp_path: Path) -> None:
    Trained(tmp_path, FULL, leave_after=1)
    assert not (tmp_path / FROZEN).exists()


def test_what_a_killed_writer_left_aside_is_no_checkpoint_and_goes_with_the_next(tmp_path: Path) -> None:
    (tmp_path / ".step-5-1").mkdir()
    ran = Trained(tmp_path, LORA, leave_after=1)
    assert (ran.found, ran.notes) == (None, ())
    assert steps_in(tmp_path) == ["step-1"]


def test_without_a_number_of_steps_a_checkpoint_is_written_every_five_minutes(tmp_path: Path) -> None:
    timer, seen = Timer(), []

    def pass_time(step: int) -> None:
        seen.append(steps_in(tmp_path) if tmp_path.exists() else [])
        timer.now_s += EVERY_S / 2

    Trained(tmp_path, LORA, on_step=pass_time, timer=timer)
    assert seen == [[], [], ["step-2"], ["step-2"], ["step-2", "step-4"], ["step-2", "step-4"]]


def test_a_rank_that_cannot_see_what_the_first_chose_says_what_to_share(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, digest=digest_of(spec()), attempt=1)
    with pytest.raises(Exception, match=r"All ranks must see one ledger: share its folder\.$"):
        checkpoints.at(tmp_path / "step-1")


def test_a_checkpoint_holds_no_pickle_that_runs_code(tmp_path: Path) -> None:
    Trained(tmp_path, LORA, leave_after=2)
    state = torch.load(tmp_path / "step-2" / STATE, weights_only=True)
    assert state.keys() == {"optimizer", "schedule", "best", "random"}


def test_a_run_begins_where_it_was_put() -> None:
    steps = []

    class Later:
        def begin(self, run: Run) -> None:
            run.step = 4

        def after_step(self, run: Run) -> None:
            steps.append(run.step)

    model = build_base(VIT, classes=10, seed=0)
    fit(model, DATA, TRAINING, seed=0, device=CPU, on_step=lambda result: None, keeper=Later())
    assert steps == [5, 6]
