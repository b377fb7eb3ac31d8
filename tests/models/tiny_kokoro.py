"""A Kokoro with its real classes and random weights: a third of the size, an eighth of the work.

The decoder's first blocks are of fixed size. What is left to choose is as small as can be, and durations are short: a
phoneme is held for about two frames, 50 ms.
"""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from typing import Any

from models.torch_runtime import import_torch, without_warnings

VOICES = ("af_bella", "af_heart", "am_adam", "bf_emma", "ef_dora", "ff_siwis")
SYMBOLS = (
    ' ;:,.!?—…"()“”̃ʣʥʦʨᵝAIOQSTWYᵊabcdefhijklmnopqrstuvwxyzɑɐɒæβɔɕçɖðʤəɚɛɜɟɡɥɨɪʝɯɰŋɳɲɴøɸθœɹɾɻʁɽʂʃʈʧʊʋʌɣɤχʎʒʔˈˌːʰʲ↓→↗↘ᵻ'
)
CONFIG: dict[str, Any] = {
    "hidden_dim": 512,
    "style_dim": 128,
    "n_token": 178,
    "n_mels": 80,
    "n_layer": 1,
    "dropout": 0.0,
    "max_dur": 4,
    "text_encoder_kernel_size": 1,
    "plbert": {
        "hidden_size": 32,
        "embedding_size": 16,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "max_position_embeddings": 512,
        "dropout": 0.0,
    },
    "istftnet": {
        "upsample_rates": [2],
        "upsample_kernel_sizes": [4],
        "upsample_initial_channel": 512,
        "gen_istft_n_fft": 300,
        "gen_istft_hop_size": 150,
        "resblock_kernel_sizes": [3],
        "resblock_dilation_sizes": [[1, 3, 5]],
    },
    "vocab": {symbol: index for index, symbol in enumerate(SYMBOLS, start=1)},
}


def tiny_kokoro(base: Path) -> Path:
    """The one of this run, in a directory of `base`; made when it is first asked for."""
    directory = base / "tiny-kokoro"
    if not directory.is_dir():
        directory.mkdir()
        build_kokoro(directory)
    return directory


def build_kokoro(directory: Path) -> Path:
    """Write config.json, a *.pth file of half precision and some voices into a directory."""
    torch = import_torch()
    generator = torch.Generator().manual_seed(7)
    nothing = directory / "nothing.pth"
    torch.save({}, nothing)
    with without_warnings(), torch.device("meta"):  # its own initialisation takes seconds
        model = importlib.import_module("kokoro").KModel(repo_id="tiny", config=CONFIG, model=str(nothing))
    nothing.unlink()
    parts = {
        name: {key: _values(torch, key, value.shape, generator) for key, value in part.state_dict().items()}
        for name, part in model.named_children()
    }
    torch.save(parts, directory / "tiny.pth")
    (directory / "config.json").write_text(json.dumps(CONFIG))
    (directory / "voices").mkdir()
    for name in VOICES:
        torch.save(torch.randn(510, 1, 256, generator=generator), directory / "voices" / f"{name}.pt")
    return directory


def _values(torch: Any, key: str, shape: Any, generator: Any) -> Any:
    """What scales is 1, and so is the length of every filter; everything else is noise."""
    if key.endswith(("weight_g", "norm.weight", "gamma", "LayerNorm.weight")) or "alpha" in key:
        return torch.ones(shape, dtype=torch.float16)
    noise = torch.randn(shape, generator=generator)
    return (noise / max(math.prod(shape[1:]), 1) ** 0.5).half()
