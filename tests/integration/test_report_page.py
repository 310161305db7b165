"""The report page in a real browser: what it renders, at two widths and in both colour schemes.

The page has no scripts of its own, so it is put into frames of a harness that measures it: its text as rendered, its
overflow, whether it loaded anything, and the colours its plot came out in.
"""

from __future__ import annotations

import html
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from orchestrator.report.files import write_report
from tests.unit.report_rows import row, study

pytestmark = pytest.mark.browser

WIDTHS = (480, 1280)
EVIL = "<script>document.title = 'run'; throw new Error('run')</script>"
HARNESS = """<!doctype html><meta charset="utf-8"><pre id="measured"></pre>
<script>const errors = []; window.onerror = message => { errors.push(String(message)); };</script>
FRAMES
<script>
window.onload = () => {
  const seen = [...document.querySelectorAll("iframe")].map(frame => {
    const inside = frame.contentDocument, root = inside.documentElement;
    const cells = id => [...inside.querySelectorAll(`#${id} tr`)].map(
      line => [...line.children].map(cell => cell.innerText.replace(/\\s+/g, " ").trim()));
    const tables = Object.fromEntries([...inside.querySelectorAll("table")].map(one => [one.id, cells(one.id)]));
    const plot = inside.querySelector("figure svg"), box = plot.getBoundingClientRect();
    const outside = [...plot.querySelectorAll("text")].filter(text => {
      const place = text.getBoundingClientRect();
      return place.left < box.left - 8 || place.right > box.right + 8;
    }).map(text => text.textContent);
    return {
      width: root.clientWidth, needed: root.scrollWidth, tables, title: inside.title, outside,
      scripts: inside.scripts.length, loaded: frame.contentWindow.performance.getEntriesByType("resource").length,
      dark: frame.contentWindow.matchMedia("(prefers-color-scheme: dark)").matches,
      ink: frame.contentWindow.getComputedStyle(plot.querySelector("text[style*='--ink']")).fill,
      page: frame.contentWindow.getComputedStyle(inside.body).backgroundColor,
      plot: box.width, words: inside.body.innerText.replace(/\\s+/g, " "),
    };
  });
  document.getElementById("measured").textContent = JSON.stringify({seen, errors});
};
</script>
"""


def render(folder: Path, page: Path, *flags: str) -> dict[str, Any]:
    """What the browser made of the page at each of ``WIDTHS``."""
    source = html.escape(page.read_text(encoding="utf-8"))
    frames = [f'<iframe width="{width}" height="900" frameborder="0" srcdoc="{source}"></iframe>' for width in WIDTHS]
    harness = folder / "harness.html"
    harness.write_text(HARNESS.replace("FRAMES", "\n".join(frames)), encoding="utf-8")
    done = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
         "--dump-dom", f"--user-data-dir={folder / 'profile'}", *flags, harness.as_uri()],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    measured = re.search(r'<pre id="measured">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    assert measured is not None
    return json.loads(html.unescape(measured[1]))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    evil = row(job_id="evil", architecture=EVIL, accelerator=EVIL, model=EVIL, name=EVIL, energy_method="simulated")
    rows = [*study(), evil]
    witness = {one.job_id: one.energy_gpu_kwh for one in rows}
    folder = tmp_path_factory.mktemp("report")
    return write_report(folder, rows, title="digits", generated_ns=1_790_000_000_000_000_000, witness=witness).html


@pytest.fixture(scope="module")
def light(page: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return render(tmp_path_factory.mktemp("light"), page)


@pytest.fixture(scope="module")
def dark(page: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return render(tmp_path_factory.mktemp("dark"), page, "--force-dark-mode")


def test_the_page_fits_its_window_at_every_width(light: dict[str, Any]) -> None:
    assert [seen["width"] for seen in light["seen"]] == list(WIDTHS)
    assert [seen["needed"] for seen in light["seen"]] == list(WIDTHS)


def test_the_page_runs_no_script_and_loads_nothing(light: dict[str, Any]) -> None:
    assert light["errors"] == []
    assert [(seen["scripts"], seen["loaded"]) for seen in light["seen"]] == [(0, 0), (0, 0)]
    assert {seen["title"] for seen in light["seen"]} == {"digits · Wattledger report"}


def test_markup_in_a_name_is_shown_as_it_was_written(light: dict[str, Any]) -> None:
    wide = light["seen"][1]
    assert [cells[0] for cells in wide["tables"]["comparison-1"][1:] if "script" in cells[0]] == [
        f"{EVIL} 25,000 trainable"
    ]


def test_the_comparison_shows_its_figures(light: dict[str, Any]) -> None:
    heads, *cells = light["seen"][1]["tables"]["comparison-1"]
    assert heads[3:] == [
        "Energy per job Wh", "Energy per sample J", "Base score", "Score", "Gain %", "CEGI g", "CO₂e per % gained mg",
    ]  # fmt: skip
    (vit_on_t4,) = [line for line in cells if line[0].startswith("vit") and line[1].startswith("T4")]
    assert vit_on_t4[2:] == [
        "3",
        "0.1570 ± 0.0049 (best) 0.1516 to 0.1610",
        "0.0733 ± 0.0023 (best) 0.0707 to 0.0751",
        "0.5197 ± 0.0052 0.5155 to 0.5255",
        "0.781 ± 0.010 0.769 to 0.789",
        "+50.2 ± 3.5 (best) 46.3 to 53.1",
        "0.0661 ± 0.0026 (best) 0.0640 to 0.0690",
        "1.624 ± 0.064 (best) 1.574 to 1.696",
    ]


def test_every_job_is_listed_with_both_energies(light: dict[str, Any]) -> None:
    heads, *cells = light["seen"][1]["tables"]["jobs"]
    jobs = {line[0].split()[0]: line for line in cells if len(line) == len(heads)}
    assert len(jobs) == 15
    assert jobs["digits-vit-t4-1"][3:6] == ["0.159 SIMULATED", "0.159", "+0.40"]
    assert jobs["digits-vit-h100-0"][3:6] == ["–", "–", "–"]


def test_the_word_simulated_is_on_screen(light: dict[str, Any]) -> None:
    for seen in light["seen"]:
        assert "SIMULATED The energy of 14 of 15 jobs comes from simulated devices." in seen["words"]


def test_a_narrow_screen_names_the_accelerator_beside_the_architecture(light: dict[str, Any]) -> None:
    headings = [[line[0] for line in seen["tables"]["comparison-1"]] for seen in light["seen"]]
    assert [any(text.startswith("vit on T4") for text in texts) for texts in headings] == [True, False]


def test_the_plot_fits_and_none_of_its_text_sticks_out(light: dict[str, Any]) -> None:
    for seen in light["seen"]:
        assert 380 < seen["plot"] <= 800
        assert seen["outside"] == []


def test_the_plot_takes_its_ink_from_the_colour_scheme(light: dict[str, Any], dark: dict[str, Any]) -> None:
    assert [seen["dark"] for seen in light["seen"] + dark["seen"]] == [False, False, True, True]
    assert {seen["ink"] for seen in light["seen"]} == {"rgb(26, 31, 36)"}
    assert {seen["ink"] for seen in dark["seen"]} == {"rgb(231, 234, 237)"}
    assert {seen["page"] for seen in dark["seen"]} == {"rgb(15, 18, 21)"}
