"""The judge of turns that comes with the server: whether a sentence is whole, by its last words and its melody.

Words that cannot end a sentence, hesitations, commas and numbers that are still being read say that more is to come;
marks that end a sentence and words of assent say that it is not. A voice that falls to its floor is done, one that
stays up is not. Each is evidence in logits, and they add up; the weights of the melody are those of a logistic
regression on synthetic voices, rounded (`tests.bench.end_of_turn` measures what comes of it).

Languages whose words are not listed are judged by marks and melody alone.
"""

from __future__ import annotations

import math
import re
import unicodedata

from streaming.endpointing import Pause
from streaming.languages import primary_language
from streaming.prosody import Cadence, cadence
from streaming.turn_words import ALONE, DISCOURSE, ECHOES, HESITATIONS, NUMBERS, OPEN_WORDS, PRONOUNS, WHOLE

READ_OUT = 3
"""Numbers in a row that are being read out: of such one does not know where they end."""
LONGEST_NUMBER = 10

_ENDS = (".", "。", "।")
_ASKS = ("!", "?", "！", "？", "؟")
_GOES_ON = (",", ";", ":", "-", "–", "—", "…", "...", "、", "，")

PRIOR = 0.4
OPEN, HESITATING, HOLDING, COUNTING, COMMA = -3.0, -4.0, -1.5, -0.8, -2.0
ENDED, ASKED, ANSWERED = 0.4, 1.2, 2.0
"""Logits. A full stop is worth little: recognisers put one behind everything."""
PITCH, PITCH_LEVEL, MOST_MELODY = -0.9, -2.2, 2.5
"""Logits a semitone, where the melody says nothing, and the most that it may say."""


class HeuristicJudge:
    """Implements EndOfTurnJudge: some milliseconds of arithmetic, and a few words in four languages."""

    reads = True

    def probability(self, pause: Pause) -> float:
        """How probable it is that the turn is over."""
        evidence = PRIOR + of_text(pause.text, pause.language) + of_melody(cadence(pause.samples))
        return 1 / (1 + math.exp(-evidence))


def of_melody(heard: Cadence | None) -> float:
    """Logits for the end, by the voice. A rise at the end asks: that is an end too, but only a steep one."""
    if heard is None:
        return 0.0
    fall = PITCH * (heard.pitch - PITCH_LEVEL)
    asked = 1.5 if heard.slope > 25.0 and heard.pitch > 1.0 else 0.0
    return min(max(fall, -MOST_MELODY), MOST_MELODY) + asked


def of_text(text: str, language: str = "") -> float:
    """Logits for the end, by the words believed so far. Without words there is nothing to go by."""
    text = text.strip()
    words = [word for word in map(_plain, text.split()) if word]
    if not words:
        return 0.0
    key = primary_language(language) or "en"
    last = words[-1]
    if last in HESITATIONS:
        return HESITATING
    if last in OPEN_WORDS.get(key, ()) and not _asks_or_answers(words, key):
        return OPEN
    if last in DISCOURSE.get(key, ()) or "-".join(words[-2:]) in DISCOURSE.get(key, ()):
        return HOLDING
    if text.endswith(_GOES_ON):
        return COMMA
    evidence = ENDED if text.endswith(_ENDS) else ASKED if text.endswith(_ASKS) else 0.0
    if len(words) <= 2 and last in WHOLE.get(key, ()):
        return evidence + ANSWERED
    return evidence + (COUNTING if READ_OUT <= _numbers_at_end(words) < LONGEST_NUMBER else 0.0)


def _asks_or_answers(words: list[str], key: str) -> bool:
    """Short answers and echoes may end in any word: "no", "she is", "what?"."""
    if len(words) == 1:
        return words[0] in WHOLE.get(key, ()) or (key == "en" and words[0] in ALONE)
    return key == "en" and len(words) <= 4 and words[-2] in PRONOUNS and words[-1] in ECHOES


def _numbers_at_end(words: list[str]) -> int:
    count = 0
    for word in reversed(words):
        if word in NUMBERS or (word.isdigit() and len(word) == 1):
            count += 1
        elif word.isdigit():
            count += len(word)
        else:
            break
    return count


def _plain(word: str) -> str:
    folded = unicodedata.normalize("NFC", word).casefold().replace("’", "'")
    return re.sub(r"^[^\w']+|[^\w']+$", "", folded)
