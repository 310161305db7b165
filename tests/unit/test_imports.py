"""Importing Wattledger costs little: the heavy packages are loaded by whoever needs them, when they do."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.store import Store
from tests.queues import run_record, spec

HEAVY = ("duckdb", "ray", "torch", "transformers", "peft", "sklearn", "matplotlib", "jinja2")
SLOW = ("numpy", "httpx", "pyarrow")
"""Needed for figures; each costs a command that shows none a tenth of a second and more."""
SHOW = "import json, sys; {}; print(json.dumps(sorted(m for m in sys.modules if '.' not in m)))"

COMMAND = """
import json, runpy, sys
sys.argv = {}
try:
    runpy.run_module("orchestrator", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps(sorted(m for m in sys.modules if "." not in m)))
"""


def loaded_by(statement: str) -> set[str]:
    """The packages a fresh interpreter has loaded after ``statement``."""
    ran = subprocess.run([sys.executable, "-c", SHOW.format(statement)], capture_output=True, text=True, check=True)
    return set(json.loads(ran.stdout))


@pytest.mark.parametrize(
    "module",
    [
        "workers",
        "workers.contract",
        "workers.attempt",
        "workers.agent",
        "orchestrator",
        "orchestrator.client",
        "orchestrator.cluster.local",
        "orchestrator.cluster.fake",
        "orchestrator.controller",
        "orchestrator.queue_view",
        "orchestrator.doctor",
        "orchestrator.cli",
        "orchestrator.__main__",
    ],
)
def test_importing_it_loads_no_heavy_package(module: str) -> None:
    assert loaded_by(f"import {module}") & set(HEAVY) == set()


def test_the_heavy_packages_are_called_so() -> None:
    assert loaded_by("import jinja2") >= {"jinja2"}


@pytest.mark.parametrize("command", ["--help", "status"])
def test_commands_that_measure_and_compare_nothing_load_nothing_for_it(command: str, tmp_path: Path) -> None:
    with contextlib.closing(Store(tmp_path / "state.db")) as store:
        store.submit(run_record(), [spec("a")])
    arguments = ["wattledger", command]
    environment = {**os.environ, "WATTLEDGER_HOME": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-c", COMMAND.format(arguments)], capture_output=True, text=True, check=True, env=environment
    )
    shown, loaded = ran.stdout.rsplit("\n", 2)[:2]
    assert shown, "the command printed what it was asked for"
    assert set(json.loads(loaded)) & {*HEAVY, *SLOW} == set()


@pytest.mark.parametrize("package", ["workers", "orchestrator"])
def test_the_packages_themselves_load_nothing_but_the_standard_library(package: str) -> None:
    assert loaded_by(f"import {package}") - loaded_by("pass") == {package}
