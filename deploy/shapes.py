"""Drawn scenes with captions: what `shapes-64` learns from, and the check that reads a scene back from pixels.

A scene is one flat shape on a flat background. `caption` says it in words, `draw` paints it, `read` finds background,
colour and shape in any picture of this kind, painted or generated. Only numpy and Pillow are needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product
from random import Random
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Pixels: TypeAlias = NDArray[np.uint8]
"""(height, width, 3), RGB."""

SIDE = 64
COLOURS = {
    "red": (220, 40, 40), "orange": (250, 140, 20), "yellow": (250, 225, 50), "green": (40, 160, 70),
    "blue": (40, 80, 220), "purple": (140, 50, 180), "white": (245, 245, 245), "black": (20, 20, 20),
}  # fmt: skip
_ROUND = [(math.sin(math.tau * i / 60), -math.cos(math.tau * i / 60)) for i in range(60)]
_ARMS = [(0.38, 1), (0.38, 0.38), (1, 0.38), (1, -0.38), (0.38, -0.38), (0.38, -1)]
SHAPES = {
    "circle": _ROUND,
    "square": [(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)],
    "triangle": [(0, -1.2), (1.04, 0.6), (-1.04, 0.6)],
    "star": [(x * r, y * r) for (x, y), r in zip(_ROUND[::6], (1.15, 0.46) * 5, strict=True)],
    "cross": _ARMS + [(-x, y) for x, y in reversed(_ARMS)],
    "diamond": [(0, -1.15), (0.8, 0), (0, 1.15), (-0.8, 0)],
}
"""Polygons around their centroid, for a radius of 1; y points down."""
REACH = 1.2
SIZES = {"small": 8.5, "medium": 14.0, "large": 20.0}
"""Radius in pixels."""
PLACES = {
    "centre": (0, 0), "left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1),
    "top left": (-1, -1), "top right": (1, -1), "bottom left": (-1, 1), "bottom right": (1, 1),
}  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """One shape on a background. "" is unsaid: any colour, any shape, any place; an unsaid size is medium."""

    shape: str = ""
    colour: str = ""
    background: str = ""
    size: str = ""
    place: str = ""


FIELDS: dict[str, tuple[str, ...]] = {
    "shape": ("", *SHAPES), "colour": ("", *COLOURS), "background": ("", *COLOURS),
    "size": ("", *SIZES), "place": ("", *PLACES),
}  # fmt: skip
"""All that each field of a scene may hold."""

_TRIPLES = [triple for triple in product(SHAPES, COLOURS, COLOURS) if triple[1] != triple[2]]
HELD_OUT = frozenset(Random(64).sample(_TRIPLES, 60))  # noqa: S311 - data, not secrets
"""(shape, colour, background): combinations that no training picture shows."""
TRAINED = tuple(triple for triple in _TRIPLES if triple not in HELD_OUT)


def any_scene(chance: Random) -> Scene:
    """A whole scene that training may show."""
    shape, colour, background = chance.choice(TRAINED)
    size = chance.choice(("small", "medium", "medium", "large"))
    return Scene(shape, colour, background, size, chance.choice(tuple(PLACES)))


def held_out_prompts(seed: int = 0) -> list[tuple[str, Scene]]:
    """Sixty prompts, one for every combination never shown in training, with the scene each asks for."""
    chance = Random(seed)  # noqa: S311 - data, not secrets
    scenes = [replace(any_scene(chance), shape=s, colour=c, background=b) for s, c, b in sorted(HELD_OUT)]
    said = [replace(scene, place="") if chance.random() < 0.4 else scene for scene in scenes]
    return [(caption(scene, chance), scene) for scene in said]


# Words

_OTHER_WORDS = {
    "circle": ("disc", "disk", "dot"), "square": ("box",), "star": (), "triangle": (), "cross": ("plus",),
    "diamond": ("rhombus",), "purple": ("violet",), "small": ("little", "tiny"), "large": ("big", "huge"),
    "": ("shape", "thing", "figure"),
}  # fmt: skip
_FILLERS = ("nice", "flat", "simple", "bright", "beautiful", "minimal", "clean", "plain", "coloured")
_OPENINGS = (
    "",
    "",
    "",
    "",
    "a picture of ",
    "a drawing of ",
    "an image of ",
    "draw ",
    "please draw ",
    "show me ",
    "a photo of ",
)


def omit(scene: Scene, chance: Random) -> Scene:
    """The scene with some of it left unsaid, as people do."""
    unsaid = {"shape": 0.05, "colour": 0.05, "background": 0.1, "place": 0.4}
    said = replace(scene, **{field: "" for field, share in unsaid.items() if chance.random() < share})
    return replace(said, size="") if said.size == "medium" and chance.random() < 0.9 else said


def caption(scene: Scene, chance: Random) -> str:
    """One of many ways to say what `scene` says, such as "a small red circle on a blue background, top left"."""
    subject = _article(" ".join(filter(None, (_say(scene.size, chance), _say(scene.colour, chance)))), scene, chance)
    ground, place = _ground(_say(scene.background, chance), chance), _place(scene.place, chance)
    opening = chance.choice(_OPENINGS)
    order = chance.random()
    if order < 0.45:
        text = (
            f"{opening}{subject} {ground}, {place}" if chance.random() < 0.6 else f"{opening}{subject} {ground} {place}"
        )
    elif order < 0.8:
        text = f"{opening}{subject} {place} {ground}"
    elif order < 0.9:
        text = f"{ground}, {subject} {place}"
    else:
        text = f"{place}, {subject} {ground}"
    return " ".join(text.replace(" ,", ",").strip(" ,").split())


def _say(word: str, chance: Random) -> str:
    return chance.choice(_OTHER_WORDS[word]) if _OTHER_WORDS.get(word) and word and chance.random() < 0.2 else word


def _article(adjectives: str, scene: Scene, chance: Random) -> str:
    noun = _say(scene.shape, chance) or chance.choice(_OTHER_WORDS[""])
    filler = chance.choice(_FILLERS) if chance.random() < 0.08 else ""
    phrase = " ".join(filter(None, (filler, adjectives, noun)))
    draw = chance.random()
    if draw < 0.8:
        return ("an " if phrase[0] in "aeiou" else "a ") + phrase
    return ("the " if draw < 0.88 else "one " if draw < 0.92 else "") + phrase


def _ground(background: str, chance: Random) -> str:
    if not background:
        return ""
    an = "an" if background[0] in "aeiou" else "a"
    return chance.choice(
        (
            *(f"on {an} {background} background",) * 5, f"on {background}", f"over {an} {background} background",
            f"against {an} {background} background", f"with {an} {background} background",
            f"{background} background", f"in front of {an} {background} background", f"on a {background} canvas",
        )
    )  # fmt: skip


def _place(place: str, chance: Random) -> str:
    if not place:
        return ""
    if place == "centre":
        return chance.choice(("centre", "in the centre", "in the center", "in the middle", "centred", "centered"))
    corner = " corner" if " " in place else " side"
    if chance.random() < 0.2:
        place = place.replace("top", "upper").replace("bottom", "lower")
        return f"in the {place}{corner}"
    ways = (place, place, f"in the {place}", f"at the {place}", f"on the {place}")
    return chance.choice((*ways, f"in the {place}{corner}"))


def words() -> list[str]:
    """Every word that a caption may hold, and a few that people say around them."""
    chance = Random(0)  # noqa: S311 - data, not secrets
    texts = [caption(omit(any_scene(chance), chance), chance) for _ in range(20_000)]
    listed = {word for ways in _OTHER_WORDS.values() for word in ways} | set(_FILLERS)
    return sorted({word for text in texts for word in text.replace(",", " ").split()} | listed - {""})


# Pixels


def draw(scene: Scene, chance: Random) -> Pixels:
    """Paint a whole scene, its place and size a little off now and then."""
    radius = SIZES[scene.size] * chance.uniform(0.92, 1.08)
    room = SIDE / 2 - 1.5 - radius * REACH
    spread = min(3.0, room)
    x, y = (
        SIDE / 2 + (towards * room * chance.uniform(0.75, 1) if towards else chance.uniform(-spread, spread))
        for towards in PLACES[scene.place]
    )
    return paint(scene.shape, COLOURS[scene.colour], COLOURS[scene.background], x, y, radius)


def paint(
    shape: str, colour: tuple[int, int, int], background: tuple[int, int, int], x: float, y: float, radius: float
) -> Pixels:
    """The shape with its centroid at (x, y) pixels from the top left corner, with smooth edges."""
    covered = coverage(shape, x, y, radius)[..., None]
    ground, front = np.array(background, np.float32), np.array(colour, np.float32)
    painted: Pixels = np.rint(ground + (front - ground) * covered).astype(np.uint8)
    return painted


def coverage(shape: str, x: float, y: float, radius: float, side: int = SIDE) -> NDArray[Any]:
    """(side, side): how much of each pixel the shape covers, 0 to 1."""
    fine = 4
    canvas = Image.new("L", (side * fine, side * fine))
    corners = [(fine * (x + radius * across) - 0.5, fine * (y + radius * down) - 0.5) for across, down in SHAPES[shape]]
    ImageDraw.Draw(canvas).polygon(corners, fill=255)
    return np.asarray(canvas.reduce(fine), np.float32) / 255


@dataclass(frozen=True)
class Reading:
    """What a picture shows; "" where nothing of the kind is to be seen."""

    background: str
    colour: str
    shape: str


FAINTEST = 60.0
"""Distance in RGB below which the foreground is taken for a stain."""
LEAST_OVERLAP = 0.75


def read(pixels: Pixels) -> Reading:
    """Background: the median of the border. Colour: the median of what is furthest from it. Shape: `_shape_of`."""
    picture = pixels.astype(np.float32)
    border = np.concatenate((picture[0], picture[-1], picture[:, 0], picture[:, -1]))
    ground = np.median(border, axis=0)
    distance = np.linalg.norm(picture - ground, axis=-1)
    furthest = float(np.quantile(distance, 0.99))
    if furthest < FAINTEST:
        return Reading(_nearest(ground), "", "")
    front = np.median(picture[distance > 0.75 * furthest], axis=0)
    towards = front - ground
    along = (picture - ground) @ towards / (towards @ towards)
    covered = np.clip(2 * along - 0.5, 0, 1)  # noise and soft edges are neither area nor hole
    return Reading(_nearest(ground), _nearest(front), _shape_of(covered))


def _nearest(colour: NDArray[Any]) -> str:
    return min(COLOURS, key=lambda name: float(np.linalg.norm(colour - np.array(COLOURS[name]))))


def _shape_of(covered: NDArray[Any]) -> str:
    """The shape of the same area and centroid that overlaps most, or "" when none overlaps well."""
    area = float(covered.sum())
    down, across = np.indices(covered.shape) + 0.5
    x, y = float((covered * across).sum() / area), float((covered * down).sum() / area)
    overlaps = {}
    for shape, corners in SHAPES.items():
        template = coverage(shape, x, y, math.sqrt(area / _area(corners)), side=covered.shape[0])
        overlaps[shape] = float(np.minimum(covered, template).sum() / np.maximum(covered, template).sum())
    best = max(overlaps, key=overlaps.__getitem__)
    return best if overlaps[best] >= LEAST_OVERLAP else ""


def _area(corners: list[tuple[float, float]]) -> float:
    following = [*corners[1:], corners[0]]
    return abs(sum(a * d - b * c for (a, b), (c, d) in zip(corners, following, strict=True))) / 2
