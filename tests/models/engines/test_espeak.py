from __future__ import annotations

import threading

import numpy as np
import pytest

from models.catalog import Card, Catalog
from models.engines import espeak
from models.errors import Cancelled, InvalidInput
from models.interfaces import Samples, SpeechRequest
from tests.models.engines.conformance import SpeechConformance, Steps, speak

EspeakSynthesizer = espeak.EspeakSynthesizer


@pytest.fixture(scope="module")
def card() -> Card:
    return Catalog.load().find("espeak-ng", "speech").card


@pytest.fixture(scope="module")
def engine(card: Card) -> EspeakSynthesizer:
    return espeak.load(card)


class TestConformance(SpeechConformance):
    pass


def _spoken(engine: EspeakSynthesizer, text: str, voice: str = "", language: str = "") -> list[str]:
    _, words = speak(engine, SpeechRequest(text, voice, language))
    return [text[word.start_char : word.end_char] for word in words]


def _same(engine: EspeakSynthesizer, one: SpeechRequest, other: SpeechRequest) -> bool:
    return np.array_equal(speak(engine, one)[0], speak(engine, other)[0])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It is one of the best of the lot.", ["It", "is", "one", "of", "the", "best", "of", "the", "lot"]),
        ("I have been there.", ["I", "have", "been", "there"]),
        ("Pay $1,234.50 by 12:30, don't e-mail.", ["Pay", "$1,234.50", "by", "12:30", "don't", "e-mail"]),
        ("“Quoted” text (paren) — dash… end", ["Quoted", "text", "paren", "dash", "end"]),
        ("foo\x00bar \x01+20p baz", ["foo\x00bar", "\x01+20p", "baz"]),
    ],
)
def test_the_texts_own_words_are_timed_however_espeak_groups_them(
    engine: EspeakSynthesizer, text: str, words: list[str]
) -> None:
    assert _spoken(engine, text) == words


def test_ideographs_are_words_of_their_own(engine: EspeakSynthesizer) -> None:
    assert _spoken(engine, "你好，世界。", "cmn") == list("你好世界")


def test_a_word_ends_before_the_pause_that_follows_it(engine: EspeakSynthesizer) -> None:
    _, (first, second) = speak(engine, SpeechRequest("Hello, world.", ""))
    assert second.start - first.end > 0.05


def test_markup_is_spoken_and_not_obeyed(engine: EspeakSynthesizer) -> None:
    text = "one <break time='9s'/> & two"
    audio, words = speak(engine, SpeechRequest(text, ""))
    assert len(audio) / 22050 < 6
    assert "&" in [text[word.start_char : word.end_char] for word in words]


def test_a_pause_follows_a_sentence_that_is_finished(engine: EspeakSynthesizer) -> None:
    def trailing(text: str) -> float:
        audio, words = speak(engine, SpeechRequest(text, ""))
        return len(audio) / 22050 - words[-1].end

    assert trailing("Come over here") < 0.05
    assert trailing("He said: “come over here.”") > 0.2


@pytest.mark.parametrize(
    ("voice", "language", "same_as"),
    [
        ("", "", "en-us+klatt6"),
        ("EN-US+Klatt6", "", "en-us+klatt6"),
        ("en-us+klatt6", "en", "en-us+klatt6"),
        ("en-us+klatt6", "de", "de+klatt6"),
        ("en-us+klatt6", "de-DE", "de+klatt6"),
        ("", "pt-BR", "pt-br+klatt6"),
        ("+klatt6", "fr", "fr-fr+klatt6"),
    ],
)
def test_a_language_changes_the_voice_and_keeps_the_variant(
    engine: EspeakSynthesizer, voice: str, language: str, same_as: str
) -> None:
    text = "Radio video hotel."
    assert _same(engine, SpeechRequest(text, voice, language), SpeechRequest(text, same_as))


def test_variants_and_languages_sound_different(engine: EspeakSynthesizer) -> None:
    lengths = {v: len(speak(engine, SpeechRequest("Radio hotel.", v))[0]) for v in ("en-us", "en-us+klatt6", "de")}
    assert len(set(lengths.values())) == 3


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (SpeechRequest("Hi.", "en-us+nope"), "voice"),
        (SpeechRequest("Hi.", "+nope"), "voice"),
        (SpeechRequest("Hi.", "", "tlh-x"), "language"),
    ],
)
def test_what_it_does_not_have_is_refused(engine: EspeakSynthesizer, request_: SpeechRequest, field: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        engine.synthesize(request_, Steps())
    assert refusal.value.field == field


def test_a_consumer_that_reads_slowly_keeps_nobody_waiting(engine: EspeakSynthesizer) -> None:
    slow = engine.synthesize(SpeechRequest("one two three four five. " * 20, ""), Steps())
    next(slow)
    audio, _ = speak(engine, SpeechRequest("Hello.", ""))
    assert len(audio)
    assert sum(len(chunk.samples) for chunk in slow) > 22050


def test_concurrent_requests_do_not_mix(engine: EspeakSynthesizer) -> None:
    texts = ["Alpha bravo charlie.", "Delta echo.", "One two three four."]
    alone = [speak(engine, SpeechRequest(text, ""))[0] for text in texts]
    together: list[Samples] = [np.zeros(0, np.float32)] * len(texts)

    def run(index: int) -> None:
        for _ in range(5):
            together[index] = speak(engine, SpeechRequest(texts[index], ""))[0]

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


def test_a_request_that_waits_for_the_library_can_be_cancelled(engine: EspeakSynthesizer) -> None:
    library = espeak._library()
    with library._lock, pytest.raises(Cancelled):
        next(engine.synthesize(SpeechRequest("Hello.", ""), Steps(cancel_at=1)))
    assert len(speak(engine, SpeechRequest("Hello.", ""))[0])


def test_nobody_renders_what_nobody_wants_any_more(engine: EspeakSynthesizer) -> None:
    """A listener barges in: the library stops at its next block."""
    long = espeak._Utterance("one two three four five. " * 800, "gmw/en-US", 175)
    with pytest.raises(Cancelled):
        list(engine._speak(long, Steps(cancel_at=1)))
    assert long.blocks.qsize() < 2000  # of ten thousand
    assert not engine._library._lock.locked()
    audio, _ = speak(engine, SpeechRequest("Hello.", ""))
    assert len(audio)


def test_voices_list_languages_and_american_variants(engine: EspeakSynthesizer) -> None:
    voices = {voice.id: voice for voice in engine.voices()}
    assert {"en-us", "en-gb", "de", "fr-fr", "cmn", "hi", "en-us+f3", "en-us+klatt6"} <= voices.keys()
    assert "zh" in voices["cmn"].languages
    assert "de+f3" not in voices
    assert len(speak(engine, SpeechRequest("Hallo.", "de+f3"))[0])
