from __future__ import annotations

import re
import threading
import wave
from pathlib import Path

import jiwer
import numpy as np
import pytest

from models.catalog import Card, Catalog
from models.engines import espeak, pocketsphinx
from models.errors import InvalidInput
from models.interfaces import ListenRequest, MediaInfo, Samples, SegmentResult, SpeechRequest, TranscriptionRequest
from streaming.audio import PcmEncoding, Resampler, decode_pcm
from streaming.decode import decode
from tests.models.engines.conformance import (
    SAMPLE_RATE,
    LiveConformance,
    Steps,
    TranscriptionConformance,
    blocks,
    noise,
    speak,
    write_wav,
)
from tests.models.engines.sentences import SENTENCES

PocketSphinxTranscriber = pocketsphinx.PocketSphinxTranscriber

RECORDINGS = {
    "librivox-0870.wav": (
        0.41,
        "and mister john dashwood had then leisure to consider how much there might be prudently in his power to do "
        "for them",
    ),
    "librivox-0930.wav": (0.12, "he might even have been made amiable himself"),
    "go-forward.wav": (0.0, "go forward ten meters"),
}


@pytest.fixture(scope="module")
def card() -> Card:
    return Catalog.load().find("pocketsphinx", "transcription").card


@pytest.fixture(scope="module")
def engine(card: Card) -> PocketSphinxTranscriber:
    return pocketsphinx.load(card)


def _say(text: str) -> Samples:
    """The text as the embedded voice speaks it, at 16 kHz."""
    synthesizer = espeak.load(Catalog.load().find("espeak-ng", "speech").card)
    audio, _ = speak(synthesizer, SpeechRequest(text, "en-us+klatt6"))
    resampler = Resampler(22_050, 16_000)
    return np.concatenate((resampler.process(audio), resampler.finish()))


@pytest.fixture(scope="module")
def speech() -> Samples:
    return _say("Please turn on the light.")


class TestTranscription(TranscriptionConformance):
    pass


class TestLive(LiveConformance):
    pass


def _written(engine: PocketSphinxTranscriber, path: Path) -> str:
    items = engine.transcribe(TranscriptionRequest(path=str(path)), Steps())
    return " ".join(item.segment.text for item in items if isinstance(item, SegmentResult))


def _heard(engine: PocketSphinxTranscriber, samples: Samples) -> str:
    *_, last = engine.listen(ListenRequest(), blocks(samples), Steps())
    assert isinstance(last, SegmentResult)
    return last.segment.text


def _plain(text: str) -> str:
    return re.sub(r"[^a-z' ]", "", text.lower())


@pytest.mark.timeout(180)  # 48 s of audio in all, on a busy machine
@pytest.mark.parametrize("name", RECORDINGS)
def test_real_recordings_are_no_worse_than_known(
    engine: PocketSphinxTranscriber, shared_audio: Path, name: str
) -> None:
    known, reference = RECORDINGS[name]
    samples = np.concatenate([chunk.samples for chunk in decode(shared_audio / name)])
    from_file = jiwer.wer(reference, _written(engine, shared_audio / name))
    live = jiwer.wer(reference, _heard(engine, samples))
    assert from_file <= known + 0.05
    assert live <= known + 0.05


@pytest.mark.timeout(180)  # 50 s of audio, on a busy machine
def test_the_embedded_voice_is_understood_live_as_from_a_file(engine: PocketSphinxTranscriber, tmp_path: Path) -> None:
    references = [_plain(sentence) for sentence in SENTENCES]
    spoken = [_say(sentence) for sentence in SENTENCES]
    written = [_written(engine, write_wav(tmp_path / f"{n}.wav", audio)) for n, audio in enumerate(spoken)]
    heard = [_heard(engine, audio) for audio in spoken]
    from_file, live = jiwer.wer(references, written), jiwer.wer(references, heard)
    assert from_file <= 0.30
    assert live <= 0.30
    assert abs(live - from_file) <= 0.05


def test_a_quiet_recording_is_heard_like_a_loud_one(engine: PocketSphinxTranscriber, shared_audio: Path) -> None:
    samples = np.concatenate([chunk.samples for chunk in decode(shared_audio / "go-forward.wav")])
    assert _heard(engine, samples * np.float32(0.1)) == "go forward ten meters"


def test_nothing_of_one_utterance_reaches_the_next(engine: PocketSphinxTranscriber, speech: Samples) -> None:
    first = list(engine.listen(ListenRequest(), blocks(speech), Steps()))
    _heard(engine, noise(1, 0.2))
    _heard(engine, speech * np.float32(0.05))
    assert list(engine.listen(ListenRequest(), blocks(speech), Steps())) == first


def test_turns_at_the_same_time_do_not_mix(engine: PocketSphinxTranscriber, speech: Samples) -> None:
    alone = _heard(engine, speech)
    results: list[str] = []
    threads = [threading.Thread(target=lambda: results.append(_heard(engine, speech))) for _ in range(2)]
    for thread in threads:
        thread.start()
    _heard(engine, noise(1, 0.1))
    for thread in threads:
        thread.join()
    assert results == [alone, alone]


def test_words_are_plain(engine: PocketSphinxTranscriber, speech: Samples) -> None:
    *updates, last = engine.listen(ListenRequest(), blocks(speech), Steps())
    assert isinstance(last, SegmentResult)
    for text in (
        last.segment.text,
        *(update.hypothesis.text for update in updates if not isinstance(update, SegmentResult)),
    ):
        assert re.fullmatch(r"[a-z'. -]*", text)
    assert all(word.probability is not None and 0 <= word.probability <= 1 for word in last.segment.words)


@pytest.mark.parametrize("language", ["", "en", "en-US", "EN_gb", "english"])
def test_english_has_many_names(engine: PocketSphinxTranscriber, language: str) -> None:
    silence = np.zeros(160, np.float32)
    assert len(list(engine.listen(ListenRequest(language=language), blocks(silence), Steps()))) == 1


def test_the_refusal_says_which_language_it_was(engine: PocketSphinxTranscriber) -> None:
    with pytest.raises(InvalidInput, match="'de'"):
        list(engine.listen(ListenRequest(language="de"), iter(()), Steps()))


def test_a_diarizer_gets_a_copy_of_what_is_heard(
    engine: PocketSphinxTranscriber, speech: Samples, tmp_path: Path
) -> None:
    path, copy = write_wav(tmp_path / "a.wav", speech), tmp_path / "copy"
    list(engine.transcribe(TranscriptionRequest(path=str(path), pcm_path=str(copy)), Steps()))
    heard = decode_pcm(copy.read_bytes(), PcmEncoding.S16LE)
    assert float(np.max(np.abs(heard - speech))) < 2 / 32768


def test_channels_are_written_down_each_by_itself(
    engine: PocketSphinxTranscriber, speech: Samples, tmp_path: Path
) -> None:
    silence = np.zeros_like(speech)
    path = tmp_path / "call.wav"
    call = np.stack([np.concatenate([silence, speech]), np.concatenate([speech, silence])], axis=1)
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes((call * 32767).astype("<i2").tobytes())
    request = TranscriptionRequest(path=str(path), split_channels=True, word_timestamps=True)
    facts, *results = engine.transcribe(request, Steps())
    assert isinstance(facts, MediaInfo)
    assert facts.duration == pytest.approx(2 * len(speech) / SAMPLE_RATE, abs=0.01)
    segments = [result.segment for result in results if isinstance(result, SegmentResult)]
    assert [segment.channel for segment in segments] == sorted(segment.channel or 0 for segment in segments)[::-1]
    assert {segment.channel for segment in segments} == {0, 1}
    assert [segment.start for segment in segments] == sorted(segment.start for segment in segments)
