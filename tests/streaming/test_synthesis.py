"""The promises of the synthesis session one by one; `test_synthesis_sequences` mixes them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from streaming.audio import PcmEncoding
from streaming.encode import AudioFormat
from streaming.joins import SENTENCE_PAUSE
from streaming.speech_events import (
    AudioDelta,
    Cancel,
    Clear,
    Configure,
    ContextCancelled,
    ItemDone,
    ItemFailed,
    Refused,
    SettingsChanged,
    TextCleared,
    TextReceived,
    WordTimestamps,
)
from streaming.speech_output import OutputFormat
from streaming.synthesis import SynthesisSession
from tests.streaming.speaking import PER_CHARACTER, PLAIN, RATE, Conversation

UNPACED = PLAIN.changed({"paced": False})


def kinds(talk: Conversation) -> list[str]:
    """The names of all events so far, runs of the same one shortened to one."""
    return [name for name, _ in itertools.groupby(type(event).__name__ for event in talk.log)]


def seconds(talk: Conversation) -> float:
    return sum(event.seconds for event in talk.log if isinstance(event, AudioDelta))


def test_one_commit_is_one_item() -> None:
    talk = Conversation()
    for token in ("Hel", "lo ", "there. ", "How are", " you?"):
        talk.append(token)
    talk.commit()
    talk.run_out()
    assert kinds(talk) == ["TextReceived", "WordTimestamps", "AudioDelta", "WordTimestamps", "AudioDelta", "ItemDone"]
    assert {event.item_id for event in talk.log if isinstance(event, AudioDelta)} == {"tts_1"}
    assert seconds(talk) == pytest.approx(len("Hello there. How are you?") * PER_CHARACTER + SENTENCE_PAUSE)


@pytest.mark.parametrize("text", ["", " ", "\n\n"])
def test_a_commit_without_words_makes_no_item(text: str) -> None:
    talk = Conversation()
    talk.commit()
    talk.append(text)
    talk.commit()
    talk.commit()
    talk.run_out()
    assert kinds(talk) == ["TextReceived"]


def test_word_times_are_on_the_clock_of_the_item() -> None:
    talk = Conversation()
    talk.append("Good day. See you.")
    talk.commit()
    talk.run_out()
    words = [word for event in talk.log if isinstance(event, WordTimestamps) for word in event.words]
    assert [word.text for word in words] == ["Good", "day.", "See", "you."]
    later = 0.9 + SENTENCE_PAUSE  # a blank belongs to the second sentence
    assert [word.start for word in words] == pytest.approx([0.0, 0.5, later + 0.1, later + 0.5])


def test_clear_drops_what_no_engine_has_and_says_so() -> None:
    talk = Conversation()
    talk.append("First of all. Second of all. Third")
    talk.say(Clear("c"))
    talk.commit()
    talk.run_out()
    cleared = next(event for event in talk.log if isinstance(event, TextCleared))
    assert cleared.text == " Second of all. Third"
    assert seconds(talk) == pytest.approx(len("First of all.") * PER_CHARACTER)
    assert isinstance(talk.log[-1], ItemDone)
    talk.say(Clear("nobody"))
    assert talk.read() == [TextCleared("nobody", "")]


def test_a_commit_after_everything_was_cleared_makes_no_item() -> None:
    talk = Conversation()
    talk.append("not complete")
    talk.say(Clear("c"))
    talk.commit()
    talk.run_out()
    assert kinds(talk) == ["TextReceived", "TextCleared"]


def test_a_failure_drops_the_item_and_the_next_one_is_spoken() -> None:
    talk = Conversation()
    talk.append("This breaks. And this with it.")
    talk.commit()
    talk.append("This does not.")
    talk.commit()
    talk.fail(1)
    talk.run_out()
    assert kinds(talk) == ["TextReceived", "ItemFailed", "ItemDone", "WordTimestamps", "AudioDelta", "ItemDone"]
    failed = next(event for event in talk.log if isinstance(event, ItemFailed))
    assert (failed.item_id, failed.text_remaining) == ("tts_1", "This breaks. And this with it.")


def test_a_failure_that_waits_behind_audio_is_told_before_the_cancellation() -> None:
    talk = Conversation()
    talk.append("Once upon a time. There was a failure.")
    talk.commit()
    talk.finish(1)
    talk.fail(2)
    talk.say(Cancel("c"))
    talk.run_out()
    assert kinds(talk) == ["TextReceived", "ItemFailed", "ContextCancelled"]
    failed, cancelled = talk.log[-2:]
    assert isinstance(failed, ItemFailed)
    assert isinstance(cancelled, ContextCancelled)
    assert failed.text_remaining == " There was a failure."
    assert cancelled.text_spoken + cancelled.text_remaining == "Once upon a time."


def cancelled_at(moment: float) -> tuple[str, str]:
    talk = Conversation()
    talk.append("Alpha beta gamma. Delta epsilon.")
    talk.append(" And a tail")
    talk.finish(1)
    talk.finish(2)
    talk.read()
    talk.now = moment
    talk.say(Cancel("c"))
    (event,) = [event for event in talk.read() if isinstance(event, ContextCancelled)]
    return event.text_spoken, event.text_remaining


def test_what_was_spoken_follows_the_word_times() -> None:
    split = {moment: cancelled_at(moment) for moment in np.arange(0.0, 5.0, 0.05).round(2).tolist()}
    spoken = [text for text, _ in split.values()]
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(spoken))
    assert {text + rest for text, rest in split.values()} == {"Alpha beta gamma. Delta epsilon. And a tail"}
    # "beta" begins at 0.6 s, "gamma." at 1.1 s, the second sentence after 17 characters.
    assert split[0.0][0] == ""
    assert split[0.05][0] == "Alpha"
    assert split[0.55][0] == "Alpha"
    assert split[0.6][0] == "Alpha beta"
    assert split[1.7][0] == "Alpha beta gamma."
    assert split[4.95][0] == "Alpha beta gamma. Delta epsilon."


def test_nothing_unheard_is_forgotten_at_the_cancellation_of_a_long_text() -> None:
    talk = Conversation(PLAIN.changed({"segment": "never"}))
    whole = "".join(f"sentence {number}. " for number in range(10_000))
    for start in range(0, len(whole), 1000):
        talk.append(whole[start : start + 1000])
    talk.session.receive(Cancel("c"), 0.0)
    event = None
    while not isinstance(event, ContextCancelled):
        event = talk.session.next_event(0.0)
    assert (event.text_spoken, event.text_remaining) == ("", whole)


def test_a_cancelled_context_is_silent_until_it_is_used_again() -> None:
    talk = Conversation()
    talk.append("Please stop this.")
    talk.commit()
    talk.speak(1, 5)
    talk.say(Cancel("c"))
    assert talk.jobs == {}
    assert kinds_of(talk.read()) == ["TextReceived", "ContextCancelled"]
    talk.session.audio(1, np.ones(1000, np.float32), RATE, (), talk.now)
    talk.session.finished(1, talk.now)
    assert talk.read() == []
    talk.append("Go on.")
    talk.commit()
    assert "AudioDelta" in kinds_of(talk.run_out())
    talk.say(Cancel("never heard of"))
    assert talk.read() == [ContextCancelled("never heard of", "", "")]


def kinds_of(events: Sequence[object]) -> list[str]:
    return [type(event).__name__ for event in events]


def test_a_new_voice_speaks_the_next_piece() -> None:
    talk = Conversation()
    talk.append("The first sentence. The second sentence. ")
    talk.say(Configure({"voice": "w", "speed": 2.0}, "c"))
    talk.commit()
    talk.finish(1)
    (job,) = talk.jobs.values()
    assert (job.speak.settings.voice, job.speak.settings.speed) == ("w", 2.0)
    talk.append("Elsewhere.", "d")
    talk.commit("d")
    assert [job.speak.settings.voice for job in talk.jobs.values()] == ["w", "v"]


def test_a_new_output_begins_with_the_next_item() -> None:
    talk = Conversation(UNPACED)
    talk.append("The first sentence. The second sentence. ")
    talk.say(Configure({"format": AudioFormat.WAV}))
    talk.commit()
    talk.append("The third sentence.")
    talk.commit()
    talk.checks_pace = False
    for ticket in (1, 2, 3):
        talk.session.audio(ticket, np.zeros(10, np.float32), RATE, (), talk.now)
        talk.session.finished(ticket, talk.now)
        list(talk.session.commands())
    audio: dict[str, bytes] = {}
    while (event := talk.session.next_event(talk.now)) is not None:
        if isinstance(event, AudioDelta):
            audio[event.item_id] = audio.get(event.item_id, b"") + event.audio
    assert audio["tts_1"] == bytes(40)
    assert audio["tts_2"][:4] == b"RIFF"


def test_settings_for_all_contexts_leave_alone_what_they_do_not_name() -> None:
    session = SynthesisSession(PLAIN)
    session.receive(Configure({"encoding": PcmEncoding.MULAW, "voice": "mine"}, "a"), 0.0)
    session.receive(Configure({"sample_rate": 8000}), 0.0)
    session.receive(Configure({"speed": 2.0}, "a"), 0.0)
    session.receive(Configure({"speed": 2.0}, "b"), 0.0)
    changed = [event.settings for _ in range(4) if isinstance(event := session.next_event(0.0), SettingsChanged)]
    assert changed[2].output == OutputFormat(AudioFormat.PCM, PcmEncoding.MULAW, 8000)
    assert (changed[2].voice, changed[3].voice) == ("mine", "v")
    assert changed[3].output == OutputFormat(AudioFormat.PCM, PcmEncoding.S16LE, 8000)


def test_words_are_told_only_when_asked_for() -> None:
    talk = Conversation(PLAIN.changed({"word_timestamps": False}))
    talk.append("Hello there.")
    talk.commit()
    talk.run_out()
    assert kinds(talk) == ["TextReceived", "AudioDelta", "ItemDone"]


def test_complete_words_are_spoken_when_the_client_pauses() -> None:
    talk = Conversation()
    talk.append("a few words and no end")
    assert talk.jobs == {}
    deadline = talk.session.deadline(talk.now)
    assert deadline is not None
    talk.now = deadline
    talk.read()
    (job,) = talk.jobs.values()
    assert job.speak.text == "a few words and no"


def test_a_drain_commits_speaks_everything_unpaced_and_ends() -> None:
    talk = Conversation()
    talk.append("word " * 100, "a")
    talk.append("And this", "b")
    talk.checks_pace = False
    talk.session.drain(talk.now)
    talk.say(Configure({"paced": True}))
    talk.append("Too late.")
    assert not talk.session.drained
    talk.run_out()
    assert talk.now == 0.0, "a drain waits for nobody to listen"
    assert talk.session.drained
    assert sum(isinstance(event, ItemDone) for event in talk.log) == 2
    refused = [event for event in talk.log if isinstance(event, Refused)]
    assert [event.code for event in refused] == ["server_draining"]


def test_a_session_that_was_never_used_drains_at_once() -> None:
    session = SynthesisSession(PLAIN)
    assert not session.drained
    session.drain(0.0)
    assert session.drained


def test_a_refusal_takes_its_turn() -> None:
    talk = Conversation()
    talk.append("One.")
    talk.session.refuse(Refused(None, "invalid_json", "what?"))
    assert isinstance(talk.session.next_event(0.0), TextReceived)
    assert talk.session.next_event(0.0) == Refused(None, "invalid_json", "what?")
