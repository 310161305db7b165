"""Which rank an attempt's process is, what it leaves to others, and when it leaves its place."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workers.errors import InputError, JobError, PeerLostError
from workers.leaving import Leaving, Left
from workers.training.group import Group
from workers.training.memory import named_memory
from workers.training.ranks import Ranks

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"RANK": ""}, "RANK not set beside WORLD_SIZE."),
        ({"MASTER_ADDR": "", "MASTER_PORT": ""}, "MASTER_ADDR, MASTER_PORT not set beside WORLD_SIZE."),
        ({"RANK": "-1"}, "RANK is '-1'."),
        ({"MASTER_PORT": "http"}, "MASTER_PORT is 'http'."),
        ({"RANK": "4"}, "RANK 4 and LOCAL_RANK 1 do not fit a WORLD_SIZE of 4."),
        ({"LOCAL_RANK": "4"}, "RANK 3 and LOCAL_RANK 4 do not fit a WORLD_SIZE of 4."),
    ],
)
def test_an_environment_that_names_no_rank_is_refused(changed: dict[str, str], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        Ranks.of(TORCHRUN | changed)
    assert str(caught.value).startswith(sentence)


def test_ranks_are_as_torchrun_names_them_and_without_it_there_is_one() -> None:
    assert Ranks.of(TORCHRUN) == Ranks(rank=3, world_size=4, local_rank=1)
    assert Ranks.of({"RANK": "3"}) == Ranks(rank=0, world_size=1, local_rank=0)
    assert [Ranks.of(environment).is_first for environment in (TORCHRUN, {})] == [False, True]


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 5))
def test_ranks_share_a_batch_without_loss_and_each_has_something_to_compute(
    samples: int, world_size: int, count: int
) -> None:
    chosen = torch.arange(samples)
    groups = [Group(Ranks(rank=rank, world_size=world_size)) for rank in range(world_size)]
    parts = [group.parts(chosen, count) for group in groups]
    assert [len(of_rank) for of_rank in parts] == [count] * world_size
    assert torch.equal(torch.cat([part for of_rank in parts for part, counts in of_rank if counts]), chosen)
    assert all(len(part) for of_rank in parts for part, _ in of_rank)


def test_one_process_is_a_group_that_waits_for_nobody() -> None:
    group, done = Group(Ranks()), []
    group.first_does("work", lambda: done.append(1))
    group.goodbye()
    cpu = torch.device("cpu")
    assert (done, group.from_first("name", lambda: "told")) == ([1], "told")
    assert group.any((True, False), cpu) == (True, False)
    model = torch.nn.Linear(1, 1)
    assert group.wrap(model, cpu) is model


def test_a_single_process_takes_no_error_for_a_lost_rank() -> None:
    with pytest.raises(RuntimeError, match="gloo") as caught, Group(Ranks()).peers():
        raise RuntimeError("gloo is not a peer of ours")
    assert not isinstance(caught.value, PeerLostError)


# Leaving


def test_an_attempt_leaves_at_once_where_nobody_looks_between_steps() -> None:
    with pytest.raises(Left):
        Leaving().ask(10, None)


def test_between_steps_it_is_only_noted_and_asking_again_changes_nothing() -> None:
    leaving, done = Leaving(), []

    def work() -> None:
        with leaving.between_steps():
            leaving.ask(10, None)
            done.append(leaving.is_asked)

    with pytest.raises(Left):
        work()
    leaving.ask(10, None)
    assert done == [True]


def test_an_error_between_steps_is_not_taken_for_leaving() -> None:
    leaving = Leaving()

    def fail() -> None:
        with leaving.between_steps():
            leaving.ask(10, None)
            raise JobError("the loss became nan. Lower the rate.")

    with pytest.raises(JobError):
        fail()


# Memory


@pytest.mark.parametrize(
    ("error", "fact"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "the device"),
        (RuntimeError("CUDA error: out of memory"), "the device"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "the device"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "the device"),
        (MemoryError(), "the host"),
        (RuntimeError("std::bad_alloc"), "the host"),
    ],
)
def test_running_out_of_memory_names_where_and_the_remedy(error: Exception, fact: str) -> None:
    with pytest.raises(JobError) as caught, named_memory(32):
        raise error
    start, _, remedy = str(caught.value).partition(" at a batch size of 32; ")
    assert start == f"{fact} ran out of memory"
    assert remedy.startswith("lower the batch size, choose a smaller model, or ")
    assert remedy.endswith(".")


def test_the_allocator_of_this_very_torch_is_understood() -> None:
    with pytest.raises(JobError, match=r"^the host ran out of memory; choose a smaller model"), named_memory(None):
        torch.empty(10**15)


def test_other_errors_are_not_taken_for_memory() -> None:
    with pytest.raises(RuntimeError, match="shape"), named_memory(32):
        raise RuntimeError("shape '[2]' is invalid")
