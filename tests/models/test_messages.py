from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, strategies as st

from models.catalog import Catalog
from models.interfaces import (
    HypothesisUpdate,
    ListenRequest,
    SegmentResult,
    SpeechChunk,
    SpeechRequest,
    WordTiming,
)
from models.messages import (
    MAX_FRAME_BYTES,
    Cancel,
    Credit,
    Done,
    Failed,
    Feed,
    FeedEnd,
    FrameReader,
    FrameTooLarge,
    FromWorker,
    Item,
    Load,
    LoadFailed,
    Progress,
    Run,
    Taken,
    ToWorker,
    decode_from_worker,
    decode_to_worker,
    encode_frame,
)
from streaming.transcript import Hypothesis, Segment, Word

WORD = Word("hello", 0.1, 0.5, 0.9)

TO_WORKER: list[ToWorker] = [
    *(Load(card) for card in Catalog.load().cards),
    Run(1, SpeechRequest("hello", "v", speed=1.5)),
    Run(1, SpeechRequest("hello", "v", instructions="softly", extra_params={"temperature": 0.6, "tags": ["a"]})),
    Run(2, ListenRequest(language="en")),
    FeedEnd(2),
    Credit(1, 8),
    Cancel(1),
]
FROM_WORKER: list[FromWorker] = [
    LoadFailed("EngineFailed", "no"),
    Item(1, HypothesisUpdate(Hypothesis((WORD,)))),
    Item(1, SegmentResult(Segment("hello", 0.0, 1.0, (WORD,), "en"))),
    Taken(2, 3),
    Progress(1, 2.0, None),
    Done(1),
    Failed(1, "InvalidInput", "bad voice", "voice"),
]


def only_frame(data: bytes) -> bytes:
    (payload,) = FrameReader().feed(data)
    return payload


@pytest.mark.parametrize("message", TO_WORKER)
def test_message_to_a_worker_survives_the_line(message: ToWorker) -> None:
    assert decode_to_worker(only_frame(encode_frame(message))) == message


@pytest.mark.parametrize("message", FROM_WORKER)
def test_message_from_a_worker_survives_the_line(message: FromWorker) -> None:
    assert decode_from_worker(only_frame(encode_frame(message))) == message


@pytest.mark.parametrize("length", [0, 1, 4800])
def test_audio_survives_the_line(length: int) -> None:
    samples = np.linspace(-1, 1, length, dtype=np.float32)
    fed = decode_to_worker(only_frame(encode_frame(Feed(1, samples))))
    assert isinstance(fed, Feed)
    np.testing.assert_array_equal(fed.samples, samples)
    assert fed.samples.dtype == np.float32
    words = (WordTiming(0, 5, 0.0, 0.4),)
    spoken = decode_from_worker(only_frame(encode_frame(Item(1, SpeechChunk(samples, 24_000, words)))))
    assert isinstance(spoken, Item)
    assert isinstance(spoken.value, SpeechChunk)
    np.testing.assert_array_equal(spoken.value.samples, samples)
    assert spoken.value.words == words


def test_a_strided_view_is_sent_as_what_it_shows() -> None:
    fed = decode_to_worker(only_frame(encode_frame(Feed(1, np.arange(6, dtype=np.float32)[::2]))))
    assert isinstance(fed, Feed)
    assert fed.samples.tolist() == [0, 2, 4]


@pytest.mark.parametrize("samples", [np.zeros(4), np.zeros((2, 2), np.float32), object()])
def test_audio_of_another_shape_or_type_is_refused(samples: Any) -> None:
    with pytest.raises(TypeError, match="float32"):
        encode_frame(Item(1, SpeechChunk(samples, 24_000)))


@given(st.lists(st.integers(1, 200)), st.binary(min_size=0, max_size=3))
def test_frames_are_the_same_however_the_bytes_arrive(cuts: list[int], rest: bytes) -> None:
    data = b"".join(map(encode_frame, FROM_WORKER)) + rest
    reader, at = FrameReader(), 0
    payloads: list[bytes] = []
    for cut in [*cuts, len(data)]:
        payloads += reader.feed(data[at : at + cut])
        at += cut
    assert [decode_from_worker(payload) for payload in payloads] == FROM_WORKER


def test_a_frame_longer_than_any_message_is_refused() -> None:
    with pytest.raises(FrameTooLarge):
        list(FrameReader().feed((MAX_FRAME_BYTES + 1).to_bytes(4, "big")))
    with pytest.raises(FrameTooLarge):
        encode_frame(Feed(1, np.zeros(MAX_FRAME_BYTES // 4 + 1, np.float32)))


def test_a_message_of_the_other_direction_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_to_worker(only_frame(encode_frame(Done(1))))
    with pytest.raises(msgspec.ValidationError):
        decode_from_worker(only_frame(encode_frame(Cancel(1))))
