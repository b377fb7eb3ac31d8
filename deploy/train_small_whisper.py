"""Train a small Whisper on the embedded voices: a closed vocabulary, under 10 MB, for tests on meaning.

    python deploy/train_small_whisper.py OUT [--minutes 60] [--device auto]

Speech is synthesised while training: commands, numbers and random words in many voices, speeds and noises, with the
times of its sentences as Whisper's timestamps. The tokenizer is trained on the vocabulary; the model is English-only in
the format of CTranslate2, in OUT/ct2. Needs the extras `whisper` and `diffusion` (transformers, torch).
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.catalog import Catalog
from models.engines import espeak
from models.interfaces import Samples, SpeechRequest
from models.torch_runtime import import_torch
from streaming.audio import Resampler

WINDOW_SECONDS = 10
SAMPLE_RATE = 16_000
TEXT_TOKENS = 900
SPECIAL = (
    *("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>"),
    *("<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"),
)


def _words(text: str) -> list[str]:
    return text.split()


NUMBERS = _words("""zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand""")
THINGS = _words("""light lamp door window heater fan music radio television alarm timer camera curtain oven kettle phone
printer garage garden kitchen bedroom bathroom office hall report meeting message letter train coffee""")
VERBS = _words("""open close start stop play pause show hide send read call find move copy print lock unlock raise lower
check clear save delete cancel repeat""")
OTHERS = _words("""the a my your please now again today tomorrow yesterday morning evening night left right up down
front back first last next before after with without and or not yes no red green blue yellow white black big small fast
slow high low warm cold loud quiet new old good bad many few more less all none here there turn on off set to go
forward stand still meters minutes hours degrees percent""")
WORDS = tuple(dict.fromkeys((*NUMBERS, *THINGS, *VERBS, *OTHERS)))
VOICES = tuple(
    accent + variant
    for accent in ("en-us", "en-gb", "en-gb-x-rp")
    for variant in ("", "+klatt", "+klatt4", "+klatt6", "+f2", "+f3", "+f5", "+m1", "+m3", "+m5", "+m7")
)


@dataclass(frozen=True)
class Example:
    """One window: its samples, and its sentences with their times in seconds."""

    samples: Samples
    sentences: tuple[tuple[str, float, float], ...]


def sentence(chance: random.Random) -> str:
    """A command, a number, or any words at all."""
    kind = chance.random()
    if kind < 0.3:
        words = [chance.choice(VERBS), "the", chance.choice(THINGS), *chance.choices(OTHERS, k=chance.randint(0, 2))]
    elif kind < 0.5:
        words = chance.choices(NUMBERS, k=chance.randint(1, 6))
    else:
        words = chance.choices(WORDS, k=chance.randint(1, 8))
    return " ".join(words)


class Speaker:
    """Makes examples; every process has its own."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - data, not secrets
        self._noise = np.random.default_rng(seed)
        self._synthesizer = espeak.load(Catalog.load().find("espeak-ng", "speech").card)

    def example(self) -> Example:
        """Sentences with pauses between them in one window, at some level, in some noise."""
        samples = np.zeros(WINDOW_SECONDS * SAMPLE_RATE, np.float32)
        said: list[tuple[str, float, float]] = []
        voice, speed = self._chance.choice(VOICES), self._chance.uniform(0.8, 1.4)
        at = self._chance.uniform(0.0, 1.0)
        while len(said) < 4:
            text = sentence(self._chance)
            speech = self._say(text, voice, speed)
            begin = round(at * SAMPLE_RATE)
            if begin + len(speech) > len(samples):
                break
            samples[begin : begin + len(speech)] += speech
            said.append((text, at, at + len(speech) / SAMPLE_RATE))
            at = said[-1][2] + self._chance.uniform(0.1, 1.2)
        level = self._chance.uniform(0.1, 1.0)
        noise = self._noise.standard_normal(len(samples)).astype(np.float32)
        if self._chance.random() < 0.5:  # rumble rather than hiss
            noise = np.convolve(noise, np.full(8, 0.125, np.float32), mode="same")
        return Example(samples * level + noise * 10 ** self._chance.uniform(-4, -1.8), tuple(said))

    def _say(self, text: str, voice: str, speed: float) -> Samples:
        request = SpeechRequest(text, voice, speed=speed)
        pieces = [chunk.samples for chunk in self._synthesizer.synthesize(request, lambda done, total: None)]
        resampler = Resampler(22_050, SAMPLE_RATE)
        speech = np.concatenate((resampler.process(np.concatenate(pieces)), resampler.finish()))
        loud = np.flatnonzero(np.abs(speech) > 0.005)
        return speech[loud[0] : loud[-1] + 1] if len(loud) else speech


def tokenizer() -> Any:
    """Byte-level BPE of the vocabulary, in which nearly every word is one token, and Whisper's special tokens."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=TEXT_TOKENS, initial_alphabet=alphabet, show_progress=False)
    trained.train_from_iterator([f" {word}" for word in WORDS] * 3, trainer)
    description = json.loads(trained.to_str())
    vocabulary = description["model"]["vocab"]
    vocabulary |= {f"Ġunused{index}": index for index in range(len(vocabulary), TEXT_TOKENS)}
    complete = tokenizers.Tokenizer.from_str(json.dumps(description))
    complete.add_special_tokens(list(SPECIAL))
    complete.add_tokens([f"<|{index * 0.02:.2f}|>" for index in range(1501)])
    return complete


def labels(example: Example, words: Any, timestamps: bool) -> list[int]:
    """The tokens the decoder is to write after the start of the transcript."""
    begin = words.token_to_id("<|0.00|>")
    tokens = [] if timestamps else [words.token_to_id("<|notimestamps|>")]
    for text, start, end in example.sentences:
        times = [begin + round(time / 0.02) for time in (start, min(end, WINDOW_SECONDS))] if timestamps else []
        spoken = words.encode(" " + text, add_special_tokens=False).ids
        tokens += times[:1] + spoken + times[1:]
    if not example.sentences:
        tokens = [words.token_to_id("<|nospeech|>")]
    return [*tokens, words.token_to_id("<|endoftext|>")]


def model_of(words: Any) -> Any:
    """About six million parameters; the encoder hears `WINDOW_SECONDS`."""
    import transformers

    token = words.token_to_id
    end = token("<|endoftext|>")
    config = transformers.WhisperConfig(
        vocab_size=words.get_vocab_size(), num_mel_bins=80, max_source_positions=WINDOW_SECONDS * 50,
        d_model=256, encoder_layers=4, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=1024, decoder_ffn_dim=1024, decoder_start_token_id=token("<|startoftranscript|>"),
        bos_token_id=end, eos_token_id=end, pad_token_id=end, suppress_tokens=[], begin_suppress_tokens=[],
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(config)
    model.generation_config = transformers.GenerationConfig(
        no_timestamps_token_id=token("<|notimestamps|>"), is_multilingual=False, eos_token_id=end,
        alignment_heads=[[1, head] for head in range(4)], suppress_tokens=[], begin_suppress_tokens=[],
        decoder_start_token_id=token("<|startoftranscript|>"),
    )  # fmt: skip
    return model


def _fill(queue: Any, seed: int) -> None:
    """A process that makes (log-Mel, labels) for ever."""
    from faster_whisper.feature_extractor import FeatureExtractor

    speaker, words = Speaker(seed), tokenizer()
    extractor = FeatureExtractor(chunk_length=WINDOW_SECONDS)
    chance = random.Random(seed)  # noqa: S311 - data, not secrets
    while True:
        example = speaker.example()
        mel = extractor(example.samples)[:, : extractor.nb_max_frames]
        queue.put((mel.astype(np.float16), labels(example, words, chance.random() < 0.6)))


def batches(size: int, makers: int) -> Iterator[tuple[Any, list[list[int]]]]:
    """Endless batches from `makers` processes."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue(maxsize=8 * size)
    processes = [context.Process(target=_fill, args=(queue, seed), daemon=True) for seed in range(makers)]
    for process in processes:
        process.start()
    try:
        while True:
            drawn = [queue.get() for _ in range(size)]
            yield np.stack([mel for mel, _ in drawn]).astype(np.float32), [tokens for _, tokens in drawn]
    finally:
        for process in processes:
            process.terminate()


def train(model: Any, words: Any, *, minutes: float, device: str, batch_size: int, makers: int) -> None:
    """AdamW with a warm-up, and a cosine over the time there is."""
    torch = import_torch()
    model.to(device).train()
    start, ignored = words.token_to_id("<|startoftranscript|>"), -100
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, betas=(0.9, 0.98))
    began, losses = time.monotonic(), []
    for step, (mel, targets) in enumerate(batches(batch_size, makers)):
        done = (time.monotonic() - began) / (60 * minutes)
        if done >= 1:
            break
        rate = 1e-3 * min(1.0, (step + 1) / 200) * (0.5 + 0.5 * math.cos(math.pi * done))
        optimizer.param_groups[0]["lr"] = rate
        longest = max(map(len, targets))
        padded = torch.full((len(targets), longest), ignored)
        for row, tokens in zip(padded, targets, strict=True):
            row[: len(tokens)] = torch.tensor(tokens)
        given = torch.cat((torch.full((len(targets), 1), start), padded[:, :-1].clamp(min=0)), dim=1)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            logits = model(input_features=torch.from_numpy(mel).to(device), decoder_input_ids=given.to(device)).logits
        loss = torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), padded.to(device).flatten(), ignore_index=ignored, label_smoothing=0.05
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        if step % 10 == 0:
            sys.stdout.write(f"step {step:6} {60 * minutes * done:6.0f} s loss {np.mean(losses[-10:]):.3f}\n")
            sys.stdout.flush()


def save(model: Any, words: Any, out: Path) -> Path:
    """Convert to CTranslate2, int8."""
    import ctranslate2
    import transformers

    work = out / "transformers"
    model.to("cpu").eval().save_pretrained(work)
    transformers.WhisperFeatureExtractor(feature_size=80, chunk_length=WINDOW_SECONDS).save_pretrained(work)
    words.save(str(work / "tokenizer.json"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(work)
    copied = ["tokenizer.json", "preprocessor_config.json"]
    converter = ctranslate2.converters.TransformersConverter(str(work), copy_files=copied)
    converter.convert(str(out / "ct2"), quantization="int8", force=True)
    return out / "ct2"


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, default=0)
    parser.add_argument("--makers", type=int, default=0, help="processes that synthesise speech")
    options: Any = parser.parse_args()
    torch = import_torch()
    torch.manual_seed(0)
    device = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    words = tokenizer()
    model = model_of(words)
    sys.stdout.write(f"{len(WORDS)} words, {model.num_parameters() / 1e6:.1f} M parameters, on {device}\n")
    train(
        model,
        words,
        minutes=options.minutes,
        device=device,
        batch_size=options.batch_size or (128 if device == "cuda" else 16),
        makers=options.makers or (12 if device == "cuda" else 1),
    )
    directory = save(model, words, options.out)
    size = sum(file.stat().st_size for file in directory.iterdir()) / 1e6
    sys.stdout.write(f"{directory}: {size:.1f} MB\n")


if __name__ == "__main__":
    main()
