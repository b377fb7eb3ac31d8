"""The REST surface as any HTTP client sees it: what it refuses, and how it says so."""

from __future__ import annotations

import io
import json
import re
import wave
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from streaming.encode import MEDIA_TYPES, AudioFormat
from tests.journeys.recordings import seconds_of, speak
from tests.journeys.server_process import ServerProcess, running_server

SPEECH, TRANSCRIPTIONS = "/v1/audio/speech", "/v1/audio/transcriptions"
HELLO = {"model": "auto", "voice": "alloy", "input": "Hello there."}
TOGETHER_AGENT = {"user-agent": "Together/Python 3.1.1"}

pytestmark = pytest.mark.journey


@pytest.fixture(scope="module")
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def small_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that takes little: uploads of 1 MB, texts of 100 characters."""
    directory = tmp_path_factory.mktemp("small")
    with running_server(directory, SONOREEL_MAX_UPLOAD_MB="1", SONOREEL_MAX_INPUT_CHARS="100") as server:
        yield server


def refusal(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The error object both vendors' SDKs parse, of an answer with this status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["x-request-id"]
    error: dict[str, Any] = answer.json()["error"]
    assert {"message", "type", "param", "code"} <= error.keys()
    assert error["message"]
    assert error["type"]
    return error


def silence(seconds: float) -> bytes:
    """A wav of digital silence, 16 kHz."""
    file = io.BytesIO()
    with wave.open(file, "wb") as target:
        target.setnchannels(1)
        target.setsampwidth(2)
        target.setframerate(16_000)
        target.writeframes(bytes(round(seconds * 16_000) * 2))
    return file.getvalue()


# ---------------------------------------------------------------------- every request


def test_every_answer_has_a_request_id(http: httpx.Client) -> None:
    ids = {http.get(path).headers["x-request-id"] for path in ("/healthz", "/v1/models", "/v1/voices", "/no/such")}
    assert len(ids) == 4


def test_a_request_id_of_the_client_is_kept_if_it_is_one(http: httpx.Client) -> None:
    assert http.get("/healthz", headers={"x-request-id": "my-id.1_a"}).headers["x-request-id"] == "my-id.1_a"
    for odd in ("two words", "x" * 200, "a\tb", "<script>"):
        assert http.get("/healthz", headers={"x-request-id": odd}).headers["x-request-id"] != odd


def test_a_doubled_version_is_forgiven(http: httpx.Client) -> None:
    assert http.get("/v1/v1/models").json() == http.get("/v1/models").json()
    assert http.post("/v1/v1/audio/speech", json=HELLO).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "localhost.evil"])
def test_a_strange_host_is_refused(http: httpx.Client, host: str) -> None:
    for path in ("/", "/v1/models", "/healthz"):
        assert refusal(http.get(path, headers={"host": host}), 403)["code"] == "host_not_allowed"


def test_loopback_has_several_names(server: ServerProcess, http: httpx.Client) -> None:
    port = server.url.rsplit(":", 1)[1]
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", "localhost"):
        assert http.get("/v1/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost"])
def test_a_strange_page_is_refused(http: httpx.Client, origin: str) -> None:
    for method, path in (("GET", "/v1/models"), ("POST", SPEECH), ("OPTIONS", SPEECH)):
        answer = http.request(method, path, headers={"origin": origin})
        assert refusal(answer, 403)["code"] == "origin_not_allowed"
        assert "access-control-allow-origin" not in answer.headers


def test_its_own_page_may_call(server: ServerProcess, http: httpx.Client) -> None:
    assert http.get("/v1/models", headers={"origin": server.url}).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", SPEECH, 405),
        ("DELETE", SPEECH, 405),
        ("PUT", TRANSCRIPTIONS, 405),
        ("POST", "/v1/models", 405),
        ("OPTIONS", SPEECH, 405),
        ("GET", "/v1/no/such/thing", 404),
        ("POST", "/v1/chat/completions", 404),
        ("GET", "/nothing", 404),
    ],
)
def test_wrong_methods_and_paths_have_the_usual_body(http: httpx.Client, method: str, path: str, status: int) -> None:
    answer = http.request(method, path)
    assert refusal(answer, status)["type"] == "invalid_request_error"
    if status == 405:
        assert answer.headers["allow"]


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/v1/models", "/v1/voices", "/openapi.json", "/metrics"])
def test_head_is_get_without_a_body(http: httpx.Client, path: str) -> None:
    head, get = http.head(path), http.get(path)
    assert head.status_code == get.status_code == 200
    assert head.content == b""
    assert head.headers["content-type"] == get.headers["content-type"]


# ---------------------------------------------------------------------- probes and lists


def test_probes(http: httpx.Client) -> None:
    assert http.get("/healthz").json()["status"] == "ok"
    assert http.get("/readyz").json()["status"] == "ok"
    assert http.get("/v1/").status_code == 200


def test_metrics_tell_what_happened(http: httpx.Client) -> None:
    def requests() -> float:
        text = http.get("/metrics").text
        lines = re.findall(r"^sonoreel_\w*requests\w*_(?:total|count)\{[^}]*audio/speech[^}]*\} (\S+)$", text, re.M)
        return sum(map(float, lines))

    before = requests()
    http.post(SPEECH, json=HELLO)
    # A request is counted when its answer has left, which the client may see first.
    while (counted := requests()) == before:
        pass
    assert counted == before + 1
    answer = http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert all(re.match(r"^(#|\w+(\{.*\})? [-+\w.]+$)", line) for line in answer.text.splitlines())


def test_openapi_describes_every_operation(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    assert document["openapi"].startswith("3.")
    assert document["info"]["title"]
    assert {SPEECH, TRANSCRIPTIONS, "/v1/models", "/v1/models/{model}", "/v1/voices", "/healthz"} <= set(
        document["paths"]
    )
    schemas = document["components"]["schemas"]
    references = re.findall(r'"\$ref":\s*"#/components/schemas/([^"]+)"', json.dumps(document))
    assert references
    assert set(references) <= schemas.keys()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"]
            assert {"200", "default"} <= operation["responses"].keys()
            named = {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "path"}
            assert named == set(re.findall(r"\{(\w+)\}", path))
    form = json.dumps(document["paths"][TRANSCRIPTIONS]["post"]["requestBody"])
    assert "multipart/form-data" in form


def test_models_come_in_the_shape_of_who_asks(http: httpx.Client) -> None:
    listed = http.get("/v1/models").json()
    assert listed["object"] == "list"
    bare = http.get("/v1/models", headers=TOGETHER_AGENT).json()
    assert bare == listed["data"] == http.get("/v1/models?dialect=together").json()
    found = http.get("/v1/models/espeak").json()
    assert (found["id"], found["embedded"], found["available"]) == ("espeak-ng", True, True)
    assert refusal(http.get("/v1/models/no/such"), 404)["code"] == "model_not_found"
    assert refusal(http.get("/v1/models?dialect=klingon"), 400)["param"] == "dialect"


def test_voices_of_one_model(http: httpx.Client) -> None:
    [entry] = http.get("/v1/voices", params={"model": "espeak-ng"}).json()["data"]
    assert entry["model"] == "espeak-ng"
    ids = [voice["id"] for voice in entry["voices"]]
    assert ids[:2] == ["alloy", "ash"]
    assert len(ids) == len(set(ids)) > 50
    assert refusal(http.get("/v1/voices", params={"model": "no-such"}), 404)["code"] == "model_not_found"


# ---------------------------------------------------------------------- speech


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"voice": "nobody"}, "voice"),
        ({"voice": 7}, "voice"),
        ({"voice": {"id": "nobody"}}, "voice"),
        ({"response_format": "8-track"}, "response_format"),
        ({"response_format": 1}, "response_format"),
        ({"sample_rate": 12345}, "sample_rate"),
        ({"bit_rate": 1}, "bit_rate"),
        ({"response_encoding": "pcm_s99"}, "response_encoding"),
        ({"speed": 0.1}, "speed"),
        ({"speed": 9}, "speed"),
        ({"speed": "fast"}, "speed"),
        ({"input": None}, "input"),
        ({"instructions": "x" * 4097}, "instructions"),
        ({"pronunciations": {"": "x"}}, "pronunciations"),
        ({"input": ""}, "input"),
        ({"input": " \n\t"}, "input"),
        ({"input": ["Hello"]}, "input"),
        ({"input": "a" * 100_001}, "input"),
        ({"language": "klingon"}, "language"),
        ({"stream": "please"}, "stream"),
        ({"stream_format": "carrier pigeon"}, "stream_format"),
        ({"alignment": "letter"}, "alignment"),
    ],
    ids=str,
)
def test_a_bad_speech_request_is_told_which_field(http: httpx.Client, change: dict[str, Any], param: str) -> None:
    error = refusal(http.post(SPEECH, json=HELLO | change), 400)
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b'{"model": "auto"}', b"[" * 5000])
def test_a_body_that_is_no_request(http: httpx.Client, body: bytes) -> None:
    assert refusal(http.post(SPEECH, content=body), 400)["type"] == "invalid_request_error"


def test_an_unknown_model(http: httpx.Client) -> None:
    for name in ("no-such-model", "pocketsphinx", "../../etc/passwd"):
        error = refusal(http.post(SPEECH, json=HELLO | {"model": name}), 404)
        assert (error["code"], error["param"]) == ("model_not_found", "model")
    error = refusal(http.post(SPEECH, json=HELLO | {"model": "espeak_ng"}), 404)
    assert "espeak-ng" in error["message"]


def test_unknown_fields_are_ignored_as_vendors_add_them(http: httpx.Client) -> None:
    extras = {"instructions": "whisper", "extra_params": {"pronunciation_dict": []}, "brand_new": 1}
    assert http.post(SPEECH, json=HELLO | extras).status_code == 200


def test_what_is_null_is_left_open(http: httpx.Client) -> None:
    names = [
        "model", "voice", "language", "speed", "response_format", "response_encoding", "sample_rate", "bit_rate",
        "stream", "stream_format", "alignment", "segment", "instructions", "pronunciations", "extra_params",
    ]  # fmt: skip
    answer = http.post(SPEECH, json={"input": "Hello there."} | dict.fromkeys(names))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "audio/mpeg"


def test_a_word_may_be_said_otherwise(http: httpx.Client) -> None:
    plain, respelt = (
        len(http.post(SPEECH, json=HELLO | {"input": "SQL", "response_format": "pcm"} | more).content)
        for more in ({}, {"pronunciations": {"SQL": "it is a language for questions"}})
    )
    assert respelt > 1.3 * plain


@pytest.mark.parametrize("audio_format", list(AudioFormat))
def test_every_format_has_its_media_type(http: httpx.Client, audio_format: AudioFormat) -> None:
    answer = http.post(SPEECH, json=HELLO | {"response_format": audio_format.value})
    assert answer.headers["content-type"].startswith(MEDIA_TYPES[audio_format])
    assert answer.content


def test_the_default_format_is_that_of_the_vendor(http: httpx.Client) -> None:
    assert http.post(SPEECH, json=HELLO).headers["content-type"] == "audio/mpeg"
    assert http.post(SPEECH, json=HELLO, headers=TOGETHER_AGENT).headers["content-type"] == "audio/wav"


def test_a_wav_tells_its_size(http: httpx.Client) -> None:
    answer = http.post(SPEECH, json=HELLO | {"response_format": "wav"})
    assert int(answer.headers["content-length"]) == len(answer.content)
    with wave.open(io.BytesIO(answer.content)) as file:
        assert file.getnframes() * 2 == len(answer.content) - 44
        assert file.getnframes() / file.getframerate() == pytest.approx(seconds_of(answer.content), abs=0.01)


@pytest.mark.parametrize("stream", [{"stream": True}, {"stream_format": "sse"}])
def test_a_stream_that_cannot_begin_is_a_status(http: httpx.Client, stream: dict[str, object]) -> None:
    assert refusal(http.post(SPEECH, json=HELLO | stream | {"voice": "nobody"}), 400)["param"] == "voice"
    assert refusal(http.post(SPEECH, json=HELLO | stream | {"model": "nothing"}), 404)["param"] == "model"


def test_events_have_no_names_and_an_end(http: httpx.Client) -> None:
    together = http.post(SPEECH, json=HELLO | {"stream": True})
    openai = http.post(SPEECH, json=HELLO | {"stream_format": "sse"})
    for answer in (together, openai):
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert all(block.startswith("data: ") for block in answer.text.split("\n\n")[:-1])
    assert together.text.endswith("data: [DONE]\n\n")
    last = json.loads(openai.text.strip().rsplit("data: ", 1)[1])
    assert last["type"] == "speech.audio.done"


def test_a_long_text_is_spoken_to_its_end(http: httpx.Client) -> None:
    sentence = "This is one of many sentences. "
    once = http.post(SPEECH, json=HELLO | {"input": sentence, "response_format": "pcm"})
    often = http.post(SPEECH, json=HELLO | {"input": sentence * 150, "response_format": "pcm"})
    assert len(often.content) == pytest.approx(150 * len(once.content), rel=0.1)


def test_the_longest_text_is_a_setting(small_server: ServerProcess) -> None:
    answer = httpx.post(f"{small_server.url}{SPEECH}", json=HELLO | {"input": "a" * 101})
    error = refusal(answer, 400)
    assert (error["param"], error["code"]) == ("input", "string_above_max_length")
    assert "SONOREEL_MAX_INPUT_CHARS" in error["message"]


# ---------------------------------------------------------------------- transcriptions


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.wav", b""),
        ("noise.wav", bytes(range(256)) * 40),
        ("text.mp3", b"This is no recording at all, however it is called. " * 50),
        ("header.wav", silence(1)[:40]),
        ("page.html", b"<html><body>404</body></html>"),
        ("list.m3u8", b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n"),
    ],
)
def test_a_file_that_is_no_audio_is_refused(http: httpx.Client, name: str, content: bytes) -> None:
    error = refusal(http.post(TRANSCRIPTIONS, data={"model": "auto"}, files={"file": (name, content)}), 400)
    assert error["param"] == "file"
    assert "/" not in error["message"].replace("and/or", "")


def test_a_recording_that_was_cut_off_is_read_as_far_as_it_goes(http: httpx.Client, server: ServerProcess) -> None:
    wav = speak(server, "I would like a cup of coffee.", response_format="wav")
    answer = http.post(
        TRANSCRIPTIONS,
        data={"model": "auto", "response_format": "verbose_json"},
        files={"file": ("cut.wav", wav[: len(wav) // 2])},
    )
    assert answer.status_code == 200
    assert answer.json()["duration"] == pytest.approx(seconds_of(wav) / 2, abs=0.05)


def test_silence_has_no_words(http: httpx.Client) -> None:
    answer = http.post(
        TRANSCRIPTIONS,
        data={"model": "auto", "response_format": "verbose_json", "timestamp_granularities[]": "word"},
        files={"file": ("silence.wav", silence(2))},
    )
    body = answer.json()
    assert (body["text"], body["segments"], body["words"]) == ("", [], [])
    assert body["duration"] == pytest.approx(2)


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"response_format": "papyrus"}, "response_format"),
        ({"temperature": "warm"}, "temperature"),
        ({"temperature": "7"}, "temperature"),
        ({"timestamp_granularities[]": "syllable"}, "timestamp_granularities"),
        ({"language": "klingon"}, "language"),
    ],
)
def test_a_bad_transcription_form_is_told_which_field(http: httpx.Client, form: dict[str, str], param: str) -> None:
    answer = http.post(TRANSCRIPTIONS, data={"model": "auto"} | form, files={"file": ("silence.wav", silence(1))})
    assert refusal(answer, 400)["param"] == param


def test_a_form_without_a_file(http: httpx.Client) -> None:
    for files in ({"other": ("a.wav", b"RIFF")}, {"file": (None, "just text")}):
        error = refusal(http.post(TRANSCRIPTIONS, data={"model": "auto"}, files=files), 400)
        assert error["param"] == "file"


@pytest.mark.parametrize(
    ("kind", "body", "says"),
    [
        ("application/json", b'{"model": "auto"}', "multipart"),
        ("multipart/form-data", b"no boundary", "multipart"),
        ("multipart/form-data; boundary=x", b"", "last boundary is missing"),
        ("multipart/form-data; boundary=x", b"--x\r\nrubbish", "last boundary is missing"),
        ("", b"RIFF", "multipart"),
    ],
)
def test_a_body_that_is_no_form(http: httpx.Client, kind: str, body: bytes, says: str) -> None:
    error = refusal(http.post(TRANSCRIPTIONS, content=body, headers={"content-type": kind}), 400)
    assert says in error["message"]


def test_an_unknown_transcription_model(http: httpx.Client) -> None:
    for name in ("no-such-model", "espeak-ng"):
        answer = http.post(TRANSCRIPTIONS, data={"model": name}, files={"file": ("silence.wav", silence(1))})
        assert refusal(answer, 404)["code"] == "model_not_found"


def test_an_upload_may_be_too_large(small_server: ServerProcess) -> None:
    def upload(content: bytes, chunked: bool) -> httpx.Response:
        request = httpx.Request(
            "POST",
            f"{small_server.url}{TRANSCRIPTIONS}",
            data={"model": "auto"},
            files={"file": ("silence.wav", content)},
        )
        body = request.read()
        headers = {"content-type": request.headers["content-type"]}
        return httpx.post(request.url, content=iter([body]) if chunked else body, headers=headers, timeout=30)

    for chunked in (False, True):
        error = refusal(upload(silence(40), chunked), 413)
        assert error["code"] == "file_too_large"
        assert "SONOREEL_MAX_UPLOAD_MB" in error["message"]
        assert upload(silence(20), chunked).status_code == 200
