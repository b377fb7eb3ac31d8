"""What every measurement is given: the server under test, and how much time it may take."""

from __future__ import annotations

from contextlib import ExitStack

from tests.bench.servers import ProbedServer, probed_server


class Bench:
    """One run. The server is started when the first measurement asks for it, and shared by all that follow."""

    def __init__(self, *, quick: bool) -> None:
        self.quick = quick
        self._stack = ExitStack()
        self._server: ProbedServer | None = None

    @property
    def server(self) -> ProbedServer:
        """Sonoreel with the embedded engines loaded."""
        if self._server is None:
            self._server = self._stack.enter_context(probed_server("sonoreel"))
        return self._server

    def amount(self, full: int, quick: int) -> int:
        """How many of something to measure."""
        return quick if self.quick else full

    def close(self) -> None:
        """End the server."""
        self._stack.close()
