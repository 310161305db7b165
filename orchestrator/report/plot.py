"""The door of matplotlib: energy per job against final score, as SVG that takes its colours from the page's CSS.

Nothing here touches pyplot, so no window system and no global figure is involved. The figure is drawn in stand-in
colours which are then replaced by CSS variables: one drawing is readable on a light and on a dark page.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from orchestrator.compare.table import Spread
from orchestrator.report.figures import format_number

SERIES_COLOURS = 6
"""Colours the page's CSS defines as ``--series-1`` to ``--series-6``; further architectures get hollow markers."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
_INK, _MUTED, _RULE, _PANEL = "#010101", "#010102", "#010103", "#010104"
_STAND_INS = {_INK: "--ink", _MUTED: "--muted", _RULE: "--rule", _PANEL: "--panel"} | {
    f"#0102{i:02x}": f"--series-{i + 1}" for i in range(SERIES_COLOURS)
}
_Place = Literal["outside upper left", "outside upper right", "outside lower right"]
_SIZE_INCHES = (6.8, 4.5)
_LOG_ABOVE = 20.0
"""Ratio of the largest energy to the smallest from which a linear axis would crush the small ones."""
_LEGEND_COLUMNS = 3
_LABELS_AT_MOST = 8
"""More labels than this would lie on one another; the table has them all."""
_STEPS = [1, 2, 5, 10]
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "wattledger",
    "font.family": "sans-serif",
    "font.size": 11.0,
    "text.parse_math": False,
}


@dataclass(frozen=True, kw_only=True)
class Series:
    """One cell of the comparison, as the plot shows it.

    Attributes:
        label: what tells it from other series of the same architecture and accelerator; empty when nothing does.
        energy: energy per job over its jobs, in the axis's unit; its mean is known.
        score: final score over its jobs; its mean is known.
        points: (energy, score) of each job that has both.
    """

    architecture: str
    accelerator: str
    label: str = ""
    energy: Spread
    score: Spread
    points: Sequence[tuple[float, float]]


def energy_score_svg(series: Sequence[Series], *, unit: str, metric: str, simulated: bool) -> str:
    """The plot as an ``<svg>`` element, to be placed in the page; it scales to the width it is given.

    Args:
        series: at least one.
        unit: symbol of the energy axis (``Wh``).
        metric: name of the score axis.
        simulated: whether any energy in it is; the word is then on the axis and across the plot.
    """
    with mpl.rc_context(_SETTINGS), warnings.catch_warnings():
        # The browser draws the text in its own fonts; matplotlib only lacks the glyph's width.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
        axes = figure.add_subplot()
        _frame(axes, unit=unit, metric=metric, simulated=simulated)
        colours = {name: i for i, name in enumerate(dict.fromkeys(one.architecture for one in series))}
        shapes = {name: i for i, name in enumerate(dict.fromkeys(one.accelerator for one in series))}
        labelled = sum(bool(one.label) for one in series) <= _LABELS_AT_MOST
        for one in series:
            _draw(axes, one, colour=colours[one.architecture], shape=shapes[one.accelerator])
            if one.label and labelled:
                _label(axes, one)
        _energy_scale(axes, [energy for one in series for energy in (one.energy.mean or 0, *_first(one.points))])
        _legends(figure, colours, shapes)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _for_the_page(drawn.getvalue())


def _first(points: Iterable[tuple[float, float]]) -> list[float]:
    return [energy for energy, _ in points]


def _frame(axes: Axes, *, unit: str, metric: str, simulated: bool) -> None:
    axes.set_xlabel(f"Energy per job, {unit}{' (SIMULATED)' if simulated else ''}", color=_INK, labelpad=8)
    axes.set_ylabel(f"Final score, {metric}", color=_INK, labelpad=8)
    axes.tick_params(which="both", color=_RULE, labelcolor=_MUTED, labelsize=10)
    axes.patch.set_alpha(0)
    axes.figure.patch.set_alpha(0)
    for side, spine in axes.spines.items():
        spine.set_visible(side in {"left", "bottom"})
        spine.set_color(_RULE)
    axes.grid(color=_RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(0.12)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=_STEPS))
    axes.yaxis.set_major_formatter(FuncFormatter(_tick))
    if simulated:
        axes.text(
            0.5, 0.5, "SIMULATED", transform=axes.transAxes, ha="center", va="center", rotation=18,
            rotation_mode="anchor", fontsize=46, fontweight="bold", color=_MUTED, alpha=0.1, zorder=0,
        )  # fmt: skip


def _draw(axes: Axes, one: Series, *, colour: int, shape: int) -> None:
    """The jobs as faint dots, and over them their mean with a bar of one standard deviation each way."""
    ink, marker = f"#0102{colour % SERIES_COLOURS:02x}", _MARKERS[shape % len(_MARKERS)]
    hollow = colour >= SERIES_COLOURS
    if len(one.points) > 1:
        energies, scores = zip(*one.points, strict=True)
        axes.plot(energies, scores, marker, color=ink, markersize=4.5, alpha=0.45, markeredgewidth=0, zorder=2)
    axes.errorbar(
        one.energy.mean or 0, one.score.mean or 0,
        xerr=_bar(one.energy), yerr=None if one.score.sd is None else one.score.sd,
        fmt=marker, color=ink, markersize=10, markerfacecolor=_PANEL if hollow else ink,
        markeredgecolor=ink if hollow else _PANEL, markeredgewidth=1.6 if hollow else 1.0,
        ecolor=ink, elinewidth=1.4, capsize=3.5, capthick=1.4, zorder=3,
    )  # fmt: skip


def _label(axes: Axes, one: Series) -> None:
    axes.annotate(
        one.label, (one.energy.mean or 0, one.score.mean or 0), xytext=(9, 7), textcoords="offset points",
        fontsize=9, color=_MUTED,
    )  # fmt: skip


def _bar(energy: Spread) -> tuple[list[float], list[float]] | None:
    """One standard deviation each way, but no energy below a tenth of the mean: a log axis has no zero."""
    if energy.sd is None or energy.mean is None:
        return None
    return [min(energy.sd, 0.9 * energy.mean)], [energy.sd]


def _energy_scale(axes: Axes, energies: Sequence[float]) -> None:
    ratio = max(energies) / min(energies) if min(energies) > 0 else 1
    if ratio >= _LOG_ABOVE:
        subs = (1.0, 2.0, 5.0) if ratio < 10 * _LOG_ABOVE else (1.0,)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=subs, numticks=12))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(7, steps=_STEPS))
    axes.xaxis.set_major_formatter(FuncFormatter(_tick))


def _tick(value: float, _: int | None) -> str:
    """A tick without exponent or trailing zeros; locators place ticks at short decimals."""
    text = format_number(round(value, 12), digits=4)
    return text.rstrip("0").rstrip(".") if "." in text else text


def _legends(figure: Figure, colours: dict[str, int], shapes: dict[str, int]) -> None:
    """Colour is the architecture (left), shape is the accelerator (right)."""
    by_colour = [
        _key(name, "o", f"#0102{i % SERIES_COLOURS:02x}", hollow=i >= SERIES_COLOURS) for name, i in colours.items()
    ]
    by_shape = [_key(name, _MARKERS[i % len(_MARKERS)], _MUTED, hollow=True) for name, i in shapes.items()]
    beside = _width(colours) + _width(shapes) < 0.95 * 72 * _SIZE_INCHES[0]
    places: tuple[_Place, _Place] = ("outside upper left", "outside upper right" if beside else "outside lower right")
    for keys, title, place in zip((by_colour, by_shape), ("Architecture", "Accelerator"), places, strict=True):
        _legend(figure, keys, title=title, place=place)


def _legend(figure: Figure, keys: Sequence[Line2D], *, title: str, place: _Place) -> None:
    legend = figure.legend(
        handles=keys, title=title, loc=place, ncols=min(len(keys), _LEGEND_COLUMNS), frameon=False, labelcolor=_INK,
        fontsize=10, title_fontsize=10, handletextpad=0.2, columnspacing=1.0, alignment="left", borderpad=0.1,
    )  # fmt: skip
    legend.get_title().set_color(_MUTED)


def _width(names: Iterable[str]) -> float:
    """About how wide a legend of ``names`` is, in points: it need only tell whether two fit side by side."""
    longest = sorted((len(_shown(name)) for name in names), reverse=True)
    return sum(36 + 6 * letters for letters in longest[:_LEGEND_COLUMNS])


def _key(name: str, marker: str, colour: str, *, hollow: bool) -> Line2D:
    return Line2D(
        [], [], linestyle="none", marker=marker, color=colour, markersize=8, label=_shown(name),
        markerfacecolor=_PANEL if hollow else colour, markeredgecolor=colour, markeredgewidth=1.4,
    )  # fmt: skip


def _shown(name: str) -> str:
    """A legend drops labels that begin with an underscore, and a very long one would push the plot aside."""
    short = name if len(name) <= 28 else f"{name[:27]}…"
    return f" {short}" if short.startswith("_") else short


def _for_the_page(svg: str) -> str:
    """Only the ``<svg>`` element, sized by CSS, without comments or a style rule that would reach the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style.*?</style>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r' width="[^"]*pt"| height="[^"]*pt"', "", svg, count=2)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"font-family: [^\";]*;? ?", "", svg)
    for stand_in, name in _STAND_INS.items():
        svg = svg.replace(stand_in, f"var({name})")
    return svg.strip()
