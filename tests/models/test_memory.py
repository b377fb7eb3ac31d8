from __future__ import annotations

import pytest

from models.catalog import Card
from models.errors import AtCapacity, OutOfMemory
from models.memory import MemoryBudget


def card(megabytes: int) -> Card:
    return Card(id=f"m{megabytes}", task="speech", engine="tests.fakes", name="m", memory_mb=megabytes)


class LoadedModel:
    def __init__(self, budget: MemoryBudget, megabytes: int, idle_since: float | None) -> None:
        self.card = card(megabytes)
        self.idle_since = idle_since
        self.unloaded_for = ""
        self._budget = budget

    async def unload(self, reason: str) -> None:
        self.unloaded_for = reason
        self.idle_since = None
        self._budget.release(self.card)


async def loaded(*idle_since: float | None) -> tuple[MemoryBudget, list[LoadedModel]]:
    """A budget of 100 MB with a model of 40 MB for each entry."""
    models: list[LoadedModel] = []
    budget = MemoryBudget(100, lambda: models)
    for since in idle_since:
        models.append(LoadedModel(budget, 40, since))
        await budget.reserve(models[-1].card)
    return budget, models


async def test_the_longest_unused_makes_way() -> None:
    budget, (newer, older) = await loaded(9.0, 5.0)
    await budget.reserve(card(60))
    assert older.unloaded_for
    assert not newer.unloaded_for
    assert budget.used_mb == 100


async def test_as_many_make_way_as_needed() -> None:
    budget, models = await loaded(9.0, 5.0)
    await budget.reserve(card(80))
    assert all(model.unloaded_for for model in models)
    assert budget.used_mb == 80


async def test_what_is_in_use_stays() -> None:
    budget, models = await loaded(None, None)
    with pytest.raises(AtCapacity, match="in use"):
        await budget.reserve(card(30))
    assert not any(model.unloaded_for for model in models)
    assert budget.used_mb == 80


async def test_what_fits_evicts_nobody() -> None:
    budget, models = await loaded(1.0, 2.0)
    await budget.reserve(card(20))
    assert not any(model.unloaded_for for model in models)


async def test_more_than_the_whole_budget_never_fits() -> None:
    budget, (model,) = await loaded(1.0)
    with pytest.raises(OutOfMemory, match="101 MB"):
        await budget.reserve(card(101))
    assert not model.unloaded_for


async def test_no_budget_no_limit() -> None:
    budget = MemoryBudget(None, list)
    await budget.reserve(card(10**6))
    assert budget.used_mb == 10**6
