"""A witness's word outlives the server it came from, but only for the books it was about."""

from pathlib import Path

from orchestrator.accounting.energy import DeviceWindow
from orchestrator.accounting.testimony import recall, remember
from orchestrator.accounting.witness import Witness
from workers.home import Home

HEARD = Witness(job_id="j", energy_kwh=1.5e-3, disagreement_percent=-0.25, reason=None)


def window(energy_mj: int) -> DeviceWindow:
    return DeviceWindow(attempt=1, device="GPU-0", start_ns=0, end_ns=10, energy_mj=energy_mj, shared=False)


def test_nothing_is_recalled_where_nothing_was_said(tmp_path: Path) -> None:
    assert recall(Home(tmp_path), "j", [window(5)]) is None


def test_a_torn_file_is_nothing_said(tmp_path: Path) -> None:
    remember(Home(tmp_path), HEARD, [window(5)])
    (tmp_path / "artifacts" / "j" / "witness.json").write_text('{"energy_kwh": 1.5')
    assert recall(Home(tmp_path), "j", [window(5)]) is None


def test_an_unknown_figure_is_not_kept(tmp_path: Path) -> None:
    silent = Witness(job_id="j", energy_kwh=None, disagreement_percent=None, reason="no server")
    remember(Home(tmp_path), silent, [window(5)])
    assert recall(Home(tmp_path), "j", [window(5)]) is None


def test_a_ledger_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("a file where the folder would be")
    remember(Home(tmp_path), HEARD, [window(5)])
    assert recall(Home(tmp_path), "j", [window(5)]) is None


def test_what_was_said_is_recalled_exactly(tmp_path: Path) -> None:
    remember(Home(tmp_path), HEARD, [window(2), window(3)])
    assert recall(Home(tmp_path), "j", [window(5)]) == HEARD


def test_books_that_have_grown_since_need_a_new_witness(tmp_path: Path) -> None:
    remember(Home(tmp_path), HEARD, [window(5)])
    assert recall(Home(tmp_path), "j", [window(6)]) is None
