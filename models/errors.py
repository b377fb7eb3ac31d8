"""Everything that can go wrong with compute, as one tree.

    EngineError
    ├── UnknownModel        no card has that name
    ├── WeightsMissing      the card exists, its weights are not on this machine
    ├── InvalidInput        the engine cannot take this request; `field` names what is wrong
    ├── AtCapacity          every slot and every queue place is taken; try again after `retry_after` seconds
    ├── OutOfMemory         the device ran out of memory
    ├── EngineFailed        the engine raised or its worker died; `retryable` says if trying again makes sense
    │   └── PoisonedRequest this very request already killed its worker twice
    └── Cancelled           somebody asked for the work to stop

Errors cross the process line as (kind, message, field, code, retry_after); `revive` turns them back into exceptions.
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of every error of a model, an engine or a worker."""

    retryable = False

    def __init__(self, message: str, *, field: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.code = code
        """A finer name for what is wrong than the class gives, such as `empty_file`."""


class UnknownModel(EngineError):
    """No card in the catalog has that id or alias."""


class WeightsMissing(EngineError):
    """The card is known but its weights are not on this machine."""


class InvalidInput(EngineError):
    """The engine cannot take this request; `field` names the part that is wrong."""


class AtCapacity(EngineError):
    """Every slot and every place in the queue is taken."""

    retryable = True

    def __init__(
        self, message: str, *, field: str | None = None, code: str | None = None, retry_after: float = 1.0
    ) -> None:
        super().__init__(message, field=field, code=code)
        self.retry_after = retry_after


class OutOfMemory(EngineError):
    """The device ran out of memory while loading or running."""

    retryable = True


class EngineFailed(EngineError):
    """The engine raised, or the process that ran it died."""

    retryable = True


class PoisonedRequest(EngineFailed):
    """This very request has killed its worker twice; it is not tried again."""

    retryable = False


class Cancelled(EngineError):
    """The work was asked to stop; engines raise it from `on_step`."""

    retryable = True


KINDS: dict[str, type[EngineError]] = {
    kind.__name__: kind
    for kind in (
        UnknownModel, WeightsMissing, InvalidInput, AtCapacity, OutOfMemory, EngineFailed, PoisonedRequest, Cancelled
    )
}  # fmt: skip


def revive(
    kind: str, message: str, field: str | None = None, code: str | None = None, *, retry_after: float | None = None
) -> EngineError:
    """Rebuild an error that came over the process line; an unknown kind becomes `EngineFailed`."""
    error = KINDS.get(kind, EngineFailed)(message, field=field, code=code)
    if isinstance(error, AtCapacity) and retry_after is not None:
        error.retry_after = retry_after
    return error
