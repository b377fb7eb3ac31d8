"""Word times on their way from engines to clients: in order, on the item's clock, and of words that were written."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings, strategies as st

from streaming.speech_events import AudioDelta, Cancel, ContextCancelled, WordTimestamps
from streaming.speech_output import TimedWord
from streaming.spoken_text import VoiceTraits
from tests.streaming.speaking import PER_CHARACTER, PLAIN, Conversation

SAID = {"SQL": "see quell", "etc": "and so on", "Dr": "doctor", "hm": "", "2": "two"}


def words_of(talk: Conversation) -> list[TimedWord]:
    return [word for event in talk.log if isinstance(event, WordTimestamps) for word in event.words]


def test_what_is_said_otherwise_is_told_as_it_was_written() -> None:
    talk = Conversation(PLAIN.changed({"pronunciations": SAID}))
    talk.append("The SQL server is down. See the log etc")
    talk.commit()
    talk.run_out()
    words = words_of(talk)
    assert [word.text for word in words] == ["The", "SQL", "server", "is", "down.", "See", "the", "log", "etc"]
    said = next(word for word in words if word.text == "SQL")
    assert said.end - said.start > len("see quell") * PER_CHARACTER * 0.8
    server = words[words.index(said) + 1]
    assert server.start >= said.end


def test_what_was_heard_of_a_reply_is_told_in_written_words() -> None:
    talk = Conversation(PLAIN.changed({"pronunciations": {"SQL": "see quell see quell"}}))
    talk.append("Today SQL went away. So")
    talk.finish(1)
    talk.read()
    talk.now = PER_CHARACTER * len("Today see quell")  # in the middle of the word
    talk.say(Cancel("c"))
    (cancelled,) = talk.read()
    assert isinstance(cancelled, ContextCancelled)
    assert (cancelled.text_spoken, cancelled.text_remaining) == ("Today SQL", " went away. So")


def test_sums_and_dates_are_read_out_and_told_as_they_were_written() -> None:
    traits = VoiceTraits(normalizes=False, language="en")
    talk = Conversation(PLAIN, traits=lambda _: traits)
    text = "Dr. Smith paid $5.20 for 2 kg on 3 March 1999, **twice**. It was 10% less."
    for start in range(0, len(text), 3):
        talk.append(text[start : start + 3])
    talk.commit()
    talk.run_out()
    spoken = " ".join(word.text for word in words_of(talk))
    assert spoken.replace("*", "") == text.replace("*", "")
    assert sum(event.seconds for event in talk.log if isinstance(event, AudioDelta)) > 1.3 * len(text) * PER_CHARACTER


@settings(max_examples=60, deadline=None)
@given(
    words=st.lists(
        st.sampled_from([*SAID, "one", "three.", "four,", "five!", "\n\nsix", "SQL."]), min_size=1, max_size=25
    ),
    characters=st.integers(1, 40),
    paced=st.booleans(),
)
def test_words_are_in_order_within_the_item_and_each_is_told_once(
    words: list[str], characters: int, paced: bool
) -> None:
    talk = Conversation(PLAIN.changed({"pronunciations": SAID, "paced": paced}))
    text = " ".join(words)
    for start in range(0, len(text), 7):
        talk.append(text[start : start + 7])
    talk.commit()
    for _ in range(2000):
        for ticket in list(talk.jobs):
            talk.speak(ticket, characters)
            if talk.jobs[ticket].position >= len(talk.jobs[ticket].speak.text):
                talk.finish(ticket)
        talk.read()
        talk.now += 0.5
    talk.run_out()
    seconds = sum(event.seconds for event in talk.log if isinstance(event, AudioDelta))
    told = words_of(talk)
    assert [word.text for word in told] == [word for word in text.split() if word != "hm"]
    assert all(before.start <= after.start and before.end <= after.start + 1e-6 for before, after in pairwise(told))
    assert all(0.0 <= word.start <= word.end <= seconds + 1e-6 for word in told)
