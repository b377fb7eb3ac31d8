"""The guards of conftest.py fire: each run here is a pytest of its own over tests that misbehave."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MISBEHAVING = """
import asyncio, subprocess, sys, threading, time
import anyio, pytest, streaming

async def test_task_leaked():
    global task
    task = asyncio.get_running_loop().create_task(asyncio.sleep(3600), name="forgotten")

async def test_task_finished():
    await asyncio.get_running_loop().create_task(asyncio.sleep(0))

@pytest.fixture
async def background():
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 3600)
        yield
        group.cancel_scope.cancel()

async def test_task_of_a_fixture(background):
    await anyio.sleep(0)

def in_our_package(source):
    names = {}
    exec(compile(source, streaming.__path__[0] + "/written_by_the_test.py", "exec"), names)
    return names["call"]

nap = in_our_package("import time\\ndef call(): time.sleep(0)")

async def test_blocking_call():
    nap()

async def test_blocking_call_in_a_thread():
    await anyio.to_thread.run_sync(nap)

async def test_blocking_call_elsewhere():
    time.sleep(0)

def test_blocking_call_without_a_loop():
    nap()

def test_child_leaked():
    global child
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

def test_child_reaped():
    subprocess.run([sys.executable, "-c", ""], check=True)

def test_end():
    child.communicate(b"x")
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Name of the misbehaving test -> passed, failed or error, then why."""
    file = tmp_path_factory.mktemp("guards") / "test_misbehaving.py"
    file.write_text(MISBEHAVING)
    options = [
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        "-c",
        str(ROOT / "pyproject.toml"),
        "-rA",
        "-q",
    ]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(file)],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "300"},  # the reasons are cut to the terminal's width
        capture_output=True,
        text=True,
        check=False,
    )
    lines = re.findall(r"^(PASSED|FAILED|ERROR) \S*::(\w+)(?:\[asyncio\])?(.*)$", run.stdout, re.MULTILINE)
    found: dict[str, str] = {}
    for outcome, name, reason in lines:
        found[name] = found.get(name, "") + outcome.lower() + reason
    assert found, run.stdout + run.stderr
    return found


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("test_task_leaked", "left running: task forgotten"),
        ("test_blocking_call", "Blocking call to time.sleep"),
        ("test_child_leaked", "left running: process"),
    ],
)
def test_guard_fires(outcomes: dict[str, str], name: str, said: str) -> None:
    assert said in outcomes[name]


@pytest.mark.parametrize(
    "name",
    [
        "test_task_finished",
        "test_task_of_a_fixture",
        "test_blocking_call_in_a_thread",
        "test_blocking_call_elsewhere",
        "test_blocking_call_without_a_loop",
        "test_child_reaped",
    ],
)
def test_guard_lets_good_manners_pass(outcomes: dict[str, str], name: str) -> None:
    assert outcomes[name] == "passed"
