"""PocketSphinx: the embedded recogniser, with the US English model that its wheel carries.

It writes lower case without punctuation and loses words outside its dictionary. A turn, live or from a file, goes
the same way through the decoder in blocks of 100 ms, so both give the same words.

What decides how well it hears is what surrounds the decoder:

- The cepstral mean. PocketSphinx carries it, and the noise it learnt to subtract, from one utterance to the next. Here
  every live session and every recording starts from `CEPSTRAL_MEAN` and no noise, so nothing of one user's voice
  reaches another's result. Once `MEAN_SETTLES` frames were heard, the mean is that of the voice itself; before, short
  sentences came out better with the fixed one.
- Digital silence, which its acoustic model has never met, is filled with the faintest noise (`DITHER`).
- Quiet speech is raised to `LEVEL`, measured on the turn's first moments.
- Its second, flat-lexicon pass is off: it took half a second at the end of a long turn and made nothing better.
"""

from __future__ import annotations

import itertools
import os
import re
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pocketsphinx

from models.catalog import Card
from models.errors import InvalidInput
from models.interfaces import (
    HypothesisUpdate,
    ListenRequest,
    MediaInfo,
    OnStep,
    Samples,
    SegmentResult,
    TranscriptionRequest,
)
from models.speech_reader import copied
from models.spool import SpoolAbandoned, SpoolReader
from streaming.audio import AudioChunk, PcmEncoding, decode_pcm, encode_pcm
from streaming.decode import UndecodableAudio, decode, decode_channels
from streaming.languages import primary_language
from streaming.transcript import Hypothesis, Segment, Word
from streaming.voice_activity import (
    PATIENT,
    SileroVoiceActivity,
    SpeechStarted,
    TurnDetector,
    VoiceActivityState,
)

SAMPLE_RATE = 16_000
BLOCK = 1_600
"""Samples that go into the decoder at once, and between two hypotheses: 100 ms."""
FRAMES_PER_SECOND = 100
CEPSTRAL_MEAN = "52,4.6,-10.8,16.9,-11.4,2.1,-6.5,-3.8,3.3,-1.8,3.4,-0.4,-1"
"""Lies between the means of real recordings and of synthetic speech."""
MEAN_SETTLES = 300
PRIOR_FRAMES = 30
"""Frames that `CEPSTRAL_MEAN` still counts for then."""
DITHER = 8 / 32768
"""Standard deviation of the added noise: -72 dBFS."""
LEVEL = 3500 / 32768
"""Root mean square that the loudest block of a turn is raised to; louder speech stays as it is."""
MOST_GAIN = 16.0
CONTEXT = 3 * SAMPLE_RATE
"""Samples of the turn before that a live turn begins with: people pause in the middle of sentences, and the language
model makes little of two words alone. Costs half a second of computing at the start of a turn."""
LEVEL_BLOCKS = 6
"""Blocks of a turn that are heard before the first of them is decoded, so that the gain fits its onset."""
_VARIANT = re.compile(r"\(\d+\)$")
_FILLER_STARTS = ("<", "[", "+")


class _CepstralMean:
    """The cepstral mean of one speaker, learnt over one or more utterances: a MAP estimate.

    PocketSphinx tells no sums, but a mean in which the one it was given counts as `_GIVEN_FRAMES` (`CMN_WIN` in its
    cmn.h). Giving it one again after every block also keeps it from moving by itself.
    """

    _GIVEN_FRAMES = 500
    BYTES = 14 * 8
    """Of what `learnt` returns."""

    def __init__(self, learnt: bytes = b"") -> None:
        """`learnt` is what `learnt()` of an earlier utterance of the same speaker gave."""
        self._prior = self._mean = np.array([float(value) for value in CEPSTRAL_MEAN.split(",")])
        self._sum = np.zeros_like(self._prior)
        self._frames = 0.0
        self._seen = 0  # of the utterance under way
        if learnt:
            self._frames, *total = np.frombuffer(learnt).tolist()
            self._sum = np.array(total)
            self._settle()

    def learnt(self) -> bytes:
        """Everything it knows."""
        return np.array([self._frames, *self._sum]).tobytes()

    def begin(self, decoder: Any) -> None:
        """A new utterance starts in the decoder."""
        self._seen = 0
        self._give(decoder)

    def follow(self, decoder: Any) -> None:
        """The decoder has heard more."""
        new = decoder.n_frames() - self._seen
        if new <= 0:
            return
        mixed = np.array([float(value) for value in decoder.get_cmn(True).split(",")])
        self._sum += mixed * (self._GIVEN_FRAMES + new) - self._mean * self._GIVEN_FRAMES
        self._seen += new
        self._frames += new
        self._settle()
        self._give(decoder)

    def _settle(self) -> None:
        if self._frames >= MEAN_SETTLES:
            self._mean = (self._prior * PRIOR_FRAMES + self._sum) / (PRIOR_FRAMES + self._frames)

    def _give(self, decoder: Any) -> None:
        decoder.set_cmn(",".join(f"{value:.4f}" for value in self._mean))


class _Utterance:
    """One turn in a decoder: blocks in, words out."""

    def __init__(self, decoder: Any, mean: _CepstralMean) -> None:
        self._decoder = decoder
        self._mean = mean
        self._noise = np.random.default_rng(0)  # seeded: the same audio gives the same words
        self._waiting: list[Samples] = []
        self._loudest = 1e-6
        self._started = False
        self._open = True
        decoder.reinit_feat()  # forgets the noise that another utterance had
        decoder.start_utt()
        mean.begin(decoder)

    def hear(self, block: Samples) -> None:
        """Take the next samples, at most `BLOCK` of them."""
        if not len(block):  # the binding rejects an empty buffer
            return
        self._waiting.append(block)
        self._loudest = max(self._loudest, float(np.sqrt(np.mean(np.square(block)))))
        if self._started or len(self._waiting) == LEVEL_BLOCKS:
            self._decode()

    def _decode(self) -> None:
        self._started = True
        gain = np.float32(min(max(LEVEL / self._loudest, 1.0), MOST_GAIN))
        for block in self._waiting:
            noise = self._noise.standard_normal(len(block), np.float32) * np.float32(DITHER)
            self._decoder.process_raw(encode_pcm(block * gain + noise, PcmEncoding.S16LE))
            self._mean.follow(self._decoder)
        self._waiting.clear()

    def finish(self) -> None:
        """No more audio: let the decoder make up its mind. May be called twice."""
        if self._open:
            self._open = False
            self._decode()
            self._decoder.end_utt()

    def abandon(self) -> None:
        """Nobody wants to know any more: leave the decoder ready for the next utterance."""
        self._waiting.clear()
        self.finish()

    def words(self, offset: float = 0.0) -> tuple[Word, ...]:
        """What it believes so far; `offset` is the time of the first sample. Sure of itself only once finished."""
        found = []
        for part in self._decoder.seg() or ():
            if part.word.startswith(_FILLER_STARTS):
                continue
            start = offset + part.start_frame / FRAMES_PER_SECOND
            end = offset + (part.end_frame + 1) / FRAMES_PER_SECOND
            probability = None if self._open else min(max(float(part.prob), 0.0), 1.0)
            found.append(Word(_VARIANT.sub("", part.word).lower(), start, end, probability))
        return tuple(found)


class PocketSphinxTranscriber:
    """Implements Transcriber and LiveTranscriber. Every turn under way has a decoder (90 MB) to itself."""

    def __init__(self, card: Card) -> None:
        self._most_idle = card.concurrency
        self._voice_activity = SileroVoiceActivity()
        self._idle = [_new_decoder()]  # loading one takes half a second: the first turn finds it ready
        self._lock = threading.Lock()

    def transcribe(
        self, request: TranscriptionRequest, on_step: OnStep
    ) -> Generator[MediaInfo | SegmentResult, None, None]:
        """Yield the recording's length, then one segment per turn in which there are words, on the file's clock.

        Raises: InvalidInput (language, file); Cancelled from `on_step`.
        """
        _require_english(request.language)
        try:
            _arrived(request.path, on_step)
            duration, channels = _survey(request, on_step)
            yield MediaInfo(duration, "en")
            if request.split_channels:
                spoken = [self._channel(request, index, duration, on_step) for index in range(channels)]
                segments = sorted(itertools.chain(*spoken), key=lambda segment: segment.start)
                yield from map(SegmentResult, segments)
            else:
                yield from map(SegmentResult, self._channel(request, None, duration, on_step))
            on_step(duration, duration)
        except UndecodableAudio as error:
            raise InvalidInput(str(error), field="file", code=error.code) from error

    def _channel(
        self, request: TranscriptionRequest, channel: int | None, duration: float, on_step: OnStep
    ) -> Iterator[Segment]:
        """What is said in one channel, or in the mix of all."""
        mean = _CepstralMean()
        chunks = (block[channel or 0] for block in _decoded(request))
        for start, samples in self._turns(chunks, duration, on_step):
            words = self._recognise(mean, start, samples, duration, on_step)
            if words:
                kept = words if request.word_timestamps else ()
                yield Segment(_text(words), words[0].start, words[-1].end, kept, "en", channel=channel)

    def listen(
        self, request: ListenRequest, audio: Iterator[Samples], on_step: OnStep
    ) -> Generator[HypothesisUpdate | SegmentResult, None, None]:
        """Yield a hypothesis when 100 ms of audio changed it, then the turn's one segment, its text empty or not.

        Raises: InvalidInput (language); Cancelled from `on_step`.
        """
        _require_english(request.language)
        heard = 0
        before: list[str] = []
        mean, context = _recall(request.adaptation)
        lead = len(context) / SAMPLE_RATE
        with self._utterance(mean) as utterance:
            for block in _blocks([context]):
                utterance.hear(block)
                on_step(0.0, None)
            for block in _blocks(audio):
                utterance.hear(block)
                heard += len(block)
                context = np.concatenate((context, block))[-CONTEXT:]
                on_step(heard / SAMPLE_RATE, None)
                words = _after(utterance.words(), lead)
                if (now := [word.text for word in words]) != before:
                    before = now
                    yield HypothesisUpdate(Hypothesis(words))
            utterance.finish()
            duration = heard / SAMPLE_RATE
            words = _within(_after(utterance.words(), lead), duration)
            learnt = mean.learnt() + encode_pcm(context, PcmEncoding.S16LE)
            yield SegmentResult(Segment(_text(words), 0.0, duration, words, "en"), learnt)

    def _recognise(
        self, mean: _CepstralMean, start: int, samples: Samples, duration: float, on_step: OnStep
    ) -> tuple[Word, ...]:
        """The words of one turn that begins `start` samples into the recording."""
        with self._utterance(mean) as utterance:
            done = start
            for block in _blocks([samples]):
                utterance.hear(block)
                done += len(block)
                on_step(min(done / SAMPLE_RATE, duration), duration)
            utterance.finish()
            return _within(utterance.words(start / SAMPLE_RATE), min((start + len(samples)) / SAMPLE_RATE, duration))

    def _turns(self, chunks: Iterable[AudioChunk], duration: float, on_step: OnStep) -> Iterator[tuple[int, Samples]]:
        """The turns of a recording as (first sample, samples), keeping only the audio that may still be needed."""
        detector, stream = TurnDetector(PATIENT), VoiceActivityState()
        kept, kept_from, start = np.zeros(0, np.float32), 0, 0
        for chunk in itertools.chain(chunks, [None]):
            samples = chunk.samples if chunk else np.zeros(0, np.float32)
            kept = np.concatenate((kept, samples))
            probabilities = self._voice_activity.over(samples, stream, last=chunk is None)
            events = [event for p in probabilities for event in detector.push(float(p))]
            events += [] if chunk else detector.finish()
            for event in events:
                if isinstance(event, SpeechStarted):
                    start = event.at_sample
                else:
                    yield start, kept[start - kept_from : event.at_sample - kept_from]
            kept, kept_from = kept[max(detector.keep_from - kept_from, 0) :], max(detector.keep_from, kept_from)
            on_step(min(kept_from / SAMPLE_RATE, duration), duration)

    @contextmanager
    def _utterance(self, mean: _CepstralMean) -> Iterator[_Utterance]:
        """An utterance in an idle decoder, or in a new one; an abandoned utterance is ended before others get it."""
        with self._lock:
            decoder = self._idle.pop() if self._idle else None
        decoder = decoder or _new_decoder()
        utterance = _Utterance(decoder, mean)
        try:
            yield utterance
        finally:
            utterance.abandon()
            with self._lock:
                if len(self._idle) < self._most_idle:
                    self._idle.append(decoder)


def _new_decoder() -> Any:
    return pocketsphinx.Decoder(samprate=SAMPLE_RATE, fwdflat=False, loglevel="FATAL")


def _require_english(language: str) -> None:
    if primary_language(language) not in {"", "en", "eng", "english"}:
        raise InvalidInput(
            f"This model understands English only, not {language!r}; leave the language out or choose another model.",
            field="language",
        )


def _arrived(path: str, on_step: OnStep) -> None:
    """Wait for the end of an upload that is still arriving."""
    try:
        with SpoolReader(Path(path), lambda: on_step(0.0, None)) as spool:
            spool.seek(0, os.SEEK_END)
    except SpoolAbandoned as error:
        raise InvalidInput("The upload ended before the recording was complete.", field="file") from error
    except FileNotFoundError as error:
        raise InvalidInput("The recording is not there.", field="file") from error


def _survey(request: TranscriptionRequest, on_step: OnStep) -> tuple[float, int]:
    """Seconds and channels of a recording, as decoded: headers may be absent or wrong, and a cut-off file ends early.

    Makes the copy for a diarizer on the way.
    """
    samples = channels = 0
    decoded = _decoded(request)
    with closing(copied(decoded, Path(request.pcm_path)) if request.pcm_path else decoded) as blocks:
        for block in blocks:
            samples += len(block[0].samples)
            channels = len(block)
            on_step(0.0, None)
    return samples / SAMPLE_RATE, channels


def _decoded(request: TranscriptionRequest) -> Generator[Sequence[AudioChunk], None, None]:
    """The recording's channels, or their mix as the only one."""
    if request.split_channels:
        yield from decode_channels(request.path, sample_rate=SAMPLE_RATE)
    else:
        yield from ((chunk,) for chunk in decode(request.path, sample_rate=SAMPLE_RATE))


def _blocks(pieces: Iterable[Samples]) -> Iterator[Samples]:
    """The same samples in blocks of `BLOCK`, however they were cut before; the last one may be shorter."""
    rest = np.zeros(0, np.float32)
    for piece in pieces:
        rest = np.concatenate((rest, piece)) if len(rest) else piece
        whole = len(rest) // BLOCK * BLOCK
        yield from (rest[at : at + BLOCK] for at in range(0, whole, BLOCK))
        rest = rest[whole:]
    if len(rest):
        yield rest


def _within(words: tuple[Word, ...], end: float) -> tuple[Word, ...]:
    """Words no later than the audio's end: the last frame may reach a little beyond it."""
    return tuple(replace(word, start=min(word.start, end), end=min(word.end, end)) for word in words)


def _recall(adaptation: bytes) -> tuple[_CepstralMean, Samples]:
    """What a session's turn before left behind: its voice's mean and its last moments."""
    known = adaptation[: _CepstralMean.BYTES]
    return _CepstralMean(known), decode_pcm(adaptation[_CepstralMean.BYTES :], PcmEncoding.S16LE)


def _after(words: tuple[Word, ...], start: float) -> tuple[Word, ...]:
    """The words that lie mostly after `start`, on a clock that begins there."""
    return tuple(
        replace(word, start=max(0.0, word.start - start), end=word.end - start)
        for word in words
        if (word.start + word.end) / 2 >= start
    )


def _text(words: Iterable[Word]) -> str:
    return " ".join(word.text for word in words)


def load(card: Card) -> PocketSphinxTranscriber:
    """Load the voice activity model and a first decoder (half a second)."""
    return PocketSphinxTranscriber(card)
