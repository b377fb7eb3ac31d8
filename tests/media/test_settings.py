"""Settings from the environment: every one can be set, a wrong one is named before anything starts."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from media import machine
from media.settings import PREFIX, Settings, SettingsError, load_settings


def test_without_a_word_it_serves_on_loopback() -> None:
    settings = load_settings({})
    assert settings == Settings()
    assert (settings.host, settings.port, settings.api_keys) == ("127.0.0.1", 8000, ())
    assert settings.on_loopback
    assert settings.memory_budget > 0


def test_every_setting_can_be_set() -> None:
    examples = {bool: "false", str: "debug", int: "7", float: "7.5", Path: "there", tuple[str, ...]: " a , b,,c "}
    environ, expected = {}, {}
    for field in msgspec.structs.fields(Settings):
        kind = msgspec.inspect.type_info(field.type)
        while isinstance(kind, msgspec.inspect.Metadata):
            kind = kind.type
        plain = {
            msgspec.inspect.StrType: str,
            msgspec.inspect.BoolType: bool,
            msgspec.inspect.IntType: int,
            msgspec.inspect.FloatType: float,
            msgspec.inspect.VarTupleType: tuple[str, ...],
        }.get(type(kind), Path)
        environ[PREFIX + field.name.upper()] = examples[plain]
        values = {bool: False, str: "debug", int: 7, float: 7.5, Path: Path("there"), tuple[str, ...]: ("a", "b", "c")}
        expected[field.name] = values[plain]
    environ["SONOREEL_WEBHOOK_SECRET"] = expected["webhook_secret"] = "whsec_YSBzZWNyZXQ="  # not any text will do
    settings = load_settings(environ)
    assert msgspec.structs.asdict(settings) == expected
    assert isinstance(settings.data_dir, Path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "eighty"),
        ("PORT", "70000"),
        ("PORT", "-1"),
        ("PORT", "80.5"),
        ("STALL_SECONDS", "0"),
        ("STALL_SECONDS", "nan"),
        ("DRAIN_SECONDS", "-1"),
        ("DRAIN_SECONDS", "soon"),
        ("MAX_UPLOAD_MB", "0"),
        ("MAX_LIVE_SESSIONS", "0"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"SONOREEL_{name}="):
        load_settings({f"SONOREEL_{name}": value})


def test_what_was_said_at_the_command_line_wins_and_is_checked_too() -> None:
    environ = {"SONOREEL_PORT": "9000", "SONOREEL_DATA_DIR": "/somewhere"}
    assert load_settings(environ, port=9001, host=None, data_dir=Path("here")).port == 9001
    assert load_settings(environ, data_dir=Path("here")).data_dir == Path("here")
    assert load_settings(environ, port=0).port == 0
    assert load_settings(environ, api_keys=("a", "b")).api_keys == ("a", "b")
    with pytest.raises(SettingsError, match="SONOREEL_PORT=99999"):
        load_settings(environ, port=99_999)


def test_an_empty_variable_is_no_setting() -> None:
    assert load_settings({"SONOREEL_PORT": "", "SONOREEL_API_KEYS": " , "}) == Settings()


def test_keys_open_the_network() -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings({"SONOREEL_HOST": "0.0.0.0"})  # noqa: S104 - nothing listens
    assert "SONOREEL_API_KEYS" in str(refused.value)
    assert not load_settings({"SONOREEL_HOST": "0.0.0.0", "SONOREEL_API_KEYS": "a,b"}).on_loopback  # noqa: S104


def test_a_container_that_may_use_less_than_the_machine_has_a_smaller_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "CGROUP_LIMIT", limit)
    unlimited = load_settings({}).memory_budget
    limit.write_text("400000000\n")
    assert load_settings({}).memory_budget == 300
    limit.write_text("max\n")
    assert load_settings({}).memory_budget == unlimited > 300
    assert load_settings({"SONOREEL_MEMORY_BUDGET_MB": "50"}).memory_budget == 50
