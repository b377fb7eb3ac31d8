"""Train a small Whisper on the embedded voices: a closed vocabulary, under 10 MB, for tests on meaning.

    python -m deploy.train_small_whisper OUT [--minutes 90] [--resume 0.5]

Speech is synthesised while training: commands, numbers and random words in many voices, speeds and noises, several
utterances to a window. As the times of all words are known, two auxiliary losses teach them: the encoder names the word
of every frame (that head is thrown away), and two cross-attention heads of the last layer look at the word they write,
so that text emerges within minutes on one core, and the heads give good word times. Windows of 6 s come first, then
some of 12 s, and some padded to 30 s as faster-whisper does. The model, English-only, is in OUT/ct2 in the format of
CTranslate2; towards the end faster-whisper measures it every five minutes. Needs what the tests need.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.feature_extractor import FeatureExtractor
from jiwer import wer

from deploy.spoken_words import RATE, UNSEEN_SPEEDS, UNSEEN_VOICES, VOICES, WORDS, Audio, Speaker
from models.torch_runtime import import_torch

torch = import_torch()
functional: Any = torch.nn.functional
LOG = logging.getLogger(__name__)

HOP, FRAME = 160, 0.02
WINDOW, LONGEST, WHOLE = 6, 12, 30
"""Seconds: the model's own window, what it is trained on at most, and what faster-whisper pads every window to."""
GRID = 0.1
"""Seconds to which timestamps are rounded: nobody knows them better, and unsure times would make the text look bad."""
SEGMENT_PAUSE = 0.35
FIRST = 1.0
"""CTranslate2 lets no first segment begin later in a window."""
WIDTH, HEADS, ENCODER_LAYERS, DECODER_LAYERS = 128, 4, 3, 2
PEAK = 1.5e-3
ALIGNING = 2
"""So many heads of the decoder's last layer look at the word they write."""
NAMES = "endoftext startoftranscript en translate transcribe startoflm startofprev nospeech notimestamps"
SPECIAL = [f"<|{name}|>" for name in NAMES.split()]


def tokenizer() -> Any:
    """Byte-level BPE in which every word of the vocabulary is one token, and Whisper's special tokens."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1000, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator([f" {word}" for word in WORDS], trainer)
    made.add_special_tokens(SPECIAL)
    made.add_tokens([f"<|{index * FRAME:.2f}|>" for index in range(1501)])
    return made


class Row(NamedTuple):
    """A token, whether the decoder is to learn to write it, and the seconds it should look at for that."""

    token: int
    learned: bool = False
    start: float = 0.0
    end: float = 0.0


class Examples:
    """Turns windows into batches."""

    def __init__(self, speaker: Speaker, words: Any) -> None:
        self._speaker = speaker
        self.ids = {name: words.token_to_id(name) for name in (*SPECIAL, "<|0.00|>")}
        self._words = {word: words.token_to_id(f"Ġ{word}") for word in WORDS}
        self._prompts = [*self._words.values()] * 4 + [self._time(index * GRID) for index in range(300)]
        self._filters = torch.from_numpy(FeatureExtractor().mel_filters)

    def rows(self, audio: Audio, timestamps: bool) -> list[Row]:
        """What the decoder reads and writes for a window."""
        draw, ids, duration = self._speaker.chance, self.ids, len(audio.samples) / RATE
        length = min(int(draw.expovariate(1 / 20)), 200) if draw.random() < 0.4 else 0
        prompts = (list(self._words.values()), self._prompts, range(ids["<|endoftext|>"]))
        before = [ids["<|startofprev|>"], *draw.choices(draw.choice(prompts), k=length)]
        rows = [Row(token) for token in (*before * bool(length), ids["<|startoftranscript|>"])]
        mode = [] if timestamps else [Row(ids["<|notimestamps|>"])]
        heard = [each for each in audio.words if each.start > -0.1 and each.end < duration + 0.05]
        if not heard:
            silent = [Row(self._time(0.0))] if timestamps else mode
            return [*rows, Row(ids["<|nospeech|>"], True)] if draw.random() < 0.5 else [*rows, *silent, self._end(0, 0)]
        rows += mode
        pause = math.inf
        for each, after in zip(audio.words, (*audio.words[1:], None), strict=True):
            if timestamps and each in heard and (each == heard[0] or pause > SEGMENT_PAUSE):
                begin = min(each.start, FIRST) if each == heard[0] else each.start
                rows.append(Row(self._time(begin), True, each.start - 0.1, each.start + 0.1))
            if each in heard:
                rows.append(Row(self._words[each.word], True, each.start, each.end))
            pause = after.start - each.end if after else math.inf
            if timestamps and each in heard and pause > SEGMENT_PAUSE:
                rows.append(Row(self._time(min(each.end, duration)), True, each.end - 0.1, each.end + 0.1))
        return [*rows, self._end(heard[-1].end, duration)]

    def _time(self, seconds: float) -> int:
        return int(self.ids["<|0.00|>"] + round(max(seconds, 0.0) / GRID) * round(GRID / FRAME))

    def _end(self, start: float, duration: float) -> Row:
        return Row(self.ids["<|endoftext|>"], True, start, min(start + 0.3, duration))

    def batch(self, heard: int, seconds: int, size: int) -> dict[str, Any]:
        """Tensors for windows of `seconds`, of which `heard` are not padding; looks is (size, rows, frames)."""
        windows = [self._speaker.window(heard) for _ in range(size)]
        rows = [self.rows(audio, self._speaker.chance.random() < 0.5) for audio in windows]
        longest, frames = max(map(len, rows)) - 1, round(seconds / FRAME)
        inputs = torch.full((size, longest), self.ids["<|endoftext|>"])
        targets, labels = torch.full((size, longest), -100), torch.zeros((size, frames), dtype=torch.long)
        looks, samples = torch.zeros((size, longest, frames)), torch.zeros((size, seconds * RATE))
        for index, (audio, written) in enumerate(zip(windows, rows, strict=True)):
            samples[index, : len(audio.samples)] = torch.from_numpy(audio.samples)
            for word, start, end in audio.words:
                labels[index, _frames(start, end)] = WORDS.index(word) + 1
            for at, (given, row) in enumerate(itertools.pairwise(written)):
                inputs[index, at] = given.token
                if row.learned:
                    targets[index, at] = row.token
                    looks[index, at, _frames(row.start, row.end)] = 1.0
        mel = self._mel(samples, [len(audio.samples) // HOP for audio in windows])
        return {"mel": mel, "labels": labels, "inputs": inputs, "targets": targets, "looks": looks}

    def _mel(self, samples: Any, heard: Sequence[int]) -> Any:
        """As faster-whisper makes it. What pads a window is silence, or zeros as faster-whisper has it."""
        spectrum = torch.stft(samples, 400, HOP, window=torch.hann_window(400), return_complex=True)[..., :-1]
        mel = (self._filters @ spectrum.abs() ** 2).clamp(min=1e-10).log10()
        mel = (torch.maximum(mel, mel.amax((1, 2), keepdim=True) - 8.0) + 4.0) / 4.0
        for row, length in zip(mel, heard, strict=True):
            if self._speaker.chance.random() < 0.4:
                row[:, length + 1 :] = 0.0
        return mel


def _frames(start: float, end: float) -> slice:
    """The encoder's frames of a time, at least one."""
    first = max(round(start / FRAME), 0)
    return slice(first, max(round(end / FRAME), first + 1))


def model_of(words: Any) -> Any:
    """About 1.7 million parameters."""
    import transformers

    token = words.token_to_id
    end, start = token("<|endoftext|>"), token("<|startoftranscript|>")
    quiet: dict[str, Any] = {"suppress_tokens": [], "begin_suppress_tokens": [], "decoder_start_token_id": start}
    config = transformers.WhisperConfig(
        vocab_size=words.get_vocab_size(), num_mel_bins=80, d_model=WIDTH, bos_token_id=end, eos_token_id=end,
        pad_token_id=end, encoder_layers=ENCODER_LAYERS, encoder_attention_heads=HEADS, encoder_ffn_dim=4 * WIDTH,
        decoder_layers=DECODER_LAYERS, decoder_attention_heads=HEADS, decoder_ffn_dim=4 * WIDTH, **quiet,
    )  # fmt: skip
    config._attn_implementation = "eager"  # the decoder has to show where it looks
    model = transformers.WhisperForConditionalGeneration(config)
    model.generation_config = transformers.GenerationConfig(
        no_timestamps_token_id=token("<|notimestamps|>"), is_multilingual=False, eos_token_id=end,
        alignment_heads=[[DECODER_LAYERS - 1, head] for head in range(ALIGNING)], **quiet,
    )  # fmt: skip
    for layer in model.model.encoder.layers:
        layer.self_attn.config = copy.deepcopy(config)
        layer.self_attn.config._attn_implementation = "sdpa"
    return model


def encode(model: Any, mel: Any) -> Any:
    """The encoder's output for windows of any length; transformers would take only the longest."""
    encoder = model.model.encoder
    hidden = functional.gelu(encoder.conv2(functional.gelu(encoder.conv1(mel)))).transpose(1, 2)
    hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
    for layer in encoder.layers:
        hidden = layer(hidden, None)
    return encoder.layer_norm(hidden)


def losses_of(model: Any, namer: Any, batch: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Of the text, of the words named frame by frame, and of where the aligning heads look."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden = encode(model, batch["mel"])
        decoded = model.model.decoder(
            input_ids=batch["inputs"], encoder_hidden_states=hidden, output_attentions=True, use_cache=False
        )
        logits, names = model.proj_out(decoded.last_hidden_state), namer(hidden)
    text = functional.cross_entropy(logits.float().flatten(0, 1), batch["targets"].flatten(), ignore_index=-100)
    named = functional.cross_entropy(names.float().flatten(0, 1), batch["labels"].flatten())
    looked = decoded.cross_attentions[-1][:, :ALIGNING].float().clamp(min=1e-6).log().mean(1)
    wanted, frames = batch["looks"], batch["looks"].sum(2)
    return text, named, -((wanted * looked).sum(2) / frames.clamp(min=1)).sum() / (frames > 0).sum().clamp(min=1)


def window_of(done: float, chance: Any) -> tuple[int, int, int]:
    """Seconds of sound in a window, its seconds with padding, and the windows of the next batch: short ones first."""
    own, long, padded = (WINDOW, WINDOW, 16), (LONGEST, LONGEST, 8), (LONGEST, WHOLE, 3)
    return own if done < 0.4 else chance.choice((own, long) if done < 0.6 else (own, long, long, padded))


def train(model: Any, words: Any, minutes: float, resumed: float, out: Path) -> None:
    """AdamW with a warm-up, and a cosine over the time there is."""
    speaker = Speaker(0)
    speaker.fill(3000)
    examples = Examples(speaker, words)
    namer = torch.nn.Linear(WIDTH, len(WORDS) + 1)
    parameters = [*model.parameters(), *namer.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=0.0, weight_decay=0.01, betas=(0.9, 0.98))
    began, measured, history = time.monotonic() - 60 * minutes * resumed, 0.0, list[list[float]]()
    for step in itertools.count():
        elapsed = time.monotonic() - began
        done = elapsed / (60 * minutes)
        if done >= 1:
            return
        for group in optimizer.param_groups:
            group["lr"] = PEAK * min(1.0, (step + 1) / 300) * (0.5 + 0.5 * math.cos(math.pi * done))
        speaker.fill(4)
        optimizer.zero_grad()
        text, named, looked = losses_of(model, namer, examples.batch(*window_of(done, speaker.chance)))
        (text + max(0.0, 1 - done / 0.65) * named + 0.2 * looked).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        history.append([float(loss.detach()) for loss in (text, named, looked)])
        if step % 50 == 0:
            means = " ".join(f"{mean:6.3f}" for mean in np.mean(history[-50:], axis=0))
            LOG.info("step %6d %6.0f s  text, names, looks %s", step, elapsed, means)
        if elapsed - measured > 300:
            measured, directory = elapsed, save(model, words, out)
            if done > 0.7:
                measure(directory, 30)


def save(model: Any, words: Any, out: Path) -> Path:
    """Convert to CTranslate2, int8."""
    import ctranslate2
    import transformers

    work = out / "transformers"
    model.save_pretrained(work)
    transformers.WhisperFeatureExtractor(feature_size=80, chunk_length=WINDOW).save_pretrained(work)
    transformers.PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(work)
    files = ["tokenizer.json", "preprocessor_config.json"]
    converter = ctranslate2.converters.TransformersConverter(str(work), copy_files=files)
    return Path(converter.convert(str(out / "ct2"), quantization="int8", force=True))


def measure(directory: Path, count: int) -> None:
    """Word error rates of faster-whisper on sequences of words that were never trained on."""
    model = WhisperModel(str(directory), device="cpu", compute_type="int8", cpu_threads=1, local_files_only=True)
    speaker = Speaker(1, unseen=True)
    for name, voices, speeds in (
        ("seen voices", VOICES, (0.8, 1.1)),
        ("unseen speeds", VOICES, UNSEEN_SPEEDS),
        ("unseen voices", UNSEEN_VOICES, (0.8, 1.4)),
    ):
        said, heard = [], []
        for _ in range(count):
            words = speaker.sentence()
            spoken = speaker.say(words, speaker.chance.choice(voices), speaker.chance.uniform(*speeds))
            segments, _ = model.transcribe(np.pad(spoken.samples, RATE // 2), beam_size=1, temperature=0.0)
            said.append(" ".join(words))
            heard.append("".join(segment.text for segment in segments).strip())
        LOG.info("%s: WER %.3f", name, wer(said, heard))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--resume", type=float, default=0.0, help="go on at this part of the time, from what is in OUT")
    options: Any = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    LOG.setLevel(logging.INFO)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    words = tokenizer()
    model = model_of(words)
    if options.resume:
        model.load_state_dict(type(model).from_pretrained(options.out / "transformers").state_dict())
    LOG.info("%d words, %.1f M parameters", len(WORDS), model.num_parameters() / 1e6)
    train(model, words, options.minutes, options.resume, options.out)
    directory = save(model, words, options.out)
    size = sum(file.stat().st_size for file in directory.iterdir()) / 1e6
    LOG.info("%s: %.1f MB", directory, size)
    measure(directory, 100)


if __name__ == "__main__":
    main()
