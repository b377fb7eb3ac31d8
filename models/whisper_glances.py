"""Glances at live turns, run on a Whisper model: short encoder input, greedy, the text's beginning forced.

CTranslate2 takes encoder input of any length up to the model's window, and what comes after the task's tokens in a
prompt as the beginning of the text. It walks through that token by token, as if it had written it: a window with much
text is not cheap, whoever wrote it. Prompts of one batch may begin their texts with different lengths.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from models.whisper_decoding import FRAMES_PER_SECOND, AlignedWord, Decoded, aligned_word, without_loop
from models.whisper_jobs import Glance, Glimpse

TASK = "transcribe"


class Glances:
    """`model` is faster-whisper's, `tokenizer` makes one for a language and a task; `join` joins marks to words."""

    def __init__(
        self,
        model: Any,
        tokenizer: Callable[[str, str], Any],
        suppressed: Sequence[int],
        join: Callable[[list[dict[str, Any]]], None],
        *,
        cut_loops: bool,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._suppressed = list(suppressed)
        self._join = join
        self._cut_loops = cut_loops

    def run(self, glances: Sequence[Glance]) -> list[Glimpse]:
        """Glances of one key, in the lane's thread."""
        began = time.perf_counter()
        encoded = self._model.encode(np.stack([glance.features for glance in glances]))
        language = glances[0].language
        if not language:
            language = self._model.model.detect_language(encoded)[0][0][0].strip("<|>")
        tokenizer = self._tokenizer(language, TASK)
        results = self._generate(glances, tokenizer, encoded)
        texts = [self._written(glance, result, tokenizer) for glance, result in zip(glances, results, strict=True)]
        frames = [max(round(glance.seconds * FRAMES_PER_SECOND), 2) for glance in glances]
        wholes = [[*glance.prefix, *decoded.tokens] for glance, (decoded, _) in zip(glances, texts, strict=True)]
        timings = self._model.find_alignment(tokenizer, wholes, encoded, frames)
        cost = (time.perf_counter() - began) / len(glances)
        return [
            Glimpse(language, decoded, self._words(timing, len(glance.prefix), tokenizer), cut_off, cost)
            for glance, (decoded, cut_off), timing in zip(glances, texts, timings, strict=True)
        ]

    def _generate(self, glances: Sequence[Glance], tokenizer: Any, encoded: Any) -> list[Any]:
        prompts = [
            [*_before(glance, tokenizer), *tokenizer.sot_sequence, tokenizer.no_timestamps, *glance.prefix]
            for glance in glances
        ]
        written = max(len(glance.prefix) + glance.room for glance in glances)
        # CTranslate2 writes at most half of `max_length` tokens, those that it is given included.
        length = min(2 * max(written, len(prompts[0])), self._model.max_length)
        results: list[Any] = self._model.model.generate(
            encoded,
            prompts,
            beam_size=1,
            max_length=length,
            return_scores=True,
            return_no_speech_prob=True,
            suppress_tokens=self._suppressed,
        )
        return results

    def _written(self, glance: Glance, result: Any, tokenizer: Any) -> tuple[Decoded, bool]:
        """What follows the prefix, and whether it did not come to its end."""
        tokens = [token for token in result.sequences_ids[0] if token < tokenizer.eot]
        new = tokens[len(glance.prefix) :]
        # Scores are means over all tokens, of which those that were given count as certain.
        avg_logprob = result.scores[0] * len(result.sequences_ids[0]) / (len(new) + 1)
        cut_off = len(new) >= glance.room
        new = new[: glance.room]
        looped = False
        if self._cut_loops:
            kept, looped = without_loop(new, lambda token: True)
            new = list(kept)
        text = tokenizer.decode(new)
        return Decoded(tuple(new), text, 0.0, avg_logprob, result.no_speech_prob, looped), cut_off

    def _words(self, timing: list[dict[str, Any]], prefix: int, tokenizer: Any) -> tuple[AlignedWord, ...]:
        """The words after the prefix. What would change its last word has no place: its tokens go with the next word.

        So does a mark between two words of which the first is in the prefix.
        """
        spaced = tokenizer.language_code not in NO_SPACES
        given = 0
        carried: list[int] = []
        new: list[dict[str, Any]] = []
        for each in timing:
            tokens = list(each["tokens"])
            known = min(max(prefix - given, 0), len(tokens))
            given += len(tokens)
            if known == len(tokens):
                continue
            continues = prefix and not new and (known or (spaced and not each["word"].startswith(" ")))
            if continues:
                carried += tokens[known:]
            else:
                new.append(each | {"tokens": [*carried, *tokens]})
                carried = []
        self._join(new)
        return tuple(aligned_word(each) for each in new if each["word"])


NO_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""Languages whose words faster-whisper does not find by spaces."""


def _before(glance: Glance, tokenizer: Any) -> tuple[int, ...]:
    return (tokenizer.sot_prev, *glance.prompt) if glance.prompt else ()
