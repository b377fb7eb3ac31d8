"""A small pyannote pipeline made on the spot: the real classes and file formats, and an engine that watches it.

The bodies of its networks are random. Only the last layers are fitted, by least squares on a few seconds of espeak:
one tells speech from silence, the other three voices from each other. That is enough for whole requests to mean
something. `load` makes the pipeline where its card's weights should be, and fails what reaches for the network.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from models.catalog import Card
from models.interfaces import DiarizationRequest, DiarizationResult, OnStep, Samples
from models.torch_runtime import import_torch, without_warnings
from tests.models.engines.sentences import say

SAMPLE_RATE = 16_000
WINDOW = 2.0
VOICES = ("en-us+klatt6", "en-us+f3", "en-gb+m7")
DIMENSION = 64
NETWORK_EVENTS = ("socket.connect", "socket.getaddrinfo", "socket.sendto")


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def card_of(weights: Path, **options: Any) -> Card:
    """A card whose engine is `load` below."""
    fields = {"id": "tiny-pyannote", "task": "diarization", "engine": __name__, "name": "tiny", "cancel_grace": 20.0}
    return msgspec.convert(fields | {"weights": str(weights), "options": options}, Card)


def load(card: Card) -> Any:
    """pyannote's engine on the small pipeline, in a process that has no network."""
    sys.addaudithook(_no_network)

    from models.engines import pyannote

    if sys.modules["pyannote.audio.telemetry.metrics"].is_metrics_enabled():
        raise AssertionError("telemetry is on")
    weights = Path(card.weights)
    if not weights.exists():
        build_pipeline(weights)
    engine = pyannote.load(card)
    _assert_windows_are_embedded_alike(engine._pipeline)
    return _Watched(engine)


class _Watched:
    """Fails when progress goes back, past the end, or not up to it."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def diarize(self, request: DiarizationRequest, on_step: OnStep) -> Iterator[DiarizationResult]:
        last: tuple[float, float | None] = 0.0, None

        def step(done: float, total: float | None) -> None:
            nonlocal last
            if done < last[0] or (total is not None and done > total):
                raise AssertionError(f"progress went from {last} to {(done, total)}")
            last = done, total
            on_step(done, total)

        yield from self._engine.diarize(request, step)
        if last[0] != last[1]:
            raise AssertionError(f"progress ended at {last}")


def _assert_windows_are_embedded_alike(pipeline: Any) -> None:
    """What the engine makes of three speakers' masks at once is what the model makes of one at a time."""
    torch = import_torch()
    windows = torch.randn(2, 1, SAMPLE_RATE, generator=torch.Generator().manual_seed(1)).repeat_interleave(3, 0)
    masks = torch.zeros(6, 50)
    masks[0, :30] = masks[1, 20:] = masks[4] = 1.0
    shared = pipeline._embedding(windows, masks=masks)
    alone = pipeline._embedding._embedding(windows, masks=masks)
    heard = masks.any(1).numpy()
    np.testing.assert_allclose(shared[heard], alone[heard], rtol=1e-3, atol=1e-4)
    if not np.isfinite(shared).all():
        raise AssertionError("a silent window has no embedding")


def _no_network(event: str, arguments: tuple[Any, ...]) -> None:
    if event in NETWORK_EVENTS and getattr(arguments[0], "family", None) != socket.AF_UNIX:
        raise AssertionError(f"reached for the network: {event} {arguments[1:]}")


def build_pipeline(directory: Path, *, real_size: bool = False) -> None:
    """Make a pipeline in `directory`. In real size, its embedding model is a random WeSpeaker ResNet34."""
    torch = import_torch()
    torch.manual_seed(0)
    speech = [say(voice, 3 * index) for index, voice in enumerate(VOICES)]
    with without_warnings():
        _save(_segmentation(torch, speech), directory / "segmentation")
        embedding = _real_embedding() if real_size else _embedding(torch, speech)
        _save(embedding, directory / "embedding")
    _save_plda(directory / "plda", embedding.dimension)
    # JSON is YAML, too.
    (directory / "config.yaml").write_text(json.dumps(_config(step=0.1 if real_size else 0.25)))


def _config(step: float) -> dict[str, Any]:
    parts = {part: f"$model/{part}" for part in ("segmentation", "embedding", "plda")}
    return {
        "pipeline": {
            "name": "pyannote.audio.pipelines.SpeakerDiarization",
            "params": parts | {"clustering": "VBxClustering", "segmentation_step": step},
        },
        "params": {"clustering": {"threshold": 0.6, "Fa": 0.07, "Fb": 0.8}, "segmentation": {"min_duration_off": 0.0}},
    }


def _segmentation(torch: Any, speech: list[Samples]) -> Any:
    from pyannote.audio.core.task import Problem, Resolution, Specifications
    from pyannote.audio.models.segmentation import PyanNet

    model = PyanNet(lstm={"hidden_size": 16, "num_layers": 1}, linear={"hidden_size": 32, "num_layers": 1})
    model.specifications = Specifications(
        problem=Problem.MONO_LABEL_CLASSIFICATION,
        resolution=Resolution.FRAME,
        duration=WINDOW,
        min_duration=None,
        warm_up=(0.0, 0.0),
        classes=["first", "second", "third"],
        powerset_max_classes=2,
        permutation_invariant=True,
    )
    model.build()  # type: ignore[no-untyped-call]
    model.eval()
    audio = np.concatenate([part for each in speech for part in (silence(1.5), each[: 6 * SAMPLE_RATE])])
    windows = torch.from_numpy(audio[: len(audio) // 8000 * 8000]).unfold(0, round(WINDOW * SAMPLE_RATE), 8000)
    features = _before(model.classifier, lambda: model(windows[:, None]))
    frames = features.shape[1]
    loud = torch.nn.functional.interpolate(windows.abs()[:, None], size=frames, mode="area")[:, 0] > 0.003
    loud = torch.nn.functional.max_pool1d(loud[:, None].float(), 15, stride=1, padding=7)[:, 0]
    weight, bias = _fitted(torch, features.flatten(0, 1), loud.flatten()[:, None] * 2 - 1)
    with torch.no_grad():  # nobody, the first, and never the others
        model.classifier.weight.zero_()
        model.classifier.weight[1] = weight[0]
        model.classifier.bias.fill_(-100.0)
        model.classifier.bias[:2] = torch.tensor([0.3, float(bias)])  # in doubt, nobody
    return model


def _embedding(torch: Any, speech: list[Samples]) -> Any:
    from pyannote.audio.models.embedding import XVectorMFCC

    model = _representing(XVectorMFCC(dimension=DIMENSION))
    model.eval()
    length = round(WINDOW * SAMPLE_RATE)
    windows = [torch.from_numpy(each).unfold(0, length, length // 2) for each in speech]
    who = torch.cat([torch.full((len(each),), index) for index, each in enumerate(windows)])
    features = _before(model.embedding, lambda: model(torch.cat(windows)[:, None]))
    weight, bias = _fitted(torch, features, torch.eye(DIMENSION)[who])
    with torch.no_grad():
        model.embedding.weight.copy_(weight)
        model.embedding.bias.copy_(bias)
    return model


def _real_embedding() -> Any:
    from pyannote.audio.models.embedding import WeSpeakerResNet34

    return _representing(WeSpeakerResNet34())


def _representing(model: Any) -> Any:
    from pyannote.audio.core.task import Problem, Resolution, Specifications

    model.specifications = Specifications(
        problem=Problem.REPRESENTATION, resolution=Resolution.CHUNK, duration=WINDOW, min_duration=None
    )
    return model


def _before(layer: Any, run: Any) -> Any:
    """What reaches a layer when the model runs."""
    torch = import_torch()
    caught: list[Any] = []
    handle = layer.register_forward_pre_hook(lambda module, arguments: caught.append(arguments[0].detach()))
    with torch.no_grad():
        run()
    handle.remove()
    return caught[0]


def _fitted(torch: Any, features: Any, targets: Any) -> tuple[Any, Any]:
    """Weight and bias of the linear layer that is nearest to the targets."""
    features, targets = features.double(), targets.double()
    centre, level = features.mean(0), targets.mean(0)
    spread = features.std(0) + 1e-3
    inputs = (features - centre) / spread
    gram = inputs @ inputs.T if len(inputs) < inputs.shape[1] else inputs.T @ inputs
    gram = gram + 0.01 * len(inputs) * torch.eye(len(gram), dtype=torch.float64)
    if len(inputs) < inputs.shape[1]:
        weight = (inputs.T @ torch.linalg.solve(gram, targets - level)).T
    else:
        weight = torch.linalg.solve(gram, inputs.T @ (targets - level)).T
    weight = weight / spread
    return weight.float(), (level - weight @ centre).float()


def _save(model: Any, directory: Path) -> None:
    torch = import_torch()
    checkpoint = {
        "state_dict": model.state_dict(),
        "hyper_parameters": dict(model.hparams),
        "hparams_name": "hparams",
        "pytorch-lightning_version": "2.0.0",
        "epoch": 0,
        "global_step": 0,
        "loops": {},
    }
    model.on_save_checkpoint(checkpoint)
    directory.mkdir(parents=True)
    torch.save(checkpoint, directory / "pytorch_model.bin")


def _save_plda(directory: Path, dimension: int) -> None:
    directory.mkdir(parents=True)
    nothing, same = np.zeros(dimension), np.eye(dimension)
    np.savez(directory / "xvec_transform.npz", mean1=nothing, mean2=nothing, lda=same)
    np.savez(directory / "plda.npz", mu=nothing, tr=same, psi=np.linspace(2.0, 0.5, dimension))


def main(directory: str) -> None:
    """Time 10 s of audio on a pipeline of real size and one core: the engine's way, then pyannote's own."""
    from models.engines import pyannote

    torch = import_torch(1)
    build_pipeline(Path(directory), real_size=True)
    engine = pyannote.load(card_of(Path(directory), threads=1))
    audio = np.concatenate((say(VOICES[0], 0), silence(1), say(VOICES[1], 3)))[: 10 * SAMPLE_RATE]
    file = {"waveform": torch.from_numpy(audio)[None], "sample_rate": SAMPLE_RATE, "uri": "timing"}
    factors = []
    for _ in range(2):
        began = time.perf_counter()
        with without_warnings():
            engine._pipeline(file, num_speakers=2)
        factors.append((time.perf_counter() - began) * SAMPLE_RATE / len(audio))
        engine._pipeline.__dict__.pop("_embedding", None)  # what the engine put in front of it
    sys.stdout.write(json.dumps(factors))


if __name__ == "__main__":
    main(*sys.argv[1:])
