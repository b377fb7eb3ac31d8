"""What every resource of the API works with; made once per application, found in `request.app.state.services`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import cast

from starlette.requests import HTTPConnection

from media.blobs import BlobStore
from media.database import Database
from media.drain import Drain
from media.live import LiveListening
from media.live_speech import LiveSpeech
from media.metrics import Metrics
from media.session_speakers import SessionSpeakers
from media.settings import Settings
from media.voice_activity import VoiceActivityLane
from models.catalog import Card, Catalog, Task
from models.pool import Pool
from streaming.end_of_turn import HeuristicJudge
from streaming.endpointing import EndOfTurnJudge
from streaming.recognition import RecognitionSession
from streaming.speech_events import SpeechSettings


@dataclass(slots=True)
class Services:
    """`pool` and `voice_activity` exist while the application runs; `ready` tells when the warm models are loaded."""

    settings: Settings
    catalog: Catalog
    metrics: Metrics = field(default_factory=Metrics)
    drain: Drain = field(default_factory=Drain)
    clock: Callable[[], float] = monotonic
    ready: bool = False
    starting_error: str = ""
    live_sessions: int = 0
    spools: Path = Path()
    """The folder for this process's files that live as long as a request or an attempt."""
    judge: EndOfTurnJudge = field(default_factory=HeuristicJudge)
    """Tells a finished turn from a pause."""
    _pool: Pool | None = None
    _voice_activity: VoiceActivityLane | None = None
    _database: Database | None = None
    _blobs: BlobStore | None = None

    def start(
        self, pool: Pool, database: Database, blobs: BlobStore, voice_activity: VoiceActivityLane | None = None
    ) -> None:
        self._pool, self._database, self._blobs = pool, database, blobs
        self._voice_activity = voice_activity

    @property
    def database(self) -> Database:
        assert self._database is not None, "the application is not running"  # noqa: S101 - a programming error
        return self._database

    @property
    def blobs(self) -> BlobStore:
        assert self._blobs is not None, "the application is not running"  # noqa: S101 - a programming error
        return self._blobs

    @property
    def pool(self) -> Pool:
        assert self._pool is not None, "the application is not running"  # noqa: S101 - a programming error
        return self._pool

    def card(self, name: str, task: Task) -> Card:
        """The card a request names. Raises: UnknownModel, WeightsMissing."""
        return self.catalog.find(name, task).card

    def live_speech(self, settings: SpeechSettings, *, remembers: bool = True) -> LiveSpeech:
        return LiveSpeech(
            settings,
            self.pool,
            lambda name: self.card(name, "speech"),
            self.metrics,
            self.clock,
            remembers=remembers,
        )

    def live_listening(self, session: RecognitionSession, card: Card) -> LiveListening:
        assert self._voice_activity is not None, "the application is not running"  # noqa: S101 - a programming error
        diarizer = self.live_diarizer()
        speakers = None if diarizer is None else SessionSpeakers(self.pool, diarizer, self.metrics)
        return LiveListening(
            session, self.pool, card, self._voice_activity, self.metrics, self.clock, self.judge, speakers
        )

    def live_diarizer(self) -> Card | None:
        """The model that tells voices apart while somebody speaks, if there is one here."""
        cards = (card for card in self.catalog.cards if card.task == "diarization" and card.live)
        return next((card for card in cards if self.catalog.missing(card) is None), None)


def services_of(connection: HTTPConnection) -> Services:
    """The services of the application that serves this request."""
    return cast(Services, connection.app.state.services)
