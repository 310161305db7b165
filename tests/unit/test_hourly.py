"""Energy in time × intensity in time, worked by hand."""

from __future__ import annotations

from orchestrator.carbon.hourly import NS_PER_HOUR, HourlySeries, Weighted, energy_by_hour, hourly_means, weigh

H = NS_PER_HOUR
NOON = 473_364
"""2024-01-01T12, in hours since the epoch."""


def series(**more: object) -> HourlySeries:
    return HourlySeries(source="test", g_per_kwh={NOON: 100.0, NOON + 1: 400.0}, **more)  # type: ignore[arg-type]


def test_energy_over_an_hours_edge_is_split_by_time() -> None:
    draw = (NOON * H + H // 2, (NOON + 1) * H + H // 4, 900)
    assert energy_by_hour([draw]) == {NOON: 600, NOON + 1: 300}


def test_what_cannot_be_split_evenly_still_adds_up() -> None:
    assert energy_by_hour([(NOON * H, (NOON + 3) * H, 100)]) == {NOON: 34, NOON + 1: 33, NOON + 2: 33}


def test_a_span_that_ends_at_an_edge_is_not_in_the_next_hour() -> None:
    assert energy_by_hour([(NOON * H, (NOON + 1) * H, 7)]) == {NOON: 7}


def test_an_instant_belongs_to_the_hour_it_is_in() -> None:
    assert energy_by_hour([((NOON + 1) * H, (NOON + 1) * H, 7)]) == {NOON + 1: 7}


def test_the_mean_is_weighted_by_energy() -> None:
    found = weigh({NOON: 300, NOON + 1: 100}, series(), yearly_g_per_kwh=999.0)
    assert found == Weighted(g_per_kwh=175.0, hours=2, known=2, provisional=0)


def test_an_hour_that_is_not_known_has_the_yearly_figure_and_is_counted() -> None:
    found = weigh({NOON: 100, NOON + 9: 100}, series(provisional=frozenset({NOON})), yearly_g_per_kwh=300.0)
    assert found == Weighted(g_per_kwh=200.0, hours=2, known=1, provisional=1)


def test_no_energy_has_the_plain_mean_of_its_hours() -> None:
    assert weigh({NOON: 0, NOON + 1: 0}, series(), yearly_g_per_kwh=999.0).g_per_kwh == 250.0


def test_less_than_nothing_is_neither_an_error_nor_a_weight() -> None:
    by_hour = energy_by_hour([(NOON * H, (NOON + 2) * H, -100), (NOON * H, (NOON + 1) * H, 90)])
    assert by_hour == {NOON: 40, NOON + 1: -50}
    assert weigh(by_hour, series(), yearly_g_per_kwh=999.0).g_per_kwh == 250.0


def test_no_hours_have_the_yearly_figure() -> None:
    assert weigh({}, series(), yearly_g_per_kwh=999.0) == Weighted(g_per_kwh=999.0, hours=0, known=0, provisional=0)


def test_half_hours_are_averaged() -> None:
    points = [(NOON * H, 100.0), (NOON * H + H // 2, 200.0), ((NOON + 1) * H, 5.0)]
    assert hourly_means(points) == {NOON: 150.0, NOON + 1: 5.0}
