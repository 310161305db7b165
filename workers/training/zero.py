"""DeepSpeed's ZeRO: the ranks split optimiser state, gradients and weights, or host memory holds them. Its only door.

The optimiser is ours, so nothing is compiled at run time, and what a checkpoint holds is gathered into the form that
one process would write: a fine-tune goes on with another number of ranks, or on one. Weights must fit one device when
training is over: rank 0 alone scores, answers and saves.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch._C._distributed_c10d import HashStore

from workers.contract import Training, offload_problem
from workers.errors import JobError
from workers.training.engine import on_host, tensors_of
from workers.training.group import Group

MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's state of a parameter, beside the steps done."""


class Zero:
    """Trains by DeepSpeed's engine, at the stage and with the offload that ``training.deepspeed`` names.

    Raises:
        JobError: DeepSpeed is not installed, cannot offload so much at that stage, or the model is quantised.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        training: Training,
        group: Group,
        device: torch.device,
    ) -> None:
        assert training.deepspeed is not None
        if importlib.util.find_spec("deepspeed") is None:
            raise JobError(
                "training.deepspeed needs the package deepspeed; pip install 'wattledger[deepspeed]' on this node, "
                "or remove the key."
            )
        if getattr(model, "is_quantized", False):
            raise JobError(
                "quantised weights are not split over ranks: training.deepspeed does not go with quantization 8bit or "
                "4bit. Remove one of them; several GPUs then train it as plain data parallel."
            )
        if problem := offload_problem(training.deepspeed.offload, training.deepspeed.zero_stage):
            raise JobError(f"{problem}. Change one of the two.")
        self._model, self._optimizer, self._training = model, optimizer, training
        self._group, self._device = group, device
        self._stage = training.deepspeed.zero_stage
        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._settings = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
        self._engine: Any = None
        self._steps = 0.0
        self._owns_process_group = False

    def begin(self) -> None:
        """Split model and optimiser over the ranks, as they are: a run that goes on has both restored by now."""
        restored = self._optimizer.state_dict()["state"]
        with self._group.peers(), _at_work():
            import deepspeed  # noqa: PLC0415 - takes seconds, and only who asks for it pays them

            # Else a kernel for the ranks of one host is compiled for a minute at the first run.
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
            if not dist.is_initialized():
                backend = "nccl" if self._device.type == "cuda" else "gloo"
                dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
                self._owns_process_group = True
            self._engine, *_ = deepspeed.initialize(
                model=self._model, optimizer=self._optimizer, config=_config(self._training)
            )
            if self._stage > 0 and restored:
                self._restore(restored)

    def __call__(self, **inputs: object) -> Any:  # noqa: ANN401 - transformers has an output class for each head
        """Of DeepSpeed's engine."""
        with _at_work():
            return self._engine(**inputs)

    @contextlib.contextmanager
    def _counted(self, *, is_last: bool) -> Iterator[None]:
        yield
        if not is_last:
            self._engine.step()  # It only counts the micro-batch.

    def micro_batch(self, *, is_last: bool) -> AbstractContextManager[None]:
        """DeepSpeed counts them."""
        return self._counted(is_last=is_last)

    def backward(self, loss: torch.Tensor) -> None:
        """Already weighed, so DeepSpeed does not divide by the number of micro-batches."""
        with self._group.peers(), _at_work():
            self._engine.backward(loss, scale_wrt_gas=False)

    def step(self) -> None:
        """Each rank its part of the weights."""
        with self._group.peers(), _at_work():
            self._engine.step()
        self._steps += 1

    def tensors(self, names: Iterable[str]) -> dict[str, torch.Tensor]:
        """Gathered one by one, so that no device holds more than one of them beside its part."""
        found, kept = tensors_of(self._model), dict[str, torch.Tensor]()
        with self._group.peers(), _at_work():
            for name in names:
                with self._gathered(found[name]):
                    if self._group.ranks.is_first:
                        kept |= on_host(found, [name])
        return kept

    def optimizer_state(self) -> Mapping[str, Any]:
        """Moments of each parameter in the model's order, as AdamW of one process numbers them."""
        if self._stage == 0:
            return self._optimizer.state_dict()
        from deepspeed.utils import safe_get_full_optimizer_state  # noqa: PLC0415

        state: dict[int, dict[str, torch.Tensor]] = {}
        with self._group.peers(), _at_work():
            for place, parameter in enumerate(self._trained):
                moments = {key: safe_get_full_optimizer_state(parameter, key) for key in MOMENTS}
                if self._group.ranks.is_first:
                    state[place] = {"step": torch.tensor(self._steps), **on_host(moments, MOMENTS)}
        rate = self._optimizer.param_groups[0]["lr"]
        return {
            "state": state,
            "param_groups": [{**self._settings, "lr": rate, "params": list(range(len(self._trained)))}],
        }

    def end(self) -> None:
        """Gather what was split; other ranks than 0 are left with their part."""
        with self._group.peers(), _at_work():
            names = [name for name, parameter in self._model.named_parameters() if self._is_changed(parameter)]
            values = self.tensors(names)
            self._engine.destroy()
        if self._group.ranks.is_first:
            _replace(self._model, values, self._device)
        if self._owns_process_group:
            dist.destroy_process_group()

    def _is_changed(self, parameter: nn.Parameter) -> bool:
        """Whether DeepSpeed has put something else in its place: at stage 3 all of them are split."""
        return self._stage == 3 or (self._stage > 0 and parameter.requires_grad)

    def _gathered(self, tensor: torch.Tensor) -> AbstractContextManager[object]:
        if not hasattr(tensor, "ds_id"):
            return contextlib.nullcontext()
        from deepspeed.runtime.zero import GatheredParameters  # noqa: PLC0415

        gathered: AbstractContextManager[object] = GatheredParameters([tensor])
        return gathered

    def _restore(self, state: Mapping[int, Mapping[str, torch.Tensor]]) -> None:
        """Put the moments of a checkpoint, in the form of one process, where this rank's part of them belongs."""
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state  # noqa: PLC0415
        from deepspeed.utils.mixed_precision_linkage import lazy_init_hp_params_optimizer_state  # noqa: PLC0415

        zero, rank, ranks = self._engine.optimizer, dist.get_rank(), dist.get_world_size()
        flats = zero.fp32_partitioned_groups_flat if self._stage == 3 else zero.single_partition_of_fp32_groups
        self._steps = float(state[0]["step"])
        for flat in flats:
            # AdamW makes these at its first step, which is done already.
            moments = {key: torch.zeros_like(flat) for key in MOMENTS}
            self._optimizer.state[flat] = {"step": torch.tensor(self._steps), **moments}
        if self._stage < 3:
            lazy_init_hp_params_optimizer_state(self._trained, flats[0], self._optimizer.state)
        for place, parameter in enumerate(self._trained):
            for key in MOMENTS:
                value = state[place][key].to(flats[0].device)
                if self._stage < 3:
                    safe_set_full_optimizer_state(parameter, value, key)
                else:
                    size = int(parameter.ds_tensor.ds_numel)  # type: ignore[attr-defined]
                    filled = nn.functional.pad(value.flatten(), (0, size * ranks - value.numel()))
                    safe_set_local_optimizer_state(parameter, filled[size * rank : size * (rank + 1)], key)


def _config(training: Training) -> dict[str, object]:
    """DeepSpeed's configuration of it; everything else there has the value of DeepSpeed's own."""
    wanted = training.deepspeed
    assert wanted is not None
    zero: dict[str, object] = {"stage": wanted.zero_stage, "memory_efficient_linear": False}
    if wanted.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu"}
    if wanted.offload == "all":
        zero["offload_param"] = {"device": "cpu"}
    return {
        "train_micro_batch_size_per_gpu": 1,  # Only counted with: batches are made by the loop.
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "gradient_clipping": 0.0,  # DeepSpeed's own is 1.0, and plain training does not clip.
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        # DeepSpeed turns the loop's own autocast off unless it is told of it. Gradients meet in float32, as DDP's do.
        "torch_autocast": {
            "enabled": training.bf16,
            "dtype": "bfloat16",
            "lower_precision_safe_modules": [],
        },
    }


def _replace(model: nn.Module, values: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Parameters of torch's own in the place of DeepSpeed's; one that stands in several modules still does."""
    old = dict(model.named_parameters(remove_duplicate=False))
    new = {id(old[name]): nn.Parameter(value.to(device), old[name].requires_grad) for name, value in values.items()}
    for module in model.modules():
        # DeepSpeed's kind of dictionary fetches what it holds at each look.
        module._parameters = {
            name: parameter if parameter is None else new.get(id(parameter), parameter)
            for name, parameter in dict.items(module._parameters)
        }


@contextlib.contextmanager
def _first_device() -> Iterator[None]:
    """Each rank sees its own board alone, so DeepSpeed's device is the first whatever the rank's place on the node."""
    before = os.environ.get("LOCAL_RANK")
    os.environ["LOCAL_RANK"] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ["LOCAL_RANK"]
        else:
            os.environ["LOCAL_RANK"] = before


@contextlib.contextmanager
def _at_work() -> Iterator[None]:
    """Around each call of DeepSpeed: on this rank's own device, which DeepSpeed asks the environment for at any time.

    And without what it tells of itself, and its use of torch's old names: a log is read line by line.
    """
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    with _first_device(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
