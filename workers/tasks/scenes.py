"""Two drawn shapes and what can be said of them: for the tasks that put pictures into words."""

from __future__ import annotations

import random
from dataclasses import dataclass

from workers.tasks.shapes import Shape

SIDE = 16
"""Of a picture, in pixels: the least at which the shapes below can be told apart by eye."""
KINDS = ("circle", "square", "cross")
"""A triangle of seven pixels looks like a circle."""
COLOURS = ("red", "green", "blue", "yellow")
RADIUS = 0.22
PLACES = {
    "above": (((0.25, 0.25), (0.25, 0.75)), ((0.75, 0.25), (0.75, 0.75))),
    "left of": (((0.25, 0.25), (0.75, 0.25)), ((0.25, 0.75), (0.75, 0.75))),
}
"""How the first lies to the second: centres of both, as shares of the side, in two versions."""
SHIFT = 0.03
"""How far each centre may be from its place."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Two shapes of different kinds and colours.

    Attributes:
        kinds: of ``KINDS``, the upper or left one first; ``colours``: likewise.
        relation: of ``PLACES``, in this version of it.
        shifts: of each centre from its place: x, y, x, y.
    """

    kinds: tuple[str, str]
    colours: tuple[str, str]
    relation: str
    version: int
    shifts: tuple[float, float, float, float]

    @property
    def names(self) -> tuple[str, str]:
        """As ``red circle``."""
        (one, other), (kind, another) = self.colours, self.kinds
        return f"{one} {kind}", f"{other} {another}"

    @property
    def caption(self) -> str:
        """As ``a red circle above a blue square``."""
        return f"a {self.names[0]} {self.relation} a {self.names[1]}"


def scene(made: random.Random) -> Scene:
    """Any."""
    one, other = made.sample(KINDS, 2)
    colour, another = made.sample(COLOURS, 2)
    a, b, c, d = (round(made.uniform(-SHIFT, SHIFT), 3) for _ in range(4))
    return Scene(
        kinds=(one, other),
        colours=(colour, another),
        relation=made.choice(tuple(PLACES)),
        version=made.randrange(2),
        shifts=(a, b, c, d),
    )


def shapes_of(found: Scene) -> tuple[Shape, Shape]:
    """What is to be drawn."""
    (x, y), (u, v) = PLACES[found.relation][found.version]
    a, b, c, d = found.shifts
    first, second = zip(found.kinds, found.colours, strict=True)
    return (
        Shape(kind=first[0], colour=first[1], x=x + a, y=y + b, radius=RADIUS),
        Shape(kind=second[0], colour=second[1], x=u + c, y=v + d, radius=RADIUS),
    )
