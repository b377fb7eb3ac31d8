"""A Voxtral Realtime small enough to make on the spot: the real classes and file formats, random weights.

It writes something about loud sound and nothing about silence; what it writes means nothing.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from models.torch_runtime import import_torch, without_warnings
from tests.models.engines.sentences import say
from tests.models.tiny_voxtral import AUDIO_CONFIG, SPECIAL_TOKENS, TEXT_TOKENS, tekken

STREAMING_TOKENS = (*SPECIAL_TOKENS, "[STREAMING_PAD]", "[STREAMING_WORD]")
SPARSE = 0.6
"""About as many of the tokens about speech are text."""
PAD = STREAMING_TOKENS.index("[STREAMING_PAD]")
STREAMING_CONFIG = {key: value for key, value in AUDIO_CONFIG.items() if key != "chunk_length_s"} | {
    "transcription_format": "streaming",
    "transcription_delay_ms": 240.0,
    "streaming_look_ahead_ms": 2.5,
    "streaming_look_back_ms": 52.5,
    "streaming_n_left_pad_tokens": 4,
}


def build_voxtral_realtime(directory: Path) -> Path:
    """Make a model in `directory` and return that."""
    torch = import_torch()
    with without_warnings():
        transformers: Any = importlib.import_module("transformers")  # most of it is untyped

        torch.manual_seed(0)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "tekken.json").write_text(json.dumps(tekken(STREAMING_TOKENS, STREAMING_CONFIG)))
        transformers.VoxtralRealtimeFeatureExtractor(feature_size=16).save_pretrained(directory)
        model = transformers.VoxtralRealtimeForConditionalGeneration(_config(transformers)).eval()
        model.config.save_pretrained(directory)  # by which the processor finds its tokenizer
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(3.0)
            processor = transformers.VoxtralRealtimeProcessor.from_pretrained(directory, local_files_only=True)
            _quieten(torch, model, processor)
        model.generation_config = transformers.GenerationConfig(bos_token_id=1, eos_token_id=None, pad_token_id=11)
        model.save_pretrained(directory)
    return directory


def _quieten(torch: Any, model: Any, processor: Any) -> None:
    """Make the token for nothing certain of silence, and probable of most of what is said."""
    states = []
    for samples in (np.zeros(48_000, np.float32), say("en-us+klatt6", 0, 2)):
        features = processor(samples, return_tensors="pt")["input_features"]
        tokens = torch.tensor([[1] + [PAD] * (features.shape[-1] // 8 - 1)])
        heard = {"input_features": features, "num_delay_tokens": processor.num_delay_tokens}
        states.append(model.model(input_ids=tokens, use_cache=False, **heard).last_hidden_state[0])
    silent, loud = states
    weight, middle = model.lm_head.weight, torch.cat(states).mean(0)
    weight[: len(STREAMING_TOKENS)] = 0.0
    apart = silent.mean(0) - loud.mean(0)
    weight[PAD] = 50.0 * apart / apart.square().sum()
    scores = torch.cat(states) @ weight.T
    lead = scores[:, len(STREAMING_TOKENS) :].amax(1) - scores[:, PAD]
    threshold = lead[len(silent) :].quantile(1 - SPARSE)
    # There is no bias: what all states have in common stands in for one.
    weight[PAD] += threshold * middle / middle.square().sum()
    scores = silent @ weight.T
    assert (scores.argmax(1) == PAD).all(), "it writes about silence"


def _config(transformers: Any) -> Any:
    small = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 64}
    return transformers.VoxtralRealtimeConfig(
        audio_config=small | {"num_mel_bins": 16, "head_dim": 16, "sliding_window": 64},
        text_config=small
        | {
            "model_type": "voxtral_realtime_text",
            "vocab_size": len(STREAMING_TOKENS) + TEXT_TOKENS,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "sliding_window": 64,
        },
        default_num_delay_tokens=3,
        tie_word_embeddings=False,
    )
