"""What all tests share.

Examples have no deadline: on a busy machine one may wait for the processor. Tests that run beside others have a
temporary folder of their own, since an agent's socket and its notes of limits are there, one folder for each user.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("wattledger", deadline=None)
settings.load_profile("wattledger")


def pytest_configure(config: pytest.Config) -> None:
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None:
        # A short name: the path of a socket takes 107 bytes.
        folder = Path(tempfile.mkdtemp(prefix=f"wl-{worker}-"))
        os.environ["TMPDIR"], tempfile.tempdir = str(folder), None
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one thread of the CPU, and its generator seeded; threads are as before afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)
