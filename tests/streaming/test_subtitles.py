"""Cues that fit a screen, in files that players accept."""

from __future__ import annotations

import re

from hypothesis import given, strategies as st

from streaming.subtitles import CUE_SECONDS, LINE_LENGTH, LINES, cues, srt, vtt
from streaming.transcript import Segment, Word


def spoken(text: str, *, start: float = 0.0, each: float = 0.4, speaker: str | None = None) -> tuple[Word, ...]:
    return tuple(
        Word(word, start + index * each, start + (index + 1) * each, speaker=speaker)
        for index, word in enumerate(text.split())
    )


def test_srt_numbers_its_cues_and_writes_commas() -> None:
    segments = [Segment("Hello there.", 1.0, 2.5), Segment("Bye.", 3661.25, 3662.0)]
    assert "".join(srt(segments)) == (
        "1\n00:00:01,000 --> 00:00:02,500\nHello there.\n\n2\n01:01:01,250 --> 01:01:02,000\nBye.\n\n"
    )


def test_vtt_has_a_header_voices_and_no_markup_of_the_speaker_s_own() -> None:
    words = spoken("a <b> & c", speaker="SPEAKER_00")
    assert "".join(vtt([Segment("a <b> & c", 0.0, 1.6, words)])) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.600\n<v SPEAKER_00>a &lt;b&gt; &amp; c\n\n"
    )


def test_an_arrow_or_an_empty_line_in_the_text_cannot_break_the_file() -> None:
    written = "".join(srt([Segment("one --> two\n\nthree", 0.0, 1.0)]))
    assert written.count("-->") == 1
    assert "\n\n" not in written.rstrip("\n")


def test_a_cue_ends_with_the_sentence_and_with_the_speaker() -> None:
    words = (*spoken("Good morning. How", speaker="A"), *spoken("are you", start=1.2, speaker="B"))
    assert [(cue.text, cue.speaker) for cue in cues([Segment("", 0, 3, words)])] == [
        ("Good morning.", "A"),
        ("How", "A"),
        ("are you", "B"),
    ]


def test_a_long_pause_is_not_bridged() -> None:
    words = (*spoken("before"), *spoken("after", start=10.0))
    assert [cue.text for cue in cues([Segment("", 0, 11, words)])] == ["before", "after"]


@given(st.lists(st.text("abcdefgh,.", min_size=1, max_size=20), min_size=1, max_size=80))
def test_cues_fit_keep_every_word_and_stay_in_order(texts: list[str]) -> None:
    found = list(cues([Segment("", 0, 99, spoken(" ".join(texts)))]))
    assert " ".join(cue.text.replace("\n", " ") for cue in found).split() == texts
    for cue in found:
        assert len(cue.text.split("\n")) <= LINES
        assert all(len(line) <= LINE_LENGTH for line in cue.text.split("\n"))
        assert cue.end - cue.start <= CUE_SECONDS
    assert all(first.end <= second.start + 1e-9 for first, second in zip(found, found[1:], strict=False))


def test_every_time_is_well_formed() -> None:
    written = "".join(srt([Segment("x", 59.9996, 359999.0)]))
    assert re.search(r"^00:01:00,000 --> 99:59:59,000$", written, re.MULTILINE)
