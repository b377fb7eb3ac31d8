"""Whole windows of speech, run on a Whisper model: encoded, their language found, decoded and their words aligned.

A batch is encoded once. What has to be decoded again keeps its encoding on a CPU, where encoding is most of the work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.whisper_decoding import FRAMES_PER_SECOND, AlignedWord, Decoded, Thresholds, aligned_word, without_loop
from models.whisper_jobs import Job, Outcome

TOKENS_PER_SECOND = 40
SPARE_TOKENS = 32
"""A window is given no more tokens than anybody could say in its time: most loops end there."""


@dataclass(frozen=True, slots=True)
class Search:
    """How the text of a window is looked for; `best_of` is for temperatures above 0."""

    beam_size: int
    best_of: int
    cut_loops: bool


class Windows:
    """`model` is faster-whisper's, `tokenizer` makes one for a language and a task; `join` joins marks to words.

    `stored` makes CTranslate2's form of encodings that were kept; without it none are.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Callable[[str, str], Any],
        suppressed: Sequence[int],
        join: Callable[[list[dict[str, Any]]], None],
        search: Search,
        thresholds: Callable[[], Thresholds],
        stored: Callable[[npt.NDArray[Any]], Any] | None,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._suppressed = list(suppressed)
        self._join = join
        self._search = search
        self._thresholds = thresholds
        self._stored = stored

    def run(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Jobs of one key, in the lane's thread."""
        encoded = self._encode(jobs)
        languages = self._languages(jobs, encoded)
        decoded = self._decode(jobs, languages, encoded) if jobs[0].tokens is None else [None] * len(jobs)
        words = self._align(jobs, languages, decoded, encoded)
        outcomes = []
        for index, (job, language, text, spoken) in enumerate(zip(jobs, languages, decoded, words, strict=True)):
            final = spoken is not None or (text is not None and self._thresholds().accepts(text) and not job.words)
            outcomes.append(Outcome(language, text, spoken, None if final else self._kept(index, job, encoded)))
        return outcomes

    def _encode(self, jobs: Sequence[Job]) -> Any:
        if jobs[0].encoded is not None:
            assert self._stored is not None  # noqa: S101 - else nothing was kept
            return self._stored(np.stack([job.encoded for job in jobs if job.encoded is not None]))
        return self._model.encode(np.stack([job.features for job in jobs]))

    def _kept(self, index: int, job: Job, encoded: Any) -> Any:
        """One row of the encoder's output for later, where it can be had cheaply."""
        if self._stored is None or job.encoded is not None:
            return None
        return np.asarray(encoded)[index].copy()

    def _languages(self, jobs: Sequence[Job], encoded: Any) -> list[str]:
        if all(job.language for job in jobs):
            return [job.language for job in jobs]
        detected = self._model.model.detect_language(encoded)
        return [job.language or rows[0][0].strip("<|>") for job, rows in zip(jobs, detected, strict=True)]

    def _decode(self, jobs: Sequence[Job], languages: Sequence[str], encoded: Any) -> list[Decoded | None]:
        prompts = []
        for job, language in zip(jobs, languages, strict=True):
            tokenizer = self._tokenizer(language, job.task)
            plain = () if job.timestamps else (tokenizer.no_timestamps,)
            prompts.append([*job.prompt, *tokenizer.sot_sequence, *plain])
        longest = max(job.seconds for job in jobs)
        room = SPARE_TOKENS + math.ceil(TOKENS_PER_SECOND * longest)
        temperature = jobs[0].temperature
        search = (
            {"beam_size": 1, "num_hypotheses": self._search.best_of, "sampling_topk": 0}
            | {"sampling_temperature": temperature}
            if temperature
            else {"beam_size": self._search.beam_size}
        )
        results = self._model.model.generate(
            encoded,
            prompts,
            max_length=min(self._model.max_length, len(prompts[0]) + room),
            return_scores=True,
            return_no_speech_prob=True,
            suppress_tokens=self._suppressed,
            **search,
        )
        return [self._decoded(result, temperature) for result in results]

    def _decoded(self, result: Any, temperature: float) -> Decoded:
        tokens = result.sequences_ids[0]
        # Scores are means over the tokens; the end of the text counts as one more.
        avg_logprob = result.scores[0] * len(tokens) / (len(tokens) + 1)
        tokenizer = self._tokenizer("en", "transcribe")
        looped = False
        if self._search.cut_loops:
            tokens, looped = without_loop(tokens, lambda token: token < tokenizer.eot)
        return Decoded(
            tuple(tokens), tokenizer.decode(list(tokens)), temperature, avg_logprob, result.no_speech_prob, looped
        )

    def _align(
        self, jobs: Sequence[Job], languages: Sequence[str], decoded: Sequence[Decoded | None], encoded: Any
    ) -> list[tuple[AlignedWord, ...] | None]:
        """Words of the jobs that want them and have their final text, if one start sequence serves the whole batch."""
        texts: list[list[int] | None] = []
        for job, text in zip(jobs, decoded, strict=True):
            tokens = job.tokens
            if tokens is None and text is not None and job.words and self._thresholds().accepts(text):
                tokens = text.tokens
            end_of_text = self._tokenizer("en", "transcribe").eot
            texts.append(None if tokens is None else [token for token in tokens if token < end_of_text])
        starts = {(language, job.task) for job, language in zip(jobs, languages, strict=True)}
        if len(starts) > 1 or all(text is None for text in texts):
            return [None] * len(jobs)
        tokenizer = self._tokenizer(*starts.pop())
        frames = [max(round(job.seconds * FRAMES_PER_SECOND), 2) for job in jobs]
        timings = self._model.find_alignment(tokenizer, [text or [] for text in texts], encoded, frames)
        for timing in timings:
            self._join(timing)
        return [
            None if text is None else tuple(aligned_word(each) for each in timing if each["word"])
            for text, timing in zip(texts, timings, strict=True)
        ]
