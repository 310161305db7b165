"""The report: the page says what the rows say and no more, and the files hold the contract."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from orchestrator.accounting.row import FIELDS
from orchestrator.report.files import write_report
from orchestrator.report.page import build_page, render
from tests.unit.page_reader import PageReader
from tests.unit.report_rows import cancelled, failed, row, study
from workers.errors import InputError

NOW = 1_790_000_000_000_000_000
NOT_MEASURED = ("simulated", "modelled", "replayed")


def read(rows, *, title="digits", witness=None) -> PageReader:
    return PageReader(render(build_page(rows, title=title, generated_ns=NOW, witness=witness)))


def write(folder, rows, witness=None):
    return write_report(folder, rows, title="digits", generated_ns=NOW, witness=witness)


def test_a_report_of_no_jobs_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(InputError, match="there is no job to report"):
        write(tmp_path / "report", [])
    assert not (tmp_path / "report").exists()


def test_a_missing_plotting_package_is_told_with_its_remedy(tmp_path, monkeypatch):
    for name in ("orchestrator.report.page", "orchestrator.report.plot"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"needs matplotlib.*wattledger\[report\]"):
        write(tmp_path, study())
    assert list(tmp_path.iterdir()) == []


def test_importing_the_files_module_loads_neither_matplotlib_nor_jinja2():
    code = "import sys, orchestrator.report.files; print({'matplotlib', 'jinja2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


def test_json_holds_exactly_the_contracts_fields(tmp_path):
    rows = study()
    written = json.loads(write(tmp_path, rows).json.read_text())
    assert [list(one) for one in written] == [list(FIELDS)] * len(rows)
    assert written == [one.as_dict() for one in rows]


def test_parquet_holds_the_same_rows(tmp_path):
    rows = study()
    table = pq.read_table(write(tmp_path, rows).parquet)
    assert table.column_names == list(FIELDS)
    for got, one in zip(table.to_pylist(), rows, strict=True):
        expected = one.as_dict()
        assert {name: got[name] for name in FIELDS if name != "energy_by_phase_kwh"} == {
            name: value for name, value in expected.items() if name != "energy_by_phase_kwh"
        }
        assert got["energy_by_phase_kwh"] == expected["energy_by_phase_kwh"]


def test_reasons_are_written_for_every_job(tmp_path):
    rows = study()
    assert json.loads(write(tmp_path, rows).reasons.read_text()) == {one.job_id: dict(one.reasons) for one in rows}


def test_writing_again_replaces_the_report_and_leaves_no_temporary_file(tmp_path):
    write(tmp_path, study())
    files = write(tmp_path, [row(job_id="only")])
    assert [one["job_id"] for one in json.loads(files.json.read_text())] == ["only"]
    assert pq.read_table(files.parquet).num_rows == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "details.json",
        "reasons.json",
        "report.html",
        "report.json",
        "report.parquet",
    ]


def test_a_figure_that_json_cannot_say_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(tmp_path, [row(joules_per_sample=float("nan"))])
    assert list(tmp_path.iterdir()) == []


def test_the_same_rows_make_the_same_page():
    pages = [render(build_page(study(), title="t", generated_ns=NOW)) for _ in range(2)]
    assert pages[0] == pages[1]


@pytest.mark.parametrize("method", NOT_MEASURED)
def test_energy_that_was_not_measured_says_so_in_words(method):
    page = read(study(method=method))
    assert f"{method.upper()} The energy of 13 of 14 jobs" in page.text
    assert all(method in cell for cell in page.column("comparison-1", "Accelerator"))
    energies = page.column("jobs", "Energy by energy log")
    assert [cell for cell in energies if method not in cell] == ["–"]
    assert f"2.62 Wh and caused 1.94 g CO₂e ({method})" in page.text


def test_one_simulated_job_makes_the_total_simulated():
    page = read([row(job_id="a"), row(job_id="b", accelerator="H100", energy_method="simulated")])
    assert "SIMULATED The energy of 1 of 2 jobs" in page.text
    assert "(SIMULATED)" in page.text
    assert page.column("comparison-1", "Accelerator") == ["H100 simulated", "T4 counter"]
    assert "Energy simulated 0.400 Wh" in page.text


@pytest.mark.parametrize("method", ["counter", "integrated"])
def test_measured_energy_is_not_called_anything_else(method):
    page = read(study(method=method))
    assert not any(word in page.text.lower() for word in NOT_MEASURED)
    assert page.column("comparison-1", "Accelerator")[0] == f"A100-80GB {method}"


def test_the_headline_counts_all_jobs_and_what_is_unknown():
    page = read(study())
    assert "Jobs 12 of 14 succeeded 1 cancelled, 1 failed" in page.text
    assert "3.44 % of it in failed attempts; 1 job unknown, not counted" in page.text
    assert "Best CEGI simulated 66.1 mg vit on T4; 1.62 mg CO₂e per % gained" in page.text


def test_the_comparison_shows_mean_deviation_and_interval():
    page = read([row(job_id=f"j{seed}", seed=seed, score=score) for seed, score in enumerate((0.60, 0.62))])
    assert page.column("comparison-1", "Score") == ["0.610 ± 0.014 0.600 to 0.620"]
    assert page.column("comparison-1", "Jobs") == ["2"]


def test_one_job_shows_that_its_spread_is_unknown():
    page = read([row()])
    assert page.column("comparison-1", "Energy per job") == ["0.200 ± –"]
    assert page.column("comparison-1", "CO₂e per % gained") == ["3.71 ± –"]


def test_the_best_of_a_column_is_named_so_without_relying_on_weight():
    page = read([row(job_id="a"), row(job_id="b", accelerator="H100", energy_kwh=0.0001, gain_percent=20.0)])
    assert page.column("comparison-1", "Energy per job") == ["0.100 ± – (best)", "0.200 ± –"]
    assert page.column("comparison-1", "Gain") == ["+20.0 ± –", "+20.0 ± –"]


def test_a_figure_known_for_some_jobs_says_for_how_many():
    page = read([row(job_id="a"), row(job_id="b", seed=1, cegi_g=None, cegi_reason="no gain")])
    assert page.column("comparison-1", "CEGI") == ["0.148 ± – n 1 of 2 · no gain"]


def test_jobs_that_share_a_seed_are_pointed_out():
    page = read([row(job_id="a"), row(job_id="b")])
    assert page.column("comparison-1", "Jobs") == ["2 only 1 seed"]


def test_scores_of_different_tasks_are_in_different_tables():
    page = read([row(job_id="a"), row(job_id="b", task="speech", metric="wer")])
    assert [name for name in page.tables if name.startswith("comparison")] == ["comparison-1", "comparison-2"]


def test_what_sets_cells_apart_is_shown_only_where_it_does():
    same, apart = read([row()]), read([row(job_id="a"), row(job_id="b", adapter="full", power_cap_w=150.0)])
    assert same.column("comparison-1", "Architecture") == ["vit on T4"]
    assert apart.column("comparison-1", "Architecture") == [
        "vit on T4 adapter full · cap 150 W",
        "vit on T4 adapter lora-r8 · no power cap",
    ]


def test_jobs_left_out_of_the_comparison_are_named():
    assert "Not in the comparison: 1 cancelled (digits-vit-h100-0); 1 failed (digits-vit-t4-9)." in read(study()).text


def test_a_report_without_a_succeeded_job_has_no_comparison_and_no_plot():
    page = read([failed(), cancelled()])
    assert "No job has succeeded, so there is nothing to compare" in page.text
    assert "svg" not in page.tags
    assert len(page.column("jobs", "Job")) == 2


def test_every_job_shows_both_energies_and_their_disagreement():
    page = read([row(energy_disagreement_percent=-1.25)], witness={"digits-vit-t4-0": 0.0001975})
    assert page.column("jobs", "Energy by energy log") == ["0.200 counter"]
    assert page.column("jobs", "GPU energy by Prometheus") == ["0.198"]
    assert page.column("jobs", "Differ by") == ["−1.2"]
    assert "Prometheus is the witness" in page.text


def test_without_a_server_the_witness_is_unknown():
    page = read([row()])
    assert page.column("jobs", "GPU energy by Prometheus") == ["–"]
    assert "No Prometheus server was asked." in page.text


def test_a_server_without_an_answer_is_not_called_a_witness():
    page = read([row()], witness={"digits-vit-t4-0": None})
    assert page.column("jobs", "GPU energy by Prometheus") == ["–"]
    assert "Prometheus gave no figure for any job" in page.text
    assert "is the witness of the energy log." not in page.text


def test_energy_of_more_than_the_gpu_shows_the_gpus_part():
    page = read([row(energy_gpu_kwh=0.00015, energy_cpu_kwh=0.00005)])
    assert page.column("jobs", "Energy by energy log") == ["0.200 GPU 0.150 · counter"]


def test_a_job_that_never_ran_shows_dashes_and_never_zero():
    page = read([row(), cancelled()])
    never = next(cells for cells in page.tables["jobs"] if cells[0].startswith("digits-vit-h100-0"))
    assert never[3:10] == ["–"] * 7
    assert never[10] == "–¹"
    assert ["¹ No CEGI: the job never ran"] in page.tables["jobs"]


def test_a_power_cap_is_shown_beside_the_mean_power():
    assert read([row(power_cap_w=150.0)]).column("jobs", "Mean power") == ["57.6 cap 150"]


def test_unknown_fields_are_listed_with_their_reasons():
    page = read([row(reasons={"embodied_kg": "no figure for a T4"}, joules_per_token=3.0)])
    rows = {cells[0]: cells[1] for cells in page.tables["unknown"][1:]}
    assert rows["no figure for a T4"] == "embodied_kg"
    assert "energy_cpu_kwh" in rows["no reason was recorded"]
    assert "joules_per_token" not in str(rows)
    assert "cegi_reason" not in str(rows)


def test_sources_of_carbon_are_shown_with_intensity_and_pue():
    page = read([row(job_id="a"), row(job_id="b", carbon_source="FRA 2023", carbon_intensity_g_per_kwh=56.0, pue=1.1)])
    assert page.tables["sources"][1:] == [
        ["world, Our World in Data / Ember 2023", "475.0", "1.56", "1"],
        ["FRA 2023", "56.00", "1.10", "1"],
    ]


def test_a_source_that_gave_each_job_its_own_mean_is_one_line_with_their_range():
    hourly = [row(job_id=f"j{i}", carbon_intensity_g_per_kwh=figure) for i, figure in enumerate((300.0, 56.0, 60.0))]
    assert read(hourly).tables["sources"][1:] == [
        ["world, Our World in Data / Ember 2023", "56.00 – 300.0", "1.56", "3"]
    ]


def test_sci_is_left_out_where_a_part_of_it_is_unknown():
    assert "sci" not in read([row()]).tables
    assert "sci" not in read([row(embodied_kg=0.001, samples_per_second=None)]).tables


def test_sci_is_electricity_and_hardware_per_thousand_samples():
    # 3.6 J a sample at PUE 1.5 and 400 g/kWh: 0.6 g for 1,000. 1 kWh at 1,000 W is an hour: 36 g of hardware in it, of
    # which each of 3,600,000 samples, 1,000 a second, has 10 ug.
    known = row(
        accelerator="H100", embodied_kg=0.036, joules_per_sample=3.6, pue=1.5, carbon_intensity_g_per_kwh=400.0,
        samples_per_second=1000.0, energy_kwh=1.0, power_mean_w=1000.0, energy_method="simulated",
    )  # fmt: skip
    page = read([known, row(job_id="other")])
    assert page.tables["sci"] == [
        ["Job", "Accelerator", "SCI g", "of it electricity g", "of it embodied g"],
        ["digits-vit-t4-0", "H100 simulated", "0.610", "0.600", "0.0100"],
    ]


def test_formulas_are_on_the_page():
    text = read([row()]).text
    assert "gCO₂e / (gain in % × trainable parameters in millions)" in text
    assert "Σ over hours of energy × PUE × carbon intensity" in text


def test_words_of_others_stay_words():
    evil = "<script>alert(1)</script>"
    rows = [
        row(job_id="a", name=evil, model=evil, architecture=evil, accelerator='"><img src=x>', metric="--><b>$x_1$"),
        row(job_id="b", seed=1, name=evil, model=evil, architecture=evil, accelerator="&lt;", metric="--><b>$x_1$"),
        row(job_id=evil, state="failed", cegi_g=None, cegi_reason=evil, reasons={"embodied_kg": evil}),
    ]
    page = read(rows, title=evil)
    assert not page.tags & {"script", "img", "b"}
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert page.tables["comparison-1"][1][0].startswith(evil)
    assert "Final score, --><b>$x_1$" in page.text
    assert "¹ No CEGI: " + evil in page.text


def test_names_without_a_glyph_or_with_an_underscore_first_are_still_drawn():
    page = read([row(job_id="a", architecture="日本"), row(job_id="b", architecture="_hidden", accelerator="H100")])
    assert "日本" in page.text
    assert page.text.count("_hidden") >= 3


def test_the_page_is_self_contained():
    html = render(build_page(study(), title="digits", generated_ns=NOW))
    assert not re.findall(r"https?://(?!www\.w3\.org/(?:2000/svg|1999/xlink))", html)
    assert not re.search(r"url\((?!#)|@import|<link|<script", html)


def test_the_page_is_labelled_for_who_cannot_see_it():
    html = render(build_page(study(), title="digits", generated_ns=NOW))
    page = PageReader(html)
    assert html.count("<caption") == html.count("<table")
    heads = re.findall(r"<th\b[^>]*>", html)
    assert all('scope="col"' in head or 'scope="row"' in head for head in heads)
    images = [value for tag, name, value in page.attributes if (tag, name) == ("div", "aria-label")]
    assert images
    assert "vit on T4: 0.1570 Wh, score 0.781" in images[0]
    identifiers = [value for _, name, value in page.attributes if name == "id"]
    assert len(set(identifiers)) == len(identifiers)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_and_markers_stand_out_on_light_and_dark(scheme):
    html = render(build_page([row()], title="digits", generated_ns=NOW))
    block = re.findall(r":root \{(.*?)\}", html, flags=re.DOTALL)[scheme]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    for panel in ("panel", "page"):
        assert min(contrast(colours[name], colours[panel]) for name in ("ink", "muted", "accent")) >= 4.5
    assert contrast(colours["loud"], colours["loud-page"]) >= 4.5
    assert contrast(colours["bad"], colours["bad-page"]) >= 4.5
    assert min(contrast(colours[f"series-{i}"], colours["panel"]) for i in range(1, 7)) >= 3.0
