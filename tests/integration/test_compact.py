"""A compaction that is killed loses nothing, doubles nothing, and is finished by the next one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from orchestrator.books.database import open_books
from orchestrator.books.refresh import refresh
from tests.clusters import wait_until
from tests.unit.ledger import Ledger, entry
from workers.contract import Phase
from workers.logfolder import COMPACTED
from workers.telemetry.energy_read import read_energy_logs

DAYS, FILES = 12, 25


def test_a_killed_compaction_neither_loses_nor_doubles_and_the_next_one_finishes(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for day in range(DAYS):
        for number in range(FILES):
            start_s = 86_400 * day + number
            ledger.book(entry(start_s, start_s + 1, 1 + number, Phase.TRAIN))
    booked = sum(found.energy_mj for found in read_energy_logs(ledger.home).entries)
    command = [sys.executable, "-m", "orchestrator", "compact", "--json", "--home", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as killed:
        wait_until(lambda: any(ledger.home.energy().rglob(f"{COMPACTED}*")), what="a compacted file")
        killed.kill()
    read = read_energy_logs(ledger.home)
    assert (sum(found.energy_mj for found in read.entries), read.lost) == (booked, frozenset())
    with open_books(ledger.home) as books:
        refresh(books)
        assert books.rows("SELECT sum(energy_mj)::BIGINT FROM hours") == [(booked,)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert [day["problem"] for day in told["days"] if day["problem"]] == []
    assert sum(found.energy_mj for found in read_energy_logs(ledger.home).entries) == booked
    assert len(list(ledger.home.energy().rglob("*.parquet"))) == DAYS
