"""Voiceprint: the embedded diarizer. Silero says where speech is, a speaker encoder what it sounds like.

The encoder is the GE2E speaker verification network (Wan, Wang, Papir and Moreno, 2018) with Resemblyzer's weights, as
ONNX (`deploy/convert_voiceprint.py`). It hears windows of 1.2 s, five a second: longer ones tell voices apart a little
better, but a turn in a conversation is often no longer than that. `streaming.clustering` finds the voices among the
windows; a window goes to the voice it is most like, unless that would make somebody speak for a moment only.

One voice at a time: where people talk at once, the louder one has the turn. The recording is read as it arrives, and
what stays of an hour are 9 MB of embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from models.catalog import Card
from models.errors import InvalidInput
from models.interfaces import (
    DiarizationRequest,
    DiarizationResult,
    KnownSpeaker,
    OnStep,
    Samples,
    VoicesRequest,
    VoicesResult,
)
from models.speaker_linking import VoiceTurn, name_voices, recognise, speaker_turns
from models.spool import SpoolAbandoned, SpoolReader, is_growing
from streaming.audio import PcmEncoding, decode_pcm
from streaming.audio_window import AudioWindow
from streaming.clustering import MOST_SPEAKERS, Labels, Vectors, centroids_of, find_voices, likeness, steady
from streaming.decode import UndecodableAudio, decode
from streaming.voice_activity import (
    SileroVoiceActivity,
    SpeechStarted,
    TurnDetection,
    TurnDetector,
    TurnEvent,
    VoiceActivityState,
)

MODEL_PATH = Path(__file__).with_name("voiceprint.onnx")
SAMPLE_RATE = 16_000
BLOCK = 10 * SAMPLE_RATE
SPEECH = TurnDetection(silence_duration=0.2, min_speech=0.1, max_speech=30.0, prefix_padding=0.0, trailing_padding=0.0)
"""Speech without the silence around it: what nobody says sounds like nobody."""

BANDS, FFT, FRAME = 40, 400, 160
"""Mel bands; samples of a frame of 25 ms, and from one to the next."""
LEVEL = -30.0
"""dBFS of every window. The encoder hears power and not decibels: loud and quiet speech would be two voices to it."""
WINDOW, STEP = 120, 20
"""Frames of a window, and from one to the next."""
SHORTEST, COARSE = 10, 10
"""Windows of shorter speech have at least so many frames, and a multiple of so many: those can run together."""
CLEAR = 40
"""Frames from which a window is long enough to find voices by."""
BATCH = 64
DIMENSIONS = 256

SWITCH_COST = 0.1
"""Of a change of speaker, in cosines: two windows that are only a little more like somebody else change nothing."""
PAUSE = 0.3
"""Seconds within which somebody who goes on speaking never stopped."""
KNOWN_SIMILARITY = 0.84
"""Cosine from which on a voice is that of a reference clip."""
LONGEST_REFERENCE = 60.0
SHORTEST_REFERENCE = 0.5


def _mel_filters() -> npt.NDArray[np.float32]:
    """Slaney's mel filters, each of unit area, shape (frequencies, bands): linear up to 1 kHz, logarithmic above."""
    linear, knee, ratio = 200 / 3, 15.0, np.log(6.4) / 27
    top = knee + np.log(SAMPLE_RATE / 2 / 1000) / ratio
    mels = np.linspace(0.0, top, BANDS + 2)
    edges = np.where(mels < knee, mels * linear, 1000 * np.exp(ratio * (mels - knee)))
    frequencies = np.linspace(0, SAMPLE_RATE / 2, FFT // 2 + 1)[:, None]
    rising = (frequencies - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - frequencies) / np.diff(edges)[1:]
    filters = np.maximum(0, np.minimum(rising, falling)) * 2 / (edges[2:] - edges[:-2])
    return np.asarray(filters, np.float32)


_FILTERS = _mel_filters()
_HANN = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)).astype(np.float32)


def mel_power(samples: Samples) -> Samples:
    """Power in 40 mel bands per 10 ms of 16 kHz audio, shape (1 + n // 160, 40); frames are centred on their time."""
    padded = np.pad(samples, FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT)[::FRAME]
    spectrum = np.fft.rfft(frames * _HANN, axis=1)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    return np.asarray(power.astype(np.float32) @ _FILTERS, np.float32)


def windows_of(samples: Samples) -> tuple[npt.NDArray[np.int64], list[Samples]]:
    """The windows of a stretch of speech: the sample at which each one's step begins, and what the encoder hears.

    Steps share the stretch evenly and each has its window around it, as far as the stretch goes.
    """
    mels = mel_power(samples)[: len(samples) // FRAME]
    energy = np.concatenate(([0.0], np.cumsum(np.square(samples[: len(mels) * FRAME], dtype=np.float64))))[::FRAME]
    steps = max(1, round(len(mels) / STEP))
    bounds = np.linspace(0, len(mels), steps + 1)
    length = min(WINDOW, max(SHORTEST, len(mels) // COARSE * COARSE), len(mels))
    heard = []
    for middle in (bounds[:-1] + bounds[1:]) / 2:
        first = int(np.clip(round(middle - length / 2), 0, len(mels) - length))
        mean = (energy[first + length] - energy[first]) / max(length * FRAME, 1)
        gain = 10 ** (LEVEL / 10) / mean if mean > 0 else 1.0
        heard.append(mels[first : first + length] * np.float32(gain))
    return (bounds[:-1] * FRAME).round().astype(np.int64), heard


class _Voices:
    """The embeddings of a recording, in order; windows of one length run together."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._waiting: dict[int, list[tuple[int, Samples]]] = {}
        self._found: list[tuple[list[int], npt.NDArray[np.float16]]] = []
        self._frames: list[int] = []

    def add(self, window: Samples) -> None:
        lane = self._waiting.setdefault(len(window), [])
        lane.append((len(self._frames), window))
        self._frames.append(len(window))
        if len(lane) == BATCH:
            self._run(len(window))

    def finish(self) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.bool_]]:
        """Unit vectors, shape (windows, 256), and which of them come from windows long enough to find voices by."""
        for length in list(self._waiting):
            self._run(length)
        vectors = np.zeros((len(self._frames), DIMENSIONS), np.float16)
        for places, found in self._found:
            vectors[places] = found
        return vectors, np.array(self._frames) >= CLEAR

    def _run(self, length: int) -> None:
        if lane := self._waiting.pop(length):
            (found,) = self._session.run(("embeddings",), {"mels": np.stack([window for _, window in lane])})
            self._found.append(([place for place, _ in lane], found.astype(np.float16)))


class VoiceprintDiarizer:
    """Implements Diarizer and VoiceEncoder. Any thread may call it; each request works on one core."""

    def __init__(self, model_path: Path = MODEL_PATH) -> None:
        options = onnxruntime.SessionOptions()
        # A second thread makes an LSTM of this size no faster, and the transcription beside it needs the core.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._encoder: Any = onnxruntime.InferenceSession(
            str(model_path), sess_options=options, providers=["CPUExecutionProvider"]
        )
        self._voice_activity = SileroVoiceActivity()

    def diarize(self, request: DiarizationRequest, on_step: OnStep) -> Iterator[DiarizationResult]:
        """See `Diarizer`; works on a spool while it grows.

        Raises: InvalidInput (counts, reference clips, an upload that broke off); Cancelled from `on_step`.
        """
        fewest, most = _counts(request)
        on_step(0.0, None)
        known = {speaker.name: self._voice_of(speaker) for speaker in request.known_speakers}
        voices = _Voices(self._encoder)
        steps: list[tuple[float, float]] = []
        duration = 0.0

        def heard(seconds: float, total: float | None) -> None:
            nonlocal duration
            duration = seconds
            on_step(seconds, total)

        for start, samples in self._speech(_read(Path(request.pcm_path), heard)):
            begins, windows = windows_of(samples)
            edges = (start + np.append(begins, len(samples))) / SAMPLE_RATE
            for step, window in zip(pairwise(edges.tolist()), windows, strict=True):
                steps.append(step)
                voices.add(window)
        vectors, clear = voices.finish()
        on_step(duration, duration)
        labels, centroids = _speakers(vectors, clear, fewest, most, lambda: on_step(duration, duration))
        turns = [VoiceTurn(int(label), *step) for label, step in zip(labels, steps, strict=True)]
        names = name_voices(turns, recognise(centroids, known, KNOWN_SIMILARITY))
        result = speaker_turns(_whole(turns), names)
        yield DiarizationResult(result, result)

    def encode_voices(self, request: VoicesRequest, on_step: OnStep) -> Iterator[VoicesResult]:
        """See `VoiceEncoder`. Raises: InvalidInput (clip); Cancelled from `on_step`."""
        on_step(0.0, None)
        if request.path:
            voice = self._voice_of(KnownSpeaker("this speaker", request.path))
            yield VoicesResult((0.0, 0.0), np.asarray(voice, np.float32), (True,))
            return
        samples = request.samples
        voices = _Voices(self._encoder)
        begins, windows = windows_of(samples) if len(samples) >= FRAME else (np.zeros(0), [])
        for window in windows:
            voices.add(window)
        vectors, clear = voices.finish()
        edges = np.append(begins, len(samples)) / SAMPLE_RATE if windows else np.zeros(0)
        yield VoicesResult(tuple(edges.tolist()), vectors.astype(np.float32).ravel(), tuple(clear.tolist()))

    def _speech(self, blocks: Iterator[Samples]) -> Iterator[tuple[int, Samples]]:
        """Stretches of speech of at most 30 s, with the sample at which each begins."""
        window, start = AudioWindow(), 0
        for event in self._turn_events(blocks, window):
            if isinstance(event, SpeechStarted):
                start = event.at_sample
                continue
            samples = window.slice(start, event.at_sample)
            if len(samples) >= FRAME:  # the last probability may be of next to no audio
                yield start, samples

    def _turn_events(self, blocks: Iterator[Samples], window: AudioWindow) -> Iterator[TurnEvent]:
        """Events of a recording, while `window` holds the audio they are about."""
        detector, stream = TurnDetector(SPEECH), VoiceActivityState()
        for block in blocks:
            window.append(block)
            for probability in self._voice_activity.over(block, stream):
                yield from detector.push(float(probability))
            window.forget(detector.keep_from)
        for probability in self._voice_activity.over(np.zeros(0, np.float32), stream, last=True):
            yield from detector.push(float(probability))
        yield from detector.finish()

    def _voice_of(self, speaker: KnownSpeaker) -> Vectors:
        """Embedding of the speech in a reference clip, shape (256,)."""
        refusal = f"The clip of {speaker.name!r}"
        try:
            chunks = decode(Path(speaker.path), sample_rate=SAMPLE_RATE)
            blocks = [chunk.samples for chunk in islice(chunks, round(LONGEST_REFERENCE / 10))]
        except UndecodableAudio as error:
            raise InvalidInput(f"{refusal}: {error.message}", field="known_speaker_references") from error
        voices = _Voices(self._encoder)
        seconds = 0.0
        for _, samples in self._speech(iter(blocks)):
            seconds += len(samples) / SAMPLE_RATE
            for window in windows_of(samples)[1]:
                voices.add(window)
        if seconds < SHORTEST_REFERENCE:
            raise InvalidInput(f"{refusal} holds no speech.", field="known_speaker_references")
        vectors, _ = voices.finish()
        return np.asarray(centroids_of(vectors, np.zeros(len(vectors), np.int64))[0], np.float32)


def _counts(request: DiarizationRequest) -> tuple[int, int]:
    """Fewest and most speakers to find. Raises: InvalidInput."""
    num, fewest, most = request.num_speakers, request.min_speakers, request.max_speakers
    for field in ("num_speakers", "min_speakers", "max_speakers"):
        if getattr(request, field) < 0:
            raise InvalidInput(f"{field} must not be negative.", field=field)
    if 0 < most < fewest:
        raise InvalidInput("min_speakers must not be above max_speakers.", field="min_speakers")
    if num and not fewest <= num <= (most or num):
        raise InvalidInput("num_speakers must be between min_speakers and max_speakers.", field="num_speakers")
    return num or max(fewest, 1), num or most or max(fewest, MOST_SPEAKERS)


def _read(path: Path, heard: OnStep) -> Iterator[Samples]:
    """A spool of 16 kHz s16le in blocks; `heard` is told seconds after each, and while waiting for more."""
    seconds = 0.0
    total: float | None = None
    try:
        with SpoolReader(path, lambda: heard(seconds, total)) as spool:
            while data := _fill(spool, 2 * BLOCK):
                yield decode_pcm(data[: len(data) // 2 * 2], PcmEncoding.S16LE)
                seconds += len(data) // 2 / SAMPLE_RATE
                if total is None and not is_growing(path):
                    total = path.stat().st_size // 2 / SAMPLE_RATE
                heard(seconds, total)
    except SpoolAbandoned as error:
        raise InvalidInput("The upload ended before the recording was complete.", field="file") from error


def _fill(spool: SpoolReader, size: int) -> bytes:
    """The next `size` bytes; fewer only at the end."""
    parts: list[bytes] = []
    missing = size
    while missing and (part := spool.read(missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _speakers(
    vectors: npt.NDArray[np.float16],
    clear: npt.NDArray[np.bool_],
    fewest: int,
    most: int,
    check: Callable[[], None],
) -> tuple[Labels, Vectors]:
    """The speaker of each window, and each speaker's centroid."""
    if not len(vectors):
        return np.zeros(0, np.int64), np.zeros((0, DIMENSIONS), np.float32)
    usable = clear if clear.any() else np.ones_like(clear)
    centroids = find_voices(vectors[usable], fewest=fewest, most=most, check=check)
    similarities = likeness(vectors, centroids)
    labels = steady(similarities, SWITCH_COST)
    if len(np.unique(labels)) < len(centroids):
        labels = np.argmax(similarities, axis=1)  # nobody who was found is smoothed away
    return labels, centroids


def _whole(turns: list[VoiceTurn]) -> list[VoiceTurn]:
    """Steps of one voice after another as one turn, over short pauses too."""
    joined: list[VoiceTurn] = []
    for turn in turns:
        if joined and joined[-1].voice == turn.voice and turn.start - joined[-1].end <= PAUSE:
            joined[-1] = joined[-1]._replace(end=turn.end)
        else:
            joined.append(turn)
    return joined


def load(card: Card) -> VoiceprintDiarizer:
    """Load the encoder; it comes with the engine."""
    return VoiceprintDiarizer()
