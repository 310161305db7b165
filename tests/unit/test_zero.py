"""What DeepSpeed is not asked to do: told before it is loaded. Its work is in ``tests/integration/test_zero.py``."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn

from workers.contract import Training
from workers.errors import JobError
from workers.training.engine import Plain, engine_for
from workers.training.group import Group
from workers.training.ranks import Ranks

CPU = torch.device("cpu")


def asked(deepspeed: dict[str, object] | None, model: nn.Module | None = None) -> object:
    model = model or nn.Linear(2, 2)
    training = Training.model_validate({"deepspeed": deepspeed})
    return engine_for(model, torch.optim.AdamW(model.parameters()), training, Group(Ranks()), CPU)


def test_without_deepspeed_the_job_ends_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        JobError, match=r"needs the package deepspeed; pip install 'wattledger\[deepspeed\]' on this node"
    ):
        asked({})


def test_quantised_weights_are_not_split() -> None:
    model = nn.Linear(2, 2)
    model.is_quantized = True  # As transformers marks what bitsandbytes quantised.
    with pytest.raises(
        JobError, match=r"does not go with quantization 8bit or 4bit\. Remove one of them; several GPUs"
    ):
        asked({"zero_stage": 2}, model)


@pytest.mark.parametrize(
    ("deepspeed", "sentence"),
    [
        ({"zero_stage": 0, "offload": "optimizer"}, "offload optimizer needs zero_stage 1, 2 or 3; stage 0 splits no"),
        (
            {"zero_stage": 2, "offload": "all"},
            "offload all needs zero_stage 3, which splits weights, not 2. Change one",
        ),
    ],
)
def test_more_cannot_be_offloaded_than_is_split(deepspeed: dict[str, object], sentence: str) -> None:
    with pytest.raises(JobError) as caught:
        asked(deepspeed)
    assert sentence in str(caught.value)


def test_nobody_who_does_not_ask_for_deepspeed_gets_it() -> None:
    assert isinstance(asked(None), Plain)
