"""Configurations for Prometheus: refused when wrong, readable by Prometheus when right."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from orchestrator.monitoring.scrape import duration, file_config, scrape_config, target_list
from workers.errors import InputError


@pytest.mark.parametrize("text", ["", "5", "0s", "0.5s", "-1s", "5 s", "5sec", "1m30s", "5s\n"])
def test_what_is_not_a_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match="write a whole number and ms, s, m, h or d, as in 500ms"):
        duration(text)


def test_a_configuration_with_a_wrong_interval_is_refused() -> None:
    for make in (lambda: scrape_config(["a:1"], "fast"), lambda: file_config(Path("targets.json"), "fast")):
        with pytest.raises(InputError, match="'fast' is not a duration"):
            make()


def test_the_text_for_a_server_of_ones_own_is_exactly_this() -> None:
    assert scrape_config(["node-a:9101", "[::1]:9101"], "10s") == (
        "scrape_configs:\n"
        "  - job_name: wattledger\n"
        "    scrape_interval: 10s\n"
        "    scrape_timeout: 10s\n"
        "    static_configs:\n"
        '      - targets: ["node-a:9101", "[::1]:9101"]\n'
    )


def test_the_private_configuration_follows_its_targets_file(tmp_path: Path) -> None:
    config = yaml.safe_load(file_config(tmp_path / "targets.json", "500ms"))
    (job,) = config["scrape_configs"]
    assert job["file_sd_configs"] == [{"files": [str(tmp_path / "targets.json")], "refresh_interval": "1s"}]
    assert config["global"] == {"scrape_interval": "500ms", "scrape_timeout": "500ms"}


def test_no_targets_is_a_list_too() -> None:
    assert json.loads(target_list([])) == [{"targets": []}]


@pytest.mark.prometheus
def test_promtool_accepts_both_configurations(tmp_path: Path) -> None:
    (tmp_path / "targets.json").write_text(target_list(["127.0.0.1:9101"]))
    (tmp_path / "own.yml").write_text(file_config(tmp_path / "targets.json", "500ms"))
    (tmp_path / "theirs.yml").write_text(scrape_config(["node-a:9101"]))
    command = ["promtool", "check", "config", str(tmp_path / "own.yml"), str(tmp_path / "theirs.yml")]
    said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (said.returncode, said.stderr) == (0, "")
