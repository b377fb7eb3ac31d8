"""eSpeak NG: the embedded speech engine. Over a hundred languages, no weights, no network.

The library and its data come in the `espeakng-loader` wheel and are reached through ctypes (espeak-ng's
`speak_lib.h`, API revision 12). It is process-global and not thread-safe, so a process holds one of it
behind one lock. It renders about a thousand times faster than real time: a request is rendered on a
thread of its own into a queue bounded by `card.max_input_chars`, so a consumer that reads slowly never
keeps others waiting.

Speed 1.0 is 175 words a minute. The library's slowest is 80, so every speed below 0.46 sounds like 0.46.
Voices are `<language>` or `<language>+<variant>`, as on espeak's command line. Formant voices have a
pitch flutter whose phase the library keeps across utterances, so two renderings of a text differ by a few
samples; the variant `klatt6` has none and is bit for bit repeatable.
"""

from __future__ import annotations

import ctypes as c
import functools
import queue
import re
import threading
import unicodedata
from bisect import bisect_right
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import espeakng_loader
import numpy as np

from models.catalog import Card
from models.errors import EngineFailed, InvalidInput
from models.interfaces import OnStep, Samples, SpeechChunk, SpeechRequest, Voice, WordTiming

_SYNCHRONOUS, _DONT_EXIT, _RATE, _UTF8, _END_PAUSE, _WORD_EVENT = 2, 0x8000, 1, 0x01, 0x1000, 1
_WORDS_PER_MINUTE, _SLOWEST = 175, 80
_SPEEDS = (0.25, 4.0)
_AUDIBLE = 0.002
_POLL = 0.05
_NOT_SPOKEN = frozenset("\"'.,;:!?…‥·„“”‘’«»‹›()[]{}¿¡。、，．；：！？「」『』（）【】《》〈〉،؛؟।॥–—―-")
_SENTENCE_END = re.compile(r"[.!?…。！？؟।॥][\"'”’»›)\]}」』）】》]*\s*$")
# Scripts written without spaces give one word per character; everything else is cut at white space.
_IDEOGRAPH = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"[{_IDEOGRAPH}]|[^\s{_IDEOGRAPH}]+")


class _EventId(c.Union):
    _fields_ = [("number", c.c_int), ("name", c.c_char_p), ("string", c.c_char * 8)]


class _Event(c.Structure):
    _fields_ = [
        ("type", c.c_int), ("unique_identifier", c.c_uint), ("text_position", c.c_int), ("length", c.c_int),
        ("audio_position", c.c_int), ("sample", c.c_int), ("user_data", c.c_void_p), ("id", _EventId),
    ]  # fmt: skip


class _Voice(c.Structure):
    _fields_ = [
        ("name", c.c_char_p), ("languages", c.c_void_p), ("identifier", c.c_char_p), ("gender", c.c_ubyte),
        ("age", c.c_ubyte), ("variant", c.c_ubyte), ("reserved", c.c_ubyte), ("score", c.c_int),
        ("spare", c.c_void_p),
    ]  # fmt: skip


_Callback = c.CFUNCTYPE(c.c_int, c.POINTER(c.c_short), c.c_int, c.POINTER(_Event))


@dataclass(frozen=True, slots=True)
class _Block:
    """What one callback hands over: samples, and (character index, sample index) of the words that begin."""

    samples: Samples
    words: list[tuple[int, int]]


@dataclass(slots=True)
class _Utterance:
    """One request's end of the callback. `blocks` ends with None, or with the error that ended it."""

    text: str
    voice: str
    rate: int
    blocks: queue.SimpleQueue[_Block | EngineFailed | None] = field(default_factory=queue.SimpleQueue)
    abandoned: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class _LanguageVoice:
    """A voice of the library; `languages` are (priority, tag): for a tag, the lowest priority is the best."""

    id: str
    name: str
    identifier: str
    languages: tuple[tuple[int, str], ...]

    def speaks(self, tag: str) -> bool:
        return any(own == tag or own.startswith(tag + "-") for _, own in self.languages)


class _Library:
    """The one eSpeak NG of this process."""

    def __init__(self) -> None:
        self._lib: Any = c.CDLL(espeakng_loader.get_library_path())
        self._lib.espeak_ListVoices.restype = c.POINTER(c.POINTER(_Voice))
        self._lib.espeak_Synth.argtypes = [
            c.c_char_p, c.c_size_t, c.c_uint, c.c_int, c.c_uint, c.c_uint, c.c_void_p, c.c_void_p
        ]  # fmt: skip
        data = espeakng_loader.get_data_path().encode()
        self.sample_rate = int(self._lib.espeak_Initialize(_SYNCHRONOUS, 60, data, _DONT_EXIT))
        if self.sample_rate <= 0:
            raise EngineFailed("eSpeak NG could not read its data; reinstall espeakng-loader.")
        # Kept on self: the library holds a bare pointer to it.
        self._callback = _Callback(self._receive)
        self._lib.espeak_SetSynthCallback(self._callback)
        self._lock = threading.Lock()
        self._speaking: _Utterance | None = None
        self.languages = {voice.id: voice for voice in self._list_languages()}
        self.variants = {name.lower(): name for name in self._list_variants()}

    def speak(self, utterance: _Utterance) -> None:
        """Render an utterance into its queue; returns early once it is abandoned."""
        outcome: EngineFailed | None = EngineFailed("eSpeak NG stopped in the middle of an utterance.")
        try:
            while not self._lock.acquire(timeout=_POLL):
                if utterance.abandoned.is_set():
                    return
            try:
                outcome = self._render(utterance)
            finally:
                self._speaking = None
                self._lock.release()
        finally:
            utterance.blocks.put(outcome)

    def _render(self, utterance: _Utterance) -> EngineFailed | None:
        self._speaking = utterance
        if self._lib.espeak_SetVoiceByName(utterance.voice.encode()) != 0:
            return EngineFailed(f"eSpeak NG could not load the voice {utterance.voice!r}.")
        self._lib.espeak_SetParameter(_RATE, utterance.rate, 0)
        data = _speakable(utterance.text).encode() + b"\0"
        flags = _UTF8 | (_END_PAUSE if _SENTENCE_END.search(utterance.text) else 0)
        code = self._lib.espeak_Synth(data, len(data), 0, 0, 0, flags, None, None)
        if code != 0 and not utterance.abandoned.is_set():
            return EngineFailed(f"eSpeak NG could not speak this text (code {code}).")
        return None

    def _receive(self, wave: Any, count: int, events: Any) -> int:
        """The library's callback: copy what it made, answer 1 to stop it."""
        utterance = self._speaking
        if utterance is None or utterance.abandoned.is_set():
            return 1
        words = []
        index = 0
        while (event := events[index]).type != 0:
            if event.type == _WORD_EVENT:
                words.append((event.text_position - 1, event.sample))
            index += 1
        samples = np.ctypeslib.as_array(wave, (count,)) if wave and count > 0 else np.zeros(0, np.int16)
        utterance.blocks.put(_Block(samples.astype(np.float32) / 32768.0, words))
        return 0

    def _list_languages(self) -> Iterator[_LanguageVoice]:
        seen: set[str] = set()
        for name, identifier, languages in self._list(None):
            tag = languages[0][1]
            tag = identifier.rpartition("/")[2].lower() if tag in seen else tag
            seen.add(tag)
            yield _LanguageVoice(tag, name.strip(), identifier, languages)

    def _list_variants(self) -> Iterator[str]:
        wanted = _Voice(languages=c.cast(c.c_char_p(b"variant"), c.c_void_p))
        for _, identifier, _ in self._list(c.byref(wanted)):
            yield identifier.rpartition("/")[2]

    def _list(self, wanted: Any) -> Iterator[tuple[str, str, tuple[tuple[int, str], ...]]]:
        found = self._lib.espeak_ListVoices(wanted)
        index = 0
        while found[index]:
            voice = found[index].contents
            yield voice.name.decode(), voice.identifier.decode(), tuple(_languages(voice.languages))
            index += 1


def _languages(address: int) -> Iterator[tuple[int, str]]:
    """Read a voice's languages: each a priority byte and a zero-ended tag; a zero priority ends the list."""
    while priority := c.string_at(address, 1)[0]:
        tag = c.string_at(address + 1)
        yield priority, tag.decode().lower()
        address += len(tag) + 2


@functools.cache
def _library() -> _Library:
    return _Library()


def _speakable(text: str) -> str:
    """The text with as many characters, none of which commands espeak: control characters are its embedded
    commands, NUL would end the text, and lone surrogates have no UTF-8."""
    return "".join(" " if unicodedata.category(ch) in {"Cc", "Cs"} and ch != "\n" else ch for ch in text)


class _WordClock:
    """Turns espeak's word events into timings of the text's own words.

    The library reports a number once per word it is spoken with, a run such as "one of" only once, and
    foreign scripts once per letter. So events are gathered by the word of the text they point into, and
    the words of a run share its time by their length. A word ends with its last audible sample before
    the next one begins.
    """

    def __init__(self, text: str, sample_rate: int) -> None:
        self._text = text
        self._rate = sample_rate
        self._tokens = [match.span() for match in _TOKEN.finditer(text)]
        self._starts = [start for start, _ in self._tokens]
        self._events: list[tuple[int, int]] = []
        self._token: int | None = None
        self._began = 0
        self._audible_end = 0
        self._heard = 0

    def hear(self, block: _Block) -> list[WordTiming]:
        """Take the next block; returns the words that ended before or within it."""
        loud = np.flatnonzero(np.abs(block.samples) > _AUDIBLE) + self._heard + 1
        self._heard += len(block.samples)
        self._events += block.words
        settled: list[WordTiming] = []
        while self._events and self._events[0][1] <= self._heard:
            position, sample = self._events.pop(0)
            before = int(np.searchsorted(loud, sample, side="right"))
            if before:
                self._audible_end = int(loud[before - 1])
            token = max(bisect_right(self._starts, position) - 1, 0)
            if self._tokens and (self._token is None or token > self._token):
                settled += self._settle(token)
                self._token, self._began = token, sample
        if len(loud):
            self._audible_end = int(loud[-1])
        return settled

    def finish(self) -> list[WordTiming]:
        """The words still open when the audio has ended."""
        return self._settle(len(self._tokens))

    def _settle(self, upto: int) -> list[WordTiming]:
        if self._token is None:
            return []
        run = [self._tokens[self._token]]
        run += [
            span for span in self._tokens[self._token + 1 : upto] if any(map(str.isalnum, self._text[slice(*span)]))
        ]
        begin, end = self._began, max(self._began, self._audible_end)
        total = sum(stop - start for start, stop in run)
        timings, done = [], 0
        for start, stop in run:
            since, done = done, done + stop - start
            edges = (begin + (end - begin) * edge / total for edge in (since, done))
            first, last = (edge / self._rate for edge in edges)
            timings.append(WordTiming(*self._stripped(start, stop), first, last))
        return timings

    def _stripped(self, start: int, stop: int) -> tuple[int, int]:
        """The span without the punctuation around it, unless it is nothing else."""
        first, last = start, stop
        while first < last and self._text[first] in _NOT_SPOKEN:
            first += 1
        while last > first and self._text[last - 1] in _NOT_SPOKEN:
            last -= 1
        return (first, last) if first < last else (start, stop)


class EspeakSynthesizer:
    """Implements SpeechSynthesizer. Any thread may call it; the library speaks for one at a time."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._library = _library()
        self._default = self._split(card.default_voice or "en-us")

    def voices(self) -> list[Voice]:
        """Every language's voice, then American English in every variant; all languages take the variants."""
        languages = self._library.languages.values()
        found = [Voice(voice.id, voice.name, tuple(tag for _, tag in voice.languages)) for voice in languages]
        american = self._library.languages["en-us"]
        found += [
            Voice(f"en-us+{variant}", f"{american.name}, {variant}", ("en-us", "en"))
            for variant in sorted(self._library.variants.values(), key=str.lower)
        ]
        return found

    def synthesize(self, request: SpeechRequest, on_step: OnStep) -> Generator[SpeechChunk, None, None]:
        """Yield chunks of at most 60 ms; nothing at all for blank text. `on_step` counts characters.

        Raises: InvalidInput (text, voice, language, speed) at once; EngineFailed; Cancelled from `on_step`.
        """
        limit = self._card.max_input_chars
        if len(request.text) > limit:
            raise InvalidInput(f"The text has {len(request.text)} characters; {limit} is the most.", field="text")
        if not _SPEEDS[0] <= request.speed <= _SPEEDS[1]:
            raise InvalidInput(f"speed must be between {_SPEEDS[0]} and {_SPEEDS[1]}.", field="speed")
        voice = self._choose(request.voice, request.language)
        rate = max(_SLOWEST, round(_WORDS_PER_MINUTE * request.speed))
        return self._speak(_Utterance(request.text, voice, rate), on_step)

    def _speak(self, utterance: _Utterance, on_step: OnStep) -> Generator[SpeechChunk, None, None]:
        length = len(utterance.text)
        if not utterance.text.strip():
            return
        rate = self._library.sample_rate
        clock = _WordClock(utterance.text, rate)
        thread = threading.Thread(target=self._library.speak, args=(utterance,), name="espeak", daemon=True)
        thread.start()
        try:
            spoken = 0
            held: SpeechChunk | None = None  # one chunk back, so that the last word rides on the last chunk
            words: list[WordTiming] = []
            for block in _blocks(utterance):
                words += clock.hear(block)
                spoken = words[-1].end_char if words else spoken
                on_step(spoken, length)
                if not len(block.samples):
                    continue
                if held is not None:
                    yield held
                held = SpeechChunk(block.samples, rate, tuple(words))
                words = []
            if held is not None:
                yield SpeechChunk(held.samples, rate, (*held.words, *words, *clock.finish()))
            on_step(length, length)
        finally:
            utterance.abandoned.set()
            thread.join()

    def _choose(self, voice: str, language: str) -> str:
        """The library's name of a voice. A language it does not speak changes the voice, not its variant."""
        base, variant = self._split(voice)
        for tag in _broader(language):
            if self._library.languages[base].speaks(tag):
                break
            if best := self._best(tag):
                base = best
                break
        else:
            if language.strip():
                raise InvalidInput(f"eSpeak NG has no voice for language {language!r}.", field="language")
        identifier = self._library.languages[base].identifier
        return f"{identifier}+{variant}" if variant else identifier

    def _split(self, voice: str) -> tuple[str, str]:
        """`language+variant` as the library spells both; an empty half is the default's.

        Raises: InvalidInput for a half that does not exist.
        """
        base, plus, variant = voice.strip().lower().replace("_", "-").partition("+")
        if not base:
            base, default_variant = self._default
            variant = variant if plus else default_variant
        base = base if base in self._library.languages else self._best(base)
        if not base or (variant and variant.lower() not in self._library.variants):
            raise InvalidInput(
                f"eSpeak NG has no voice {voice!r}. A voice is a language, or a language and a variant as in "
                "'en-us+klatt6'; GET /v1/voices lists them.",
                field="voice",
            )
        return base, self._library.variants[variant.lower()] if variant else ""

    def _best(self, tag: str) -> str:
        """The id of the voice that speaks a language tag best; empty when none does."""
        ranked = [
            (priority, own != tag, order, voice.id)
            for order, voice in enumerate(self._library.languages.values())
            for priority, own in voice.languages
            if own == tag or own.startswith(tag + "-")
        ]
        return min(ranked, key=lambda rank: (rank[1], rank[0], rank[2]))[3] if ranked else ""


def _blocks(utterance: _Utterance) -> Iterator[_Block]:
    """The blocks of an utterance as they come, and an empty one whenever none came for a moment."""
    while True:
        try:
            block = utterance.blocks.get(timeout=_POLL)
        except queue.Empty:
            block = _Block(np.zeros(0, np.float32), [])
        if block is None:
            return
        if isinstance(block, EngineFailed):
            raise block
        yield block


def _broader(language: str) -> Iterator[str]:
    """A language tag and its ever broader forms: `zh-Hant-TW`, `zh-hant`, `zh`."""
    tag = language.strip().lower().replace("_", "-")
    while tag:
        yield tag
        tag = tag.rpartition("-")[0]


def load(card: Card) -> EspeakSynthesizer:
    """Load the library. Raises EngineFailed when its data cannot be read."""
    return EspeakSynthesizer(card)
