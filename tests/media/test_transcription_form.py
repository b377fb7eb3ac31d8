"""The fields of a transcription, as every client writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from media.errors import ApiError
from media.transcription_form import TranscriptionForm, read_form
from media.uploads import Form


def form(*fields: tuple[str, str]) -> Form:
    made = Form(Path(), 1)
    made.fields.extend(fields)
    return made


def test_nothing_said_is_the_defaults() -> None:
    assert read_form(form()) == TranscriptionForm()
    assert not TranscriptionForm().wants_speakers


@pytest.mark.parametrize(
    "fields",
    [
        [("timestamp_granularities[]", "word"), ("timestamp_granularities[]", "segment")],
        [("timestamp_granularities", "word"), ("timestamp_granularities", "segment")],
        [("timestamp_granularities", "word,segment")],
        [("timestamp_granularities[]", " word , segment ,")],
        [("timestamp_granularities", "word"), ("timestamp_granularities[]", "segment")],
    ],
)
def test_lists_in_every_spelling(fields: list[tuple[str, str]]) -> None:
    assert read_form(form(*fields)).timestamp_granularities == ("word", "segment")


def test_names_may_hold_commas() -> None:
    names = read_form(form(("known_speaker_names[]", "Doe, Jane"), ("known_speaker_names[]", "Bo")))
    assert names.known_speaker_names == ("Doe, Jane", "Bo")


@pytest.mark.parametrize("text", ["true", "True", "TRUE", "1", "yes", "on"])
def test_true_in_every_spelling(text: str) -> None:
    read = read_form(form(("stream", text), ("diarize", text)))
    assert (read.stream, read.diarize) == (True, True)


@pytest.mark.parametrize("text", ["false", "False", "0", "no", "off", ""])
def test_false_in_every_spelling(text: str) -> None:
    assert read_form(form(("stream", text))).stream is False


@pytest.mark.parametrize(
    ("name", "value", "param"),
    [
        ("response_format", "xml", "response_format"),
        ("temperature", "warm", "temperature"),
        ("temperature", "1.5", "temperature"),
        ("temperature", "-1", "temperature"),
        ("temperature", "nan", "temperature"),
        ("temperature", "", "temperature"),
        ("timestamp_granularities", "syllable", "timestamp_granularities"),
        ("timestamp_granularities[]", "word,syllable", "timestamp_granularities"),
        ("stream", "maybe", "stream"),
        ("diarize", "2", "diarize"),
        ("num_speakers", "two", "num_speakers"),
        ("num_speakers", "-1", "num_speakers"),
        ("max_speakers", "51", "max_speakers"),
        ("min_speakers", "1.5", "min_speakers"),
        ("channels", "left", "channels"),
    ],
)
def test_what_cannot_be_is_a_400_that_names_the_field(name: str, value: str, param: str) -> None:
    with pytest.raises(ApiError) as refused:
        read_form(form((name, value)))
    error = refused.value
    assert (error.status, error.code, error.param) == (400, "invalid_value", param)


def test_the_last_of_several_values_counts() -> None:
    assert read_form(form(("model", "one"), ("model", "two"))).model == "two"


def test_fields_of_others_are_passed_over() -> None:
    fields = [("chunking_strategy[type]", "server_vad"), ("keywords[]", "x"), ("seed", "1"), ("include[]", "logprobs")]
    assert read_form(form(*fields)) == TranscriptionForm(include=("logprobs",))


def test_either_way_to_ask_for_speakers() -> None:
    assert read_form(form(("diarize", "1"))).wants_speakers
    assert read_form(form(("response_format", "diarized_json"))).wants_speakers
