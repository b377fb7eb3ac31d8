"""A multilingual Whisper small enough to make on the spot: the real classes and file formats, random weights.

The tokenizer is a byte-level BPE of a few sentences, filled up to Whisper's vocabulary, with Whisper's special tokens
at Whisper's ids. What the model writes means nothing; how it is run is what tests look at.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from models.torch_runtime import import_torch
from tests.models.engines.sentences import SENTENCES

TEXT_TOKENS = 50_256
"""Ids below this are text. This one is the empty string, by which CTranslate2 knows a multilingual vocabulary."""
VOCABULARY = 51_865
TIMESTAMPS = 1_501


def build_whisper(directory: Path, *, width: int = 32, layers: int = 2, heads: int = 2) -> Path:
    """Make a model in `directory`/ct2, converted to int8, and return that. 512, 6, 8 is the shape of Whisper base.

    Its texts have no end and no probability to speak of.

    In a process of its own: torch and transformers are large, and warn of many things.
    """
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", __name__, str(directory)]
        + [str(value) for value in (width, layers, heads)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        check=True,
        capture_output=True,
    )
    return directory / "ct2"


def tiny_whisper(base: Path) -> Path:
    """The one that all tests of a run share: made by the first who asks. `base` is the run's temporary directory."""
    converted = base / "tiny-whisper" / "ct2"
    return converted if converted.exists() else build_whisper(converted.parent)


def special_tokens() -> list[str]:
    """Whisper's, in the order of their ids, from 50257 on."""
    from faster_whisper.tokenizer import _LANGUAGE_CODES

    languages = [code for code in _LANGUAGE_CODES if code != "yue"]  # the hundredth came with large-v3
    names = ["endoftext", "startoftranscript", *_whisper_order(languages), "translate", "transcribe"]
    names += ["startoflm", "startofprev", "nospeech", "notimestamps"]
    return [f"<|{name}|>" for name in names]


def _whisper_order(languages: list[str]) -> list[str]:
    """English first, as in Whisper; the order of the others does not matter here."""
    return ["en", *(code for code in languages if code != "en")]


def _make(work: Path, width: int, layers: int, heads: int) -> None:
    torch = import_torch()
    import transformers

    torch.manual_seed(0)
    special = special_tokens()
    token_ids = {token: TEXT_TOKENS + 1 + index for index, token in enumerate(special)}
    config = transformers.WhisperConfig(
        vocab_size=VOCABULARY,
        num_mel_bins=80,
        d_model=width,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        decoder_start_token_id=token_ids["<|startoftranscript|>"],
        bos_token_id=token_ids["<|endoftext|>"],
        eos_token_id=token_ids["<|endoftext|>"],
        pad_token_id=token_ids["<|endoftext|>"],
        suppress_tokens=[],
        begin_suppress_tokens=[],
    )
    model = transformers.WhisperForConditionalGeneration(config)
    with torch.no_grad():  # a wider spread than at the start of a training: the text gets some variety
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3.0)
    languages = {token: token_ids[token] for token in special[2:-6]}
    model.generation_config = transformers.GenerationConfig(
        lang_to_id=languages,
        task_to_id={"transcribe": token_ids["<|transcribe|>"], "translate": token_ids["<|translate|>"]},
        alignment_heads=[[layers - 1, head] for head in range(heads)],
        no_timestamps_token_id=token_ids["<|notimestamps|>"],
        is_multilingual=True,
        suppress_tokens=[],
        begin_suppress_tokens=[],
        eos_token_id=token_ids["<|endoftext|>"],
        decoder_start_token_id=token_ids["<|startoftranscript|>"],
    )
    model.save_pretrained(work)
    transformers.WhisperFeatureExtractor(feature_size=80).save_pretrained(work)
    tokenizer = _tokenizer(special)
    tokenizer.save(str(work / "tokenizer.json"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(work)


def _tokenizer(special: list[str]) -> Any:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    )
    description = json.loads(trained.to_str())
    vocabulary = description["model"]["vocab"]
    vocabulary |= {f"Ġword{index}": index for index in range(len(vocabulary), TEXT_TOKENS)} | {"": TEXT_TOKENS}
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(description))
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens([f"<|{index * 0.02:.2f}|>" for index in range(TIMESTAMPS)])
    assert tokenizer.get_vocab_size() == VOCABULARY
    return tokenizer


def _convert(work: Path, converted: Path) -> None:
    import ctranslate2

    copied = ["tokenizer.json", "preprocessor_config.json"]
    ctranslate2.converters.TransformersConverter(str(work), copy_files=copied).convert(
        str(converted), quantization="int8"
    )


def main(directory: str, width: str, layers: str, heads: str) -> None:
    """Entry point of the process that makes a model."""
    work = Path(directory, "transformers")
    _make(work, int(width), int(layers), int(heads))
    _convert(work, Path(directory, "ct2"))
    shutil.rmtree(work)


if __name__ == "__main__":
    main(*sys.argv[1:])
