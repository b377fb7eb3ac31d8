"""A scripted recogniser and diarizer: `engine="tests.scripted_transcriber"`. The "recording" is text, a verb a line.

    say WORDS      one segment, a second long, with a word for each; read while the recording still arrives
    whisper WORDS  the same, but the diarizer does not hear it
    hum WORDS      the same as say, but no word of it has a time
    wait           reports progress until it is cancelled
    raise          raises ValueError
    invalid        raises InvalidInput for the field "file"
    kill           kills its own process with SIGKILL

Every second that was said becomes a second of silence in the copy for the diarizer, which finds two speakers who take
turns every second. It fails when it is asked for 9 of them, and dies of 10.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from models.catalog import Card
from models.errors import EngineFailed, InvalidInput
from models.interfaces import (
    DiarizationRequest,
    DiarizationResult,
    MediaInfo,
    OnStep,
    SegmentResult,
    TranscriptionRequest,
)
from models.spool import SpoolAbandoned, SpoolReader, SpoolWriter
from streaming.transcript import Segment, SpeakerTurn, Word

SECOND = bytes(2 * 16_000)


class ScriptedTranscriber:
    """Does what the recording tells it to."""

    def transcribe(self, request: TranscriptionRequest, on_step: OnStep) -> Iterator[MediaInfo | SegmentResult]:
        said = 0
        with ExitStack() as stack:
            copy = stack.enter_context(SpoolWriter(Path(request.pcm_path))) if request.pcm_path else None
            spool = stack.enter_context(SpoolReader(Path(request.path), lambda: on_step(said, None)))
            for line in _lines(spool, "The upload ended before the recording was complete."):
                verb, *words = line.split()
                if verb in ("say", "whisper", "hum"):
                    if not said:
                        yield MediaInfo(0.0, request.language or "en")
                    if copy and verb != "whisper":
                        copy.write(SECOND)
                    timed = request.word_timestamps and verb != "hum"
                    yield SegmentResult(_segment(said, words, timed=timed))
                    said += 1
                    on_step(said, None)
                else:
                    _misbehave(verb, on_step)
        yield MediaInfo(float(said), request.language or "en")

    def diarize(self, request: DiarizationRequest, on_step: OnStep) -> Iterator[DiarizationResult]:
        if request.num_speakers == 9:
            raise EngineFailed("The diarizer failed.")
        if request.num_speakers == 10:
            os.kill(os.getpid(), signal.SIGKILL)
        with SpoolReader(Path(request.pcm_path), lambda: on_step(0.0, None)) as spool:
            abandoned = "The recording's audio ended early."
            seconds = sum(len(block) for block in _blocks(spool, abandoned)) // len(SECOND)
        names = [known.name for known in request.known_speakers] + ["SPEAKER_00", "SPEAKER_01"]
        turns = tuple(SpeakerTurn(names[second % 2], float(second), second + 1.0) for second in range(seconds))
        yield DiarizationResult(turns, turns)


def _blocks(spool: SpoolReader, abandoned: str) -> Iterator[bytes]:
    try:
        yield from iter(lambda: spool.read(1 << 16), b"")
    except SpoolAbandoned:
        raise InvalidInput(abandoned, field="file") from None


def _lines(spool: SpoolReader, abandoned: str) -> Iterator[str]:
    rest = b""
    for block in _blocks(spool, abandoned):
        *whole, rest = (rest + block).split(b"\n")
        yield from (line.decode() for line in whole if line.strip())


def _segment(start: int, words: list[str], *, timed: bool) -> Segment:
    step = 1 / max(len(words), 1)
    found = (Word(word, start + index * step, start + (index + 1) * step) for index, word in enumerate(words))
    return Segment(" ".join(words), float(start), start + 1.0, tuple(found) if timed else (), "en")


def _misbehave(verb: str, on_step: OnStep) -> None:
    match verb:
        case "wait":
            while True:
                on_step(0.0, None)
                threading.Event().wait(0.005)
        case "raise":
            raise ValueError("something secret about the recording")
        case "invalid":
            raise InvalidInput("there is no audio in it", field="file", code="corrupt_audio")
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)


def load(card: Card) -> ScriptedTranscriber:
    """The entry point of an engine module."""
    return ScriptedTranscriber()
