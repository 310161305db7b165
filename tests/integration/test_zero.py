"""DeepSpeed's ZeRO on two real ranks over Gloo: its losses, weights and checkpoints are those of one plain process.

One pair of processes goes through all cases, since loading torch and DeepSpeed is most of what a case costs.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.zero_program import CPU, VIT, Case, noise, train
from workers.contract import Adapter, DeepSpeed, Training
from workers.training.adapters import load_saved
from workers.training.group import Group
from workers.training.load import build_base, prepare
from workers.training.ranks import Ranks

pytestmark = pytest.mark.timeout(600)
PATIENCE_S = 500.0
"""Both ranks load torch and DeepSpeed; on a machine that others use as well that takes its time."""
TOLERANCE = 1e-4
"""Of a loss, relative: two ranks add the same float32 numbers in another order."""
BF16_TOLERANCE = 2e-2
"""Of a loss, relative: bfloat16 has 8 bits, and each rank rounds a product of its own samples."""
LORA = Adapter(method="lora", rank=4)
FULL = Adapter(method="full")
# 33 over two ranks is 17 and 16, over two micro-batches 9, 8, 8, 8; what is left of an epoch is 7.
PLAIN = Training(max_steps=5, epochs=5, batch_size=33, learning_rate=3e-3, weight_decay=0.01)
ALL = {
    "gradient_checkpointing": True,
    "gradient_accumulation_steps": 2,
    "early_stopping_patience": 2,
    "eval_steps": 1,
    "learning_rate": 3e-2,
}


def split_by(stage: int, offload: str = "none", **changed: object) -> Training:
    return PLAIN.model_copy(
        update={**changed, "deepspeed": DeepSpeed.model_validate({"zero_stage": stage, "offload": offload})}
    )


CASES = {
    "lora-0": Case(adapter=LORA, training=split_by(0)),
    **{f"{adapter.method}-{stage}": Case(adapter=adapter, training=split_by(stage))
       for adapter in (LORA, FULL) for stage in (2, 3)},
    "offload-1": Case(adapter=FULL, training=split_by(1, "optimizer")),
    "offload-3": Case(adapter=LORA, training=split_by(3, "all")),
    "all-ddp": Case(adapter=LORA, training=PLAIN.model_copy(update=ALL)),
    "all-2": Case(adapter=FULL, training=split_by(2, **ALL)),
    "all-3": Case(adapter=LORA, training=split_by(3, **ALL)),
    "bf16-2": Case(adapter=LORA, training=split_by(2, bf16=True)),
    "bf16-3": Case(adapter=FULL, training=split_by(3, bf16=True)),
    "cut-2": Case(adapter=LORA, training=split_by(2), leave_after=3),
    "cut-3": Case(adapter=FULL, training=split_by(3), leave_after=3),
    "goes-on-2": Case(adapter=FULL, training=split_by(2), goes_on="cut-3"),
    "goes-on-3": Case(adapter=LORA, training=split_by(3), goes_on="cut-2"),
    "best-3": Case(adapter=LORA, training=split_by(3, **ALL), goes_on="cut-best"),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    prepare(1, 0)
    yield
    torch.set_num_threads(before)


def alone(name: str, case: Case, folder: Path) -> dict[str, Any]:
    """The same fine-tune by one process, without DeepSpeed."""
    plain = case.model_copy(update={"training": case.training.model_copy(update={"deepspeed": None})})
    return train(name, plain, folder, Group(Ranks()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two ranks went through all cases; a checkpoint of one process was there before."""
    found = tmp_path_factory.mktemp("zero")
    assert alone("cut-best", CASES["all-3"].model_copy(update={"leave_after": 2}), found)["left"]
    (found / "cases.json").write_text(json.dumps({name: case.model_dump() for name, case in CASES.items()}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        names = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    ranks = []
    for rank in ("0", "1"):
        with (found / f"said-{rank}.txt").open("wb") as said:
            environment = {**os.environ, **names, "RANK": rank, "LOCAL_RANK": rank}
            # A kernel that is compiled at run time would be put there.
            environment["TORCH_EXTENSIONS_DIR"] = str(found / "compiled")
            command = [sys.executable, "-m", "tests.zero_program", str(found)]
            ranks.append(subprocess.Popen(command, env=environment, stdout=said, stderr=said))
    try:
        codes = [rank.wait(PATIENCE_S) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    assert codes == [0, 0], [(found / f"said-{rank}.txt").read_text()[-2000:] for rank in (0, 1)]
    return found


def told(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return found


def test_nothing_is_compiled_and_nothing_is_said(folder: Path) -> None:
    assert not (folder / "compiled").exists()
    assert [(folder / f"said-{rank}.txt").read_text() for rank in (0, 1)] == ["", ""]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.leave_after and not case.goes_on])
def test_ranks_that_split_a_model_train_as_one_process_does(folder: Path, name: str, tmp_path: Path) -> None:
    split, case = told(folder, name), CASES[name]
    one = alone(name, case, tmp_path)
    tolerance = BF16_TOLERANCE if case.training.bf16 else TOLERANCE
    assert split["losses"] == pytest.approx(one["losses"], rel=tolerance, abs=0)
    assert [look is None for look in split["looks"]] == [look is None for look in one["looks"]]
    for ours, theirs in zip(split["looks"], one["looks"], strict=True):
        assert ours == (None if theirs is None else pytest.approx(theirs, rel=tolerance))
    assert split["counted"] == split["during"] == one["counted"]
    if not case.training.bf16:
        assert torch.tensor(split["answers"]).allclose(torch.tensor(one["answers"]), rtol=1e-3, atol=1e-3)
        assert split["predicted"] == one["predicted"]


@pytest.mark.parametrize("name", ["lora-2", "lora-3", "full-2", "full-3"])
def test_what_was_split_is_saved_whole_as_safetensors(folder: Path, name: str) -> None:
    saved = folder / name / "adapter"
    again = load_saved(build_base(VIT, classes=10, seed=0), saved, device=CPU)
    batch = noise(5, seed=9).batch(torch.arange(5), CPU)
    with torch.inference_mode():
        assert again.eval()(**batch.inputs).logits.tolist() == told(folder, name)["answers"]
    assert not list(saved.glob("*.bin"))


@pytest.mark.parametrize("name", ["goes-on-2", "goes-on-3"])
def test_a_checkpoint_of_one_stage_is_gone_on_from_at_another(folder: Path, name: str) -> None:
    case = CASES[name]
    cut, goes_on, whole = (told(folder, each) for each in (str(case.goes_on), name, f"{case.adapter.method}-2"))
    assert cut["left"]
    assert [*cut["losses"], *goes_on["losses"]] == pytest.approx(whole["losses"], rel=TOLERANCE, abs=0)
    assert torch.tensor(goes_on["answers"]).allclose(torch.tensor(whole["answers"]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["cut-2", "cut-3"])
def test_one_process_goes_on_where_two_ranks_were_cut(folder: Path, name: str, tmp_path: Path) -> None:
    case = CASES[name]
    (tmp_path / name).symlink_to(folder / name)
    goes_on = alone("here", case.model_copy(update={"leave_after": None, "goes_on": name}), tmp_path)
    whole = told(folder, f"{case.adapter.method}-2")
    assert [*told(folder, name)["losses"], *goes_on["losses"]] == pytest.approx(whole["losses"], rel=TOLERANCE, abs=0)


def test_two_ranks_go_on_with_the_best_weights_of_one_process(folder: Path) -> None:
    goes_on, whole = told(folder, "best-3"), told(folder, "all-3")
    assert goes_on["looks"] == pytest.approx(whole["looks"][2:], rel=TOLERANCE)
    assert torch.tensor(goes_on["answers"]).allclose(torch.tensor(whole["answers"]), rtol=1e-3, atol=1e-3)


def test_a_whole_checkpoint_of_split_weights_holds_them_by_name_and_shape(folder: Path) -> None:
    base = build_base(VIT, classes=10, seed=0)
    (step,) = (folder / "cut-3" / "checkpoints").glob("step-*")
    kept = load_file(step / "weights.safetensors")
    shapes = {name: value.shape for name, value in (*base.named_parameters(), *base.named_buffers())}
    assert {name: value.shape for name, value in kept.items()} == shapes
