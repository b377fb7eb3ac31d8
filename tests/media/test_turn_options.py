"""Ends of turns and speakers in every dialect: what may be asked for, what is told, and that nothing is taken back."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from media.dialects.openai_realtime import OpenAIRealtime
from media.dialects.realtime import Configure, Frame
from media.dialects.together_realtime import TogetherRealtime, read_query
from media.errors import ApiError
from streaming.endpointing import EndOfTurn
from streaming.listening_events import (
    Completed,
    EagerEndOfTurn,
    ListeningSettings,
    Partial,
    SpeakerRelabelled,
    TurnResumed,
)
from streaming.recognition import RecognitionSession
from streaming.transcript import Hypothesis, Segment, Word
from tests.streaming.listening import BY_MEANING, BY_VOICE, Meeting

Dialect: TypeAlias = OpenAIRealtime | TogetherRealtime
PREFIX = "conversation.item.input_audio_transcription."
DIALECTS = ("openai", "openai-beta", "together")
CLIP = "data:audio/wav;base64,AAAA"


def dialect(name: str) -> Dialect:
    if name == "together":
        return TogetherRealtime("sess_1", "whisper", read_query({}))
    return OpenAIRealtime("sess_1", "whisper", beta=name == "openai-beta")


def update(speaker: Dialect, turn_detection: object = msgspec.UNSET, **transcription: object) -> Configure:
    """Change turn detection, or what is transcribed and how, in the dialect's own words."""
    session: Frame = {}
    if speaker.name == "together":
        kind, session = "transcription_session.updated", dict(transcription)
        detection = session
    elif speaker.name == "openai-beta":
        kind, detection = "transcription_session.update", session
        session |= {"input_audio_transcription": transcription} if transcription else {}
    else:
        kind, detection = "session.update", {"transcription": transcription} if transcription else {}
        session = {"audio": {"input": detection}}
    if turn_detection is not msgspec.UNSET:
        detection["turn_detection"] = turn_detection
    action = speaker.read(msgspec.json.encode({"type": kind, "session": session}).decode(), 0.0)
    assert isinstance(action, Configure)
    return action


# ---------------------------------------------------------------------- ends of turns


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({}, EndOfTurn(4.0, 0.5)),
        ({"eagerness": "low"}, EndOfTurn(8.0, 0.5)),
        ({"eagerness": "medium"}, EndOfTurn(4.0, 0.5)),
        ({"eagerness": "high"}, EndOfTurn(2.0, 0.5)),
        ({"eagerness": "auto"}, EndOfTurn(4.0, 0.5)),
        ({"eot_timeout_ms": 1500, "eot_threshold": 0.7}, EndOfTurn(1.5, 0.7)),
    ],
)
def test_semantic_vad_in_every_dialect(name: str, options: Frame, rule: EndOfTurn) -> None:
    speaker = dialect(name)
    found = update(speaker, {"type": "semantic_vad", **options}).settings
    assert found.end_of_turn == rule
    assert found.turn_detection is not None
    assert found.eager is None
    assert update(speaker, {"type": "server_vad"}).settings.end_of_turn is None
    assert update(speaker, None).settings.turn_detection is None


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("kind", ["server_vad", "semantic_vad"])
def test_news_of_a_probable_end_is_asked_for_and_left_out_again(name: str, kind: str) -> None:
    speaker = dialect(name)
    assert update(speaker, {"type": kind, "eager_eot_threshold": 0.4}).settings.eager == 0.4
    assert update(speaker, {"eager_eot_threshold": None}).settings.eager is None


@pytest.mark.parametrize("name", DIALECTS)
def test_what_an_update_does_not_name_stays(name: str) -> None:
    speaker = dialect(name)
    update(speaker, {"type": "semantic_vad", "eot_timeout_ms": 1000, "eot_threshold": 0.8})
    assert update(speaker, {"eot_threshold": 0.6}).settings.end_of_turn == EndOfTurn(1.0, 0.6)


def test_the_session_shows_semantic_vad_as_it_was_asked_for() -> None:
    speaker = OpenAIRealtime("sess_1", "whisper")
    update(speaker, {"type": "semantic_vad", "eagerness": "high", "create_response": True})
    shown = speaker.created()["session"]["audio"]["input"]["turn_detection"]
    assert shown == {"type": "semantic_vad", "eagerness": "high"}
    update(speaker, {"type": "server_vad"})
    assert speaker.created()["session"]["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 500


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"type": "semantic_vad", "eagerness": "extreme"}, "eagerness"),
        ({"type": "semantic_vad", "eot_timeout_ms": 10}, "eot_timeout_ms"),
        ({"type": "semantic_vad", "eot_threshold": 0}, "eot_threshold"),
        ({"eager_eot_threshold": 2}, "eager_eot_threshold"),
        ({"eagerness": "low"}, "eagerness"),
    ],
)
def test_wrong_options_are_named(options: Frame, param: str) -> None:
    with pytest.raises(ApiError) as caught:
        update(OpenAIRealtime("sess_1", "whisper"), options)
    assert caught.value.param == f"session.audio.input.turn_detection.{param}"


def test_together_takes_them_in_its_query() -> None:
    query = {"turn_detection": "semantic_vad", "eagerness": "high", "eager_eot_threshold": "0.4", "diarize": "true"}
    found = read_query(query)
    assert (found.end_of_turn, found.eager, found.diarize) == (EndOfTurn(2.0), 0.4, True)


@pytest.mark.parametrize("name", DIALECTS)
def test_a_probable_end_and_its_being_taken_back(name: str) -> None:
    speaker = dialect(name)
    (eager,) = speaker.write(EagerEndOfTurn("item_1", "hello there", 0.71234))
    assert eager["type"] == PREFIX + "eager_end_of_turn"
    assert (eager["item_id"], eager["transcript"], eager["end_of_turn_confidence"]) == ("item_1", "hello there", 0.712)
    (resumed,) = speaker.write(TurnResumed("item_1"))
    assert (resumed["type"], resumed["item_id"]) == (PREFIX + "turn_resumed", "item_1")


# ---------------------------------------------------------------------- speakers


@pytest.mark.parametrize("name", DIALECTS)
def test_speakers_are_asked_for_and_people_introduced(name: str) -> None:
    speaker = dialect(name)
    action = update(speaker, diarize=True, known_speaker_names=["Ann"], known_speaker_references=[CLIP])
    assert action.settings.diarize
    assert action.known_speakers == (("Ann", CLIP),)
    assert not getattr(speaker, "settings", ListeningSettings()).diarize, "before the clip was found to be one"
    speaker.resolved("whisper")
    assert CLIP not in msgspec.json.encode(speaker.write(_reconfigured(action))).decode()
    assert update(speaker, prompt="names").settings.diarize
    assert update(speaker, diarize=False).known_speakers is None


def _reconfigured(action: Configure) -> Any:
    session = RecognitionSession(ListeningSettings())
    session.configure(action.settings)
    return session.next_event()


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize(
    ("names", "references", "field"),
    [
        (["Ann"], [], "known_speaker_references"),
        ([], [CLIP], "known_speaker_names"),
        (["Ann", "Ann"], [CLIP, CLIP], "known_speaker_names"),
        ([""], [CLIP], "known_speaker_names"),
    ],
)
def test_people_without_clips_are_refused(name: str, names: list[str], references: list[str], field: str) -> None:
    with pytest.raises(ApiError) as caught:
        update(dialect(name), known_speaker_names=names, known_speaker_references=references)
    assert str(caught.value.param).endswith(field)


@pytest.mark.parametrize("name", DIALECTS)
def test_turns_and_words_carry_speakers(name: str) -> None:
    words = (Word("yes", 0.0, 0.4, speaker="Ann"), Word("no", 1.0, 1.2, speaker="Bob"))
    frames = dialect(name).write(Completed("item_1", "yes no", "yes no", words, 0.0, 1.5, "en", "Ann"))
    completed = frames[-1]
    assert completed["speaker"] == "Ann"
    assert [word["speaker"] for word in completed["words"]] == ["Ann", "Bob"]
    segments = [frame for frame in frames if frame["type"] == PREFIX + "segment"]
    if name != "together":
        assert [(each["speaker"], each["text"], each["start"]) for each in segments] == [
            ("Ann", "yes", 0.0),
            ("Bob", "no", 1.0),
        ]


@pytest.mark.parametrize("name", DIALECTS)
def test_without_speakers_frames_are_as_they_were(name: str) -> None:
    frames = dialect(name).write(Completed("item_1", "yes", "yes", (Word("yes", 0.0, 0.4),), 0.0, 1.5, "en"))
    assert "speaker" not in msgspec.json.encode(frames).decode()


@pytest.mark.parametrize("name", DIALECTS)
def test_a_late_correction_names_old_and_new(name: str) -> None:
    (frame,) = dialect(name).write(SpeakerRelabelled("SPEAKER_01", "Ann", 0.0, 9.87654))
    assert frame["type"] == PREFIX + "speaker.relabelled"
    assert [frame[field] for field in ("old", "new", "start", "end")] == ["SPEAKER_01", "Ann", 0.0, 9.877]


# ---------------------------------------------------------------------- what is settled

word_texts = st.sampled_from(["so", "we", "Went", "home", "home.", "in", "the", "rain", "you", "are"])
hypotheses = st.lists(st.lists(word_texts, max_size=6), max_size=8)


def _words(texts: list[str]) -> tuple[Word, ...]:
    return tuple(Word(text, 0.2 * index, 0.2 * index + 0.15) for index, text in enumerate(texts))


@settings(max_examples=60, deadline=None)
@given(
    beliefs=st.lists(hypotheses, min_size=1, max_size=3),
    finals=st.lists(st.lists(word_texts, max_size=6), min_size=3, max_size=3),
    by_meaning=st.booleans(),
    order=st.permutations([0, 1, 2]),
)
@pytest.mark.parametrize("name", DIALECTS)
def test_settled_words_are_never_taken_back(
    name: str, beliefs: list[list[list[str]]], finals: list[list[str]], by_meaning: bool, order: list[int]
) -> None:
    """Whatever recognisers believe next: where deltas are appended they make up the beginning of the belief, and where
    they replace each other the beginning that was settled stays as it was."""
    meeting = Meeting(BY_MEANING if by_meaning else BY_VOICE, probability=0.2)
    client = _Client(dialect(name))
    for turn, believed in enumerate(beliefs):
        for texts in believed:
            meeting.say(0.4)
            meeting.judge_all()
            meeting.session.hypothesis(turn + 1, Hypothesis(_words(texts)))
            client.read(meeting.session)
        meeting.say(0.4)
        meeting.say(1.2, loud=False)
        meeting.judge_all()
        client.read(meeting.session)
    meeting.finish()
    meeting.judge_all()
    for index in order:
        texts = finals[index]
        client.finals = True
        meeting.session.segment(index + 1, Segment(" ".join(texts), 0.0, 1.0, _words(texts), "en"))
        client.read(meeting.session)
    assert client.completed


class _Client:
    """Puts together what frames tell, item by item, and compares it with what the session told the dialect."""

    def __init__(self, speaker: Dialect) -> None:
        self.finals = False  # a final may contradict what was settled before it
        self.completed = 0
        self._speaker = speaker
        self._settled: dict[str, str] = {}
        self._told: dict[str, str] = {}

    def read(self, session: RecognitionSession) -> None:
        while (event := session.next_event()) is not None:
            frames = self._speaker.write(event)
            if not isinstance(event, Partial | Completed):
                continue
            self.completed += isinstance(event, Completed)
            before = self._settled.get(event.item_id, "")
            self._settled[event.item_id] = settled = before + event.settled
            for frame in frames:
                self._take(event.item_id, frame)
            told = self._told.get(event.item_id, "")
            if self._speaker.name != "together":
                assert told == settled, "deltas are not what is settled"
            if isinstance(event, Partial) and not self.finals:
                assert event.text.startswith(settled)
                if self._speaker.name == "together":
                    assert told.startswith(settled)

    def _take(self, item_id: str, frame: Frame) -> None:
        if frame["type"] == PREFIX + "delta":
            appends = self._speaker.name != "together"
            assert frame["delta"] or not appends
            self._told[item_id] = self._told.get(item_id, "") * appends + frame["delta"]
