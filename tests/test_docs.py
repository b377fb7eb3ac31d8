"""Docs in step with the code: what a user can set, call, read or be refused with is in README or OpenAPI."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.testclient import TestClient

from media.app import create_app
from media.errors import HTTP_CODES, TABLE
from media.metrics import METRICS
from media.settings import PREFIX, Settings
from models.catalog import Catalog

ROOT = Path(__file__).parents[1]
RAISES_A_CODE = {"ApiError": 1, "UndecodableAudio": 0}
"""Exception -> which of its arguments is the code a client sees."""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Starlette:
    return create_app(Settings(data_dir=tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def documentation(app: Starlette) -> str:
    answer = TestClient(app, base_url="http://127.0.0.1:8000").get("/openapi.json")
    answer.raise_for_status()
    return (ROOT / "README.md").read_text() + answer.text


def absent(names: Iterable[str], documentation: str) -> list[str]:
    """The names that do not stand in the documentation as whole words."""
    return sorted({name for name in names if not re.search(rf"(?<![\w./-]){re.escape(name)}(?![\w/-])", documentation)})


def assert_documented(names: Iterable[str], documentation: str) -> None:
    missing = absent(names, documentation)
    assert not missing, "neither in README.md nor in openapi.json: " + ", ".join(missing)


def paths(routes: Iterable[BaseRoute], above: str = "") -> Iterator[str]:
    for route in routes:
        if isinstance(route, Mount):
            yield from paths(route.routes, above + route.path)
        elif isinstance(route, Route | WebSocketRoute):
            yield re.sub(r"\{(\w+):\w+\}", r"{\1}", above + route.path)


def raised_codes() -> Iterator[str]:
    """Literal codes where our packages raise an error that carries one."""
    for file in [*(ROOT / "media").rglob("*.py"), *(ROOT / "streaming").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RAISES_A_CODE:
                position = RAISES_A_CODE[node.func.id]
                argument = node.args[position] if len(node.args) > position else None
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield argument.value


def test_every_setting_is_documented(documentation: str) -> None:
    assert_documented((PREFIX + field.name.upper() for field in msgspec.structs.fields(Settings)), documentation)


def test_every_route_is_documented(app: Starlette, documentation: str) -> None:
    found = set(paths(app.routes))
    assert {"/healthz", "/v1/audio/speech", "/v1/realtime"} <= found
    assert_documented(found, documentation)


def test_every_setting_says_what_it_does() -> None:
    described = {field.name: get_args(field.type)[1:] for field in msgspec.structs.fields(Settings)}
    assert not [name for name, meta in described.items() if not any(getattr(m, "description", "") for m in meta)]


def test_every_metric_is_documented(documentation: str) -> None:
    assert_documented(METRICS, documentation)


def test_every_error_code_is_documented(documentation: str) -> None:
    codes = {*(meaning.code for meaning in TABLE.values()), *HTTP_CODES.values(), *raised_codes()}
    assert_documented(codes, documentation)


def test_every_embedded_and_known_model_is_documented(documentation: str) -> None:
    assert_documented((card.id for card in Catalog.load().cards), documentation)


def test_every_make_target_is_documented(documentation: str) -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets
    assert_documented((f"make {target}" for target in targets), documentation)


def test_changelog_starts_with_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    top = re.search(r"^## \[?([^\]\s]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert top is not None
    assert top[1] == version


def test_a_name_must_stand_alone_to_count() -> None:
    text = "`/v1/models/{id}` and sonoreel_turns_total"
    assert absent(["/v1/models", "/v1/models/{id}", "sonoreel_turns", "sonoreel_turns_total"], text) == [
        "/v1/models",
        "sonoreel_turns",
    ]
