"""Every setting, in one place. Each is read from the environment as `SONOREEL_<NAME>`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from media import machine, webhook_signing

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
PREFIX = "SONOREEL_"


class SettingsError(ValueError):
    """A setting has a value that cannot be used; the message names it and says what would work."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How this server runs."""

    host: Annotated[str, Meta(description="address to listen on; anything but loopback needs api_keys")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535, description="port to listen on; 0 picks a free one")] = 8000
    data_dir: Annotated[Path, Meta(description="everything that is kept lives here")] = Path("data")
    models_dir: Annotated[
        str, Meta(description="directory of *.toml model cards that merge over the built-in ones")
    ] = ""
    api_keys: Annotated[
        tuple[str, ...],
        Meta(description="comma-separated keys that may use the API; none means no key is asked for"),
    ] = ()
    allowed_hosts: Annotated[
        tuple[str, ...],
        Meta(description="comma-separated further Host names to answer to, for a proxy or a LAN name"),
    ] = ()
    allowed_origins: Annotated[
        tuple[str, ...],
        Meta(description="comma-separated further web origins that may call, e.g. https://app.example"),
    ] = ()
    warm: Annotated[
        tuple[str, ...],
        Meta(description="comma-separated models loaded before /readyz answers 200; auto means the defaults"),
    ] = ("auto",)
    memory_budget_mb: Annotated[
        int,
        Meta(
            ge=0,
            description="megabytes all loaded models together may take; 0 is three quarters of machine or container",
        ),
    ] = 0
    max_upload_mb: Annotated[int, Meta(ge=1, description="largest file a transcription request may upload, in MB")] = (
        512
    )
    fetch_seconds: Annotated[float, Meta(gt=0, description="how long pulling a recording by URL may take")] = 600.0
    fetch_allowed_hosts: Annotated[
        tuple[str, ...], Meta(description="comma-separated hosts that URLs may name although they are not public")
    ] = ()
    max_input_chars: Annotated[int, Meta(ge=1, description="longest text one speech request may hold")] = 100_000
    max_live_sessions: Annotated[
        int, Meta(ge=1, description="WebSocket sessions open at once before new ones get 503")
    ] = 256
    stall_seconds: Annotated[
        float, Meta(gt=0, description="a client that reads nothing for this long is closed with 1013")
    ] = 30.0
    realtime_idle_seconds: Annotated[
        float,
        Meta(gt=0, description="a /v1/realtime session without audio for this long ends with idle_timeout"),
    ] = 300.0
    end_of_turn_model: Annotated[
        str, Meta(description="smart-turn v3 as an .onnx file, to judge ends of turns; by default words and melody do")
    ] = ""
    drain_seconds: Annotated[
        float, Meta(ge=0, description="on SIGTERM, how long open work may take before it is cancelled")
    ] = 25.0
    public_url: Annotated[
        str, Meta(description="how clients reach this server, for URLs in answers; else what each request says")
    ] = ""
    database_url: Annotated[
        str,
        Meta(description="sqlite:///PATH or postgresql://...; by default a SQLite file in data_dir"),
    ] = ""
    database_listen_url: Annotated[
        str,
        Meta(description="PostgreSQL without the pooler that database_url names, for LISTEN"),
    ] = ""
    blob_url: Annotated[
        str,
        Meta(description="where results and files are kept: s3://BUCKET/PREFIX; by default a directory in data_dir"),
    ] = ""
    blob_endpoint: Annotated[
        str, Meta(description="endpoint of an S3-compatible store that is not Amazon's; keys come from AWS_* variables")
    ] = ""
    url_seconds: Annotated[float, Meta(gt=0, description="how long the URL of a result can be opened")] = 3600.0
    webhook_secret: Annotated[
        str,
        Meta(description="whsec_... that signs webhooks named in requests; by default each key has its own"),
    ] = ""
    webhook_allowed_hosts: Annotated[
        tuple[str, ...], Meta(description="comma-separated hosts that webhooks may go to although they are not public")
    ] = ()
    run_jobs: Annotated[
        bool, Meta(description="whether this server works on jobs itself; else sonoreel worker has to")
    ] = True
    job_slots: Annotated[int, Meta(ge=1, description="jobs that one process works on at once")] = 2
    job_lease_seconds: Annotated[
        float, Meta(gt=0, description="a process that says nothing for so long loses its jobs to another")
    ] = 15.0
    job_ttl_seconds: Annotated[float, Meta(gt=0, description="how long a finished job and its files are kept")] = (
        86_400.0
    )
    job_queue_seconds: Annotated[
        float, Meta(ge=0, description="a job that waits longer than this expires; 0 means it may wait for ever")
    ] = 86_400.0
    job_history: Annotated[int, Meta(ge=1, description="finished jobs kept per key; older ones go first")] = 10_000
    max_queued_jobs: Annotated[int, Meta(ge=1, description="jobs one key may have waiting before it gets 429")] = 20_000
    max_running_jobs: Annotated[
        int, Meta(ge=0, description="jobs of one key that run at once in a pool; 0 means no limit")
    ] = 0
    loras_dir: Annotated[str, Meta(description="directory of adapters that image requests may name by file")] = ""
    max_image_mb: Annotated[int, Meta(ge=1, description="largest image a request may bring, in MB")] = 50
    log_level: Annotated[str, Meta(description="debug, info, warning or error")] = "info"

    @property
    def on_loopback(self) -> bool:
        return self.host in LOOPBACK_HOSTS

    @property
    def memory_budget(self) -> int:
        """Megabytes for loaded models: the setting, or three quarters of what this process may use."""
        return self.memory_budget_mb or machine.memory()[0] * 3 // 4 // 1_000_000

    def checked(self) -> Settings:
        """Refuse what would not be safe.

        Raises: SettingsError.
        """
        if not self.on_loopback and not self.api_keys:
            raise SettingsError(
                f"{PREFIX}HOST={self.host} would open the server to the network without keys: "
                f"set {PREFIX}API_KEYS to a comma-separated list of secrets, or bind to 127.0.0.1"
            )
        if self.webhook_secret and not webhook_signing.is_secret(self.webhook_secret):
            raise SettingsError(f"{PREFIX}WEBHOOK_SECRET must be whsec_ and the base64 of a key, with its padding")
        if self.log_level not in {"debug", "info", "warning", "error"}:
            raise SettingsError(f"{PREFIX}LOG_LEVEL={self.log_level}: use debug, info, warning or error")
        return self


def load_settings(environ: Mapping[str, str] = os.environ, **overrides: object) -> Settings:
    """Read settings from `environ`; overrides that are not None win.

    Raises: SettingsError naming the variable.
    """
    fields = {field.name: field for field in msgspec.structs.fields(Settings)}
    values: dict[str, object] = {}
    for name, field in fields.items():
        value = overrides.get(name)
        if value is None:
            value = environ.get(PREFIX + name.upper()) or None
        if value is None:
            continue
        is_list = isinstance(field.default, tuple) and isinstance(value, str)
        raw: object = [part.strip() for part in str(value).split(",") if part.strip()] if is_list else value
        try:
            values[name] = msgspec.convert(raw, field.type, strict=False, dec_hook=lambda kind, value: kind(value))
        except msgspec.ValidationError as error:
            raise SettingsError(f"{PREFIX}{name.upper()}={value!r}: {error}") from error
    return Settings(**values).checked()  # type: ignore[arg-type]
