"""What a client may choose about speech, in a body, a query or `tts_session.updated`, in either vendor's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from media.dialects.frames import field_of
from media.errors import ApiError
from streaming.audio import PcmEncoding
from streaming.encode import AudioFormat

SAMPLE_RATES = (8_000, 16_000, 22_050, 24_000, 44_100, 48_000)
BIT_RATES = (32_000, 64_000, 96_000, 128_000, 192_000)
FORMATS: dict[str, AudioFormat] = {format.value: format for format in AudioFormat} | {"raw": AudioFormat.PCM}
ENCODINGS = {
    "pcm_s16le": PcmEncoding.S16LE,
    "pcm_f32le": PcmEncoding.F32LE,
    "pcm_mulaw": PcmEncoding.MULAW,
    "pcm_alaw": PcmEncoding.ALAW,
}
MAX_INSTRUCTIONS = 4096
"""Characters (OpenAI's limit)."""
MAX_PRONUNCIATIONS, MAX_PRONUNCIATION = 1000, 200
"""Words that may be said otherwise, and characters of each and of what is said instead."""
MAX_EXTRA_BYTES = 16 * 1024
"""Of `extra_params` as JSON: they are sent to the engine with every piece of text."""
OBJECTS = ("pronunciations", "extra_params")
"""Options that a query holds as JSON."""


T = TypeVar("T")


class SpeechOptions(Struct, kw_only=True, omit_defaults=True):
    """What is null is left open, as what is absent.

    `pronunciations` maps words to what is said instead; Together's `extra_params.pronunciation_dict` is the same as a
    list of "word/replacement". Other `extra_params`, and `instructions`, reach the models that take them.
    """

    model: str | None | UnsetType = UNSET
    model_id: str | None | UnsetType = UNSET
    voice: str | None | UnsetType = UNSET
    language: str | None | UnsetType = UNSET
    speed: float | None | UnsetType = UNSET
    response_format: str | None | UnsetType = UNSET
    response_encoding: str | None | UnsetType = UNSET
    sample_rate: int | None | UnsetType = UNSET
    bit_rate: int | None | UnsetType = UNSET
    max_partial_length: int | None | UnsetType = UNSET
    alignment: Literal["none", "word"] | None | UnsetType = UNSET
    segment: Literal["sentence", "immediate", "never"] | None | UnsetType = UNSET
    pacing: Literal["realtime", "none"] | None | UnsetType = UNSET
    instructions: str | None | UnsetType = UNSET
    pronunciations: dict[str, str] | None | UnsetType = UNSET
    extra_params: dict[str, Any] | None | UnsetType = UNSET


def read_options(query: Mapping[str, str]) -> SpeechOptions:
    """The options of a query string. Raises: ApiError 400 that names the field."""
    values: dict[str, Any] = dict(query)
    for name in OBJECTS:
        if name in values:
            values[name] = _json(values[name], name)
    try:
        return msgspec.convert(values, SpeechOptions, strict=False)
    except msgspec.ValidationError as error:
        raise ApiError(400, "invalid_value", str(error), param=field_of(error)) from error


def model_name(options: SpeechOptions) -> str | None:
    """The model the options name; older documentation calls the parameter `model_id`."""
    return _given(options.model_id) if _given(options.model) is None else _given(options.model)


def settings_changes(options: SpeechOptions) -> dict[str, object]:
    """What the options change in `SpeechSettings`, checked.

    Raises: ApiError 400 that names the field and the values it takes.
    """
    changes: dict[str, object] = {}
    if (voice := _given(options.voice)) is not None:
        # A '+' that was not percent-encoded in a query arrives as a space; no voice has one.
        changes["voice"] = voice.strip().replace(" ", "+")
    if (language := _given(options.language)) is not None:
        changes["language"] = language
    if (speed := _given(options.speed)) is not None:
        changes["speed"] = _within(speed, 0.25, 4.0, "speed")
    if (length := _given(options.max_partial_length)) is not None:
        changes["max_partial_length"] = int(_within(length, 1, 4096, "max_partial_length"))
    if (segment := _given(options.segment)) is not None:
        changes["segment"] = segment
    if (alignment := _given(options.alignment)) is not None:
        changes["word_timestamps"] = alignment == "word"
    if (pacing := _given(options.pacing)) is not None:
        changes["paced"] = pacing != "none"
    return changes | _output_changes(options) | _manner_changes(options)


def _output_changes(options: SpeechOptions) -> dict[str, object]:
    changes: dict[str, object] = {}
    if (format := _given(options.response_format)) is not None:
        changes["format"] = _one_of(FORMATS, format, "response_format")
    if (encoding := _given(options.response_encoding)) is not None:
        changes["encoding"] = _one_of(ENCODINGS, encoding, "response_encoding")
    if (sample_rate := _given(options.sample_rate)) is not None:
        changes["sample_rate"] = _one_of({rate: rate for rate in SAMPLE_RATES}, sample_rate, "sample_rate")
    if (bit_rate := _given(options.bit_rate)) is not None:
        changes["bit_rate"] = _one_of({rate: rate for rate in BIT_RATES}, bit_rate, "bit_rate")
    return changes


def _manner_changes(options: SpeechOptions) -> dict[str, object]:
    changes: dict[str, object] = {}
    if (instructions := _given(options.instructions)) is not None:
        if len(instructions) > MAX_INSTRUCTIONS:
            message = f"instructions has {len(instructions)} characters, {MAX_INSTRUCTIONS} is the most"
            raise ApiError(400, "string_above_max_length", message, param="instructions")
        changes["instructions"] = instructions
    pronunciations: dict[str, str] | None = None
    if (extra := _given(options.extra_params)) is not None:
        if len(msgspec.json.encode(extra)) > MAX_EXTRA_BYTES:
            raise ApiError(400, "invalid_value", f"extra_params takes {MAX_EXTRA_BYTES} bytes", param="extra_params")
        changes["extra_params"] = {name: value for name, value in extra.items() if name != "pronunciation_dict"}
        if (entries := extra.get("pronunciation_dict")) is not None:
            pronunciations = _from_entries(entries)
    if (own := _given(options.pronunciations)) is not None:
        pronunciations = (pronunciations or {}) | own
    if pronunciations is not None:
        changes["pronunciations"] = _checked_pronunciations(pronunciations)
    return changes


def _from_entries(entries: object) -> dict[str, str]:
    """Together's form: "word/what is said instead"."""
    if not isinstance(entries, list) or not all(isinstance(entry, str) and "/" in entry for entry in entries):
        message = 'extra_params.pronunciation_dict must be a list of strings "word/replacement"'
        raise ApiError(400, "invalid_value", message, param="extra_params.pronunciation_dict")
    return {word: replacement for word, _, replacement in (entry.partition("/") for entry in entries)}


def _checked_pronunciations(pronunciations: dict[str, str]) -> dict[str, str]:
    if len(pronunciations) > MAX_PRONUNCIATIONS:
        message = f"pronunciations has {len(pronunciations)} words, {MAX_PRONUNCIATIONS} is the most"
        raise ApiError(400, "invalid_value", message, param="pronunciations")
    for word, replacement in pronunciations.items():
        if not word.strip() or max(len(word), len(replacement)) > MAX_PRONUNCIATION:
            message = f"{word[:40]!r} must have 1 to {MAX_PRONUNCIATION} characters, and its pronunciation no more"
            raise ApiError(400, "invalid_value", message, param="pronunciations")
    return pronunciations


def _given(value: T | None | UnsetType) -> T | None:
    return None if value is UNSET else value


def _one_of(choices: Mapping[Any, Any], value: Any, field: str) -> Any:
    if value not in choices:
        message = f"{field} {value!r} is not supported: use one of {', '.join(map(str, choices))}"
        raise ApiError(400, "invalid_value", message, param=field)
    return choices[value]


def _within(value: float, low: float, high: float, field: str) -> float:
    if not low <= value <= high:
        raise ApiError(400, "invalid_value", f"{field} must be between {low} and {high}", param=field)
    return value


def _json(text: str, field: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ApiError(400, "invalid_value", f"{field} must be JSON in a query: {error}", param=field) from error
