"""A Voxtral small enough to make on the spot: the real classes and file formats, random weights.

Its tokenizer is a real tekken file, byte-level BPE trained on a few sentences, with Voxtral's special tokens at
Voxtral's ids. What the model writes means nothing; how it is run is what tests look at.
"""

from __future__ import annotations

import base64
import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.torch_runtime import import_torch, without_warnings
from tests.models.engines.sentences import SENTENCES

SPECIAL_TOKENS = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]",
    "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]", "<SPECIAL_20>", "<SPECIAL_21>",
    "<SPECIAL_22>", "<SPECIAL_23>", "[AUDIO]", "[BEGIN_AUDIO]", "<SPECIAL_26>", "<SPECIAL_27>", "<SPECIAL_28>",
    "<SPECIAL_29>", "<SPECIAL_30>", "<SPECIAL_31>", "[ARGS]", "[CALL_ID]", "[TRANSCRIBE]", "[REPEAT_AUDIO_TEXT]",
)  # fmt: skip
AUDIO, END = SPECIAL_TOKENS.index("[AUDIO]"), SPECIAL_TOKENS.index("</s>")
TEXT_TOKENS = 400
AUDIO_CONFIG: dict[str, Any] = {
    "sampling_rate": 16_000,
    "frame_rate": 12.5,
    "audio_encoding_config": {"num_mel_bins": 16, "hop_length": 160, "window_size": 400},
    "chunk_length_s": 30.0,
}
PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def build_voxtral(directory: Path) -> Path:
    """Make a model in `directory` and return that."""
    torch = import_torch()
    with without_warnings():
        transformers: Any = importlib.import_module("transformers")  # most of it is untyped

        torch.manual_seed(0)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "tekken.json").write_text(json.dumps(tekken(SPECIAL_TOKENS, AUDIO_CONFIG)))
        transformers.WhisperFeatureExtractor(feature_size=16).save_pretrained(directory)
        model = transformers.VoxtralForConditionalGeneration(_config(transformers))
        with torch.no_grad():  # plain text only: whatever else is written would not be seen
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(3.0)
        model.generation_config = transformers.GenerationConfig(
            bos_token_id=1, eos_token_id=END, pad_token_id=11, suppress_tokens=list(range(len(SPECIAL_TOKENS)))
        )
        model.save_pretrained(directory)
    return directory


def _config(transformers: Any) -> Any:
    small = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 128}
    return transformers.VoxtralConfig(
        audio_config=small | {"num_mel_bins": 16, "vocab_size": 100},
        text_config=small
        | {
            "vocab_size": len(SPECIAL_TOKENS) + TEXT_TOKENS,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "max_position_embeddings": 2048,
        },
        audio_token_id=AUDIO,
    )


def tekken(special_tokens: Sequence[str], audio: dict[str, Any]) -> dict[str, Any]:
    """What is in the tokenizer's file."""
    vocabulary = [
        {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
        for rank, token in enumerate(_vocabulary())
    ]
    special = [{"rank": rank, "token_str": token, "is_control": True} for rank, token in enumerate(special_tokens)]
    return {
        "config": {
            "pattern": PATTERN,
            "num_vocab_tokens": TEXT_TOKENS,
            "default_vocab_size": TEXT_TOKENS + len(special_tokens),
            "default_num_special_tokens": len(special_tokens),
            "version": "v11",
        },
        "vocab": vocabulary,
        "special_tokens": special,
        "audio": audio,
    }


def _vocabulary() -> list[bytes]:
    """256 bytes, then what a training joins, in the order of joining: every token is made of two before it."""
    tokens = [bytes([value]) for value in range(256)]
    text = [[bytes([value]) for value in (" " + word).encode()] for line in SENTENCES for word in line.split()]
    while len(tokens) < TEXT_TOKENS:
        counts: dict[tuple[bytes, bytes], int] = {}
        for word in text:
            for pair in zip(word, word[1:], strict=False):
                counts[pair] = counts.get(pair, 0) + 1
        first, second = max(counts, key=lambda pair: (counts[pair], pair))
        tokens.append(first + second)
        text = [_joined(word, first, second) for word in text]
    return tokens


def _joined(word: list[bytes], first: bytes, second: bytes) -> list[bytes]:
    joined: list[bytes] = []
    for part in word:
        if joined and joined[-1] == first and part == second:
            joined[-1] = first + second
        else:
            joined.append(part)
    return joined
