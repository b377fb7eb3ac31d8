"""WS /v1/realtime: speech streams in, words stream out, in Together's dialect or OpenAI's (GA and beta)."""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Mapping

import anyio
import msgspec
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from media.access import tenant_of
from media.dialects import realtime
from media.dialects.openai_realtime import OpenAIRealtime
from media.dialects.realtime import DialectName, Frame, RealtimeDialect
from media.dialects.together_realtime import TogetherRealtime, read_query
from media.dialects.turn_options import diarize_of
from media.errors import ApiError
from media.introductions import introduce
from media.live import LiveListening
from media.services import Services, services_of
from media.sockets import Frames, LiveSocket, live_session, text_of
from models.errors import EngineError, InvalidInput, UnknownModel
from streaming.listening_events import ListeningSettings
from streaming.recognition import RecognitionSession

BETA_SUBPROTOCOL = "openai-beta.realtime-v1"


async def realtime_socket(websocket: WebSocket) -> None:
    """Serve one connection in the dialect its query speaks."""
    services = services_of(websocket)
    query = websocket.query_params
    async with live_session(websocket, services, "realtime") as socket:
        await socket.accept()
        name = realtime.dialect_name(query, _is_beta(websocket), _names_transcriber(services, query))
        session_id = f"sess_{uuid.uuid4().hex}"
        try:
            if name is None:
                raise ApiError(
                    400,
                    "conversation_not_supported",
                    "this server does not hold conversations yet: connect with ?intent=transcription",
                    param="intent",
                )
            card = services.card(query.get("model", ""), "transcription")
            settings = _first_settings(services, name, query)
        except (ApiError, EngineError) as error:
            dialect = _dialect(name or "openai", session_id, query.get("model", ""), ListeningSettings())
            if name == "together":
                # Its SDK only reads an error after this frame: an error in its place loses its code and message.
                await socket.send(dialect.created())
            await socket.end(dialect.ended(error), dialect.close_code(error))
            return
        dialect = _dialect(name, session_id, card.id, settings)
        await socket.send(dialect.created())
        if isinstance(dialect, OpenAIRealtime):
            settings = dialect.settings
        session = RecognitionSession(settings, item_prefix=f"item_{uuid.uuid4().hex[:12]}")
        async with services.live_listening(session, card) as live:
            await _Conversation(socket, services, dialect, live, session_id, tenant_of(websocket)).run()


def _first_settings(services: Services, name: DialectName, query: Mapping[str, str]) -> ListeningSettings:
    """What the query asks for. Raises: ApiError 400, UnknownModel."""
    settings = read_query(query) if name == "together" else ListeningSettings(diarize=diarize_of(query))
    _require_diarizer(services, settings)
    return settings


def _require_diarizer(services: Services, settings: ListeningSettings) -> None:
    if settings.diarize and services.live_diarizer() is None:
        raise UnknownModel("no model here tells speakers apart while they speak: leave diarize out")


def _is_beta(websocket: WebSocket) -> bool:
    offered = websocket.scope.get("subprotocols", [])
    return websocket.headers.get("openai-beta") == "realtime=v1" or BETA_SUBPROTOCOL in offered


def _names_transcriber(services: Services, query: Mapping[str, str]) -> bool:
    try:
        services.card(query.get("model", ""), "transcription")
    except EngineError:
        return False
    return True


def _dialect(name: DialectName, session_id: str, model: str, settings: ListeningSettings) -> RealtimeDialect:
    if name == "together":
        return TogetherRealtime(session_id, model, settings)
    return OpenAIRealtime(session_id, model, beta=name == "openai-beta", diarize=settings.diarize)


class _Conversation:
    """One connection at work: the dialect may still change with the client's first frame."""

    def __init__(
        self,
        socket: LiveSocket,
        services: Services,
        dialect: RealtimeDialect,
        live: LiveListening,
        session_id: str,
        tenant: str,
    ) -> None:
        self._socket = socket
        self._tenant = tenant
        self._services = services
        self._dialect = dialect
        self._live = live
        self._session_id = session_id
        self._answers: deque[Frame] = deque()
        self._first = True
        self._last_append = services.clock()

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch_idle, tasks.cancel_scope)
            await self._socket.converse(self._receive, self._next_frames, self._live.drain, self._unsent)
            tasks.cancel_scope.cancel()

    async def _receive(self, message: str | bytes) -> None:
        frame = "" if isinstance(message, bytes) else message
        try:
            self._follow_dialect(text_of(message))
            action = self._dialect.read(frame, time.time())  # noqa: TID251 - the client compares it with its own clock
            await self._act(action)
        except (ApiError, EngineError) as error:
            refusal = error if isinstance(error, ApiError) else _refusal(error)
            self._answers.extend(self._dialect.refused(refusal, frame))
            self._live.wake()

    async def _act(self, action: realtime.Action) -> None:
        match action:
            case realtime.AppendAudio(audio):
                self._last_append = self._services.clock()
                await self._live.append(audio)
            case realtime.CommitAudio(event_id):
                self._live.commit(event_id)
            case realtime.ClearAudio():
                self._live.clear()
            case realtime.Configure(settings, model, known):
                _require_diarizer(self._services, settings)
                card = self._live.card if model is None else self._services.card(model, "transcription")
                if known is not None:
                    await introduce(self._services, self._tenant, self._live, known)
                if known is not None or model is not None:
                    self._live.card = card
                    self._dialect.resolved(card.id)
                self._live.configure(settings)
            case realtime.Answer(frame):
                self._answers.append(frame)
                self._live.wake()

    def _follow_dialect(self, frame: str) -> None:
        if not self._first:
            return
        self._first = False
        try:
            kind = msgspec.json.decode(frame, type=_Head).type
        except (msgspec.DecodeError, UnicodeError):
            return
        spoken = realtime.FIRST_FRAMES.get(kind, self._dialect.name)
        if spoken != self._dialect.name:
            settings = self._live.session.settings
            self._dialect = _dialect(spoken, self._session_id, self._live.card.id, settings)

    def _unsent(self) -> int:
        return len(self._answers) + self._live.session.unsent

    async def _next_frames(self) -> Frames | None:
        while True:
            if self._answers:
                return [self._answers.popleft()]
            event = await self._live.next_event(interrupted=lambda: bool(self._answers))
            if event is not None:
                return self._dialect.write(event)
            if not self._answers:
                return None

    async def _watch_idle(self, session: anyio.CancelScope) -> None:
        limit = self._services.settings.realtime_idle_seconds
        while (left := self._last_append + limit - self._services.clock()) > 0:  # noqa: ASYNC110 - every append moves the deadline
            await anyio.sleep(left)
        message = f"Timeout: no audio for {limit:g} seconds"
        error = ApiError(408, "idle_timeout", message, kind="request_timeout")
        await self._socket.end(self._dialect.ended(error), self._dialect.close_code(error))
        session.cancel()


def _refusal(error: EngineError) -> ApiError:
    if isinstance(error, InvalidInput):
        return ApiError(400, error.code or "invalid_value", error.message, param=error.field)
    return ApiError(400, "model_not_found", error.message)


class _Head(msgspec.Struct):
    type: str = ""


routes = [WebSocketRoute("/v1/realtime", realtime_socket)]
