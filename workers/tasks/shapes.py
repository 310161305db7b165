"""Drawn shapes: pictures of which all is known (what, which colour, where), for tasks that need no network."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32]
"""``(n, 3, side, side)`` in [-1, 1]: red, green, blue."""
Distance = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""From points, in radii of a shape about its centre (y downwards), to how far each is outside; negative: inside."""


def _circle(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.hypot(x, y) - 1.0


def _square(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(np.abs(x), np.abs(y)) - 1.0


def _triangle(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Its tip in the middle of the upper edge, as wide as high."""
    return np.maximum((2.0 * np.abs(x) - y - 1.0) / math.sqrt(5.0), y - 1.0)


def _cross(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two bars, each a third as thick as long."""
    lying = np.maximum(np.abs(x) - 1.0, np.abs(y) - 1.0 / 3.0)
    standing = np.maximum(np.abs(x) - 1.0 / 3.0, np.abs(y) - 1.0)
    return np.minimum(lying, standing)


_OUTLINES: Mapping[str, Distance] = {"circle": _circle, "square": _square, "triangle": _triangle, "cross": _cross}
KINDS = tuple(_OUTLINES)
COLOURS: Mapping[str, tuple[float, float, float]] = {
    "red": (0.9, -0.8, -0.8),
    "green": (-0.8, 0.7, -0.7),
    "blue": (-0.8, -0.6, 0.9),
    "yellow": (0.9, 0.8, -0.8),
    "purple": (0.4, -0.8, 0.5),
    "white": (0.9, 0.9, 0.9),
}
"""Red, green and blue in [-1, 1]."""
BACKGROUND = (-0.7, -0.7, -0.7)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One shape in a square picture. Lengths are shares of the picture's side; x to the right, y downwards.

    Attributes:
        kind: of ``KINDS``.
        colour: of ``COLOURS``.
        x: of its centre; ``y``: likewise.
        radius: half its width, which is its height: any kind just fits a square of twice that.
    """

    kind: str
    colour: str
    x: float
    y: float
    radius: float

    def corners(self, side: int) -> tuple[float, float, float, float]:
        """Left, top, right and bottom in pixels of a picture ``side`` wide, cut at its edges."""
        edges = (self.x - self.radius, self.y - self.radius, self.x + self.radius, self.y + self.radius)
        left, top, right, bottom = (side * min(1.0, max(0.0, edge)) for edge in edges)
        return left, top, right, bottom


def draw(
    scenes: Sequence[Sequence[Shape]], side: int, *, background: tuple[float, float, float] = BACKGROUND
) -> Pixels:
    """A picture of each scene, ``(n, 3, side, side)``; later shapes hide earlier ones, and edges are smooth."""
    pictures = np.empty((len(scenes), 3, side, side), dtype=np.float32)
    middles = (np.arange(side) + 0.5) / side
    pictures[:] = np.asarray(background, dtype=np.float32)[:, None, None]
    for place, scene in enumerate(scenes):
        for shape in scene:
            x, y = np.meshgrid((middles - shape.x) / shape.radius, (middles - shape.y) / shape.radius)
            outside_px = _OUTLINES[shape.kind](x, y) * shape.radius * side
            covered = np.clip(0.5 - outside_px, 0.0, 1.0).astype(np.float32)
            colour = np.asarray(COLOURS[shape.colour], dtype=np.float32)[:, None, None]
            pictures[place] += covered * (colour - pictures[place])
    return pictures


def noisy(pictures: Pixels, amount: float, made: np.random.Generator) -> Pixels:
    """The pictures with normal noise of that standard deviation on every value, cut to [-1, 1]."""
    noise = made.normal(0.0, amount, pictures.shape).astype(np.float32)
    cut: Pixels = np.clip(pictures + noise, -1.0, 1.0)
    return cut
