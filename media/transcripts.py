"""A whole transcript, and every shape it is answered in: OpenAI's, Together's, and subtitles."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from streaming.speakers import Utterance, utterances
from streaming.subtitles import srt, vtt
from streaming.transcript import Segment, Word

ResponseFormat: TypeAlias = Literal["json", "text", "srt", "vtt", "verbose_json", "diarized_json"]
MEDIA_TYPES: dict[str, str] = {"text": "text/plain", "srt": "application/x-subrip", "vtt": "text/vtt"}
"""Of the formats that are not JSON."""

AUDIO_TOKENS_PER_SECOND = 10
"""What OpenAI counts."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """Everything one answer needs. `duration` is the recording's, in seconds; words have speakers if `diarized`."""

    duration: float
    language: str
    segments: tuple[Segment, ...]
    task: Literal["transcribe", "translate"] = "transcribe"
    diarized: bool = False

    @property
    def text(self) -> str:
        return " ".join(text for segment in self.segments if (text := segment.text.strip()))

    @property
    def words(self) -> list[Word]:
        return [word for segment in self.segments for word in segment.words]

    @property
    def utterances(self) -> list[Utterance]:
        return list(utterances(self.words))

    @property
    def usage(self) -> dict[str, Any]:
        return {"type": "duration", "seconds": math.ceil(self.duration)}

    @property
    def token_usage(self) -> dict[str, Any]:
        """The same for streams, whose last event OpenAI's SDK knows with tokens only."""
        heard = math.ceil(self.duration * AUDIO_TOKENS_PER_SECOND)
        written = sum(
            len(segment.scores.tokens if segment.scores else segment.text.split()) for segment in self.segments
        )
        return {
            "type": "tokens",
            "input_tokens": heard,
            "input_token_details": {"text_tokens": 0, "audio_tokens": heard},
            "output_tokens": written,
            "total_tokens": heard + written,
            "seconds": math.ceil(self.duration),
        }


def written(transcript: Transcript, response_format: ResponseFormat, *, words: bool) -> str | dict[str, Any]:
    """The answer: text for `text`, `srt` and `vtt`, a JSON body for the others, with `words` if asked."""
    match response_format:
        case "text":
            return transcript.text + "\n"
        case "srt":
            return "".join(srt(transcript.segments))
        case "vtt":
            return "".join(vtt(transcript.segments))
        case "diarized_json":
            return diarized(transcript)
        case "verbose_json":
            return verbose(transcript, words=words)
        case "json":
            # Together's clients ask for speakers with the default format, and read them from the verbose shape.
            if transcript.diarized:
                return verbose(transcript, words=True)
            return {"text": transcript.text, "usage": transcript.usage}


def verbose(transcript: Transcript, *, words: bool) -> dict[str, Any]:
    """`verbose_json` with the fields of both vendors."""
    answer: dict[str, Any] = {
        "task": transcript.task,
        "language": transcript.language,
        "duration": round(transcript.duration, 3),
        "text": transcript.text,
        "segments": [_segment(index, segment) for index, segment in enumerate(transcript.segments)],
        "usage": transcript.usage,
    }
    if words or transcript.diarized:
        answer["words"] = [_word(index, word) for index, word in enumerate(transcript.words)]
    if transcript.diarized:
        answer["speaker_segments"] = [
            {
                "id": index,
                "speaker_id": each.speaker,
                "start": round(each.start, 3),
                "end": round(each.end, 3),
                "text": each.text,
                "words": [_word(position, word) for position, word in enumerate(each.words)],
            }
            for index, each in enumerate(transcript.utterances)
        ]
    return answer


def diarized(transcript: Transcript) -> dict[str, Any]:
    """OpenAI's `diarized_json`: known speakers by name, others A, B, ... in order of appearance."""
    segments = [diarized_segment(index, each) for index, each in enumerate(lettered(transcript.utterances))]
    return {
        "task": transcript.task,
        "duration": round(transcript.duration, 3),
        "text": "\n".join(f"{segment['speaker']}: {segment['text']}" for segment in segments),
        "segments": segments,
        "usage": transcript.usage,
    }


def diarized_segment(index: int, utterance: Utterance) -> dict[str, Any]:
    """One segment of `diarized_json`, and of its stream."""
    return {
        "type": "transcript.text.segment",
        "id": f"seg_{index:03}",
        "start": round(utterance.start, 3),
        "end": round(utterance.end, 3),
        "text": utterance.text,
        "speaker": utterance.speaker,
    }


def lettered(said: list[Utterance]) -> list[Utterance]:
    """The same utterances with letters for speakers who have no name of their own."""
    speakers = dict.fromkeys(each.speaker for each in said)
    free = (letter for letter in map(_letter, itertools.count()) if letter not in speakers)
    letters = {speaker: next(free) for speaker in speakers if speaker.startswith("SPEAKER_")}
    return [Utterance(letters.get(each.speaker, each.speaker), each.start, each.end, each.words) for each in said]


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else f"S{index}"


def _segment(index: int, segment: Segment) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "id": index,
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
    }
    if (scores := segment.scores) is not None:
        answer |= {
            "seek": scores.seek,
            "tokens": list(scores.tokens),
            "temperature": scores.temperature,
            "avg_logprob": scores.avg_logprob,
            "compression_ratio": scores.compression_ratio,
            "no_speech_prob": scores.no_speech_prob,
        }
    if segment.channel is not None:
        answer["channel"] = segment.channel
    return answer


def _word(index: int, word: Word) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "id": index,
        "word": word.text,
        "start": round(word.start, 3),
        "end": round(word.end, 3),
    }
    if word.speaker is not None:
        answer["speaker_id"] = word.speaker
    if word.overlapped:
        answer["overlap"] = True
    return answer
