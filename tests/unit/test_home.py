"""Where a ledger keeps its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.errors import InputError
from workers.home import Home


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "/etc", ".hidden", "a\n", "a b", "x" * 129])
def test_a_job_id_that_would_leave_the_home_is_refused(name: str, tmp_path: Path) -> None:
    home = Home(tmp_path)
    for folder in (home.artifacts, lambda n: home.metrics(n, 1), lambda n: home.attempt_folder(n, 1)):
        with pytest.raises(InputError, match="cannot be a job id"):
            folder(name)


@pytest.mark.parametrize("name", ["", "..", "a/b", "/", ".", "node\n"])
def test_a_node_name_that_would_leave_the_home_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be a node's name"):
        Home(tmp_path).energy(name)


@pytest.mark.parametrize("attempt", [0, -1])
def test_attempts_are_counted_from_one(attempt: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="counted from 1"):
        Home(tmp_path).metrics("j", attempt)


def test_a_uri_is_refused_rather_than_taken_for_a_folder() -> None:
    with pytest.raises(InputError, match=r"WATTLEDGER_HOME is a URI \(s3://bucket/x\); name a local folder"):
        Home.default({"WATTLEDGER_HOME": "s3://bucket/x"})


def test_the_environment_names_the_home_and_the_default_is_the_users() -> None:
    assert Home.default({"WATTLEDGER_HOME": "/data/ledger"}).root == Path("/data/ledger")
    assert Home.default({}).root == Path("~/.wattledger").expanduser()
    assert Home.default({"WATTLEDGER_HOME": ""}).root == Path("~/.wattledger").expanduser()
    assert Home.default({"WATTLEDGER_HOME": "here"}).root == Path.cwd() / "here"


def test_the_layout_is_the_contracts(tmp_path: Path) -> None:
    home = Home(tmp_path / "ledger")
    paths = [
        home.state_db,
        home.metrics("sweep-1.a", 2),
        home.energy(),
        home.energy("ip-10-0-0-1:8265"),
        home.artifacts("j"),
        home.attempt_folder("j", 1),
        home.run,
    ]
    assert [str(path.relative_to(home.root)) for path in paths] == [
        "state.db",
        "metrics/job_id=sweep-1.a/attempt=2",
        "energy",
        "energy/node=ip-10-0-0-1:8265",
        "artifacts/j",
        "artifacts/j/attempt-1",
        "run",
    ]
    assert not home.root.exists()
