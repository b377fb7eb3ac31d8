"""A whole recording written down: put together from a run, answered in OpenAI's shapes."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from models.interfaces import EngineResult, MediaInfo, SegmentResult
from streaming.transcript import Segment

ResponseFormat: TypeAlias = Literal["json", "text", "verbose_json"]


@dataclass(frozen=True, slots=True)
class Transcript:
    """Everything one answer needs. `duration` is the recording's, in seconds."""

    duration: float
    language: str
    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        return " ".join(segment.text for segment in self.segments)


async def collect(results: AsyncIterable[EngineResult], language: str = "") -> Transcript:
    """Read a transcription to its end; `language` stands until the engine says which one it is.

    Raises: what iterating the results raises.
    """
    info = MediaInfo(0.0, language)
    segments: list[Segment] = []
    async for result in results:
        if isinstance(result, MediaInfo):
            info = result
        elif isinstance(result, SegmentResult):
            segments.append(result.segment)
    return Transcript(info.duration, info.language, tuple(segments))


def body(transcript: Transcript, *, verbose: bool, words: bool) -> dict[str, Any]:
    """The `json` answer, or the `verbose_json` one, in which `words` asks for every word's times."""
    usage = {"type": "duration", "seconds": math.ceil(transcript.duration)}
    if not verbose:
        return {"text": transcript.text, "usage": usage}
    answer: dict[str, Any] = {
        "task": "transcribe",
        "language": transcript.language,
        "duration": round(transcript.duration, 3),
        "text": transcript.text,
        "segments": [
            {"id": index, "start": round(segment.start, 3), "end": round(segment.end, 3), "text": segment.text}
            for index, segment in enumerate(transcript.segments)
        ],
        "usage": usage,
    }
    if words:
        said = [word for segment in transcript.segments for word in segment.words]
        answer["words"] = [
            {"id": index, "word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)}
            for index, word in enumerate(said)
        ]
    return answer
