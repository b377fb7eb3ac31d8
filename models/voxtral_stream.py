"""Streams through Voxtral Realtime: a causal encoder and a language model that writes a token for every 80 ms.

What it writes is some tokens late (`delay`), and mostly that there is nothing to write yet. Both keep what they need of
what they heard, within their sliding windows, so that a turn of hours costs no more memory than one of minutes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from models.chunked_stream import ChunkedStream
from models.torch_runtime import import_torch
from streaming.transcript import Word
from streaming.voice_activity import SAMPLE_RATE

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
        self.frames_per_token = int(processor.audio_length_per_tok)
        self.token_seconds = self.frames_per_token * self.hop / SAMPLE_RATE

    def text(self, token: int) -> bytes:
        """The bytes of a token; none of one that is no text."""
        piece: bytes = self._pieces.id_to_byte_piece(token)
        return piece


class RealtimeStream(ChunkedStream):
    """The first chunk is as long as the model is late."""

    def __init__(self, model: RealtimeModel) -> None:
        super().__init__(
            hop=model.hop,
            reach=model.reach,
            first=model.frames_per_token * (model.delay + 1),
            later=model.frames_per_token,
            dropped=1,
        )
        self._model = model
        self._state: dict[str, Any] = {}
        self._last = model.padding
        self._steps = 0
        self.written: list[Written] = []
        """What was written so far."""

    @property
    def over(self) -> bool:
        return self._steps * self._model.frames_per_token * self._model.hop >= self.heard

    def hear(self) -> bool:
        model, first = self._model, not self.frames
        chunk, _ = self._next_chunk()
        inputs = model.processor(
            chunk, is_streaming=True, is_first_audio_chunk=first, sampling_rate=SAMPLE_RATE, return_tensors="pt"
        )
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
