"""Orpheus' tokens from its language model in this process, through transformers. Importing this imports none of it."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from models.errors import WeightsMissing
from models.orpheus_tokens import CODES, END_OF_SPEECH, FIRST_CODE, PLACES
from models.orpheus_upstream import POLL, Sampling
from models.torch_runtime import import_torch, pick_device, pick_dtype, without_warnings


class LocalTokens:
    """Writes tokens with a model of its own, for one request at a time.

    What it may write next is limited to the codes that have their place there, and to the end where a frame is whole:
    however it samples, what it writes can be decoded.
    """

    def __init__(self, directory: Path, device: str, dtype: str) -> None:
        """Raises: WeightsMissing when the directory holds no model, or one without audio tokens."""
        self._torch = import_torch()
        self._device = pick_device(device)
        with without_warnings():
            transformers: Any = importlib.import_module("transformers")
            try:
                self._tokenizer = transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)
                self._model = transformers.AutoModelForCausalLM.from_pretrained(
                    directory, local_files_only=True, dtype=pick_dtype(self._device, dtype)
                )
            except (OSError, ValueError) as error:
                raise WeightsMissing(f"{directory} holds no language model: {error}", field="model") from error
        self._model = self._model.to(self._device).eval()
        self._base = int(self._tokenizer.convert_tokens_to_ids("<custom_token_0>") or 0)
        if self._base <= 0 or self._base + FIRST_CODE + PLACES * CODES > self._model.config.vocab_size:
            raise WeightsMissing(f"The model in {directory} has no audio tokens.", field="model")
        self._writing = threading.Lock()

    def tokens(self, prompt: str, sampling: Sampling, most: int, check: Callable[[], None]) -> Iterator[int]:
        """See `UpstreamTokens.tokens`; `check` is called before every token."""
        while not self._writing.acquire(timeout=POLL):
            check()
        try:
            yield from self._write(prompt, sampling, most, check)
        finally:
            self._writing.release()

    def close(self) -> None:
        """Nothing is open."""

    def _write(self, prompt: str, sampling: Sampling, most: int, check: Callable[[], None]) -> Iterator[int]:
        torch = self._torch
        # A generator of its own: the codec draws noise meanwhile, in another thread.
        random = torch.Generator(self._device).manual_seed(sampling.seed)
        ids = self._tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"].to(self._device)
        written = torch.zeros(self._model.config.vocab_size, dtype=torch.bool, device=self._device)
        cache = None
        for index in range(most):
            check()
            with torch.inference_mode():
                output = self._model(input_ids=ids, past_key_values=cache, use_cache=True)
                cache = output.past_key_values
                ids = self._draw(output.logits[0, -1].float(), index % PLACES, written, sampling, random)
                written[ids[0]] = True
            number = int(ids) - self._base
            yield number
            if number == END_OF_SPEECH:
                return

    def _draw(self, logits: Any, place: int, written: Any, sampling: Sampling, random: Any) -> Any:
        """The next token's id, shape (1, 1), of those that may stand at this place of a frame."""
        torch = self._torch
        first = self._base + FIRST_CODE + place * CODES
        allowed = torch.arange(first, first + CODES, device=self._device)
        if place == 0:
            allowed = torch.cat((allowed, allowed.new_tensor([self._base + END_OF_SPEECH])))
        scores, repeated = logits[allowed], written[allowed]
        penalised = torch.where(scores < 0, scores * sampling.repetition_penalty, scores / sampling.repetition_penalty)
        scores = torch.where(repeated, penalised, scores)
        if sampling.temperature == 0:
            return allowed[scores.argmax()].view(1, 1)
        likely, order = torch.softmax(scores / sampling.temperature, -1).sort(descending=True)
        # The most likely ones that together reach top_p: those before which less than that has been seen.
        likely[likely.cumsum(-1) - likely >= sampling.top_p] = 0
        return allowed[order[torch.multinomial(likely, 1, generator=random)]].view(1, 1)
