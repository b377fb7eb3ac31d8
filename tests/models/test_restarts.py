from __future__ import annotations

from models.interfaces import ListenRequest, SpeechRequest
from models.restarts import BLAME_LASTS, STEADY_AFTER, Backoff, Blame, fingerprint

KEY = fingerprint("m", SpeechRequest("hello", "v"))


def test_backoff_grows_with_quick_failures_up_to_its_limit() -> None:
    backoff, delays = Backoff(), []
    for _ in range(10):
        backoff.failed(0.0, lived=1.0)
        delays.append(backoff.delay(0.0))
    assert delays == [0, 0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_backoff_counts_down_and_starts_again_after_a_steady_worker() -> None:
    backoff = Backoff()
    for _ in range(4):
        backoff.failed(0.0)
    assert backoff.delay(1.5) == 0.5
    assert backoff.delay(2.0) == 0
    backoff.failed(100.0, lived=STEADY_AFTER)
    assert backoff.delay(100.0) == 0
    assert backoff.failures == 1


def test_two_deaths_make_poison() -> None:
    blame = Blame()
    assert not blame
    blame.died(KEY, 0.0)
    assert not blame.is_poison(KEY, 0.0)
    blame.died(KEY, 1.0)
    assert blame.is_poison(KEY, 2.0)
    assert not blame.is_poison(fingerprint("m", SpeechRequest("other", "v")), 2.0)


def test_blame_expires() -> None:
    blame = Blame()
    blame.died(KEY, 0.0)
    blame.died(KEY, 0.0)
    assert not blame.is_poison(KEY, BLAME_LASTS)
    blame.died(None, BLAME_LASTS)
    assert not blame  # and is not kept


def test_success_clears_the_name() -> None:
    blame = Blame()
    blame.died(KEY, 0.0)
    blame.succeeded(KEY)
    blame.died(KEY, 1.0)
    assert not blame.is_poison(KEY, 1.0)


def test_fingerprints_tell_requests_and_models_apart_and_leave_live_audio_alone() -> None:
    assert fingerprint("m", SpeechRequest("hello", "v")) == KEY
    assert fingerprint("n", SpeechRequest("hello", "v")) != KEY
    assert fingerprint("m", SpeechRequest("hello", "w")) != KEY
    assert fingerprint("m", ListenRequest()) is None
