"""Every Prometheus metric of the server, as named functions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

METRICS = {
    "sonoreel_requests_total": "HTTP requests by route, method and status",
    "sonoreel_request_seconds": "time to the first byte of an HTTP answer by route",
    "sonoreel_live_sessions": "WebSocket sessions open now by kind",
    "sonoreel_first_audio_seconds": "from text ready to be spoken to its first audio, by model",
    "sonoreel_audio_seconds_total": "seconds of audio made or heard, by model and direction",
    "sonoreel_turns_total": "live turns by outcome",
    "sonoreel_final_seconds": "from the end of a turn to its final transcript, by model",
    "sonoreel_listen_lag_seconds": "how far live hypotheses are behind the speech when they come, by model",
    "sonoreel_engine_errors_total": "failed engine runs by model and error",
    "sonoreel_stalled_clients_total": "sessions closed because the client stopped reading",
    "sonoreel_model_workers": "worker processes loaded now, by model",
    "sonoreel_model_running": "requests running now, by model",
    "sonoreel_model_waiting": "requests waiting for a slot now, by model",
    "sonoreel_worker_restarts": "workers that died and were replaced, by model",
}


class Metrics:
    """One registry per application, so that two applications in a process do not share counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            *_named("sonoreel_requests_total"), ["route", "method", "status"], registry=self.registry
        )
        self._request_seconds = Histogram(
            *_named("sonoreel_request_seconds"), ["route"], buckets=LATENCY_BUCKETS, registry=self.registry
        )
        self._live = Gauge(*_named("sonoreel_live_sessions"), ["kind"], registry=self.registry)
        self._first_audio = Histogram(
            *_named("sonoreel_first_audio_seconds"),
            ["model"],
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self._audio = Counter(*_named("sonoreel_audio_seconds_total"), ["model", "direction"], registry=self.registry)
        self._turns = Counter(*_named("sonoreel_turns_total"), ["outcome"], registry=self.registry)
        self._final = Histogram(
            *_named("sonoreel_final_seconds"), ["model"], buckets=LATENCY_BUCKETS, registry=self.registry
        )
        self._listen_lag = Histogram(
            *_named("sonoreel_listen_lag_seconds"), ["model"], buckets=LATENCY_BUCKETS, registry=self.registry
        )
        self._errors = Counter(*_named("sonoreel_engine_errors_total"), ["model", "error"], registry=self.registry)
        self._stalled = Counter(*_named("sonoreel_stalled_clients_total"), registry=self.registry)
        self._workers = Gauge(*_named("sonoreel_model_workers"), ["model"], registry=self.registry)
        self._running = Gauge(*_named("sonoreel_model_running"), ["model"], registry=self.registry)
        self._waiting = Gauge(*_named("sonoreel_model_waiting"), ["model"], registry=self.registry)
        self._restarts = Gauge(*_named("sonoreel_worker_restarts"), ["model"], registry=self.registry)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        self._requests.labels(route, method, status).inc()
        self._request_seconds.labels(route).observe(seconds)

    @contextmanager
    def live_session(self, kind: str) -> Iterator[None]:
        with self._live.labels(kind).track_inprogress():
            yield

    def first_audio(self, model: str, seconds: float) -> None:
        self._first_audio.labels(model).observe(seconds)

    def spoken(self, model: str, seconds: float) -> None:
        self._audio.labels(model, "out").inc(seconds)

    def heard(self, model: str, seconds: float) -> None:
        self._audio.labels(model, "in").inc(seconds)

    def turn(self, outcome: str) -> None:
        self._turns.labels(outcome).inc()

    def final(self, model: str, seconds: float) -> None:
        self._final.labels(model).observe(seconds)

    def listen_lag(self, model: str, seconds: float) -> None:
        self._listen_lag.labels(model).observe(seconds)

    def engine_error(self, model: str, error: BaseException) -> None:
        self._errors.labels(model, type(error).__name__).inc()

    def stalled_client(self) -> None:
        self._stalled.inc()

    def pool(self, model: str, *, workers: int, running: int, waiting: int, restarts: int) -> None:
        self._workers.labels(model).set(workers)
        self._running.labels(model).set(running)
        self._waiting.labels(model).set(waiting)
        self._restarts.labels(model).set(restarts)

    def exposition(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self.registry)


def _named(name: str) -> tuple[str, str]:
    return name, METRICS[name]
