"""Streams through Voxtral Realtime: a causal encoder and a language model that writes a token for every 80 ms.

What it writes is some tokens late (`delay`), and mostly that there is nothing to write yet. Both keep what they need of
what they heard, within their sliding windows, so that a turn of hours costs no more memory than one of minutes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from models.interfaces import Samples
from models.torch_runtime import import_torch
from streaming.transcript import Word

torch = import_torch()


@dataclass(frozen=True, slots=True)
class Written:
    """A token of text: its bytes, and which 80 ms of the audio it is about."""

    text: bytes
    step: int
    probability: float


class RealtimeModel:
    """The model and its processor, for any number of streams; one thread at a time runs it."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model = model
        self.processor = processor
        tokenizer = processor.tokenizer.tokenizer.instruct_tokenizer
        self._pieces = tokenizer.tokenizer
        self.padding = int(tokenizer.audio_encoder.streaming_pad)
        self.controls = {self.padding, int(self._pieces.get_special_token("[STREAMING_WORD]"))}
        """Tokens of no text that belong between words."""
        self.delay = int(processor.num_delay_tokens)
        features = processor.feature_extractor
        self.hop, self.reach = int(features.hop_length), int(features.win_length) // 2
        self.rate = int(features.sampling_rate)
        self.frames_per_token = int(processor.audio_length_per_tok)
        self.token_seconds = self.frames_per_token * self.hop / self.rate

    def text(self, token: int) -> bytes:
        """The bytes of a token; none of one that is no text."""
        piece: bytes = self._pieces.id_to_byte_piece(token)
        return piece


class RealtimeStream:
    """One turn, or one passage of a recording."""

    def __init__(self, model: RealtimeModel) -> None:
        self._model = model
        self._samples = np.zeros(0, np.float32)  # from `_from` on
        self._from = 0
        self._heard = 0
        self._frames = 0  # Mel frames so far
        self._state: dict[str, Any] = {}
        self._last = model.padding
        self._steps = 0
        self.written: list[Written] = []
        """What was written so far."""

    def append(self, samples: Samples) -> None:
        """Take audio of any length."""
        self._samples = np.concatenate((self._samples, samples))
        self._heard += len(samples)

    @property
    def ready(self) -> bool:
        """Whether there is enough audio for the next chunk."""
        return self._heard >= self._end

    @property
    def over(self) -> bool:
        """Whether there is a token about everything that was heard."""
        return self._steps * self._model.frames_per_token * self._model.hop >= self._heard

    @property
    def seconds(self) -> float:
        """Of the next chunk."""
        return self._count * self._model.hop / self._model.rate

    def hear(self) -> bool:
        """Have the model hear the next chunk, filled up with silence if that is all. Whether it wrote something."""
        model = self._model
        start, end = self._frames * model.hop - model.reach if self._frames else 0, self._end
        chunk = self._samples[start - self._from : end - self._from]
        chunk = np.pad(chunk, (0, end - start - len(chunk)))
        first, count = not self._frames, self._count
        inputs = model.processor(
            chunk, is_streaming=True, is_first_audio_chunk=first, sampling_rate=model.rate, return_tensors="pt"
        )
        self._frames += count
        self._forget()
        device = model.model.device
        tokens = inputs["input_ids"] if first else torch.tensor([[self._last]])
        with torch.inference_mode():
            outcome = model.model(
                input_ids=tokens.to(device),
                input_features=inputs["input_features"].to(device, model.model.dtype),
                num_delay_tokens=model.delay,
                use_cache=True,
                logits_to_keep=1,
                **self._state,
            )
        kept = ("past_key_values", "encoder_past_key_values", "padding_cache")
        self._state = {name: getattr(outcome, name) for name in kept}
        return self._write(outcome.logits[0, -1].float())

    def words(self) -> tuple[Word, ...]:
        """The words so far, in seconds of the stream; only the last one may still grow."""
        words: list[tuple[bytes, float, float, float]] = []
        step = self._model.token_seconds
        for each in self.written:
            start, end = each.step * step, (each.step + 1) * step
            if not words or each.text[:1].isspace():
                words.append((each.text, start, end, each.probability))
            else:
                text, start, _, probability = words[-1]
                words[-1] = text + each.text, start, end, min(probability, each.probability)
        decoded = [
            Word(text.decode(errors="ignore").strip(), start, end, probability)
            for text, start, end, probability in words
        ]
        return tuple(word for word in decoded if word.text)

    # ------------------------------------------------------------------ inside

    @property
    def _count(self) -> int:
        """Mel frames of the next chunk: the first is as long as the model is late."""
        return self._model.frames_per_token * (1 if self._frames else self._model.delay + 1)

    @property
    def _end(self) -> int:
        """The sample after the last one that the next chunk reaches."""
        last = (self._frames + self._count - 1) * self._model.hop
        # What follows the first chunk ends with a window that the feature extractor drops.
        return last + self._model.reach + (self._model.hop if self._frames else 0)

    def _forget(self) -> None:
        before = max(0, self._frames * self._model.hop - self._model.reach)
        self._samples = self._samples[before - self._from :].copy()
        self._from = before

    def _write(self, scores: Any) -> bool:
        model = self._model
        token = int(scores.argmax())
        text = model.text(token)
        if text:
            self.written.append(Written(text, self._steps, float(scores.softmax(-1)[token])))
        # A model that thinks the text has ended hears on: the turn is over when its speaker says so.
        self._last = token if text or token in model.controls else model.padding
        self._steps += 1
        return bool(text)
