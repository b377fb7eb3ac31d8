"""Orpheus in small: the codec's real classes and a Llama, with random weights, and a server that streams its tokens."""

from __future__ import annotations

import importlib
import json
import re
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from models.orpheus_tokens import CODES, FIRST_CODE, PLACES
from models.torch_runtime import import_torch, without_warnings

CODEC = {
    "sampling_rate": 24_000,
    "encoder_dim": 4,
    "encoder_rates": [2, 4, 8, 8],
    "decoder_dim": 32,
    "decoder_rates": [8, 8, 4, 2],
    "attn_window_size": None,
    "codebook_size": CODES,
    "codebook_dim": 8,
    "vq_strides": [4, 2, 1],
    "noise": True,
    "depthwise": True,
}
SAID = re.compile(r"<custom_token_3><\|begin_of_text\|>(\w+): (.*)<\|eot_id\|>(?:<custom_token_[451]>){3}", re.DOTALL)


def build_codec(directory: Path) -> Path:
    """Write config.json and pytorch_model.bin of a small SNAC into a directory."""
    torch = import_torch()
    with without_warnings():
        torch.manual_seed(3)
        codec = importlib.import_module("snac").SNAC(**CODEC)
    state = codec.state_dict()
    loud = [name for name in state if name.startswith("decoder") and name.endswith("original0")]
    for name in loud:
        state[name] *= 1.7
    directory.mkdir(parents=True, exist_ok=True)
    torch.save(state, directory / "pytorch_model.bin")
    (directory / "config.json").write_text(json.dumps(CODEC))
    return directory


def build_llama(directory: Path, codes: int = PLACES * CODES) -> Path:
    """Write a Llama of one layer, whose tokenizer has letters and the special tokens, into a directory."""
    torch = import_torch()
    with without_warnings():
        tokenizers = importlib.import_module("tokenizers")
        transformers: Any = importlib.import_module("transformers")
        letters = {chr(code): index for index, code in enumerate(range(32, 127))}
        model = tokenizers.models.WordLevel(letters, unk_token=" ")
        tokenizer = tokenizers.Tokenizer(model)
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
        special = ["<|begin_of_text|>", "<|eot_id|>", *(f"<custom_token_{number}>" for number in range(FIRST_CODE))]
        tokenizer.add_special_tokens(special)
        wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=special[0])
        wrapped.save_pretrained(directory)
        torch.manual_seed(5)
        config = transformers.LlamaConfig(
            vocab_size=len(letters) + len(special) + codes,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=4096,
            bos_token_id=len(letters),
            eos_token_id=len(letters) + 1,
        )
        transformers.LlamaForCausalLM(config).save_pretrained(directory)
    return directory


def numbers_for(prompt: str) -> list[int]:
    """The tokens that the scripted server answers a prompt with: some frames, more for a longer text, then the end."""
    drawn = np.random.default_rng(zlib.crc32(prompt.encode()))
    said = SAID.fullmatch(prompt)
    count = 3 + len(said[2]) // 12 if said else 0
    codes = drawn.integers(0, CODES, (count, PLACES))
    return [int(FIRST_CODE + place * CODES + code) for row in codes for place, code in enumerate(row)] + [2]


class ScriptedServer:
    """A completions server. What it does is told by the name of the model; `requests` are the bodies it was sent.

    "orpheus" streams `numbers_for` the prompt, some bytes at a time. "mute" writes no audio tokens. After 30 tokens,
    "dying" closes the connection, "hanging" keeps it open with nothing to say, "silent" does not even send comments,
    and "garbled" sends what is no JSON. "full", "refusing" and "broken" answer 429, 401 and 500.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.gone = threading.Event()
        """Set when a client has closed the connection before its time."""
        self.release = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"script": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    @contextmanager
    def running(self) -> Iterator[ScriptedServer]:
        self._thread.start()
        try:
            yield self
        finally:
            self.release.set()
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    script: ScriptedServer

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.script.requests.append(body)
        self.script.keys.append(self.headers.get("authorization"))
        refused = {"full": 429, "refusing": 401, "broken": 500}.get(body["model"])
        if refused or self.path != "/v1/completions":
            self._answer(refused or 404, b'{"error": {"message": "no"}}')
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            self._stream(body)
        except (BrokenPipeError, ConnectionResetError):
            self.script.gone.set()
            self.close_connection = True

    def _stream(self, body: dict[str, Any]) -> None:
        model, numbers = body["model"], numbers_for(body["prompt"])[: body["max_tokens"]]
        text = "Sorry, I am another model." if model == "mute" else ""
        text += "" if model == "mute" else "".join(f"<custom_token_{number}>" for number in numbers)
        limit = len("".join(f"<custom_token_{number}>" for number in numbers[:30]))
        for start in range(0, len(text), 37):
            if model in ("dying", "hanging", "garbled", "silent") and start > limit:
                break
            self._event(json.dumps({"choices": [{"text": text[start : start + 37], "finish_reason": None}]}))
        if model == "garbled":
            self._event("{")
        if model == "hanging":
            while not self.script.release.wait(0.02):
                self._chunk(b": still here\n\n")
        if model == "silent":
            self.script.release.wait()
        if model in ("dying", "hanging", "silent"):
            self.close_connection = True
            return
        self._event(json.dumps({"choices": [{"text": "", "finish_reason": "stop"}]}))
        self._event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, data: str) -> None:
        self._chunk(f"data: {data}\n\n".encode())

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _answer(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass
