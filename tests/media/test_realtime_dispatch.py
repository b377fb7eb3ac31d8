"""Which dialect a connection to `/v1/realtime` speaks."""

from __future__ import annotations

import pytest

from media.dialects.realtime import (
    FIRST_FRAMES,
    dialect_name,
)


@pytest.mark.parametrize(
    ("query", "beta", "transcriber", "name"),
    [
        ({"model": "m", "input_audio_format": "pcm_s16le_16000"}, True, True, "together"),
        ({"intent": "transcription", "model": "m", "turn_detection": "none"}, True, True, "together"),
        ({"model": "m", "threshold": "0.2"}, False, False, "together"),
        ({"model": "m", "min_silence_duration_ms": "1"}, False, False, "together"),
        ({"intent": "transcription"}, False, True, "openai"),
        ({"intent": "transcription", "model": "m"}, False, False, "openai"),
        ({"intent": "transcription"}, True, True, "openai-beta"),
        ({"model": "m"}, True, True, "together"),
        ({"model": "gpt-realtime"}, False, False, None),
        ({"model": "gpt-realtime"}, True, False, None),
    ],
)
def test_the_query_decides(query: dict[str, str], beta: bool, transcriber: bool, name: str | None) -> None:
    assert dialect_name(query, beta, transcriber) == name


def test_the_first_frame_decides_after_all() -> None:
    assert FIRST_FRAMES == {
        "transcription_session.updated": "together",
        "transcription_session.update": "openai-beta",
        "session.update": "openai",
    }
