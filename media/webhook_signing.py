"""Secrets and signatures of webhooks, by the Standard Webhooks specification, which OpenAI's SDK follows
(https://github.com/standard-webhooks/standard-webhooks).

A secret is `whsec_` and base64. A receiver takes a delivery if any of its signatures is right, so that while a secret
is changed both the old and the new one sign.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from standardwebhooks import Webhook

PREFIX = "whsec_"
MASTER = "webhooks"
"""The name of the key, shared by all processes of a database, that secrets of tenants come from."""
SECRET_BYTES = 32


def new_secret() -> str:
    """A fresh secret."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def tenant_secret(master: str, tenant: str) -> str:
    """The secret that signs what a tenant's requests name; nobody can tell another tenant's from it."""
    key = hmac.digest(base64.b64decode(master.removeprefix(PREFIX)), tenant.encode(), "sha256")
    return PREFIX + base64.b64encode(key).decode()


def is_secret(secret: str) -> bool:
    """Whether every verifier reads the same key out of it: some do without the prefix or the padding, others do not."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return False
    return secret.startswith(PREFIX) and bool(key)


def hint(secret: str) -> str:
    """Enough of a secret to tell it from another one."""
    return f"{PREFIX}...{secret.rstrip('=')[-4:]}"


def headers(event: str, at: float, body: str, keys: Sequence[str]) -> list[tuple[str, str]]:
    """The headers that say which event it is, when (Unix seconds) it is sent, and that it is ours."""
    sent = datetime.fromtimestamp(int(at), UTC)
    signatures = [Webhook(key).sign(event, sent, body) for key in keys]
    return [("webhook-id", event), ("webhook-timestamp", str(int(at))), ("webhook-signature", " ".join(signatures))]
