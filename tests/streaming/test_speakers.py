"""Every word gets the speaker who was speaking, and none is lost."""

from __future__ import annotations

from hypothesis import given, strategies as st

from streaming.speakers import assign_speakers, utterances
from streaming.transcript import SpeakerTurn, Word


def words(*texts: str, start: float = 0.0, each: float = 0.5) -> list[Word]:
    return [Word(text, start + each * index, start + each * (index + 1)) for index, text in enumerate(texts)]


def speakers(said: tuple[Word, ...]) -> list[str | None]:
    return [word.speaker for word in said]


def test_words_go_to_the_turn_they_overlap_most() -> None:
    turns = [SpeakerTurn("A", 0.0, 1.1), SpeakerTurn("B", 1.1, 2.0)]
    assert speakers(assign_speakers(words("one", "two", "three", "four"), turns, turns)) == ["A", "A", "B", "B"]


def test_a_word_near_no_turn_stays_with_the_speaker_before() -> None:
    turns = [SpeakerTurn("A", 0.0, 0.5), SpeakerTurn("B", 9.0, 10.0)]
    assert speakers(assign_speakers(words("one", "two", "three", "four", "five"), turns, turns)) == ["A"] * 5


def test_a_flicker_inside_a_sentence_goes_back_to_its_speaker() -> None:
    turns = [SpeakerTurn("A", 0.0, 1.0), SpeakerTurn("B", 1.0, 1.5), SpeakerTurn("A", 1.5, 3.0)]
    said = words("we", "went", "right", "over", "there", "today.")
    assert speakers(assign_speakers(said, turns, turns)) == ["A"] * 6


def test_a_short_answer_with_a_turn_of_its_own_stays() -> None:
    turns = [SpeakerTurn("A", 0.0, 1.0), SpeakerTurn("B", 1.0, 1.8), SpeakerTurn("A", 1.8, 3.0)]
    said = words("did", "you", "yes", "really", "go", "there?")
    assert speakers(assign_speakers(said, turns, turns))[2] == "B"


def test_words_under_somebody_else_are_flagged() -> None:
    regular = [SpeakerTurn("A", 0.0, 2.0), SpeakerTurn("B", 0.9, 2.0)]
    exclusive = [SpeakerTurn("A", 0.0, 2.0)]
    said = assign_speakers(words("one", "two", "three", "four"), regular, exclusive)
    assert [word.overlapped for word in said] == [False, False, True, True]


def test_utterances_are_runs_of_one_speaker() -> None:
    turns = [SpeakerTurn("A", 0.0, 1.0), SpeakerTurn("B", 1.0, 2.0)]
    said = assign_speakers(words("good", "morning.", "hello", "you."), turns, turns)
    assert [(each.speaker, each.text) for each in utterances(said)] == [("A", "good morning."), ("B", "hello you.")]


def test_without_turns_nobody_is_named() -> None:
    said = assign_speakers(words("one", "two"), [], [])
    assert speakers(said) == [None, None]
    assert list(utterances(said)) == []


@st.composite
def talks(draw: st.DrawFn) -> tuple[list[Word], list[SpeakerTurn]]:
    gaps = st.floats(0.0, 2.0)
    now, said = 0.0, []
    for text in draw(st.lists(st.sampled_from(["a", "b", "c.", "d?"]), max_size=40)):
        start = now + draw(gaps)
        now = start + draw(st.floats(0.01, 1.0))
        said.append(Word(text, start, now))
    now, turns = 0.0, []
    for speaker in draw(st.lists(st.sampled_from("ABC"), max_size=20)):
        start = now + draw(gaps)
        now = start + draw(st.floats(0.05, 3.0))
        turns.append(SpeakerTurn(speaker, start, now))
    return said, turns


@given(talks())
def test_no_word_is_lost_or_named_after_nobody(talk: tuple[list[Word], list[SpeakerTurn]]) -> None:
    said, turns = talk
    found = assign_speakers(said, turns, turns)
    assert [(word.text, word.start, word.end) for word in found] == [(w.text, w.start, w.end) for w in said]
    if turns:
        assert {word.speaker for word in found} <= {turn.speaker for turn in turns}
        assert [word for each in utterances(found) for word in each.words] == list(found)


def test_a_long_talk_takes_one_pass() -> None:
    class Counted(SpeakerTurn):
        __slots__ = ()
        looks = 0

        def __getattribute__(self, name: str) -> object:
            Counted.looks += 1
            return super().__getattribute__(name)

    turns = [Counted("AB"[index % 2], index * 2.0, index * 2.0 + 2.0) for index in range(500)]
    said = words(*["x"] * 2000)
    assign_speakers(said, turns, turns)
    assert Counted.looks < 60 * (len(said) + len(turns))
