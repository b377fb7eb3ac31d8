from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from models.diffusion_prompts import PromptCache, Words
from models.torch_runtime import import_torch

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="torch is not installed")

ROW_BYTES = 4 * 10


class FluxPipeline:
    """Encodes a prompt as ten numbers and as two, and counts how often."""

    _execution_device = "cpu"

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode_prompt(self, prompt: str, prompt_2: None, *, device: str) -> tuple[Any, Any, Any]:
        self.encoded.append(prompt)
        torch = import_torch()
        return torch.full((1, 4, 2), float(len(prompt))), torch.zeros(1, 2), None


class UnheardOfPipeline(FluxPipeline):
    pass


def words(prompt: str, negative: str = "") -> Words:
    return Words(prompt, negative, guided=False)


def test_the_same_words_are_encoded_once_for_each_set_of_weights() -> None:
    pipe, cache = FluxPipeline(), PromptCache(1000)
    for weights in (("style", 1.0), ("style", 1.0), ("style", 0.5), ()):
        found = cache.embeddings(pipe, words("ab"), weights, batch=3)
        assert found is not None
        assert found["prompt_embeds"].shape == (3, 4, 2)
        assert float(found["prompt_embeds"].mean()) == 2.0
    assert pipe.encoded == ["ab"] * 3
    assert cache.hits == 1


def test_what_was_not_used_for_longest_makes_room() -> None:
    pipe, cache = FluxPipeline(), PromptCache(2 * ROW_BYTES)
    for prompt in ("a", "b", "a", "c", "a", "b"):
        cache.embeddings(pipe, words(prompt), (), batch=1)
        assert cache.size <= 2 * ROW_BYTES
    assert pipe.encoded == ["a", "b", "c", "b"]


def test_what_is_larger_than_the_cache_is_not_kept() -> None:
    pipe, cache = FluxPipeline(), PromptCache(ROW_BYTES - 1)
    assert cache.embeddings(pipe, words("a"), (), batch=1) is not None
    assert cache.size == 0


def test_a_pipeline_nobody_knows_is_given_the_words() -> None:
    pipe = UnheardOfPipeline()
    assert PromptCache(1000).embeddings(pipe, words("a"), (), batch=1) is None
    assert pipe.encoded == []
