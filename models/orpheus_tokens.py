"""Orpheus: a language model that writes audio. Text and voice to a prompt; the tokens it writes to windows of frames.

The model's own tokens are `<custom_token_N>`. Seven of them make a frame of 2048 samples at 24 kHz, for a codec (SNAC)
of three levels, of which a frame has one, two and four codes in the order 0 1 2 2 1 2 2. A code is one of 4096, and
every place in a frame has its own tokens for them: N = 10 + 4096 * place + code. After canopyai/Orpheus-TTS.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from streaming.text import split_sentences

VOICES = ("tara", "leah", "jess", "leo", "dan", "mia", "zac", "zoe")
"""Of the English model, in the order of how natural its makers find them."""
PROMPT = "<custom_token_3><|begin_of_text|>{voice}: {text}<|eot_id|><custom_token_4><custom_token_5><custom_token_1>"
"""Start of human, what is said and by whom, end of human, start of AI, start of speech."""
END_OF_SPEECH = 2
FIRST_CODE, CODES, PLACES = 10, 4096, 7
FRAME_SAMPLES = 2048
WINDOW_FRAMES, BEHIND = 4, 2
AHEAD = 4
"""How many times as much as a window keeps has been kept before, where it keeps more than a frame."""
LEVELS = ((0,), (1, 4), (2, 3, 5, 6))
"""The places of a frame that hold the codes of each level, in order of time."""

Frame: TypeAlias = tuple[int, ...]
"""Seven codes."""

_TOKEN = re.compile(r"<custom_token_(\d{1,6})>")
_UNFINISHED = re.compile(r"<[a-z_0-9]{0,20}\Z")
_CONTROL = re.compile(r"<\|[^<>]*\|>|<custom_token_\d*>")


def prompts(text: str, voice: str, template: str, most: int) -> Iterator[tuple[str, int]]:
    """The prompts that a text takes, each with how many of its characters they have covered by then.

    The model writes some fifteen seconds well, so a text is cut at sentences into parts of at most `most` characters.
    Tags such as <laugh> stay as they are, but what would command the model is taken out.
    """
    start = 0
    for end in _parts(text, most):
        said = " ".join(_CONTROL.sub(" ", _speakable(text[start:end])).split())
        if any(map(str.isalnum, said)):
            yield template.format(voice=voice, text=said), end
        start = end


def _parts(text: str, most: int) -> Iterator[int]:
    """Where the parts end: as many sentences in one as fit."""
    start = end = 0
    for piece in split_sentences(text, most):
        if piece.end - start > most and end > start:
            yield end
            start = end
        end = piece.end
    if end > start:
        yield len(text)


def _speakable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


class TokenReader:
    """Finds the tokens in text that arrives in bits, which may end in the middle of one."""

    def __init__(self) -> None:
        self._rest = ""

    def read(self, text: str) -> list[int]:
        """The numbers of the tokens that are complete now."""
        text = self._rest + text
        numbers = [int(found) for found in _TOKEN.findall(text)]
        unfinished = _UNFINISHED.search(text)
        self._rest = unfinished[0] if unfinished else ""
        return numbers


def frames(numbers: Iterable[int]) -> Iterator[Frame]:
    """Frames of the tokens of one utterance, until it ends.

    A token out of place costs the frame that it is in: the next one begins where a first code comes.
    """
    codes: list[int] = []
    for number in numbers:
        if number == END_OF_SPEECH:
            return
        place, code = divmod(number - FIRST_CODE, CODES)
        if not 0 <= place < PLACES:
            continue
        if place != len(codes):
            codes.clear()
        if place == len(codes):
            codes.append(code)
        if len(codes) == PLACES:
            yield tuple(codes)
            codes.clear()


class Window(NamedTuple):
    """Frames to decode together; `frames[first:last]` are kept of them, the others are what surrounds those."""

    frames: Sequence[Frame]
    first: int
    last: int


def windows(heard: Iterable[Frame], most: int = 1) -> Iterator[Window]:
    """Frames in windows of four, of which the third is heard when the fifth has come; every frame is kept once.

    A frame is decoded with one before it and two behind, except at the ends of an utterance, where there are none.
    That is four times the work. With `most` above 1, windows keep more frames, up to so many, the more have been kept
    before: somebody who already has as much again to hear does not notice.
    """
    recent: list[Frame] = []
    first = kept = 0
    for frame in heard:
        recent.append(frame)
        last = len(recent) - BEHIND
        if last - first == (max(1, min(most, kept // AHEAD)) if kept else WINDOW_FRAMES - BEHIND):
            yield Window(tuple(recent), first, last)
            kept += last - first
            del recent[: last - 1]
            first = 1
    if recent:  # the last three, of which the first was kept; or all there are
        yield Window(tuple(recent), first, len(recent))


def levels(row: Sequence[Frame]) -> list[list[int]]:
    """The codes of each of the codec's three levels, in order of time."""
    return [[frame[place] for frame in row for place in places] for places in LEVELS]
