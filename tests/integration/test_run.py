"""``wattledger run --local`` from start to end: the main job, with a real Ray cluster and a real Prometheus."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from orchestrator.accounting.row import FIELDS
from tests.clusters import processes_with, quick_manifest, start, wait_until, wattledger

pytestmark = [pytest.mark.cluster, pytest.mark.prometheus]


def test_no_cluster_at_the_address_exits_3_with_the_remedy(tmp_path: Path) -> None:
    told = wattledger("run", str(quick_manifest(tmp_path)), "--address", "127.0.0.1:1", "--home", str(tmp_path))
    assert told.returncode == 3
    assert "no Ray cluster answers at 127.0.0.1:1" in told.stderr
    assert "--local" in told.stderr
    assert "Traceback" not in told.stderr


def test_a_manifest_with_mistakes_exits_2_naming_each_line_and_submits_nothing(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("version: 1\nname: wrong\nkind: finetune\ntask: digit\nmodel: tiny/vit\ntraning: {epochs: 1}\n")
    told = wattledger("run", str(path), "--local", "--home", str(tmp_path))
    assert told.returncode == 2
    assert f"{path}:4:" in told.stderr
    assert f"{path}:6:" in told.stderr
    assert "digits" in told.stderr
    assert "training" in told.stderr
    assert not (tmp_path / "state.db").exists()


def test_ctrl_c_cancels_the_run_reports_and_leaves_no_process(tmp_path: Path) -> None:
    manifest = quick_manifest(tmp_path, steps=440)
    running = start("run", str(manifest), "--local", "--simulate", "H100", "--home", str(tmp_path))
    wait_until(lambda: any(tmp_path.glob("artifacts/*/attempt-1/progress.json")), what="the attempt to make progress")
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "cancelled" in out
    wait_until(lambda: not processes_with(str(tmp_path)), what="agent and attempt to leave")


def test_a_local_run_meters_scores_and_reports_every_job(tmp_path: Path) -> None:
    manifest = quick_manifest(tmp_path, steps=40, accelerators="each")
    told = wattledger(
        *("run", str(manifest), "--local", "--simulate", "H100", "--simulate", "A100-80GB"),
        *("--home", str(tmp_path / "ledger"), "--out", str(tmp_path / "out")),
    )
    assert told.returncode == 0, told.stderr
    rows = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [tuple(row) for row in rows] == [FIELDS, FIELDS]
    assert {row["accelerator"] for row in rows} == {"H100", "A100-80GB"}
    for row in rows:
        assert row["state"] == "succeeded"
        assert row["energy_method"] == "simulated"
        assert row["score"] > row["score_base"]
        assert row["gain_percent"] > 0
        assert row["cegi_g"] > 0
        assert row["cegi_reason"] is None
        assert set(row["energy_by_phase_kwh"]) == {"load", "baseline", "train", "evaluate"}
        of_phases = sum(row["energy_by_phase_kwh"].values())
        assert 0.9 * row["energy_kwh"] < of_phases < row["energy_kwh"], "counting operations is of no phase"
        assert row["energy_wasted_kwh"] == 0
        assert abs(row["energy_disagreement_percent"]) < 2
    assert rows[0]["score"] == rows[1]["score"], "the same seed learns the same on every accelerator"
    used = {row["accelerator"]: row["energy_kwh"] for row in rows}
    assert used["A100-80GB"] > used["H100"], "an H100 draws more power, and is done sooner by more than that"
    assert all(row["embodied_kg"] > 0 for row in rows)
    assert "SIMULATED" in told.stdout
    assert "simulated" in (tmp_path / "out" / "report.html").read_text()
    for verb in ("status", "compare", "report"):
        shown = wattledger(verb, "--home", str(tmp_path / "ledger"))
        assert shown.returncode == 0, shown.stderr
        assert "A100-80GB" in shown.stdout
    assert not processes_with(str(tmp_path)), "agents, attempts and servers are gone"
