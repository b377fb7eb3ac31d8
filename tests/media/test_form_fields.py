"""Names with brackets, as OpenAI's SDKs and browsers' libraries write objects and lists into a form."""

from __future__ import annotations

from typing import Any

import pytest

from media.errors import ApiError
from media.form_fields import form_values

KNOWN = ("prompt", "media", "speech", "tags")


@pytest.mark.parametrize(
    ("fields", "values"),
    [
        ([("prompt", "a"), ("prompt", "b")], {"prompt": "b"}),
        ([("prompt", "")], {}),
        ([("unknown", "a"), ("prompt[", "b"), ("[prompt]", "c"), ("", "d")], {}),
        ([("speech[input]", "a"), ("speech[voice]", "b")], {"speech": {"input": "a", "voice": "b"}}),
        ([("speech", '{"input": "a"}')], {"speech": {"input": "a"}}),
        ([("tags[]", "a"), ("tags[]", "b")], {"tags": ["a", "b"]}),
        ([("tags[0]", "a"), ("tags[1]", "b")], {"tags": ["a", "b"]}),
        (
            [("media[f][][u]", "a"), ("media[f][][at]", "1"), ("media[f][][u]", "b"), ("media[f][][at]", "2")],
            {"media": {"f": [{"u": "a", "at": "1"}, {"u": "b", "at": "2"}]}},
        ),
        (
            [("media[f][][u]", "a"), ("media[f][][u]", "b"), ("media[f][][at]", "1"), ("media[f][][at]", "2")],
            {"media": {"f": [{"u": "a", "at": "1"}, {"u": "b", "at": "2"}]}},
        ),
        (
            [("media[f][0][u]", "a"), ("media[f][1][u]", "b"), ("media[f][0][at]", "1")],
            {"media": {"f": [{"u": "a", "at": "1"}, {"u": "b"}]}},
        ),
        ([("media[20240]", "a")], {"media": {"20240": "a"}}),
        ([("media" + "[a]" * 9, "a")], {}),
    ],
)
def test_what_names_stand_for(fields: list[tuple[str, str]], values: dict[str, Any]) -> None:
    assert form_values(fields, KNOWN, ("media", "speech")) == values


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ([("speech", "Hello")], "speech"),
        ([("media", "[" * 100_000)], "media"),
        ([("prompt", "a"), ("prompt[b]", "c")], "prompt"),
        ([("tags[]", "a"), ("tags[b]", "c")], "tags"),
        ([("tags[0]", "a"), ("tags[0][b]", "c")], "tags"),
        ([("tags[0]", "a"), ("tags[0]", "c")], "tags"),
    ],
)
def test_what_cannot_be_meant(fields: list[tuple[str, str]], param: str) -> None:
    with pytest.raises(ApiError) as refused:
        form_values(fields, KNOWN, ("media", "speech"))
    assert (refused.value.status, refused.value.code, refused.value.param) == (400, "invalid_value", param)
