"""What a transcription form asks of engines: which models, which request, and who is told apart from whom."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from media.errors import ApiError
from media.transcribing import Diarization
from media.transcription_form import TranscriptionForm
from models.catalog import AUTO, Card, Catalog
from models.interfaces import KnownSpeaker, TranscriptionRequest

TranscriptionTask: TypeAlias = Literal["transcribe", "translate"]


def recogniser(catalog: Catalog, options: TranscriptionForm, task: TranscriptionTask) -> Card:
    """The model that writes down. Raises: ApiError 400; UnknownModel; WeightsMissing."""
    name = options.model
    if task == "translate" and name in ("", AUTO):
        name = _translator(catalog) or name
    card = catalog.find(name, "transcription").card
    if task == "translate":
        if not card.translates:
            raise ApiError(400, "unsupported_parameter", f"model {card.id!r} does not translate", param="model")
        if options.language not in ("", "auto", "en", "english"):
            message = f"translations are into English, not {options.language!r}: leave language out"
            raise ApiError(400, "invalid_value", message, param="language")
    return card


def _translator(catalog: Catalog) -> str | None:
    """The best model here that can translate."""
    cards = (card for card in catalog.cards if card.task == "transcription" and card.translates)
    return next((card.id for card in cards if catalog.missing(card) is None), None)


def diarizer(catalog: Catalog, options: TranscriptionForm, references: int) -> Card | None:
    """The model that tells speakers apart, if that is wanted; `references` is the number of clips that came.

    Raises: ApiError 400; UnknownModel; WeightsMissing.
    """
    names = len(options.known_speaker_names)
    if references != names:
        message = "known_speaker_names and known_speaker_references must come in pairs"
        lacking = "known_speaker_references" if references < names else "known_speaker_names"
        raise ApiError(400, "invalid_value", message, param=lacking)
    if not options.wants_speakers:
        return None
    if options.max_speakers and options.min_speakers > options.max_speakers:
        raise ApiError(400, "invalid_value", "min_speakers is more than max_speakers", param="min_speakers")
    if options.channels == "split":
        message = "channels=split already tells speakers apart: leave diarize out"
        raise ApiError(400, "unsupported_parameter", message, param="channels")
    return catalog.find(options.diarization_model, "diarization").card


def diarization(card: Card, options: TranscriptionForm, pcm: Path, clips: list[Path]) -> Diarization:
    """Who shall be told apart; `pcm` is where the decoded recording will be."""
    known = zip(options.known_speaker_names, clips, strict=True)
    return Diarization(
        card,
        pcm,
        options.num_speakers,
        options.min_speakers,
        options.max_speakers,
        tuple(KnownSpeaker(name, str(clip)) for name, clip in known),
    )


def engine_request(options: TranscriptionForm, task: TranscriptionTask, path: Path) -> TranscriptionRequest:
    """What the recogniser is asked."""
    return TranscriptionRequest(
        path=str(path),
        task=task,
        language="" if options.language == "auto" or task == "translate" else options.language,
        prompt=options.prompt,
        temperature=options.temperature,
        word_timestamps="word" in options.timestamp_granularities,
        segment_timestamps=options.response_format not in ("json", "text"),
        split_channels=options.channels == "split",
    )
