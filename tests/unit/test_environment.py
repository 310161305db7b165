"""What an attempt ran in: the code's commit, the driver, and never a secret."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from workers.contract import JobSpec
from workers.environment import capture, code_of, driver_of, environment_file, keep

GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main")


def git(folder: Path, *words: str) -> str:
    return subprocess.run([*GIT, "-C", str(folder), *words], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package in a working tree of its own, not committed yet."""
    folder = tmp_path / "tree" / "workers"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    git(tmp_path / "tree", "init")
    return folder


def test_code_that_is_not_in_a_working_tree_has_no_commit_and_says_why(tmp_path: Path) -> None:
    assert code_of(tmp_path) == {"commit": None, "dirty": None, "reason": "the code is not in a git working tree"}


def test_code_that_was_installed_below_somebody_elses_working_tree_is_not_of_its_commit(package: Path) -> None:
    git(package.parent, "commit", "--allow-empty", "-m", "theirs")
    assert code_of(package)["reason"] == "the code is not in a git working tree"


def test_a_working_tree_without_a_commit_has_none(package: Path) -> None:
    git(package.parent, "add", ".")
    assert code_of(package) == {"commit": None, "dirty": None, "reason": "its git working tree has no commit yet"}


def test_git_that_takes_too_long_is_not_waited_for(package: Path) -> None:
    assert code_of(package, timeout_s=0.0)["reason"] == "git took longer than 0 s"


def test_a_host_without_git_says_so(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(package))
    assert code_of(package)["reason"] == "git is not installed"


def test_the_commit_is_kept_and_whether_the_code_differs_from_it(package: Path) -> None:
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-m", "ours")
    commit = git(package.parent, "rev-parse", "HEAD")
    (package / "notes.txt").write_text("not tracked")
    assert code_of(package) == {"commit": commit, "dirty": False, "reason": None}
    (package / "__init__.py").write_text("changed = True")
    assert code_of(package) == {"commit": commit, "dirty": True, "reason": None}


def test_a_host_without_a_driver_says_so_and_one_with_it_its_version(tmp_path: Path) -> None:
    version = tmp_path / "version"
    assert driver_of(version) == {"nvidia": None, "reason": "the kernel shows no NVIDIA driver"}
    version.write_text("580.95.05\n")
    assert driver_of(version) == {"nvidia": "580.95.05", "reason": None}


def test_no_variable_of_the_environment_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_TOKEN", "hunter2-of-the-environment")
    spec = JobSpec(task="digits", model="tiny/vit", seed=7)
    keep(tmp_path, 1, capture(spec, rank=1, ranks=2))
    assert [path.name for path in tmp_path.iterdir()] == [environment_file(1)] == ["environment-1.json"]
    text = (tmp_path / environment_file(1)).read_text()
    assert "hunter2" not in text
    found = json.loads(text)
    assert (found["seed"], found["rank"], found["ranks"]) == (7, 1, 2)
    assert found["packages"].keys() >= {"torch", "transformers", "pyarrow"}
    assert found["command"]
