"""The small Whisper that comes with the project, made as wide and as deep as a real one: what it writes, at their cost.

Every channel is there several times, and what reads it divides by their number, so that each layer says what it said
before (Chen, Goodfellow and Shlens, "Net2Net", 2016). Heads that are new, layers that are new and tokens that are new
have no say, but are computed. Windows are of 30 seconds; beyond 12 s of speech in one the model was not trained.
"""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from models import catalog

SOURCE = Path(catalog.__file__).parent / "weights" / "whisper-words"
WIDTH, HEADS, HEAD = 128, 4, 32
WHISPER_HEAD = 64
VOCABULARY = 51_864
"""Tokens of an English Whisper."""
NEVER = -100.0
"""The logit of a token that is only there to be computed."""
DTYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)

Array = npt.NDArray[Any]


class Shape(NamedTuple):
    """A multiple of the source's width, and the layers of each side; heads are of 64 channels, as Whisper's are."""

    width: int
    layers: int

    @property
    def times(self) -> int:
        """How often each channel is there."""
        return self.width // WIDTH

    @property
    def heads(self) -> int:
        return self.width // WHISPER_HEAD


TINY, BASE = Shape(384, 4), Shape(512, 6)


def build_wide_whisper(directory: Path, shape: Shape) -> Path:
    """Make the model in `directory`, for CTranslate2 and int8, and return that."""
    from ctranslate2.specs import WhisperSpec
    from ctranslate2.specs.model_spec import index_spec

    directory.mkdir(parents=True)
    weights = _read(SOURCE / "model.bin")
    names = json.loads((SOURCE / "vocabulary.json").read_text())
    spec = WhisperSpec(shape.layers, shape.heads, shape.layers, shape.heads)
    for name, value in _widened(weights, shape, names.index("<|endoftext|>")).items():
        scope, _, attribute = name.rpartition("/")
        setattr(index_spec(spec, scope), attribute, np.ascontiguousarray(value, np.float32))
    end = names.index("<|endoftext|>")
    spec.register_vocabulary([*names[:end], *_fillers(len(names)), *names[end:]])
    config = json.loads((SOURCE / "config.json").read_text())
    for key, value in config.items():
        setattr(spec.config, key, value)
    spec.validate()
    spec.optimize("int8")
    spec.save(str(directory))
    _copy_the_rest(directory, end, VOCABULARY - len(names))
    return directory


# ---------------------------------------------------------------------- weights


def _widened(weights: dict[str, Array], shape: Shape, end: int) -> dict[str, Array]:
    """All weights of the wide model by CTranslate2's names."""
    wide: dict[str, Array] = {}
    for side in ("encoder", "decoder"):
        for layer in range(shape.layers):
            for part in ("self_attention", "attention", "ffn")[:: 2 if side == "encoder" else 1]:
                source = f"{side}/layer_{layer}/{part}"
                silent = f"{source}/layer_norm/beta" not in weights
                given = f"{side}/layer_0/{part}" if silent else source
                block = {key[len(given) + 1 :]: value for key, value in weights.items() if key.startswith(given + "/")}
                made = _ffn(block, shape) if part == "ffn" else _attention(block, shape)
                if silent:  # it adds nothing to what goes by
                    last = max(key for key in made if key.endswith("weight"))
                    made[last] = np.zeros_like(made[last])
                    made[last.replace("weight", "bias")] = np.zeros(shape.width)
                wide |= {f"{source}/{key}": value for key, value in made.items()}
        wide |= _norm(weights, f"{side}/layer_norm", shape)
        name = f"{side}/position_encodings/encodings"
        wide[name] = np.tile(weights[name], shape.times)
    for conv, read in (("encoder/conv1", 1), ("encoder/conv2", shape.times)):  # the first reads no channels but Mel's
        wide[f"{conv}/weight"] = np.tile(weights[f"{conv}/weight"], (shape.times, read, 1)) / read
        wide[f"{conv}/bias"] = np.tile(weights[f"{conv}/bias"], shape.times)
    embeddings = weights["decoder/embeddings/weight"]
    unknown = np.zeros((VOCABULARY - len(embeddings), WIDTH))
    tokens = np.tile(np.concatenate((embeddings[:end], unknown, embeddings[end:])), shape.times)
    bias = np.zeros(VOCABULARY)
    bias[end : end + len(unknown)] = NEVER
    return wide | {
        "decoder/embeddings/weight": tokens,
        "decoder/projection/weight": tokens / shape.times,
        "decoder/projection/bias": bias,
    }


def _norm(weights: dict[str, Array], name: str, shape: Shape) -> dict[str, Array]:
    return {f"{name}/{key}": np.tile(weights[f"{name}/{key}"], shape.times) for key in ("gamma", "beta")}


def _linear(weight: Array, bias: Array, shape: Shape) -> tuple[Array, Array]:
    """Both sides wide."""
    return np.tile(weight, (shape.times, shape.times)) / shape.times, np.tile(bias, shape.times)


def _ffn(block: dict[str, Array], shape: Shape) -> dict[str, Array]:
    made = _norm(block, "layer_norm", shape)
    for linear in ("linear_0", "linear_1"):
        made[f"{linear}/weight"], made[f"{linear}/bias"] = _linear(
            block[f"{linear}/weight"], block[f"{linear}/bias"], shape
        )
    return made


def _attention(block: dict[str, Array], shape: Shape) -> dict[str, Array]:
    """`linear_0`, and `linear_1` where that is not the last, hold queries, keys and values one above the other."""
    made = _norm(block, "layer_norm", shape)
    linears = sorted({key.partition("/")[0] for key in block} - {"layer_norm"})
    # Scores are divided by the root of a head's width.
    louder = (HEAD / WHISPER_HEAD) ** 0.25
    scales = [louder, louder, 1.0]
    for linear in linears[:-1]:
        weight, bias = block[f"{linear}/weight"], block[f"{linear}/bias"]
        parts = [
            _heads(weight[at : at + WIDTH], bias[at : at + WIDTH], scales.pop(0), shape)
            for at in range(0, len(weight), WIDTH)
        ]
        made[f"{linear}/weight"] = np.concatenate([each for each, _ in parts])
        made[f"{linear}/bias"] = np.concatenate([each for _, each in parts])
    last = linears[-1]
    weight = np.zeros((WIDTH, shape.heads, WHISPER_HEAD))
    heads = block[f"{last}/weight"].reshape(WIDTH, HEADS, HEAD)
    weight[:, :HEADS] = np.tile(heads, WHISPER_HEAD // HEAD) / (WHISPER_HEAD // HEAD)
    made[f"{last}/weight"] = np.tile(weight.reshape(WIDTH, shape.width), (shape.times, 1))
    made[f"{last}/bias"] = np.tile(block[f"{last}/bias"], shape.times)
    return made


def _heads(weight: Array, bias: Array, scale: float, shape: Shape) -> tuple[Array, Array]:
    """Of one of queries, keys and values; what is new repeats the first heads, and nobody reads it."""
    wide = np.tile(weight.reshape(HEADS, 1, HEAD, WIDTH), (1, WHISPER_HEAD // HEAD, 1, shape.times)) / shape.times
    added = np.tile(bias.reshape(HEADS, 1, HEAD), (1, WHISPER_HEAD // HEAD, 1))
    count = (shape.heads, WHISPER_HEAD)
    return (
        scale * np.resize(wide, (*count, shape.width)).reshape(shape.width, shape.width),
        scale * np.resize(added, count).reshape(shape.width),
    )


def _read(path: Path) -> dict[str, Array]:
    """The variables of a model of CTranslate2, as numbers that are not quantized."""
    with path.open("rb") as file:
        _number(file, "I")
        _string(file)
        _number(file, "I")
        stored = dict(_variable(file) for _ in range(_number(file, "I")))
    weights = {}
    for name, value in stored.items():
        scale = stored.get(f"{name}_scale")
        weights[name] = value if scale is None else value / scale.reshape(-1, *(1,) * (value.ndim - 1))
    return weights


def _variable(file: BinaryIO) -> tuple[str, Array]:
    name = _string(file)
    dimensions = [_number(file, "I") for _ in range(_number(file, "B"))]
    dtype = DTYPES[_number(file, "B")]
    return name, np.frombuffer(file.read(_number(file, "I")), dtype).reshape(dimensions)


def _number(file: BinaryIO, kind: str) -> int:
    return int(struct.unpack(f"<{kind}", file.read(struct.calcsize(f"<{kind}")))[0])


def _string(file: BinaryIO) -> str:
    return file.read(_number(file, "H"))[:-1].decode()


# ---------------------------------------------------------------------- words


def _fillers(known: int) -> list[str]:
    return [f"<never {index}>" for index in range(VOCABULARY - known)]


def _copy_the_rest(directory: Path, end: int, added: int) -> None:
    """Tokens from `end` on move up, as Whisper's special ones are the last."""
    tokenizer = json.loads((SOURCE / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] |= {name: end + index for index, name in enumerate(_fillers(VOCABULARY - added))}
    for token in tokenizer["added_tokens"]:
        token["id"] += added
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    features = json.loads((SOURCE / "preprocessor_config.json").read_text())
    features |= {"chunk_length": 30, "n_samples": 480_000, "nb_max_frames": 3000}
    (directory / "preprocessor_config.json").write_text(json.dumps(features))
    shutil.copy(SOURCE / "README.md", directory)
