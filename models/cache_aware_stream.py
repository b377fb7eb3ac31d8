"""Streams through a cache-aware FastConformer and its RNN-T: every frame is encoded once, and no token is taken back.

The encoder hears chunks of a fixed length, keeps what its layers need of those before, and looks no further ahead than
the chunk (Noroozi et al., "Stateful Conformer with Cache-based Inference for Streaming Automatic Speech Recognition",
2024). Of each of its frames of 80 ms the transducer writes tokens until it has nothing more to say of it (Graves,
"Sequence Transduction with Recurrent Neural Networks", 2012, greedily).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from models.chunked_stream import ChunkedStream
from models.torch_runtime import import_torch
from streaming.transcript import Word
from streaming.voice_activity import SAMPLE_RATE

torch = import_torch()

WORD_MARK = "\N{LOWER ONE EIGHTH BLOCK}"
"""What a token begins with that begins a word."""


@dataclass(frozen=True, slots=True)
class Token:
    """One that was written, of which frame of the encoder, and how probable it was."""

    id: int
    frame: int
    probability: float


class CacheAwareModel:
    """The model and its processor, for any number of streams; one thread at a time runs it."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model = model
        self.processor = processor
        features, config = processor.feature_extractor, model.config
        self.hop = int(features.hop_length)
        self.reach = int(features.n_fft) // 2
        self.factor = int(config.encoder_config.subsampling_factor)
        self.frame_seconds = self.factor * self.hop / SAMPLE_RATE
        self.blank = int(config.blank_token_id)
        self.most_symbols = int(config.max_symbols_per_step)
        generation = importlib.import_module(f"{type(model).__module__.rpartition('.')[0]}.{GENERATION}")
        self.new_decoder_cache: Callable[[], Any] = partial(generation.NemotronAsrStreamingRNNTDecoderCache, config)

    @property
    def lookaheads(self) -> tuple[int, ...]:
        """Frames ahead that the model was trained to look, of which a stream chooses one."""
        return tuple(self.processor.supported_num_lookahead_tokens)

    def piece(self, token: Token) -> str:
        """The token as it is written, with the mark that begins a word."""
        piece: str = self.processor.tokenizer.convert_ids_to_tokens(token.id)
        return piece


GENERATION = "generation_nemotron_asr_streaming"


class CacheAwareStream(ChunkedStream):
    """`lookahead` is one of the model's. The first frame stands alone before those that are subsampled together."""

    def __init__(self, model: CacheAwareModel, lookahead: int) -> None:
        super().__init__(
            hop=model.hop,
            reach=model.reach,
            first=1 + model.factor * lookahead,
            later=model.factor * (lookahead + 1),
        )
        self._model = model
        self._lookahead = lookahead
        self._encoder: Any = None
        self._padding: Any = None
        self._decoder = model.new_decoder_cache()
        self._last = model.blank
        self._encoded = 0
        self.tokens: list[Token] = []
        """What was written so far."""

    @property
    def over(self) -> bool:
        return self.heard <= max(0, self.frames - 1) * self._model.hop

    def hear(self) -> bool:
        model, first = self._model, not self.frames
        chunk, count = self._next_chunk()
        features = model.processor.feature_extractor(
            chunk, sampling_rate=SAMPLE_RATE, center=first, return_tensors="pt"
        ).input_features[:, :count]
        with torch.inference_mode():
            encoded = model.model.get_audio_features(
                input_features=features.to(model.model.device, model.model.dtype),
                past_key_values=self._encoder,
                padding_cache=self._padding,
                num_lookahead_tokens=self._lookahead,
                use_cache=True,
                output_attention_mask=False,
            )
            self._encoder, self._padding = encoded.past_key_values, encoded.padding_cache
            before = len(self.tokens)
            self.tokens.extend(self._write(encoded.pooler_output))
        return len(self.tokens) > before

    def words(self) -> tuple[Word, ...]:
        words: list[Word] = []
        step = self._model.frame_seconds
        for token in self.tokens:
            piece = self._model.piece(token)
            start, stop = token.frame * step, (token.frame + 1) * step
            if not words or piece.startswith(WORD_MARK):
                if words:  # a frame may hold the end of one and the beginning of the next
                    start = max(start, words[-1].end)
                words.append(Word(piece.removeprefix(WORD_MARK), start, max(start, stop), token.probability))
            else:
                grown = words[-1]
                probability = min(grown.probability or 0.0, token.probability)
                words[-1] = Word(grown.text + piece, grown.start, max(grown.start, stop), probability)
        return tuple(word for word in words if word.text)

    def _write(self, encoded: Any) -> Iterator[Token]:
        """`encoded` has shape (1, frames, width)."""
        model = self._model
        for index in range(encoded.shape[1]):
            frame = encoded[:, index : index + 1]
            for _ in range(model.most_symbols):
                last = torch.tensor([[self._last]], device=encoded.device)
                hidden = model.model.decoder(last, cache=self._decoder)
                scores = model.model.joint(encoder_hidden_states=frame, decoder_hidden_states=hidden)[0, 0].float()
                self._last = int(scores.argmax())
                if self._last == model.blank:
                    break
                yield Token(self._last, self._encoded + index, float(scores.softmax(-1)[self._last]))
        self._encoded += encoded.shape[1]
