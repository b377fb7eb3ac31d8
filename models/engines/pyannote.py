"""pyannote.audio's speaker diarization pipelines, from a local directory or the model hub's cache.

A pipeline is a directory: `config.yaml` names its parts, `segmentation` and `embedding` hold checkpoints and `plda` the
two arrays (`xvec_transform.npz`, `plda.npz`) by which VBx clustering compares voices. pyannote asks the hub for its own
PLDA whenever the config names none, even for clustering that has no use for one; here it is never asked: a config
without one takes the directory's `plda`. Checkpoints are pickles: load only what you trust.

The whole recording is in memory as float32, and clustering takes memory with the square of its length (at two hours
and 20 voices some 2 GB). Longer ones are diarized in strips, whose speakers are then linked by their voices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np

from models.catalog import Card
from models.errors import InvalidInput, WeightsMissing
from models.interfaces import DiarizationRequest, DiarizationResult, KnownSpeaker, OnStep, Samples
from models.speaker_linking import Embeddings, VoiceTurn, link, name_voices, recognise, speaker_turns
from models.spool import SpoolAbandoned, SpoolReader
from models.torch_runtime import import_torch, pick_device, weights_directory, without_warnings
from streaming.audio import PcmEncoding, decode_pcm
from streaming.decode import UndecodableAudio, decode
from streaming.voice_activity import SileroVoiceActivity, find_turns

torch = import_torch()
with without_warnings():
    import yaml
    from pyannote.audio import Pipeline
    from pyannote.audio.core.plda import PLDA
    from pyannote.audio.pipelines.speaker_verification import PyannoteAudioPretrainedSpeakerEmbedding

SAMPLE_RATE = 16_000
STRIP_HOURS = 2.0
"""The longest recording that is diarized as a whole; longer ones are cut into strips of equal length up to this."""
LINK_SIMILARITY = 0.7
KNOWN_SIMILARITY = 0.6
CPU_BATCH, DEVICE_BATCH = 1, 32
"""Windows at once. On a CPU more are no faster, and a cancelled request would notice later."""
SHARES = {"segmentation": (0.0, 0.15), "speaker_counting": (0.15, 0.15), "embeddings": (0.15, 0.97)}
"""Where each of pyannote's steps begins and ends in the time that a recording takes; what follows is quick."""
LONGEST_REFERENCE = 30.0
SHORTEST_REFERENCE = 0.5
BLOCK = 10 * SAMPLE_RATE * 2

Heard: TypeAlias = tuple[list[VoiceTurn], list[VoiceTurn], Embeddings]
"""Turns, exclusive turns, and the embedding of each voice in them: (voices, dimension)."""


class PyannoteOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`options` of a card. Zeros and "auto" are chosen here.

    Voices whose cosine is at least `link_similarity` are one person across strips; a speaker has a known one's name
    from `known_similarity` on, and stays a stranger below.
    """

    device: str = "auto"
    threads: int = 0
    batch_size: int = 0
    strip_hours: float = STRIP_HOURS
    link_similarity: float = LINK_SIMILARITY
    known_similarity: float = KNOWN_SIMILARITY


class _Windows:
    """pyannote's embedding model, run once for each window instead of once for each speaker in it.

    The pipeline repeats a window for every speaker and masks the others. Only the pooling at the end differs, and the
    models do that for many masks at once. Windows in which nobody speaks are not run at all: what the pipeline gets
    for them, it does not use.
    """

    def __init__(self, embedding: Any, speakers: int) -> None:
        self._embedding = embedding
        self._speakers = speakers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._embedding, name)

    def __call__(self, waveforms: Any, masks: Any = None) -> Embeddings:
        """(windows * speakers, 1, samples) and (windows * speakers, frames) -> (windows * speakers, dimension)."""
        if masks is None:
            return np.asarray(self._embedding(waveforms))
        windows = waveforms[:: self._speakers]
        weights = masks.view(len(windows), self._speakers, -1)
        spoken = weights.flatten(1).any(1)
        found = np.ones((len(windows), self._speakers, self._embedding.dimension), np.float32)
        if spoken.any():
            found[spoken.numpy()] = self._embedding(windows[spoken], masks=weights[spoken])
        return found.reshape(len(waveforms), -1)


class PyannoteDiarizer:
    """Implements Diarizer; one request at a time."""

    def __init__(self, pipeline: Any, options: PyannoteOptions) -> None:
        self._pipeline = pipeline
        self._options = options
        self._embedding = pipeline._embedding
        self._voice_activity = SileroVoiceActivity()
        device = pick_device(options.device)
        pipeline.to(torch.device(device))
        batch = options.batch_size or (CPU_BATCH if device == "cpu" else DEVICE_BATCH)
        speakers = len(pipeline._segmentation.model.specifications.classes)
        pipeline.segmentation_batch_size = batch
        pipeline.embedding_batch_size = batch * speakers
        # Past the pipeline's own attributes, which keep hold of the real ones and move them between devices.
        if isinstance(self._embedding, PyannoteAudioPretrainedSpeakerEmbedding):
            object.__setattr__(pipeline, "_embedding", _Windows(self._embedding, speakers))
        object.__setattr__(pipeline, "clustering", _satisfiable(pipeline.clustering))

    def diarize(self, request: DiarizationRequest, on_step: OnStep) -> Iterator[DiarizationResult]:
        """See `Diarizer`; begins when the spool is complete.

        Raises: InvalidInput (counts, reference clips, an upload that broke off); Cancelled from `on_step`.
        """
        _check_counts(request)
        on_step(0.0, None)
        known = {speaker.name: self._voice_of(speaker) for speaker in request.known_speakers}
        turns, exclusive, voices = self._hear(request, on_step)
        labels = name_voices(turns, recognise(voices, known, self._options.known_similarity))
        yield DiarizationResult(speaker_turns(turns, labels), speaker_turns(exclusive, labels))

    # ------------------------------------------------------------------ the recording

    def _hear(self, request: DiarizationRequest, on_step: OnStep) -> Heard:
        try:
            with SpoolReader(Path(request.pcm_path), lambda: on_step(0.0, None)) as spool:
                samples = spool.seek(0, 2) // 2
                spool.seek(0)
                heard = []
                for start, end in _strips(samples, self._options.strip_hours):
                    hook = _hook(on_step, start / SAMPLE_RATE, end / SAMPLE_RATE, samples / SAMPLE_RATE)
                    part = _read(spool, end - start)
                    heard.append(self._hear_strip(part, start, request, hook, partial=end - start < samples))
        except SpoolAbandoned as error:
            raise InvalidInput("The upload ended before the recording was complete.", field="file") from error
        on_step(samples / SAMPLE_RATE, samples / SAMPLE_RATE)
        return self._linked(heard, request.num_speakers or request.max_speakers)

    def _hear_strip(
        self, samples: Samples, start: int, request: DiarizationRequest, hook: Callable[..., None], *, partial: bool
    ) -> Heard:
        """One strip's turns in seconds of the recording. In a `partial` one, not everybody need be heard."""
        counts = {
            "num_speakers": 0 if partial else request.num_speakers,
            "min_speakers": 0 if partial else request.min_speakers,
            "max_speakers": request.max_speakers or request.num_speakers,
        }
        file = {"waveform": torch.from_numpy(samples)[None], "sample_rate": SAMPLE_RATE, "uri": "recording"}
        with without_warnings():
            found = self._pipeline(file, hook=hook, **{name: count or None for name, count in counts.items()})
        voices = {label: index for index, label in enumerate(found.speaker_diarization.labels())}
        offset, length = start / SAMPLE_RATE, len(samples) / SAMPLE_RATE
        turns, exclusive = (
            [
                VoiceTurn(
                    voices[label], offset + max(float(segment.start), 0.0), offset + min(float(segment.end), length)
                )
                for segment, _, label in annotation.itertracks(yield_label=True)
                if label in voices and segment.start < length  # the last window is filled up with silence
            ]
            for annotation in (found.speaker_diarization, found.exclusive_speaker_diarization)
        )
        return turns, exclusive, np.asarray(found.speaker_embeddings)

    def _linked(self, heard: Sequence[Heard], most: int) -> Heard:
        """Strips as one recording; a person's voice is the mean of the strips'."""
        if len(heard) <= 1:
            return heard[0] if heard else ([], [], np.zeros((0, 1)))
        overall = link([voices for _, _, voices in heard], self._options.link_similarity, most)
        turns, exclusive = (
            [
                VoiceTurn(numbers[turn.voice], turn.start, turn.end)
                for numbers, strip in zip(overall, heard, strict=True)
                for turn in strip[kind]
            ]
            for kind in (0, 1)
        )
        people = [number for numbers in overall for number in numbers]
        voices = np.concatenate([strip[2] for strip in heard])
        return turns, exclusive, np.stack([voices[np.equal(people, each)].mean(0) for each in sorted(set(people))])

    # ------------------------------------------------------------------ known speakers

    def _voice_of(self, speaker: KnownSpeaker) -> Embeddings:
        """Embedding of the speech in a reference clip, shape (dimension,)."""
        longest = round(LONGEST_REFERENCE * SAMPLE_RATE)
        try:
            samples = _first(decode(Path(speaker.path), sample_rate=SAMPLE_RATE), longest)
        except UndecodableAudio as error:
            message = f"The clip of {speaker.name!r}: {error.message}"
            raise InvalidInput(message, field="known_speaker_references") from error
        turns = find_turns(self._voice_activity.over(samples), total_samples=len(samples))
        speech = np.concatenate([samples[:0], *(samples[start:end] for start, end in turns)])
        if len(speech) < SHORTEST_REFERENCE * SAMPLE_RATE:
            raise InvalidInput(f"The clip of {speaker.name!r} holds no speech.", field="known_speaker_references")
        voice: Embeddings = np.asarray(self._embedding(torch.from_numpy(speech)[None, None]))[0]
        return voice


def _first(blocks: Iterator[Any], samples: int) -> Samples:
    """The beginning of a recording."""
    parts: list[Samples] = []
    for block in blocks:
        parts.append(block.samples)
        if block.end >= samples:
            break
    return np.concatenate(parts)[:samples] if parts else np.zeros(0, np.float32)


def _check_counts(request: DiarizationRequest) -> None:
    for field in ("num_speakers", "min_speakers", "max_speakers"):
        if getattr(request, field) < 0:
            raise InvalidInput(f"{field} must not be negative.", field=field)
    if 0 < request.max_speakers < request.min_speakers:
        raise InvalidInput("min_speakers must not be above max_speakers.", field="min_speakers")


def _strips(samples: int, hours: float) -> list[tuple[int, int]]:
    """Equal parts of a recording; none is longer than `hours`."""
    count = max(1, math.ceil(samples / (hours * 3600 * SAMPLE_RATE)))
    bounds = [samples * index // count for index in range(count + 1)]
    return list(zip(bounds, bounds[1:], strict=False)) if samples else []


def _read(spool: SpoolReader, samples: int) -> Samples:
    """The next samples, without a second copy of them all."""
    found = np.zeros(samples, np.float32)
    filled = 0
    while filled < samples:
        block = bytearray(min(BLOCK, 2 * (samples - filled)))
        view, count = memoryview(block), 0
        while count < len(block) and (more := spool.readinto(view[count:])):
            count += more
        if count < 2:
            break
        whole = count // 2
        found[filled : filled + whole] = decode_pcm(view[: 2 * whole], PcmEncoding.S16LE)
        filled += whole
    return found[:filled]


def _hook(on_step: OnStep, start: float, end: float, duration: float) -> Callable[..., None]:
    """pyannote's hook, as seconds of the recording."""
    done = start

    def hook(step: str, artefact: object, *, completed: int = 1, total: int = 1, **_: object) -> None:
        nonlocal done
        begin, finish = SHARES.get(step, (0.97, 0.97))
        share = begin + (finish - begin) * min(float(completed) / total, 1.0) if total else begin
        done = max(done, start + (end - start) * share)
        on_step(done, duration)

    return hook


def _satisfiable(clustering: Any) -> Callable[..., Any]:
    """pyannote's clustering, asked for no more speakers than there are voices to tell apart: more makes it fail."""

    def cluster(*, embeddings: Any, segmentations: Any, **counts: Any) -> Any:
        usable = max(1, len(clustering.filter_embeddings(embeddings, segmentations=segmentations)[0]))
        capped = {
            name: value if value is None or name not in ("num_clusters", "min_clusters") else min(value, usable)
            for name, value in counts.items()
        }
        return clustering(embeddings=embeddings, segmentations=segmentations, **capped)

    return cluster


def load(card: Card) -> PyannoteDiarizer:
    """Load the pipeline in the directory, or of the hub id, that the card names; never from the network.

    Raises: WeightsMissing; msgspec.ValidationError for options that do not exist.
    """
    options = msgspec.convert(card.options, PyannoteOptions)
    directory = weights_directory(card, "config.yaml")
    import_torch(options.threads)
    with without_warnings():
        return PyannoteDiarizer(Pipeline.from_pretrained(_local_config(directory, card.id)), options)


def _local_config(directory: Path, name: str) -> dict[str, Any]:
    """The pipeline's config, with its own parts as paths and a PLDA from the directory or none."""
    config: dict[str, Any] = yaml.safe_load((directory / "config.yaml").read_text())
    params = config["pipeline"].setdefault("params", {})
    for part in ("segmentation", "embedding", "plda"):
        if isinstance(value := params.get(part), str) and value.startswith("$model/"):
            params[part] = {"checkpoint": str(directory), "subfolder": value.removeprefix("$model/").partition("@")[0]}
    if "plda" not in params:
        if (directory / "plda" / "plda.npz").is_file():
            params["plda"] = {"checkpoint": str(directory), "subfolder": "plda"}
        elif params.get("clustering", "VBxClustering") == "VBxClustering":
            raise WeightsMissing(f"The weights of {name!r} have no plda/plda.npz: pull them again.", field="model")
        else:
            params["plda"] = PLDA.__new__(PLDA)  # never looked at by other kinds of clustering
    return config
