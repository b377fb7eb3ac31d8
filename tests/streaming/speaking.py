"""A client, an engine and a listener around a `SynthesisSession`, with every promise of the session checked on the way.

The engine speaks 0.1 s per character, in chunks, with a span per word. The listener plays without delay. Letters are
unique per conversation, so that each can be followed from its append to the one report of what became of it.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from models.interfaces import WordTiming
from streaming.audio import PcmEncoding
from streaming.encode import AudioFormat
from streaming.speech_contexts import AHEAD_LIMIT
from streaming.speech_events import (
    Append,
    AudioDelta,
    Cancel,
    Clear,
    ClientEvent,
    Commit,
    Configure,
    ContextCancelled,
    ItemDone,
    ItemFailed,
    Refused,
    ServerEvent,
    SettingsChanged,
    Speak,
    SpeechSettings,
    Stop,
    TextCleared,
    TextReceived,
    WordTimestamps,
)
from streaming.speech_output import DELTA_SECONDS, OutputFormat
from streaming.spoken_text import VoiceTraits
from streaming.synthesis import SynthesisSession

RATE = 1000
PER_CHARACTER = 0.1
"""Seconds of speech."""
OUTPUT = OutputFormat(AudioFormat.PCM, PcmEncoding.S16LE, RATE)
PLAIN = SpeechSettings(model="m", voice="v", output=OUTPUT, word_timestamps=True)
ANSWERS: dict[type[ClientEvent], tuple[type[ServerEvent], ...]] = {
    Append: (TextReceived, Refused),
    Configure: (SettingsChanged, Refused),
    Clear: (TextCleared,),
    Cancel: (ContextCancelled,),
}


class EngineBroke(Exception):
    """What the engine of these tests fails with."""


def letters_of(text: str) -> list[str]:
    """The letters that are followed: those of `Conversation.word`. Plain English may repeat its own."""
    return [character for character in text if character.isalpha() and not character.isascii()]


def spans(text: str) -> list[WordTiming]:
    """Every word of a text, with its times."""
    found: list[WordTiming] = []
    end = 0
    for word in text.split():
        start = text.index(word, end)
        end = start + len(word)
        found.append(WordTiming(start, end, start * PER_CHARACTER, (end - 0.5) * PER_CHARACTER))
    return found


@dataclass
class Job:
    """One piece of text at the engine, and how many of its characters have been spoken."""

    speak: Speak
    position: int = 0


@dataclass
class Life:
    """One context from its first append to its cancellation."""

    letters: list[str] = field(default_factory=list)
    fresh: set[str] = field(default_factory=set)  # appended since the last commit, and not cleared
    commits: int = 0  # that had text
    done: list[str] = field(default_factory=list)
    plays_until: float = float("-inf")


class Conversation:
    """Drives a session and checks, at every step, whatever must hold at every step."""

    def __init__(
        self,
        settings: SpeechSettings = PLAIN,
        *,
        traits: Callable[[SpeechSettings], VoiceTraits] = lambda _: VoiceTraits(),
        max_contexts: int = 100,
    ) -> None:
        self.session = SynthesisSession(settings, traits=traits, max_contexts=max_contexts)
        self.now = 0.0
        self.jobs: dict[int, Job] = {}
        self.lives: dict[str, Life] = {}
        self.log: list[ServerEvent] = []
        self.checks_pace = settings.paced and max_contexts == 100
        self._fates: dict[str, str] = {}
        self._said: deque[ClientEvent] = deque()
        letters = (c for c in map(chr, range(0xC0, 0x2C00)) if c.isalpha() and c.islower())
        self._alphabet: Iterator[str] = (
            c for c in letters if len(c.title()) == 1 and c.title().lower() == c != c.title()
        )

    # ------------------------------------------------------------------ the client

    def word(self, length: int) -> str:
        """Letters that nobody has said yet."""
        return "".join(itertools.islice(self._alphabet, length))

    def say(self, event: ClientEvent) -> None:
        if isinstance(event, Configure) and event.changes.get("paced") is False:
            self.checks_pace = False
        self._said.append(event)
        self.session.receive(event, self.now)
        self._take_commands()

    def append(self, text: str, context_id: str = "c") -> None:
        self.say(Append(context_id, text))

    def commit(self, context_id: str = "c") -> None:
        self.say(Commit(context_id))

    def read(self, limit: int = 1_000_000) -> list[ServerEvent]:
        """Take up to `limit` events that may leave now."""
        before = len(self.log)
        while limit and (event := self.session.next_event(self.now)) is not None:
            self._record(event)
            limit -= 1
        self._take_commands()
        return self.log[before:]

    # ------------------------------------------------------------------ the engine

    def _take_commands(self) -> None:
        for command in self.session.commands():
            match command:
                case Speak(ticket, text):
                    assert text.strip(), "a piece without anything to speak"
                    self.jobs[ticket] = Job(command)
                case Stop(ticket):
                    del self.jobs[ticket]

    def speak(self, ticket: int, characters: int = 10_000) -> None:
        """The engine hands over the next characters of a piece as one chunk, if the session wants any."""
        job = self.jobs[ticket]
        end = min(len(job.speak.text), job.position + characters)
        if end == job.position or not self.session.wants_audio(ticket):
            return
        samples = np.full(round((end - job.position) * PER_CHARACTER * RATE), 0.1, np.float32)
        words = [span for span in spans(job.speak.text) if job.position <= span.start_char < end]
        job.position = end
        self.session.audio(ticket, samples, RATE, words, self.now)
        self._take_commands()

    def hand_over(self, ticket: int, seconds: float) -> None:
        """The engine hands over so much audio at once, whatever the text."""
        self.session.audio(ticket, np.full(round(seconds * RATE), 0.1, np.float32), RATE, (), self.now)

    def finish(self, ticket: int) -> None:
        """The engine speaks a piece to its end, unless the session has enough for now."""
        self.speak(ticket)
        job = self.jobs[ticket]
        if job.position == len(job.speak.text) and self.session.wants_audio(ticket):
            del self.jobs[ticket]
            self._fate(job.speak.text, "spoken")
            self.session.finished(ticket, self.now)
            self._take_commands()

    def fail(self, ticket: int) -> None:
        del self.jobs[ticket]
        self.session.failed(ticket, EngineBroke(), self.now)
        self._take_commands()

    def run_out(self) -> list[ServerEvent]:
        """The engine speaks all it has and the client reads it, as a driver that obeys `deadline` makes them."""
        before = len(self.log)
        for _ in range(10_000):
            heard = self.read()
            for ticket in list(self.jobs):
                self.finish(ticket)
            if heard or self.read():
                continue
            deadline = self.session.deadline(self.now)
            if deadline is None:
                break
            assert deadline >= self.now
            self.now = max(deadline, self.now + 1e-6)
        else:
            raise AssertionError("the conversation does not come to an end")
        assert not self.jobs, "nothing would ever wake the driver again"
        return self.log[before:]

    # ------------------------------------------------------------------ what is checked

    def _record(self, event: ServerEvent) -> None:
        self.log.append(event)
        self._apply_commits()
        asked = self._asked_for(event)
        match event:
            case TextReceived(context_id, text):
                life = self.lives.setdefault(context_id, Life())
                life.letters += letters_of(text)
                life.fresh |= set(letters_of(text))
            case Refused():
                assert isinstance(asked, Append | Configure)
            case TextCleared(context_id, text):
                self._fate(text, "cleared")
                if context_id in self.lives:
                    self.lives[context_id].fresh -= set(text)
            case ContextCancelled(context_id, spoken, remaining):
                self._end(self.lives.pop(context_id, Life()), letters_of(spoken + remaining))
            case ItemFailed(text_remaining=text):
                self._fate(text, "failed")
            case AudioDelta():
                self._hear(event, self.lives[event.context_id])
            case WordTimestamps(context_id, item_id, words):
                assert item_id not in self.lives[context_id].done
                assert {*letters_of("".join(word.text for word in words))} <= {*self.lives[context_id].letters}
            case ItemDone(context_id, item_id):
                done = self.lives[context_id].done
                assert not done or _number(done[-1]) < _number(item_id), "items done out of order"
                done.append(item_id)
        self._apply_commits()

    def _asked_for(self, event: ServerEvent) -> ClientEvent | None:
        """What the client said to get this answer; commits are not answered, audio comes after all answers."""
        if isinstance(event, AudioDelta | WordTimestamps | ItemDone):
            assert not self._said, "audio overtook an answer"
        if not self._said or isinstance(event, AudioDelta | WordTimestamps | ItemDone | ItemFailed):
            return None
        asked = self._said.popleft()
        assert isinstance(event, ANSWERS[type(asked)])
        assert event.context_id == asked.context_id
        return asked

    def _apply_commits(self) -> None:
        while self._said and isinstance(self._said[0], Commit):
            life = self.lives.get(self._said.popleft().context_id or "")
            if life is not None and life.fresh:
                life.commits += 1
                life.fresh.clear()

    def _fate(self, text: str, fate: str) -> None:
        for letter in letters_of(text):
            assert letter not in self._fates, f"{self._fates[letter]} and {fate}"
            self._fates[letter] = fate

    def _hear(self, event: AudioDelta, life: Life) -> None:
        assert event.item_id not in life.done, "audio of an item that was done"
        assert event.seconds <= DELTA_SECONDS + 1e-6
        assert len(event.audio) == 2 * round(event.seconds * RATE)
        life.plays_until = max(life.plays_until, self.now) + event.seconds
        assert not self.checks_pace or life.plays_until - self.now <= AHEAD_LIMIT + 1e-3

    def _end(self, life: Life, told: list[str]) -> None:
        untold = [letter for letter in life.letters if letter not in self._fates]
        assert set(untold) <= set(told), "text was lost"
        assert told == [letter for letter in life.letters if letter in set(told)], "text out of order, or told twice"
        assert all(self._fates.get(letter, "spoken") == "spoken" for letter in told)
        self._fate("".join(untold), "cancelled")

    def assert_settled(self) -> None:
        """Nothing is open: every letter has its fate, every commit with text its item."""
        self._apply_commits()
        assert not self._said
        for life in self.lives.values():
            assert [letter for letter in life.letters if letter not in self._fates] == []
            assert len(life.done) == life.commits


def _number(item_id: str) -> int:
    return int(item_id.removeprefix("tts_"))
