"""Cards of models on other servers, and the keys to them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest

from models.catalog import Catalog
from models.engines import remote
from models.errors import (
    WeightsMissing,
)
from models.remote_options import RemoteOptions
from tests.models.engines.remote_engines import CLIP, KEY, card_of, fails, make, upstream
from tests.models.upstream import Reply, ScriptedUpstream, scripted_upstream

__all__ = ["upstream"]

pytestmark = pytest.mark.timeout(30)

EXAMPLES = Path(__file__).parents[3] / "deploy" / "remote-models.toml"


def test_the_key_goes_to_its_server_and_nowhere_else(
    upstream: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("REMOTE_TEST_KEY", KEY)
    caplog.set_level(logging.DEBUG, "sonoreel")
    with scripted_upstream(content=Reply(CLIP)) as elsewhere:
        location = f"{elsewhere.url}/videos/a/content"
        upstream.scripts["content"] = Reply(b"", 302, {"location": location})
        assert make(upstream, tmp_path, api_key_env="REMOTE_TEST_KEY") == CLIP
        assert {seen.headers["authorization"] for seen in upstream.seen} == {f"Bearer {KEY}"}
        assert [seen.headers.get("authorization") for seen in elsewhere.seen] == [None]
    for status in (400, 401, 500):
        upstream.scripts["create"] = Reply({"error": {"message": f"wrong key {KEY}"}}, status)
        error = fails(upstream, tmp_path, api_key_env="REMOTE_TEST_KEY")
        assert KEY not in error.message
    assert "REMOTE_TEST_KEY" not in error.message
    assert "wrong key" in caplog.text
    assert KEY not in caplog.text


@pytest.mark.parametrize("location", ["ftp://host/clip", "http://", "/v1/videos/video_1/content", "http://[::bad"])
def test_redirects_that_lead_nowhere_fail_the_attempt(
    upstream: ScriptedUpstream, tmp_path: Path, location: str
) -> None:
    upstream.scripts["content"] = Reply(b"", 302, {"location": location})
    assert fails(upstream, tmp_path).retryable


def test_who_has_to_put_a_key_right_is_told_which(
    upstream: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WeightsMissing, match="REMOTE_TEST_KEY"):
        make(upstream, tmp_path, api_key_env="REMOTE_TEST_KEY")
    monkeypatch.setenv("REMOTE_TEST_KEY", KEY)
    upstream.scripts["create"] = Reply(b"", 401)
    assert "REMOTE_TEST_KEY" in fails(upstream, tmp_path, api_key_env="REMOTE_TEST_KEY").message
    assert "api_key_env" in fails(upstream, tmp_path).message


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "ftp://host/v1"},
        {"base_url": "http://"},
        {"base_url": "http://user:password@host/v1"},
        {"base_url": "http://host/v1?key=secret"},
        {"api_key": KEY},
        {"timeout": 0.0},
        {"fields": {"sed": "seed"}},
        {"style": "ours"},
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused_without_telling_keys(options: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError) as refusal:
        remote.load(card_of("video", "http://host/v1", **options))
    assert KEY not in str(refusal.value)
    assert "password" not in str(refusal.value).replace("no user, password", "")


def test_an_address_without_a_path_gets_openais() -> None:
    urls = ("http://gpu:8091", "http://gpu:8091/", "http://gpu:8091/v1/", "https://host/media/v2")
    assert [RemoteOptions(base_url=url).url for url in urls] == [
        "http://gpu:8091/v1",
        "http://gpu:8091/v1",
        "http://gpu:8091/v1",
        "https://host/media/v2",
    ]


def test_only_images_and_videos_are_made_elsewhere() -> None:
    with pytest.raises(ValueError, match="speech"):
        remote.load(card_of("speech", "http://host/v1"))


def test_the_examples_are_cards_that_need_nothing_here(tmp_path: Path) -> None:
    (tmp_path / "remote.toml").write_bytes(EXAMPLES.read_bytes())
    catalog = Catalog.load(tmp_path)
    ours = [card for card in catalog.cards if card.engine == "remote"]
    assert {card.task for card in ours} == {"image", "video"}
    for card in ours:
        assert catalog.missing(card) is None
        assert msgspec.convert(card.options, RemoteOptions).url.startswith("http")
        assert card.cancel_grace >= 5
