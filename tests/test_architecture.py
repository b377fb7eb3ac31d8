"""The import rules of the three rooms hold, and the contracts that say so do bite."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("media", "models", "streaming")
ENGINE_LIBRARIES = {
    "accelerate", "ctranslate2", "diffusers", "espeakng_loader", "faster_whisper", "kokoro", "misaki", "pocketsphinx",
    "pyannote", "snac", "spacy", "torch", "torchaudio", "transformers", "vllm",
}  # fmt: skip
VIOLATIONS = {
    "media -> models -> streaming": ("streaming/transcript.py", "import models.errors"),
    "API resources never import each other": ("media/api/first.py", "import media.api.second"),
    "engines never import each other": ("models/engines/first.py", "import models.engines.second"),
    "live sessions have no clock, no loop and no sockets": ("streaming/text.py", "import time"),
    "the web framework stays in media": ("models/errors.py", "import starlette.responses"),
    "torch and its friends stay in engines": ("models/messages.py", "import torch.nn"),
}
"""One broken import for each contract of pyproject.toml: its name -> (file it is added to, the import)."""


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_import_contracts_are_kept() -> None:
    run = lint_imports(ROOT)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.fixture(scope="module")
def broken_tree(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What import-linter says about a copy of this tree that has one violation of every contract."""
    folder = tmp_path_factory.mktemp("broken")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "*.onnx"))
    for resources in ("media/api", "models/engines"):
        (folder / resources / "second.py").touch()
    for file, statement in VIOLATIONS.values():
        with (folder / file).open("a") as module:
            module.write(f"\n{statement}\n")
    return lint_imports(folder).stdout


@pytest.mark.parametrize("contract", VIOLATIONS)
def test_contract_notices_a_violation(broken_tree: str, contract: str) -> None:
    assert re.search(re.escape(contract) + r"\s+BROKEN", broken_tree), broken_tree


def test_every_contract_has_its_violation() -> None:
    contracts = project()["tool"]["importlinter"]["contracts"]  # type: ignore[index]
    assert {contract["name"] for contract in contracts} == set(VIOLATIONS)


def test_server_process_loads_no_engine_library() -> None:
    program = "import sys, media.app; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert not ENGINE_LIBRARIES & set(run.stdout.split())


def test_every_declared_dependency_is_pinned() -> None:
    table = project()
    declared = [*table["project"]["dependencies"], *table["dependency-groups"]["dev"]]  # type: ignore[index]
    for extra in table["project"]["optional-dependencies"].values():  # type: ignore[index]
        declared += extra
    pinned = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    names = {re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!;]", entry)[0]).lower() for entry in declared}
    assert names - {"sonoreel"} <= pinned
