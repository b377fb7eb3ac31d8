from __future__ import annotations

from pathlib import Path

import pytest

from models import catalog
from models.catalog import Card, Catalog, CatalogError, weights_present
from models.errors import UnknownModel, WeightsMissing
from models.image_rules import settled
from models.interfaces import ImageRequest

KOKORO = """
[[card]]
id = "hexgrad/Kokoro-82M"
task = "speech"
engine = "espeak"
name = "Kokoro"
weights = "hexgrad/Kokoro-82M"
aliases = ["kokoro"]
deprecated = { "kokoro-v0" = "kokoro-v0 is now hexgrad/Kokoro-82M" }
"""


def user_catalog(directory: Path, text: str, *, weights: bool = False) -> Catalog:
    (directory / "own.toml").write_text(text)
    return Catalog.load(directory, installed=lambda card: weights or not card.weights)


def speech_card(id: str, **fields: object) -> Card:
    return Card(**{"id": id, "task": "speech", "engine": "tests.fakes", "name": id} | fields)  # type: ignore[arg-type]


def test_embedded_speech_card_gives_every_openai_voice_its_own_variant() -> None:
    card = Catalog.load().find("espeak-ng", "speech").card
    assert card.embedded
    assert set(card.openai_voices) == {
        *("alloy", "ash", "ballad", "coral", "echo", "fable", "onyx", "nova", "sage", "shimmer", "verse"),
        *("marin", "cedar"),
    }
    assert len(set(card.openai_voices.values())) == len(card.openai_voices)


def test_embedded_transcription_card_is_honest_about_itself() -> None:
    card = next(card for card in Catalog.load().cards if card.id == "pocketsphinx")
    assert "0.35" in card.description
    assert "without punctuation" in card.description
    assert card.languages == ("en",)


@pytest.mark.parametrize("name", ["espeak-ng", "espeak", "ESpeak-NG", "auto", ""])
def test_names_that_mean_the_embedded_voice(name: str) -> None:
    assert Catalog.load().find(name, "speech").card.id == "espeak-ng"


@pytest.mark.parametrize("name", ["tts-1", "kokoro", "hexgrad/Kokoro-82M", "gpt-4o-mini-tts"])
def test_names_of_real_models_never_reach_an_embedded_one(name: str) -> None:
    with pytest.raises((UnknownModel, WeightsMissing)):
        Catalog.load().find(name, "speech")


def test_unknown_name_suggests_near_ones() -> None:
    with pytest.raises(UnknownModel, match="Did you mean espeak-ng") as caught:
        Catalog.load().find("espeek", "speech")
    assert caught.value.field == "model"


def test_model_of_another_task_says_so() -> None:
    with pytest.raises(UnknownModel, match="is a speech model, not a transcription model"):
        Catalog.load().find("espeak-ng", "transcription")


def test_missing_weights_name_the_pull_command(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="sonoreel models pull hexgrad/Kokoro-82M"):
        user_catalog(tmp_path, KOKORO).find("kokoro", "speech")


def test_missing_package_names_the_extra() -> None:
    card = speech_card("big", requires=("no_such_package_here",), extra="kokoro")
    with pytest.raises(WeightsMissing, match=r"pip install 'sonoreel\[kokoro\]'"):
        Catalog([card]).find("big", "speech")


def test_missing_engine_module_is_told() -> None:
    with pytest.raises(WeightsMissing, match=r"no_such\.engine"):
        Catalog([speech_card("odd", engine="no_such.engine")]).find("odd", "speech")


def test_deprecated_name_redirects_with_its_message(tmp_path: Path) -> None:
    found = user_catalog(tmp_path, KOKORO, weights=True).find("kokoro-v0", "speech")
    assert found.card.id == "hexgrad/Kokoro-82M"
    assert found.deprecation == "kokoro-v0 is now hexgrad/Kokoro-82M"


def test_auto_prefers_a_real_model_once_its_weights_are_here(tmp_path: Path) -> None:
    assert user_catalog(tmp_path, KOKORO).auto("speech").id == "espeak-ng"
    assert user_catalog(tmp_path, KOKORO, weights=True).auto("speech").id == "hexgrad/Kokoro-82M"


def test_weights_that_arrive_later_are_seen_at_the_next_look(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    catalog = Catalog([speech_card("k", weights=str(weights))])
    weights.mkdir()
    with pytest.raises(WeightsMissing):
        catalog.find("k", "speech")
    catalog.refresh()
    assert catalog.find("k", "speech").card.id == "k"


def test_auto_without_any_candidate() -> None:
    with pytest.raises(UnknownModel, match="No speech model can run"):
        Catalog([]).auto("speech")


def test_user_card_changes_only_the_fields_it_names(tmp_path: Path) -> None:
    catalog = user_catalog(tmp_path, '[[card]]\nid = "espeak-ng"\nconcurrency = 3\n')
    card = catalog.find("espeak-ng", "speech").card
    assert (card.concurrency, card.sample_rate, card.engine) == (3, 22050, "espeak")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[[card]]\nid = "x"\ntask = "speech"\nengine = "e"\nname = "n"\nvoize = "v"\n', "'x'.*voize"),
        ('[[card]]\nid = "x"\ntask = "song"\nengine = "e"\nname = "n"\n', "'x'.*song"),
        ('[[card]]\nid = "x"\ntask = "speech"\nengine = "e"\nname = "n"\nreplicas = 0\n', "'x'.*replicas"),
        ('[[card]]\nid = "x"\ntask = "speech"\nengine = "e"\nname = "n"\naliases = ["Espeak"]\n', "taken by"),
        ('[[card]]\ntask = "speech"\n', "without id"),
        ("[[card", "own.toml"),
    ],
)
def test_wrong_card_file_is_refused_with_its_place(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(CatalogError, match=complaint):
        user_catalog(tmp_path, text)


def test_cpu_bound_card_has_no_more_replicas_than_cores(tmp_path: Path) -> None:
    card = 'id = "x"\ntask = "speech"\nengine = "e"\nname = "n"\nreplicas = 4096\n'
    capped = user_catalog(tmp_path, f"[[card]]\n{card}cpu_bound = true\n").cards[0]
    assert 1 <= capped.replicas < 4096
    assert user_catalog(tmp_path, f"[[card]]\n{card}").cards[0].replicas == 4096


def test_weights_are_looked_for_in_the_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    card = speech_card("k", weights="org/name")
    assert not weights_present(card)
    snapshot = tmp_path / "models--org--name" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    assert not weights_present(card)
    (snapshot / "model.safetensors").write_bytes(b"x")
    assert weights_present(card)


def test_weights_may_be_a_local_directory(tmp_path: Path) -> None:
    assert weights_present(speech_card("k", weights=str(tmp_path)))
    assert not weights_present(speech_card("k", weights=str(tmp_path / "absent")))


def test_an_embedded_cards_weights_are_where_the_server_is_installed(tmp_path: Path) -> None:
    card = '[[card]]\nid = "x"\ntask = "image"\nengine = "espeak"\nname = "n"\nembedded = true\nweights = "models/{}"\n'
    (tmp_path / "own.toml").write_text(card.format("engines"))
    found = Catalog.load(tmp_path).find("x", "image").card
    assert Path(found.weights) == Path(catalog.__file__).with_name("engines")
    (tmp_path / "own.toml").write_text(card.format("no-such-folder"))
    with pytest.raises(WeightsMissing, match="reinstall"):
        Catalog.load(tmp_path).find("x", "image")


def test_every_image_card_can_make_what_it_makes_by_default() -> None:
    cards = [card for card in Catalog.load(installed=lambda card: True).cards if card.task == "image"]
    assert cards
    for card in cards:
        images = () if card.generates else ("/image",)
        mask = "" if card.edits or card.generates else "/mask"
        made = settled(ImageRequest(prompt="a cat", image_paths=images, mask_path=mask), card)
        assert (made.width, made.height) == card.default_size, card.id
        assert 1 <= made.steps <= card.max_steps, card.id


def test_the_embedded_image_card_is_the_last_choice() -> None:
    cards = [card for card in Catalog.load().cards if card.task == "image"]
    assert [card.id for card in cards if card.embedded] == [cards[-1].id] == ["shapes-64"]
    assert cards[-1].sizes == ((64, 64),)


@pytest.mark.parametrize("name", ["black-forest-labs/FLUX.1-schnell-Free", "black-forest-labs/FLUX.1-kontext-dev"])
def test_togethers_names_lead_to_the_models(name: str) -> None:
    assert Catalog.load().describe(name).task == "image"


@pytest.mark.parametrize("name", ["dall-e-2", "dall-e-3", "gpt-image-1", "gpt-image-1.5"])
def test_openais_own_models_are_nobody_elses_name(name: str) -> None:
    with pytest.raises(UnknownModel):
        Catalog.load().describe(name)


def test_a_voice_speaks_the_language_its_name_begins_with() -> None:
    card = speech_card("v", languages=["en", "ja"], voice_languages={"a": "en-us", "b": "en-gb", "bj": "ja"})
    spoken = [card.language_of(voice) for voice in ("af_heart", "bm_george", "bjx", "heart")]
    assert spoken == ["en-us", "en-gb", "ja", "en"]
    assert speech_card("w").language_of("anybody") == ""
