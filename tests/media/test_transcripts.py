"""One transcript in every shape both vendors know."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from media.transcripts import Transcript, lettered, verbose, written
from streaming.speakers import Utterance
from streaming.transcript import Segment, SegmentScores, Word

WORDS = (
    Word("Hello", 0.5, 0.75, 0.9, "SPEAKER_01"),
    Word("there.", 0.75, 1.0, 0.8, "SPEAKER_01"),
    Word("Bye.", 2.0, 2.5, 0.7, "SPEAKER_00", overlapped=True),
)
SCORES = SegmentScores(0.2, -0.5, 1.1, 0.01, (5, 6), seek=50)
SEGMENTS = (
    Segment(" Hello there. ", 0.5, 1.0, WORDS[:2], "en", SCORES),
    Segment("", 1.0, 1.5),
    Segment("Bye.", 2.0, 2.5, WORDS[2:], "en"),
)
DIARIZED = Transcript(2.7181, "en", SEGMENTS, diarized=True)


def without_speakers(transcript: Transcript) -> Transcript:
    segments = tuple(
        dataclasses.replace(
            segment, words=tuple(dataclasses.replace(word, speaker=None, overlapped=False) for word in segment.words)
        )
        for segment in transcript.segments
    )
    return dataclasses.replace(transcript, segments=segments, diarized=False)


PLAIN = without_speakers(DIARIZED)


def body(transcript: Transcript, *arguments: Any, **options: Any) -> dict[str, Any]:
    found = written(transcript, *arguments, **options)
    assert isinstance(found, dict)
    return found


def test_json_is_the_text_and_what_it_costs() -> None:
    assert body(PLAIN, "json", words=True) == {
        "text": "Hello there. Bye.",
        "usage": {"type": "duration", "seconds": 3},
    }


def test_streams_count_tokens_where_the_engine_has_them_and_words_elsewhere() -> None:
    usage = PLAIN.token_usage
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (28, 3, 31)
    assert usage["seconds"] == 3


def test_text_ends_its_line() -> None:
    assert written(PLAIN, "text", words=False) == "Hello there. Bye.\n"


def test_subtitles_are_text() -> None:
    subtitles = written(PLAIN, "srt", words=False)
    assert isinstance(subtitles, str)
    assert subtitles.startswith("1\n00:00:00,500 --> ")
    assert str(written(PLAIN, "vtt", words=False)).startswith("WEBVTT\n\n")


def test_verbose_json_has_whispers_numbers_where_there_are_any() -> None:
    answer = verbose(PLAIN, words=False)
    assert (answer["task"], answer["language"], answer["duration"]) == ("transcribe", "en", 2.718)
    assert "words" not in answer
    assert answer["segments"][0] == {
        "id": 0,
        "start": 0.5,
        "end": 1.0,
        "text": " Hello there. ",
        "seek": 50,
        "tokens": [5, 6],
        "temperature": 0.2,
        "avg_logprob": -0.5,
        "compression_ratio": 1.1,
        "no_speech_prob": 0.01,
    }
    assert answer["segments"][2] == {"id": 2, "start": 2.0, "end": 2.5, "text": "Bye."}


def test_words_come_when_asked_for() -> None:
    words = verbose(PLAIN, words=True)["words"]
    assert words[1] == {"id": 1, "word": "there.", "start": 0.75, "end": 1.0}
    assert all("speaker_id" not in word for word in words)


@pytest.mark.parametrize("response_format", ["json", "verbose_json"])
def test_with_speakers_both_json_formats_have_togethers_fields(response_format: Any) -> None:
    answer = body(DIARIZED, response_format, words=False)
    assert [word["speaker_id"] for word in answer["words"]] == ["SPEAKER_01", "SPEAKER_01", "SPEAKER_00"]
    assert answer["words"][2]["overlap"] is True
    first, second = answer["speaker_segments"]
    assert (first["id"], first["speaker_id"], first["start"], first["end"]) == (0, "SPEAKER_01", 0.5, 1.0)
    assert (first["text"], second["text"]) == ("Hello there.", "Bye.")
    assert [word["id"] for word in first["words"]] == [0, 1]


def test_diarized_json_calls_unknown_speakers_by_letters_in_order_of_appearance() -> None:
    answer = body(DIARIZED, "diarized_json", words=False)
    assert answer["text"] == "A: Hello there.\nB: Bye."
    assert answer["segments"][1] == {
        "type": "transcript.text.segment",
        "id": "seg_001",
        "start": 2.0,
        "end": 2.5,
        "text": "Bye.",
        "speaker": "B",
    }


def test_letters_go_to_those_without_a_name() -> None:
    said = [Utterance(name, 0.0, 1.0, ()) for name in ("SPEAKER_03", "agent", "SPEAKER_00", "SPEAKER_03")]
    assert [each.speaker for each in lettered(said)] == ["A", "agent", "B", "A"]


def test_nobody_gets_a_letter_that_is_somebodys_name() -> None:
    said = [Utterance(name, 0.0, 1.0, ()) for name in ("SPEAKER_00", "A", "SPEAKER_01")]
    assert [each.speaker for each in lettered(said)] == ["B", "A", "C"]


def test_channels_are_told() -> None:
    split = Transcript(1.0, "en", (Segment("yes", 0.0, 1.0, channel=1),))
    assert verbose(split, words=False)["segments"][0]["channel"] == 1


def test_nothing_said_is_an_empty_answer_in_every_format() -> None:
    silent = Transcript(5.0, "", ())
    assert body(silent, "json", words=False)["text"] == ""
    assert written(silent, "text", words=False) == "\n"
    assert written(silent, "srt", words=False) == ""
    assert written(silent, "vtt", words=False) == "WEBVTT\n\n"
    assert body(silent, "verbose_json", words=True)["words"] == []
    assert body(silent, "diarized_json", words=False)["segments"] == []
