from __future__ import annotations

from hypothesis import given, strategies as st

from streaming.agreement import LocalAgreement
from streaming.transcript import Word


def words(text: str, start: float = 0.0, probability: float | None = None) -> list[Word]:
    """Words of half a second each."""
    return [
        Word(word, start + index / 2, start + (index + 1) / 2, probability) for index, word in enumerate(text.split())
    ]


def push(agreement: LocalAgreement, text: str, start: float = 0.0, probability: float | None = None) -> str:
    return " ".join(word.text for word in agreement.push(words(text, start, probability)))


def settled(agreement: LocalAgreement) -> str:
    return " ".join(word.text for word in agreement.settled)


def test_what_two_hypotheses_agree_on_is_settled_but_for_the_last_word() -> None:
    agreement = LocalAgreement()
    assert push(agreement, "go forward") == ""
    assert push(agreement, "go forward ten") == "go"
    assert push(agreement, "go forward ten meet") == "forward"
    assert push(agreement, "go forward ten meters") == ""
    assert push(agreement, "go forward ten meters now") == "ten"
    assert settled(agreement) == "go forward ten"


def test_a_word_that_changes_is_not_settled() -> None:
    agreement = LocalAgreement()
    heard = ["the", "the flee", "the please", "the please tell", "the please tell me", "the please tell me"]
    assert [push(agreement, text) for text in heard] == ["", "", "", "the", "please", "tell"]


def test_case_and_punctuation_do_not_count() -> None:
    agreement = LocalAgreement()
    push(agreement, "well don't You think so")
    assert push(agreement, "Well, don’t you think; otherwise") == "Well, don’t you think;"


def test_a_last_word_followed_by_punctuation_or_certain_is_settled() -> None:
    agreement = LocalAgreement()
    push(agreement, "yes indeed.")
    assert push(agreement, "yes indeed.") == "yes indeed."
    agreement.reset()
    push(agreement, "yes indeed", probability=0.96)
    assert push(agreement, "yes indeed", probability=0.94) == "yes"
    assert push(agreement, "yes indeed", probability=0.96) == "indeed"


def test_settled_words_have_the_newest_times() -> None:
    agreement = LocalAgreement()
    agreement.push(words("one two", 0.0))
    assert agreement.push(words("one two", 0.25)) == [Word("one", 0.25, 0.75)]


def test_settled_words_are_never_taken_back() -> None:
    agreement = LocalAgreement()
    push(agreement, "recognise speech today")
    assert push(agreement, "recognise speech today") == "recognise speech"
    # The recogniser changes its mind about the same second of audio: only what is later counts.
    assert push(agreement, "wreck speech today friend") == ""
    assert push(agreement, "wreck speech today friend we") == "today"
    assert push(agreement, "wreck speech today friend we see") == "friend"
    assert settled(agreement) == "recognise speech today friend"


def test_settled_words_that_moved_are_not_settled_twice() -> None:
    agreement = LocalAgreement()
    push(agreement, "in the end all")
    assert push(agreement, "in the end all") == "in the end"
    # A word more at the beginning moves the others behind where the settled ones ended.
    moved = "oh well in the end all is"
    assert [word.text for word in agreement.unsettled(words(moved))] == ["all", "is"]
    push(agreement, moved)
    assert push(agreement, moved) == "all"


def test_the_same_word_again_much_later_is_another() -> None:
    agreement = LocalAgreement()
    push(agreement, "very good so")
    push(agreement, "very good so")
    later = [*words("berry good", 0.0), *words("good", 3.0)]
    assert [word.text for word in agreement.unsettled(later)] == ["good"]


def test_the_rest_of_a_final_transcript() -> None:
    agreement = LocalAgreement()
    push(agreement, "ask not what your")
    push(agreement, "ask not what your")
    assert [word.text for word in agreement.unsettled(words("Ask not what your country."))] == ["your", "country."]
    assert agreement.unsettled([]) == []


def test_an_empty_hypothesis_settles_nothing_and_loses_nothing() -> None:
    agreement = LocalAgreement()
    push(agreement, "one two three")
    push(agreement, "one two three")
    assert push(agreement, "") == ""
    assert push(agreement, "one two three four") == ""
    assert push(agreement, "one two three four") == "three"
    assert settled(agreement) == "one two three"


def test_another_turn_begins_with_nothing_settled() -> None:
    agreement = LocalAgreement()
    push(agreement, "one two three")
    push(agreement, "one two three")
    agreement.reset()
    assert agreement.settled == ()
    assert push(agreement, "one two three") == ""


VOCABULARY = st.sampled_from(["a", "b", "c", "A,", "b.", "--"])


@given(st.lists(st.lists(VOCABULARY, max_size=6), max_size=12))
def test_settled_words_only_grow_and_were_agreed_on(hypotheses: list[list[str]]) -> None:
    agreement = LocalAgreement()
    before: tuple[Word, ...] = ()
    previous: list[str] = []
    for hypothesis in hypotheses:
        new = agreement.push(words(" ".join(hypothesis)))
        assert agreement.settled == (*before, *new)
        both = {word.casefold().strip(".,") for word in hypothesis} & {word.casefold().strip(".,") for word in previous}
        assert {word.text.casefold().strip(".,") for word in new} <= both
        assert all(earlier.end <= later.end for earlier, later in zip(agreement.settled, new, strict=False))
        before, previous = agreement.settled, hypothesis


@given(st.lists(VOCABULARY, min_size=1, max_size=10), st.lists(st.integers(0, 10), max_size=15))
def test_a_hypothesis_that_only_grows_is_settled_up_to_its_last_word(text: list[str], lengths: list[int]) -> None:
    agreement = LocalAgreement()
    for length in [*sorted(lengths), len(text), len(text)]:
        agreement.push(words(" ".join(text[:length])))
    heard = [word.text for word in agreement.settled]
    assert heard == text[: len(heard)]
    assert len(heard) >= len(text) - 1
