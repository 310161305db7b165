"""Out of memory, whoever says so: a sentence with the remedy instead of an allocator's text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from workers.errors import JobError

HOST_TEXTS = ("DefaultCPUAllocator", "not enough memory", "Cannot allocate memory", "bad_alloc")
"""In a ``RuntimeError`` of torch 2.13 on the CPU, whose allocator has no error of its own."""
DEVICE_TEXTS = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""In a ``RuntimeError`` of a CUDA library that allocates by itself, without torch's allocator."""


@contextmanager
def named_memory(batch_size: int | None) -> Iterator[None]:
    """Inside, running out of memory says so; ``None`` where no batch is at work.

    Raises:
        JobError: it did, on the device or on the host.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise _device(batch_size) from error
    except MemoryError as error:
        raise _host(batch_size) from error
    except RuntimeError as error:
        text = str(error)
        if any(known in text for known in HOST_TEXTS):
            raise _host(batch_size) from error
        if any(known in text for known in DEVICE_TEXTS):
            raise _device(batch_size) from error
        raise


def _device(batch_size: int | None) -> JobError:
    return JobError(
        f"the device ran out of memory{_when(batch_size)} "
        "choose a smaller model, or name accelerators with more memory in resources.accelerators."
    )


def _host(batch_size: int | None) -> JobError:
    return JobError(
        f"the host ran out of memory{_when(batch_size)} choose a smaller model, or ask for more in resources.memory_gb."
    )


def _when(batch_size: int | None) -> str:
    return ";" if batch_size is None else f" at a batch size of {batch_size}; lower the batch size,"
