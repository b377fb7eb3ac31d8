"""Whether a Whisper model may hear short windows: the same speech in its whole window and in a short one, word by word.

An encoder that was trained on windows of 30 seconds can go wrong on less, and some models do. What is measured is the
final text of turns, in which nothing else differs; live hypotheses hear windows of the same lengths.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import numpy as np

from models.catalog import Card, Catalog
from models.interfaces import ListenRequest, Samples, SegmentResult, SpeechChunk, SpeechRequest
from models.pool import Lease, Pool
from models.run import Run
from streaming.audio import Resampler
from streaming.decode import decode
from streaming.voice_activity import SAMPLE_RATE, SileroVoiceActivity, TurnDetection, find_turns

LONGEST_TURN = 8.0
BLOCK = SAMPLE_RATE // 10
SAME, USABLE = 1.1, 1.5
"""Times the word error rate in whole windows: up to the first a short one is as good, up to the second good enough for
hypotheses."""
SLACK = 0.01
"""Word error rate by which two may differ by chance."""
UNINTELLIGIBLE = 0.6
"""Word error rate in whole windows from which nothing can be told: the model does not understand this speech."""
FILE = "zz-calibration.toml"
"""In the folder of cards; read after all others."""
VOICES = ("en-us+klatt6", "en-us+f3", "en-gb+m7")
SENTENCES = (
    "I would like a cup of coffee and a glass of cold water, please.",
    "The train to the north leaves at half past seven in the morning.",
    "She opened the window because the room had become too warm.",
    "We should talk about the price before we sign anything.",
    "My brother lives in a small house near the river.",
    "Please call me back as soon as you have heard from the doctor.",
    "The children played in the garden until it was dark.",
    "There are three reasons why this plan will not work.",
)


@dataclass(frozen=True, slots=True)
class Clip:
    """Speech in turns of a few seconds, and what is said in it, where that is known."""

    turns: tuple[Samples, ...]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Heard:
    """Texts of clips, and the seconds from the end of each turn to its text."""

    texts: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """`full` and `auto` are word error rates; without known texts, `auto` counts what differs from the whole window."""

    words: int
    full: float
    auto: float
    speedup: float

    @property
    def understood(self) -> bool:
        """Whether the rest means anything."""
        return self.words > 0 and self.full < UNINTELLIGIBLE

    @property
    def options(self) -> dict[str, Any]:
        """What the card should say."""
        if self.auto <= SAME * self.full + SLACK:
            return {"encoder_context": "auto", "short_windows": True}
        if self.auto <= USABLE * self.full + SLACK:
            return {"encoder_context": "auto", "short_windows": False}
        return {"encoder_context": "full", "short_windows": False}


def judge(clips: Sequence[Clip], full: Heard, auto: Heard) -> Verdict:
    """Compare what was heard of the same clips."""
    references = [clip.text or text for clip, text in zip(clips, full.texts, strict=True)]
    words = sum(len(_words(text)) for text in references)
    rates = [
        sum(_errors(_words(said), _words(text)) for said, text in zip(references, heard.texts, strict=True))
        / max(words, 1)
        for heard in (full, auto)
    ]
    return Verdict(words, rates[0], rates[1], full.seconds / max(auto.seconds, 1e-9))


async def listen(card: Card, clips: Sequence[Clip], memory_budget_mb: int | None, **options: Any) -> Heard:
    """Hear clips with other options than the card's, in a worker of its own. Raises: EngineError."""
    changed = msgspec.structs.replace(card, options=card.options | options)
    texts: list[str] = []
    seconds = 0.0
    catalog = await anyio.to_thread.run_sync(Catalog, [changed])  # looks what is installed
    async with Pool(catalog, memory_budget_mb=memory_budget_mb) as pool, pool.lease(changed) as lease:
        for clip in clips:
            heard = [await _hear(lease, turn) for turn in clip.turns]
            texts.append(" ".join(text for text, _ in heard))
            seconds += sum(took for _, took in heard)
    return Heard(tuple(texts), seconds)


async def spoken(catalog: Catalog) -> list[Clip]:
    """English sentences in three voices of the embedded engine. Raises: EngineError."""
    card = catalog.find("espeak-ng", "speech").card
    clips: list[Clip] = []
    async with Pool(catalog) as pool, pool.lease(card) as lease:
        for number, text in enumerate(SENTENCES):
            resampler = Resampler(card.sample_rate, SAMPLE_RATE)
            async with lease.run(SpeechRequest(text, VOICES[number % len(VOICES)])) as run:
                parts = [resampler.process(each.samples) async for each in run if isinstance(each, SpeechChunk)]
            pause = np.zeros(SAMPLE_RATE // 2, np.float32)
            clips.append(Clip((np.concatenate([pause, *parts, resampler.finish(), pause]),), text))
    return clips


def recorded(path: Path, voice_activity: SileroVoiceActivity) -> Clip:
    """A recording cut into turns; a text file of the same name is what is said. Raises: UndecodableAudio, OSError."""
    samples = np.concatenate([chunk.samples for chunk in decode(path, sample_rate=SAMPLE_RATE)])
    detection = TurnDetection(max_speech=LONGEST_TURN)
    turns = find_turns(voice_activity.over(samples), detection, total_samples=len(samples))
    text = path.with_suffix(".txt")
    return Clip(tuple(samples[start:end] for start, end in turns), text.read_text() if text.exists() else "")


def save(folder: Path, card: Card, options: dict[str, Any]) -> Path:
    """Let the card's options be these from now on; what was saved for other cards stays. Raises: OSError."""
    path = folder / FILE
    cards: dict[str, dict[str, Any]] = {}
    if path.exists():
        cards = {table["id"]: table["options"] for table in msgspec.toml.decode(path.read_bytes())["card"]}
    cards[card.id] = card.options | options
    path.write_text("".join(_table(id, own) for id, own in sorted(cards.items())))
    return path


async def _hear(lease: Lease, turn: Samples) -> tuple[str, float]:
    ended = 0.0

    async def feed(run: Run) -> None:
        nonlocal ended
        for start in range(0, len(turn), BLOCK):
            await run.feed(turn[start : start + BLOCK])
        ended = time.monotonic()
        await run.finish_feeding()

    text = ""
    async with lease.run(ListenRequest()) as run, anyio.create_task_group() as tasks:
        tasks.start_soon(feed, run)
        async for result in run:
            if isinstance(result, SegmentResult):
                text = result.segment.text
    return text, time.monotonic() - ended


def _words(text: str) -> list[str]:
    kept = "".join(character if character.isalnum() else " " for character in text.casefold().replace("'", ""))
    return kept.split()


def _errors(said: Sequence[str], heard: Sequence[str]) -> int:
    """Words to insert, delete or replace (Levenshtein 1966), a row of the table at a time."""
    row = list(range(len(heard) + 1))
    for number, word in enumerate(said, start=1):
        before, row = row, [number]
        for column, other in enumerate(heard, start=1):
            row.append(min(before[column] + 1, row[-1] + 1, before[column - 1] + (word != other)))
    return row[-1]


def _table(id: str, options: dict[str, Any]) -> str:
    lines = (f"{key} = {_toml(value)}" for key, value in options.items())
    return f"[[card]]\nid = {json.dumps(id)}\n[card.options]\n" + "".join(f"{line}\n" for line in lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, float):
        return repr(value)  # infinities too
    return json.dumps(value)


def described(verdict: Verdict) -> Iterator[str]:
    """What was found, in lines."""
    yield f"{verdict.words} words"
    yield f"word error rate in whole windows {verdict.full:.3f}, in short ones {verdict.auto:.3f}"
    yield f"a final text is there {verdict.speedup:.1f} times as soon in short windows"
    if not verdict.understood:
        yield "nothing can be told by that: the model does not understand this speech; name recordings that it does"
        return
    for key, value in verdict.options.items():
        yield f"{key} = {_toml(value)}"
