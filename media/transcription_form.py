"""The text fields of a transcription request, in every encoding the vendors' clients use."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from media.dialects.frames import field_of
from media.errors import ApiError
from media.transcripts import ResponseFormat
from media.uploads import Form

TRUE = frozenset({"true", "1", "yes", "on"})
FALSE = frozenset({"false", "0", "no", "off", ""})
LISTS = frozenset({"timestamp_granularities", "include"})
REPEATED = frozenset({"known_speaker_names"})
FLAGS = frozenset({"stream", "diarize"})


class TranscriptionForm(Struct, kw_only=True):
    """The form's text fields. Lists may be repeated, with or without `[]`, or separated by commas."""

    model: str = "auto"
    language: str = ""
    prompt: str = ""
    response_format: ResponseFormat = "json"
    temperature: Annotated[float, Meta(ge=0, le=1)] = 0.0
    timestamp_granularities: tuple[Literal["word", "segment"], ...] = ("segment",)
    stream: bool = False
    diarize: bool = False
    num_speakers: Annotated[int, Meta(ge=0, le=50)] = 0
    min_speakers: Annotated[int, Meta(ge=0, le=50)] = 0
    max_speakers: Annotated[int, Meta(ge=0, le=50)] = 0
    diarization_model: str = "auto"
    known_speaker_names: tuple[str, ...] = ()
    channels: Literal["mix", "split"] = "mix"
    include: tuple[str, ...] = ()

    @property
    def wants_speakers(self) -> bool:
        return self.diarize or self.response_format == "diarized_json"


def read_form(form: Form) -> TranscriptionForm:
    """The text fields, in every encoding the vendors' clients use. Raises: ApiError 400 that names the field."""
    values: dict[str, Any] = {}
    for name in TranscriptionForm.__struct_fields__:
        texts = form.getlist(name)
        if not texts:
            continue
        if name in LISTS:
            values[name] = [part.strip() for text in texts for part in text.split(",") if part.strip()]
        elif name in REPEATED:
            values[name] = texts
        elif name in FLAGS:
            values[name] = _flag(name, texts[-1])
        else:
            values[name] = texts[-1]
    try:
        return msgspec.convert(values, TranscriptionForm, strict=False)
    except msgspec.ValidationError as error:
        raise ApiError(400, "invalid_value", str(error), param=_form_field(error)) from error


def _form_field(error: msgspec.ValidationError) -> str | None:
    """The form's own name of the field, without the place in a list."""
    path = field_of(error)
    return None if path is None else path.partition("[")[0]


def _flag(name: str, text: str) -> bool:
    if text.lower() not in TRUE | FALSE:
        raise ApiError(400, "invalid_value", f"{name} must be true or false, not {text!r}", param=name)
    return text.lower() in TRUE
