"""WS /v1/audio/speech/websocket: text streams in, speech streams out (Together's text-to-speech socket)."""

from __future__ import annotations

import uuid

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from media.dialects import speech as dialect
from media.dialects.speech_options import model_name, read_options, settings_changes
from media.errors import ApiError, close_code, describe
from media.services import services_of
from media.sockets import Frames, LiveSocket, live_session, text_of
from models.errors import EngineError
from streaming.speech_events import Refused, SpeechSettings


async def speech_websocket(websocket: WebSocket) -> None:
    """Serve one connection; contracts for every frame are in the dialect."""
    services = services_of(websocket)
    async with live_session(websocket, services, "speech") as socket:
        await socket.accept()
        try:
            options = read_options(websocket.query_params)
            card = services.card(model_name(options) or "", "speech")
            settings = SpeechSettings(model=card.id)
            settings = settings.changed(settings_changes(options))
        except (ApiError, EngineError) as error:
            await socket.end(dialect.failed(error), close_code(error))
            return
        voice = settings.voice or card.default_voice
        await socket.send(dialect.session_created(str(uuid.uuid4()), card.id, voice))
        await _converse(socket, websocket, settings)


async def _converse(socket: LiveSocket, websocket: WebSocket, settings: SpeechSettings) -> None:
    services = services_of(websocket)
    async with services.live_speech(settings) as live:
        session = live.session

        async def receive(message: str | bytes) -> None:
            try:
                event = dialect.read_frame(text_of(message), lambda name: services.card(name, "speech").id)
            except (ApiError, EngineError) as error:
                detail = describe(error)
                session.refuse(Refused(None, detail.code or "", detail.message, detail.param))
                live.wake()
            else:
                live.receive(event)

        async def next_frames() -> Frames | None:
            event = await live.next_event()
            return None if event is None else [dialect.server_frame(event)]

        await socket.converse(receive, next_frames, live.drain, lambda: session.unsent)


routes = [WebSocketRoute("/v1/audio/speech/websocket", speech_websocket)]
