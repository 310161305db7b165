"""What all tests share.

Examples have no deadline: on a busy machine one may wait for the processor. Tests that run beside others have a
temporary folder of their own, since an agent's socket and its notes of limits are there, one folder for each user.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings

settings.register_profile("wattledger", deadline=None)
settings.load_profile("wattledger")


def pytest_configure() -> None:
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None:
        # A short name: the path of a socket takes 107 bytes.
        folder = Path(tempfile.mkdtemp(prefix=f"wl-{worker}-"))
        os.environ["TMPDIR"], tempfile.tempdir = str(folder), None
        # At the very end: multiprocessing removes what it has there when the process ends.
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
