"""One server for all journeys that leave it as they found it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.journeys.server_process import ServerProcess, running_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A ready server on the embedded engines, shared by the whole run."""
    with running_server(tmp_path_factory.mktemp("data")) as server:
        yield server
