"""Tables for papers and programs: escaped, with units, and never a figure of energy without its method."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest

from orchestrator.report.formats import TEXTS, as_csv, as_json, as_latex, as_markdown, grid, with_method
from orchestrator.report.groups import KEYS, Group
from orchestrator.report.headings import HEADINGS
from orchestrator.report.records import NAMES, Record
from tests.unit.report_rows import row

TRICKY = r"50% of_#1 & {x} ~ ^ \ $5 <b> | `c` *d* – µ"


def records(**changes: object) -> list[Record]:
    return [row(**changes).as_dict(), row(job_id="second", energy_kwh=None, co2e_kg=None, cegi_g=None).as_dict()]


def test_every_field_that_can_be_shown_has_a_heading() -> None:
    line = Group(
        keys=dict.fromkeys(KEYS), account="job", jobs=1, jobs_unknown=0, energy_kwh=None, energy_wasted_kwh=None,
        co2e_kg=None, method=None, quality=(),
    )  # fmt: skip
    assert {*NAMES, *line.as_record()} <= HEADINGS.keys()


def test_a_figure_of_energy_brings_its_method_along() -> None:
    found = records()
    assert with_method(["job_id", "co2e_kg"], found) == ("job_id", "co2e_kg", "energy_method")
    assert with_method(["energy_method", "co2e_kg"], found) == ("energy_method", "co2e_kg")
    assert with_method(["job_id", "score"], found) == ("job_id", "score")


def test_a_simulated_figure_says_so_in_words() -> None:
    found = grid("t", records(energy_method="simulated"), ["job_id", "energy_kwh", "energy_method"])
    assert found.notes[0].startswith("SIMULATED")
    assert grid("t", records(), ["job_id"]).notes == ()


def test_figures_have_three_digits_in_the_unit_that_suits_the_column_and_unknown_is_a_dash() -> None:
    found = grid("t", records(), ["job_id", "energy_kwh", "co2e_kg", "seed", "energy_by_phase_kwh"])
    assert found.headings == ("Job", "Energy", "CO2e", "Seed", "Energy by phase")
    assert found.units == ("", "Wh", "g", "", "")
    assert found.rows == (
        ("digits-vit-t4-0", "0.200", "0.148", "0", "load 50.0 mWh, train 0.100 Wh, evaluate 50.0 mWh"),
        ("second", "–", "–", "0", "load 50.0 mWh, train 0.100 Wh, evaluate 50.0 mWh"),
    )


def test_csv_has_the_fields_as_they_are_and_nothing_a_spreadsheet_would_run() -> None:
    text = as_csv(
        [*records(name="=cmd()", energy_quality=("gap", "reset"))],
        ["job_id", "name", "energy_kwh", "energy_quality", "energy_by_phase_kwh"],
    )
    first, second = csv.DictReader(io.StringIO(text))
    assert (first["name"], float(first["energy_kwh"]), first["energy_quality"]) == ("'=cmd()", 0.0002, "gap;reset")
    assert json.loads(first["energy_by_phase_kwh"]) == {"load": 0.00005, "train": 0.0001, "evaluate": 0.00005}
    assert second["energy_kwh"] == ""


def test_json_has_the_fields_as_they_are() -> None:
    found = json.loads(as_json(records(), ["job_id", "energy_kwh", "energy_quality"]))
    assert found[0] == {"job_id": "digits-vit-t4-0", "energy_kwh": 0.0002, "energy_quality": []}
    assert found[1]["energy_kwh"] is None


def cells(line: str) -> list[str]:
    """The cells of a line of a Markdown table."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_markdown_has_units_in_its_headings_and_takes_any_text() -> None:
    text = as_markdown(grid("Jobs", records(name=TRICKY), ["name", "co2e_kg", "energy_kwh"]))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert cells(lines[0]) == ["Name", "CO2e (g)", "Energy (Wh)"]
    assert cells(lines[1]) == [":---", "---:", "---:"]
    assert {len(cells(line)) for line in lines} == {3}
    assert re.sub(r"\\(.)", r"\1", cells(lines[2])[0]) == TRICKY


def test_latex_is_a_booktabs_table_in_which_any_text_is_text() -> None:
    text = as_latex(
        grid("Jobs of_run", records(name=TRICKY, energy_method="simulated"), ["name", "energy_kwh", "energy_method"])
    )
    assert r"\caption{Jobs of\_run. SIMULATED: some of the energy" in text
    assert r"\begin{tabular}{lrl}" in text
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    assert (
        r"50\% of\_\#1 \& \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{} \$5 \textless{}b\textgreater{} "
        r"\textbar{} `c` *d* -- \textmu{} & 0.200 & simulated \\"
    ) in body
    bare = re.sub(r"\\[&%$#_{}]", "", text)
    assert {line.count("&") for line in bare.splitlines() if line.endswith(r"\\")} == {2}
    assert text.isascii()
    assert bare.count("{") == bare.count("}")


@pytest.mark.parametrize("form", TEXTS)
def test_no_records_are_an_empty_table_in_every_format(form: str) -> None:
    assert TEXTS[form]("Nothing", [], ["job_id", "energy_kwh"], ())
