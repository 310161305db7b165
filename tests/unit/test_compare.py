"""The comparison: what is averaged, what is kept apart, what is left out, and how sure the mean is."""

from __future__ import annotations

import json
import random
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from orchestrator.accounting.uncertainty import Part, Range
from orchestrator.compare.table import as_dict, compare, g_per_percent, left_out, spread
from tests.unit.report_rows import cancelled, failed, row, study

finite = st.floats(min_value=-1e9, max_value=1e9, allow_nan=False)


def test_nothing_known_has_no_mean_rather_than_zero():
    nothing = spread([None, None])
    assert (nothing.mean, nothing.sd, nothing.n, nothing.low, nothing.high) == (None, None, 0, None, None)


def test_one_value_says_nothing_of_the_spread():
    one = spread([3.5, None])
    assert (one.mean, one.sd, one.n, one.low, one.high) == (3.5, None, 1, None, None)


def test_deviation_is_the_samples():
    assert spread([1.0, 2.0, 4.0]).sd == statistics.stdev([1.0, 2.0, 4.0])


@pytest.mark.parametrize("values", [[2.0, 5.0], [2.0, 3.0, 7.0]])
def test_interval_of_two_or_three_is_their_range(values):
    few = spread(values)
    assert (few.low, few.high) == (values[0], values[-1])


def test_interval_of_four_is_narrower_than_their_range():
    four = spread([1.0, 2.0, 3.0, 10.0])
    assert four.low > 1.0
    assert four.high < 10.0


def test_interval_agrees_with_an_independent_bootstrap():
    values = np.random.default_rng(7).gamma(2.0, 1.5, size=25)
    ours = spread(values.tolist())
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(8)
    ).confidence_interval
    resolution = 0.05 * values.std() / 5  # the two draw different resamples
    assert abs(ours.low - theirs.low) < resolution
    assert abs(ours.high - theirs.high) < resolution


def test_more_values_than_fit_in_one_block_of_draws_still_have_an_interval():
    many = spread(float(i % 7) for i in range(1_500))
    assert many.low < many.mean < many.high
    assert many.high - many.low < 0.3


@settings(deadline=None)
@given(st.lists(finite, min_size=2, max_size=8), st.randoms(use_true_random=False))
def test_interval_lies_within_the_values_and_does_not_depend_on_their_order(values, shuffler: random.Random):
    first = spread(values)
    assert min(values) <= first.low <= first.high <= max(values)
    assert min(values) <= first.mean <= max(values)
    shuffled = list(values)
    shuffler.shuffle(shuffled)
    assert spread(shuffled) == first


def test_scaling_changes_the_unit_and_not_the_count():
    wh = spread([0.001, 0.003]).scaled(1000)
    assert (wh.mean, wh.low, wh.high, wh.n) == (2.0, 1.0, 3.0, 2)
    assert wh.sd == pytest.approx(2**0.5, rel=1e-12)
    assert spread([]).scaled(1000).mean is None


def test_jobs_that_did_not_succeed_are_in_no_cell_but_named():
    rows = [row(), failed(), cancelled(), row(job_id="waiting", state="queued")]
    (cell,) = compare(rows)
    assert cell.jobs == ("digits-vit-t4-0",)
    assert [(job.job_id, job.state) for job in left_out(rows)] == [
        ("digits-vit-t4-9", "failed"),
        ("digits-vit-h100-0", "cancelled"),
        ("waiting", "queued"),
    ]


def test_no_jobs_make_no_cells():
    assert compare([]) == ()
    assert compare([failed()]) == ()


def test_every_job_is_in_one_cell_or_left_out():
    rows = study()
    counted = [job for cell in compare(rows) for job in cell.jobs] + [job.job_id for job in left_out(rows)]
    assert sorted(counted) == sorted(one.job_id for one in rows)


def test_seeds_of_one_combination_are_averaged():
    (cell,) = compare([row(job_id=f"j{seed}", seed=seed, energy_kwh=kwh) for seed, kwh in enumerate((0.001, 0.003))])
    assert (cell.n, cell.seeds, cell.energy_kwh.n) == (2, (0, 1), 2)
    assert cell.energy_kwh.mean == 0.002
    assert cell.energy_wh.mean == 2.0


@pytest.mark.parametrize(
    "other",
    [
        {"task": "speech"},
        {"kind": "evaluate"},
        {"model": "tiny/vit-2"},
        {"architecture": "convnext"},
        {"accelerator": "H100"},
        {"adapter": "lora-r16"},
        {"quantization": "4bit"},
        {"metric": "f1_macro"},
        {"gpu_count": 2},
        {"trainable_parameters": 50_000},
        {"power_cap_w": 150.0},
    ],
    ids=lambda other: next(iter(other)),
)
def test_jobs_asked_to_do_different_things_are_not_averaged(other):
    assert [cell.n for cell in compare([row(job_id="a"), row(job_id="b", **other)])] == [1, 1]


def test_a_missing_value_is_left_out_of_its_figure_only():
    (cell,) = compare([row(job_id="a", seed=0), row(job_id="b", seed=1, joules_per_sample=None)])
    assert (cell.n, cell.joules_per_sample.n, cell.energy_kwh.n) == (2, 1, 2)
    assert cell.joules_per_sample.mean == 0.12


def test_reasons_for_a_missing_cegi_are_kept():
    (cell,) = compare([row(job_id="a"), row(job_id="b", seed=1, cegi_g=None, cegi_reason="no gain")])
    assert cell.cegi_g.n == 1
    assert cell.g_per_percent.n == 1
    assert cell.cegi_reasons == ("no gain",)


def test_method_of_a_cell_is_its_weakest():
    (cell,) = compare(
        [
            row(job_id=method, seed=i, energy_method=method)
            for i, method in enumerate(("counter", "simulated", "modelled"))
        ]
    )
    assert cell.method == "simulated"


def test_method_is_unknown_when_no_row_has_energy():
    (cell,) = compare([row(energy_method=None, energy_kwh=None)])
    assert cell.method is None
    assert cell.energy_kwh.mean is None


def test_quality_of_a_cell_is_every_flag_of_its_rows():
    (cell,) = compare(
        [row(job_id="a", energy_quality=("gap",)), row(job_id="b", seed=1, energy_quality=("shared", "gap"))]
    )
    assert cell.quality == ("gap", "shared")


def test_grams_per_percent_is_cegi_times_the_millions_of_trainable_parameters():
    assert g_per_percent(row(cegi_g=2.0, trainable_parameters=500_000)) == 1.0
    assert g_per_percent(row(cegi_g=None)) is None
    assert g_per_percent(row(trainable_parameters=None)) is None


def test_a_seed_run_twice_shows_as_fewer_seeds_than_jobs():
    (cell,) = compare([row(job_id="a"), row(job_id="b")])
    assert (cell.n, cell.seeds) == (2, (0,))


def test_cells_are_sorted_by_task_architecture_and_accelerator_with_unknown_last():
    rows = [
        row(job_id="1", task="speech"),
        row(job_id="2", accelerator=None),
        row(job_id="3", accelerator="T4"),
        row(job_id="4", architecture="convnext"),
        row(job_id="5", power_cap_w=100.0),
        row(job_id="6", power_cap_w=20.0),
    ]
    assert [cell.jobs[0] for cell in compare(rows)] == ["4", "6", "5", "3", "2", "1"]


@settings(deadline=None, max_examples=20)
@given(st.permutations(study()))
def test_the_order_of_rows_does_not_change_the_comparison(rows):
    assert compare(rows) == compare(study())


def test_the_comparison_is_json_with_its_figures_and_who_is_left_out():
    told = json.loads(json.dumps(as_dict(study()), allow_nan=False))
    first = told["cells"][0]
    assert (first["architecture"], first["accelerator"], first["n"]) == ("convnext", "A100-80GB", 3)
    assert first["energy_wh"]["mean"] == pytest.approx(first["energy_kwh"]["mean"] * 1000, rel=1e-12)
    assert set(first["cegi_g"]) == {"mean", "sd", "n", "low", "high"}
    assert [job["state"] for job in told["left_out"]] == ["failed", "cancelled"]


def known(name: str, low: float, high: float) -> Part:
    return Part(name=name, low=low, high=high, source="a meter")


UNKNOWN_INTENSITY = Part(
    name="carbon intensity", low=1.0, high=1.0, source="a yearly average has no range", known=False
)


def test_without_ranges_a_cell_has_no_bounds() -> None:
    (cell,) = compare([row(seed=seed, job_id=f"j{seed}") for seed in range(2)])
    assert (cell.co2e_bounds_g, cell.cegi_bounds_g) == (None, None)


def test_a_cell_without_cegi_has_no_bounds_of_it() -> None:
    (cell,) = compare(
        [row(cegi_g=None, cegi_reason="no")], {"digits-vit-t4-0": Range(parts=(known("metering", 0.9, 1.0),))}
    )
    assert cell.cegi_bounds_g is None
    assert cell.co2e_bounds_g is not None


def test_bounds_are_the_interval_over_jobs_widened_by_the_widest_parts_and_say_what_they_are_made_of() -> None:
    rows = [row(job_id=f"j{seed}", seed=seed, cegi_g=value) for seed, value in enumerate((0.1, 0.2, 0.3))]
    ranges = {
        "j0": Range(parts=(known("metering", 0.98, 1.0), UNKNOWN_INTENSITY)),
        "j1": Range(parts=(known("metering", 1.0, 1.05), UNKNOWN_INTENSITY)),
        "j2": Range(parts=(known("metering", 0.99, 1.01), UNKNOWN_INTENSITY)),
    }
    (cell,) = compare(rows, ranges)
    bounds = cell.cegi_bounds_g
    assert bounds is not None
    assert (bounds.low, bounds.high) == (pytest.approx(0.1 * 0.98, rel=1e-12), pytest.approx(0.3 * 1.05, rel=1e-12))
    assert bounds.made_of == ("95 % over 3 jobs", "metering", "carbon intensity (not known)")


def test_parts_that_bound_are_multiplied() -> None:
    both = Range(parts=(known("metering", 0.98, 1.0), known("carbon intensity", 0.5, 2.0)))
    assert both.of(10.0) == {"low": pytest.approx(4.9, rel=1e-12), "high": pytest.approx(20.0, rel=1e-12)}
    assert both.of(None) is None
    assert Range(parts=(UNKNOWN_INTENSITY,)).of(10.0) is None


def test_one_job_has_bounds_of_its_parts_alone() -> None:
    (cell,) = compare([row(cegi_g=0.1)], {"digits-vit-t4-0": Range(parts=(known("metering", 0.9, 1.0),))})
    assert cell.cegi_bounds_g is not None
    assert cell.cegi_bounds_g.low == pytest.approx(0.09, rel=1e-12)
    assert cell.cegi_bounds_g.made_of[0] == "one job, so no spread over jobs"


def test_one_job_of_which_no_part_is_known_has_no_bounds_rather_than_its_figure_twice() -> None:
    (cell,) = compare([row(cegi_g=0.1)], {"digits-vit-t4-0": Range(parts=(UNKNOWN_INTENSITY,))})
    assert cell.cegi_bounds_g is None
