"""Frames that a client might send: any JSON, and JSON that is nearly right."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

numbers = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0, 1, -1, 0.5, 500, 8000, 24000, 1e300]),
)
words = st.sampled_from(
    ["", "none", "word", "server_vad", "audio/pcm", "pcm16", "mp3", "QUJD", "\x00", "é", "\U0001f600"]
)
scalars = st.one_of(st.none(), st.booleans(), numbers, words, st.text(max_size=5))


def json_values(keys: list[str]) -> st.SearchStrategy[Any]:
    """Any JSON whose objects use these keys, so that some of it is nearly right."""
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(keys), inner, max_size=5),
        max_leaves=12,
    )


def frames_of(types: list[str], keys: list[str]) -> st.SearchStrategy[str]:
    """Frames of known and unknown types with any fields, and texts that are no frames."""
    fields = st.dictionaries(st.sampled_from(keys), json_values(keys), max_size=5)
    kinds = st.sampled_from([*types, "unknown", ""]) | scalars
    whole = st.builds(lambda fields, kind: json.dumps({**fields, "type": kind}), fields, kinds)
    return st.one_of(whole, json_values(keys).map(json.dumps), st.text(max_size=20))


DEEP = 100_000
BROKEN = [
    "",
    "{",
    "nul",
    '{"type":',
    "[" * DEEP,
    '{"type":"x","a":' + '{"a":' * DEEP,
    '"\ud800"',
    '{"type":"input_audio_buffer.commit","a":"\\ud800"}',
    '{"type":"input_text_buffer.commit","a":"\\ud800"}',
    "\x00",
    "1e999",
]
"""Texts that are not JSON, or not JSON that can be read."""
