"""Drawn clips with captions: what `moving-shapes-64` learns from, and the check that reads a clip back from pixels.

A clip is one flat shape that goes straight over a flat background, or stands still. `caption` says it in words, `draw`
paints its frames, `read_clip` finds background, colour, shape and direction in any clip of this kind, painted or
generated. What holds for a single frame is that of `deploy.shapes`, with whose held-out combinations it also agrees.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import cycle
from random import Random
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deploy.shapes import COLOURS, FAINTEST, HELD_OUT, REACH, SHAPES, SIDE, TRAINED, Pixels, Reading, paint, read

Clip: TypeAlias = NDArray[np.uint8]
"""(frames, height, width, 3), RGB."""

FRAMES = 16
"""Of a clip that goes all the way from one side to the other."""
FPS = 8
SIZES = {"small": 8.5, "medium": 11.0, "large": 14.5}
"""Radius in pixels."""
DIRECTIONS = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1), "still": (0, 0)}
FIELDS: dict[str, tuple[str, ...]] = {
    "shape": ("", *SHAPES), "colour": ("", *COLOURS), "background": ("", *COLOURS),
    "size": ("", *SIZES), "direction": ("", *DIRECTIONS),
}  # fmt: skip
"""All that each field of a scene may hold."""
LEAST_WAY = 8.0
"""Pixels between first and last frame below which a shape stands still."""


@dataclass(frozen=True)
class MovingScene:
    """One shape on its way over a background. "" is unsaid: any colour, any way; an unsaid size is medium."""

    shape: str = ""
    colour: str = ""
    background: str = ""
    size: str = ""
    direction: str = ""


def any_scene(chance: Random) -> MovingScene:
    """A whole scene that training may show."""
    shape, colour, background = chance.choice(TRAINED)
    size = chance.choice(("small", "medium", "medium", "large"))
    return MovingScene(shape, colour, background, size, chance.choice(tuple(DIRECTIONS)))


def held_out_prompts(count: int = 40, seed: int = 0) -> list[tuple[str, MovingScene]]:
    """The first of forty prompts for shape, colour and background as never shown in training, directions in turn."""
    chance = Random(seed)  # noqa: S311 - data, not secrets
    chosen = zip(chance.sample(sorted(HELD_OUT), 40), cycle(DIRECTIONS), strict=False)
    scenes = [MovingScene(*triple, chance.choice(("", "small", "large")), direction) for triple, direction in chosen]
    return [(caption(scene, chance), scene) for scene in scenes][:count]


# Words

_OTHER_WORDS = {
    "circle": ("disc", "disk", "dot", "ball"), "square": ("box",), "cross": ("plus",), "diamond": ("rhombus",),
    "purple": ("violet",), "small": ("little", "tiny"), "large": ("big", "huge"),
}  # fmt: skip
_NOUNS = ("shape", "thing", "figure")
_OPENINGS = (
    "", "", "", "", "a video of ", "a clip of ", "an animation of ", "a film of ", "show me ", "animate ",
    "please draw ", "a picture of ",
)  # fmt: skip
_GOING = ("moving", "moving", "moving", "going", "sliding", "flying", "travelling", "gliding", "drifting", "running")
_WAYS = {
    "right": ("from left to right", "from the left to the right"),
    "left": ("from right to left", "from the right to the left"),
    "down": ("from top to bottom", "from the top to the bottom"),
    "up": ("from bottom to top", "from the bottom to the top"),
}
_SINGLE = {"up": ("rising", "climbing"), "down": ("falling", "sinking", "dropping")}
_STILL = (
    "standing still",
    "standing still",
    "not moving",
    "that does not move",
    "at rest",
    "staying in place",
    "still",
)


def omit(scene: MovingScene, chance: Random) -> MovingScene:
    """The scene with some of it left unsaid, as people do."""
    unsaid = {"shape": 0.05, "colour": 0.05, "background": 0.08, "direction": 0.08}
    said = replace(scene, **{field: "" for field, share in unsaid.items() if chance.random() < share})
    return replace(said, size="") if said.size == "medium" and chance.random() < 0.9 else said


def caption(scene: MovingScene, chance: Random) -> str:
    """One of many ways to say what `scene` says, such as "a red circle moving right on a blue background"."""
    adjectives = (_say(scene.size, chance), _say(scene.colour, chance))
    noun = _say(scene.shape, chance) or chance.choice(_NOUNS)
    phrase = " ".join(filter(None, (*adjectives, noun)))
    article = "an " if phrase[0] in "aeiou" else "a "
    subject = chance.choice((article, article, article, article, "the ", "")) + phrase
    ground, motion = _ground(scene.background, chance), _motion(scene.direction, chance)
    order = chance.random()
    if order < 0.5:
        text = f"{subject} {motion} {ground}"
    elif order < 0.8:
        text = f"{subject} {ground}, {motion}" if chance.random() < 0.5 else f"{subject} {ground} {motion}"
    elif order < 0.9:
        text = f"{subject} {motion}, {ground}"
    else:
        text = f"{ground}, {subject} {motion}"
    return " ".join((chance.choice(_OPENINGS) + text.strip(" ,")).replace(" ,", ",").split())


def _say(word: str, chance: Random) -> str:
    return chance.choice(_OTHER_WORDS[word]) if word in _OTHER_WORDS and chance.random() < 0.2 else word


def _ground(background: str, chance: Random) -> str:
    if not background:
        return ""
    an = "an" if background[0] in "aeiou" else "a"
    return chance.choice(
        (
            *(f"on {an} {background} background",) * 4, f"on {background}", f"over {an} {background} background",
            f"against {an} {background} background", f"with {an} {background} background",
            f"{background} background", f"in front of {an} {background} background",
            f"across {an} {background} background",
        )
    )  # fmt: skip


def _motion(direction: str, chance: Random) -> str:
    if not direction:
        return ""
    if direction == "still":
        return chance.choice(_STILL)
    draw = chance.random()
    if draw < 0.15 and direction in _SINGLE:
        return chance.choice(_SINGLE[direction])
    going = chance.choice(_GOING) if chance.random() < 0.85 else chance.choice(("that moves", "which moves"))
    if draw < 0.7:
        return f"{going} {direction}"
    if draw < 0.85:
        return f"{going} {chance.choice(_WAYS[direction])}"
    return f"{going} {direction}wards" if direction in _SINGLE or draw < 0.88 else f"{going} to the {direction}"


def words() -> list[str]:
    """Every word that a caption may hold."""
    chance = Random(0)  # noqa: S311 - data, not secrets
    texts = [caption(omit(any_scene(chance), chance), chance) for _ in range(20_000)]
    listed = {word for ways in _OTHER_WORDS.values() for word in ways}
    return sorted({word for text in texts for word in text.replace(",", " ").split()} | listed)


# Pixels


def draw(scene: MovingScene, chance: Random, frames: int = FRAMES) -> Clip:
    """Paint a whole scene: from one side to the other in `FRAMES` frames, a little off the middle.

    Fewer frames are the beginning of that way.
    """
    radius = SIZES[scene.size or "medium"] * chance.uniform(0.94, 1.06)
    room = SIDE / 2 - 1.5 - radius * REACH
    across, down = DIRECTIONS[scene.direction]
    reach = room * chance.uniform(0.85, 1)
    beside, below = (chance.uniform(-5, 5) * (not towards) for towards in (across, down))
    colour, background = COLOURS[scene.colour], COLOURS[scene.background]
    ways = [reach * (2 * frame / (FRAMES - 1) - 1) for frame in range(frames)]
    places = [(SIDE / 2 + across * way + beside, SIDE / 2 + down * way + below) for way in ways]
    return np.stack([paint(scene.shape, colour, background, x, y, radius) for x, y in places])


@dataclass(frozen=True)
class ClipReading:
    """What a clip shows, "" where nothing of the kind is to be seen.

    `agreed` is the share of frames that show this very background, colour and shape. `bend` is how far, in pixels, the
    shape is at most from where it would be if it went straight, at one speed.
    """

    background: str
    colour: str
    shape: str
    direction: str
    agreed: float
    bend: float


def read_clip(clip: Clip) -> ClipReading:
    """Background, colour and shape as most frames have them; the direction from a line through the places."""
    seen = [read(frame) for frame in clip]
    background, colour, shape = (
        Counter(getattr(frame, field) for frame in seen).most_common(1)[0][0]
        for field in ("background", "colour", "shape")
    )
    agreed = seen.count(Reading(background, colour, shape)) / len(seen)
    direction, bend = _direction([place_of(frame) for frame in clip])
    return ClipReading(background, colour, shape, direction, agreed, bend)


def place_of(pixels: Pixels) -> tuple[float, float] | None:
    """The centroid (x, y), in pixels from the top left corner, of all that is not background; None for a bare one."""
    picture = pixels.astype(np.float32)
    border = np.concatenate((picture[0], picture[-1], picture[:, 0], picture[:, -1]))
    distance = np.linalg.norm(picture - np.median(border, axis=0), axis=-1)
    furthest = float(np.quantile(distance, 0.99))
    if furthest < FAINTEST:
        return None
    down, across = np.nonzero(distance > 0.5 * furthest)
    return float(across.mean()) + 0.5, float(down.mean()) + 0.5


def _direction(places: list[tuple[float, float] | None]) -> tuple[str, float]:
    found: list[tuple[int, float, float]] = [(i, *place) for i, place in enumerate(places) if place is not None]
    if len(found) < max(2, len(places) * 3 // 4):
        return "", float("inf")
    table: NDArray[Any] = np.array(found)
    when, where = table[:, 0], table[:, 1:]
    line = np.polyfit(when, where, 1)  # (2, 2): speed and start, by across and down
    bend = float(np.abs(where - (when[:, None] * line[0] + line[1])).max())
    way = line[0] * (len(places) - 1)
    if np.abs(way).max() < LEAST_WAY * (len(places) - 1) / (FRAMES - 1):
        return "still", bend
    sideways = abs(way[0]) > abs(way[1])
    return (("right" if way[0] > 0 else "left") if sideways else ("down" if way[1] > 0 else "up")), bend
