"""Kokoro's real classes with random weights: how it is asked, when its words are heard, and how it is stopped."""

from __future__ import annotations

import importlib.util
import shutil
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from models.catalog import Card, Catalog
from models.errors import Cancelled, EngineFailed, InvalidInput, WeightsMissing
from models.interfaces import SpeechRequest
from tests.models.engines.conformance import TEXT, SpeechConformance, Steps, speak
from tests.models.tiny_kokoro import VOICES, tiny_kokoro

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("kokoro", "misaki", "torch"))), reason="kokoro is not installed"
)

RATE = 24_000
FRAME = 600


def card_of(weights: Path, **fields: Any) -> Card:
    card = {
        "id": "tiny-kokoro",
        "task": "speech",
        "engine": "kokoro",
        "name": "tiny",
        "weights": str(weights),
        "sample_rate": RATE,
        "default_voice": "af_heart",
        "openai_voices": {"alloy": "af_bella", "onyx": "am_adam"},
        "word_timestamps": True,
        "max_input_chars": 400,
        "options": {"device": "cpu", "threads": 1},
    }
    return msgspec.convert(card | fields, Card)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_kokoro(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def card(directory: Path) -> Card:
    return card_of(directory)


@pytest.fixture(scope="module")
def engine(card: Card) -> Any:
    from models.engines import kokoro

    return kokoro.load(card)


class TestConformance(SpeechConformance):
    pass


def words_in(engine: Any, text: str, voice: str = "", language: str = "") -> list[str]:
    _, words = speak(engine, SpeechRequest(text, voice, language))
    return [text[word.start_char : word.end_char] for word in words]


def same(engine: Any, one: SpeechRequest, other: SpeechRequest) -> bool:
    return np.array_equal(speak(engine, one)[0], speak(engine, other)[0])


def test_its_voices_are_the_files_with_the_languages_their_names_say(engine: Any, directory: Path) -> None:
    voices = {voice.id: voice for voice in engine.voices()}
    assert set(voices) == set(VOICES)
    assert voices["bf_emma"].languages == ("en-GB", "en")
    assert voices["ef_dora"].languages == ("es",)
    assert voices["am_adam"].name == "Adam (American English, male)"


def test_a_mix_is_the_weighted_mean_of_its_voices(engine: Any, directory: Path) -> None:
    import torch

    from models.engines.kokoro import Pass

    bella, heart = (torch.load(directory / "voices" / f"{name}.pt") for name in ("af_bella", "af_heart"))
    phonemes = "həlˈO"
    expected = engine.lane.submit(Pass(phonemes, (2 * bella + heart)[len(phonemes) - 1] / 3, 1.0)).result()
    audio, _ = speak(engine, SpeechRequest("Hello", "af_bella(2)+af_heart"))
    assert np.allclose(audio, expected.samples, atol=1e-3)
    for alike in ("af_bella(2)+af_heart(1)", "AF_Bella(4) + af_heart(2)", "af_bella+af_heart+af_bella"):
        assert same(engine, SpeechRequest("Hello", "af_bella(2)+af_heart"), SpeechRequest("Hello", alike))
    for other in ("af_bella", "af_bella+af_heart"):
        assert not same(engine, SpeechRequest("Hello", "af_bella(2)+af_heart"), SpeechRequest("Hello", other))


@pytest.mark.parametrize("voice", ["af_bella+", "+", "af_bella(", "af_bella(0)", "af_bella(-1)+af_heart", "af_bella+x"])
def test_what_is_no_mix_is_refused(engine: Any, voice: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        engine.synthesize(SpeechRequest("Hello.", voice), Steps())
    assert refusal.value.field == "voice"


@pytest.mark.parametrize(
    ("text", "language", "words"),
    [
        ("“Quoted” text (paren) — dash… end", "", ["Quoted", "text", "paren", "dash", "end"]),
        ("Dr. Smith paid $1,234.50, didn't he?", "", ["Dr", "Smith", "paid", "$1,234.50", "didn't", "he"]),
        ("It is one of the best.", "en-GB", ["It", "is", "one", "of", "the", "best"]),
        ("La casa es de 1.234 euros.", "es", ["La", "casa", "es", "de", "1.234", "euros"]),
        ("Qu'est-ce que c'est, allez-vous ?", "fr", ["Qu'est-ce", "que", "c'est", "allez-vous"]),
        ("Wie geht's dir?", "de", ["Wie", "geht's", "dir"]),
        ("你好，世界。", "zh", list("你好世界")),
    ],
)
def test_the_texts_own_words_are_timed_in_every_language(
    engine: Any, text: str, language: str, words: list[str]
) -> None:
    assert words_in(engine, text, "", language) == words


def test_a_voice_speaks_its_own_language_unless_told_another(engine: Any) -> None:
    text = "Hotel radio"
    assert same(engine, SpeechRequest(text, "ef_dora"), SpeechRequest(text, "ef_dora", "es"))
    assert same(engine, SpeechRequest(text, "bf_emma"), SpeechRequest(text, "bf_emma", "en"))
    assert not same(engine, SpeechRequest(text, "ef_dora"), SpeechRequest(text, "ef_dora", "en"))
    assert not same(engine, SpeechRequest(text, "bf_emma"), SpeechRequest(text, "bf_emma", "en-US"))


def test_a_language_that_nobody_speaks_is_refused(engine: Any) -> None:
    with pytest.raises(InvalidInput) as refusal:
        engine.synthesize(SpeechRequest("Hello.", "", "tlh-x"), Steps())
    assert refusal.value.field == "language"


def test_words_are_heard_for_the_frames_that_the_model_gave_them(engine: Any) -> None:
    from models.engines.kokoro import Pass

    text = "One two."
    audio, (one, two) = speak(engine, SpeechRequest(text, ""))
    phonemes = "wˈʌn tˈu."
    frames = engine.lane.submit(Pass(phonemes, engine._style("af_heart")[len(phonemes) - 1], 1.0)).result().frames
    assert len(audio) == sum(frames) * FRAME
    gap = phonemes.index(" ") + 1
    lead = frames[0] - max(frames[0] - 3, 0)
    assert one.end == pytest.approx((sum(frames[:gap]) - lead + frames[gap] / 2) * 0.025)
    assert two.start == pytest.approx(one.end)


def test_a_text_of_several_passes_is_cut_at_sentences_and_timed_throughout(directory: Path, engine: Any) -> None:
    from models.engines import kokoro

    text = "The first one is here. The second one is there, and it goes on. The third."
    small = kokoro.load(card_of(directory, options={"threads": 1, "most_phonemes": 40}))
    before = small.lane.items
    audio, words = speak(small, SpeechRequest(text, ""))
    assert small.lane.items - before == 3
    assert [text[word.start_char : word.end_char] for word in words] == [word.strip(".,") for word in text.split()]
    assert all(one.end <= other.start + 1e-6 for one, other in zip(words, words[1:], strict=False))
    assert words[-1].end <= len(audio) / RATE
    first, _ = speak(engine, SpeechRequest("The first one is here.", ""))
    assert np.array_equal(audio[: len(first)], first)


def test_a_word_longer_than_a_pass_is_spoken_whole(directory: Path, engine: Any) -> None:
    _, words = speak(engine, SpeechRequest("a" * 399, "ef_dora"))
    assert [(word.start_char, word.end_char) for word in words] == [(0, 399)]


def test_concurrent_requests_do_not_mix_and_take_turns(engine: Any) -> None:
    texts = ["Alpha bravo.", "Delta echo.", "One two three."]
    alone = [speak(engine, SpeechRequest(text, ""))[0] for text in texts]
    together: dict[int, Any] = {}

    def run(index: int) -> None:
        together[index] = speak(engine, SpeechRequest(texts[index], ""))[0]

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(alone[index], together[index]) for index in range(len(texts)))


def test_a_pass_that_nobody_waits_for_stops_between_two_layers(engine: Any) -> None:
    from models.engines.kokoro import Pass

    item = Pass("həlˈO" * 90, engine._style("af_heart")[449], 0.25)
    layers = []

    def count(module: object, inputs: object) -> None:
        layers.append(module)
        if len(layers) == 10:
            item.abandoned.set()

    handles = [module.register_forward_pre_hook(count, prepend=True) for module in engine._model.modules()]
    with pytest.raises(Cancelled):
        engine.lane.submit(item).result()
    for handle in handles:
        handle.remove()
    assert 10 <= len(layers) < 40
    assert len(speak(engine, SpeechRequest("Hello.", ""))[0])


def test_a_request_that_waits_for_the_lane_can_be_cancelled(engine: Any) -> None:
    from models.engines.kokoro import Pass

    long = Pass("həlˈO" * 90, engine._style("af_heart")[449], 0.25)
    running = engine.lane.submit(long)
    with pytest.raises(Cancelled):
        list(engine.synthesize(SpeechRequest(TEXT, ""), Steps(cancel_at=2)))
    assert not running.done()
    long.abandoned.set()
    assert isinstance(running.exception(), Cancelled)


@pytest.mark.parametrize("missing", ["config.json", "tiny.pth", "voices/af_heart.pt"])
def test_what_is_not_there_is_told(directory: Path, tmp_path: Path, missing: str) -> None:
    from models.engines import kokoro

    shutil.copytree(directory, tmp_path / "copy", copy_function=_linked)
    (tmp_path / "copy" / missing).unlink()
    with pytest.raises(WeightsMissing):
        kokoro.load(card_of(tmp_path / "copy"))


def test_weights_of_another_model_are_refused(directory: Path, tmp_path: Path) -> None:
    import torch

    from models.engines import kokoro

    shutil.copytree(directory, tmp_path / "copy", copy_function=_linked)
    (tmp_path / "copy" / "tiny.pth").unlink()
    torch.save({"unet": {}}, tmp_path / "copy" / "tiny.pth")
    with pytest.raises(EngineFailed, match="no Kokoro model"):
        kokoro.load(card_of(tmp_path / "copy"))


def _linked(source: str, target: str) -> None:
    Path(target).symlink_to(source)


def test_the_built_in_card_names_voices_that_can_be() -> None:
    from models.kokoro_voices import LANGUAGES, is_voice

    card = Catalog.load().describe("hexgrad/Kokoro-82M")
    assert all(is_voice(voice) for voice in card.voices)
    assert {card.default_voice, *card.openai_voices.values()} <= set(card.voices)
    assert {voice[0] for voice in card.voices} == set(LANGUAGES)
    spoken = {tag.partition("-")[0] for _, tags in LANGUAGES.values() for tag in tags}
    assert set(card.languages) <= spoken
