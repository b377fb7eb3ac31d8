"""The text encoder of `shapes-64`: CLIP's classes, in small, taught to parse captions before anything is drawn.

Each state from the end of the text on comes to hold the whole scene, which is why the denoiser binds words within
minutes: it has no language to learn.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import astuple
from random import Random
from typing import Any, TypeAlias

from deploy.shapes import FIELDS, Scene, any_scene, caption, omit, words
from models.torch_runtime import import_torch

torch = import_torch()
TOKENS = 32
WIDTH = 128
"""Channels of a state."""
BATCH = 32
Sayings: TypeAlias = Callable[[Random], tuple[str, tuple[str, ...]]]
"""Draws a caption, and what each field of the scene that it is of holds."""


def say(line: str) -> None:
    """One line of progress."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def tokenizer(listed: Sequence[str] = ()) -> Any:
    """CLIP's, with a vocabulary in which every listed word is one token, and all others are spelt.

    The words are those of the captions of `deploy.shapes` where none are listed.
    """
    import tokenizers
    import transformers
    from tokenizers import models, pre_tokenizers, trainers

    end = "</w>"
    trained = tokenizers.Tokenizer(models.BPE(end_of_word_suffix=end))
    trained.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=2000, min_frequency=1, end_of_word_suffix=end, show_progress=False)
    trained.train_from_iterator(listed or words(), trainer)
    merges = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    letters = pre_tokenizers.ByteLevel.alphabet()
    pieces = [*sorted(letters), *(letter + end for letter in sorted(letters)), *(a + b for a, b in merges)]
    ranked = dict.fromkeys((*pieces, "<|startoftext|>", "<|endoftext|>"))
    vocabulary = {piece: index for index, piece in enumerate(ranked)}
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TOKENS)


def tokens_of(texts: list[str], tokens: Any) -> Any:
    return tokens(texts, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt").input_ids


def text_encoder(tokens: Any) -> Any:
    import transformers

    config = transformers.CLIPTextConfig(
        vocab_size=len(tokens), hidden_size=WIDTH, intermediate_size=2 * WIDTH, projection_dim=WIDTH,
        num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=TOKENS,
        bos_token_id=tokens.bos_token_id, eos_token_id=tokens.eos_token_id, pad_token_id=tokens.pad_token_id,
    )  # fmt: skip
    return transformers.CLIPTextModel(config)


def any_caption(chance: Random) -> tuple[str, tuple[str, ...]]:
    """A caption of a picture, empty now and then."""
    scene = omit(any_scene(chance), chance) if chance.random() < 0.97 else Scene()
    return caption(scene, chance) if scene != Scene() else "", astuple(scene)


def train_text_encoder(
    model: Any,
    tokens: Any,
    steps: int,
    draw: Sayings = any_caption,
    fields: dict[str, tuple[str, ...]] = FIELDS,
) -> None:
    """Every state from the end of the text on, the padding too, is to tell all fields of the scene, said or unsaid.

    The heads that read the states are thrown away; the states stay, with the parsed words linearly in each.
    """
    heads = torch.nn.ModuleList(torch.nn.Linear(WIDTH, len(values)) for values in fields.values())
    parameters = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.01)
    chance = Random(1)  # noqa: S311 - data, not secrets
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1, (step + 1) / 50) * (1 - step / steps)
        said = [draw(chance) for _ in range(BATCH)]
        ids = tokens_of([text for text, _ in said], tokens)
        ended = (ids == tokens.eos_token_id).cumsum(1) > 0
        states = model(ids).last_hidden_state[ended]
        rows = ended.sum(1)
        loss, right = torch.zeros(()), []
        for index, (values, head) in enumerate(zip(fields.values(), heads, strict=True)):
            target = torch.tensor([values.index(held[index]) for _, held in said]).repeat_interleave(rows)
            logits = head(states)
            loss = loss + torch.nn.functional.cross_entropy(logits, target)
            right.append(float((logits.argmax(1) == target).float().mean()))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 50 == 0 or step == steps - 1:
            say(f"text {step:5} loss {float(loss):.3f} right {' '.join(f'{share:.3f}' for share in right)}")
