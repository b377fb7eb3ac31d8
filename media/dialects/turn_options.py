"""What both realtime dialects may ask of the end of a turn and of speakers: names, limits, and what they mean.

`eagerness` is OpenAI's; `eot_threshold`, `eot_timeout_ms` and `eager_eot_threshold` are Deepgram's names, which
Together's sockets take too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from media.dialects.realtime import Frame, KnownSpeakers
from media.errors import ApiError
from streaming import listening_events
from streaming.endpointing import EndOfTurn
from streaming.transcript import Word

Eagerness: TypeAlias = Literal["low", "medium", "high", "auto"]
PATIENCE: dict[str, float] = {"low": 8.0, "medium": 4.0, "high": 2.0, "auto": 4.0}
"""Seconds of silence that an unfinished turn is waited for at most (the ones OpenAI states)."""
THRESHOLD = 0.5
MOST_KNOWN_SPEAKERS = 10
FIELDS = ("eagerness", "eot_threshold", "eot_timeout_ms", "eager_eot_threshold")


class EndOfTurnOptions(Struct, kw_only=True):
    """When a turn ends by what was said; an end that is probable is announced from `eager_eot_threshold` on."""

    eagerness: Eagerness | UnsetType = UNSET
    eot_threshold: Annotated[float, Meta(gt=0, le=1)] | UnsetType = UNSET
    eot_timeout_ms: Annotated[float, Meta(ge=250, le=60_000)] | UnsetType = UNSET
    eager_eot_threshold: Annotated[float, Meta(gt=0, le=1)] | None | UnsetType = UNSET


class SpeakerOptions(Struct, kw_only=True):
    """Whether turns and words carry speakers, and who is known, each by a clip of the voice or a file of one."""

    diarize: bool | UnsetType = UNSET
    known_speaker_names: list[str] | UnsetType = UNSET
    known_speaker_references: list[str] | UnsetType = UNSET

    def known(self, path: str) -> KnownSpeakers | None:
        """The speakers to introduce, None to leave them as they are. Raises: ApiError 400."""
        if self.known_speaker_names is UNSET and self.known_speaker_references is UNSET:
            return None
        names = [] if self.known_speaker_names is UNSET else self.known_speaker_names
        references = [] if self.known_speaker_references is UNSET else self.known_speaker_references
        if len(names) != len(references):
            message = "known_speaker_names and known_speaker_references must come in pairs"
            lacking = "known_speaker_references" if len(references) < len(names) else "known_speaker_names"
            raise ApiError(400, "invalid_value", message, param=f"{path}.{lacking}")
        if len(names) > MOST_KNOWN_SPEAKERS or len(set(names)) < len(names) or not all(names):
            message = f"known_speaker_names must be up to {MOST_KNOWN_SPEAKERS} names, each once"
            raise ApiError(400, "invalid_value", message, param=f"{path}.known_speaker_names")
        return tuple(zip(names, references, strict=True))


def end_of_turn(given: Mapping[str, Any]) -> EndOfTurn:
    """The rule that options by their names come to."""
    timeout = given.get("eot_timeout_ms")
    patience = PATIENCE[given.get("eagerness", "auto")] if timeout is None else timeout / 1000
    return EndOfTurn(patience, given.get("eot_threshold", THRESHOLD))


def turn_news(event: listening_events.EagerEndOfTurn | listening_events.TurnResumed) -> tuple[str, Frame]:
    """The kind of frame, and its fields, that tell of a probable end or of its being taken back."""
    if isinstance(event, listening_events.TurnResumed):
        return "turn_resumed", {}
    confidence = round(event.probability, 3)
    return "eager_end_of_turn", {"transcript": event.text, "end_of_turn_confidence": confidence}


def relabelled(event: listening_events.SpeakerRelabelled) -> Frame:
    """The fields of a frame that corrects speakers told before; times are seconds of the session's audio."""
    return {"old": event.old, "new": event.new, "start": round(event.start, 3), "end": round(event.end, 3)}


def word_frame(word: Word) -> Frame:
    """A word with its times, and its speaker when there is one."""
    frame: Frame = {"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)}
    return frame if word.speaker is None else frame | {"speaker": word.speaker}


def diarize_of(query: Mapping[str, str]) -> bool:
    """The query parameter of that name. Raises: ApiError 400."""
    try:
        return msgspec.convert(query.get("diarize", "false"), bool, strict=False)
    except msgspec.ValidationError as error:
        raise ApiError(400, "invalid_value", str(error), param="diarize") from error
