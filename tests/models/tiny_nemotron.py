"""A cache-aware transducer small enough to make on the spot: Nemotron's real classes and files, random weights.

It writes something about loud frames and nothing about silence; what it writes means nothing.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from models.cache_aware_stream import WORD_MARK
from models.torch_runtime import import_torch, without_warnings
from tests.models.engines.sentences import SENTENCES, say

TEXT_TOKENS = 200
BLANK = "<blank>"
SPARSE = 0.6
"""About as many of the frames of speech have a token."""


def build_nemotron(directory: Path) -> Path:
    """Make a model in `directory` and return that."""
    torch = import_torch()
    with without_warnings():
        transformers: Any = importlib.import_module("transformers")  # most of it is untyped

        torch.manual_seed(0)
        tokenizer = _tokenizer(transformers)
        blank = tokenizer.convert_tokens_to_ids(BLANK)
        processor = transformers.NemotronAsrStreamingProcessor(
            transformers.NemotronAsrStreamingFeatureExtractor(feature_size=32), tokenizer
        )
        encoder = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        config = transformers.NemotronAsrStreamingConfig(
            vocab_size=len(tokenizer),
            blank_token_id=blank,
            decoder_hidden_size=32,
            num_decoder_layers=1,
            max_symbols_per_step=3,
            encoder_config=encoder | {"subsampling_conv_channels": 8, "num_mel_bins": 32},
        )
        model = transformers.NemotronAsrStreamingForRNNT(config).eval()
        model.generation_config = transformers.GenerationConfig(
            decoder_start_token_id=blank, bos_token_id=blank, pad_token_id=0, eos_token_id=None
        )
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(3.0)
            model.decoder.embedding.weight.mul_(0.5)  # what is heard matters more than what was written
            model.joint.head.weight.copy_(torch.randn_like(model.joint.head.weight))
            begins = [piece.startswith(WORD_MARK) for piece in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))]
            model.joint.head.bias[torch.tensor(begins)] += 0.6  # half of its tokens begin a word
            _quieten(torch, model, processor, blank)
        processor.save_pretrained(directory)
        model.save_pretrained(directory)
    return directory


def _quieten(torch: Any, model: Any, processor: Any, blank: int) -> None:
    """Make the blank certain of silence, and probable of most frames of speech."""
    heard = []
    for samples in (np.zeros(32_000, np.float32), say("en-us+klatt6", 0, 2)):
        inputs = processor(samples, sampling_rate=16_000)
        frames = model.get_audio_features(inputs.input_features, num_lookahead_tokens=1).pooler_output
        heard.append(model.joint.activation(frames + model.decoder(torch.tensor([[blank]])))[0])
    silent, loud = heard
    head = model.joint.head
    apart = silent.mean(0) - loud.mean(0)
    head.weight[blank] = 50.0 * apart / apart.square().sum()
    others = torch.cat((silent, loud)) @ head.weight.T + head.bias
    others[:, blank] = -torch.inf
    lead = others.amax(1) - torch.cat((silent, loud)) @ head.weight[blank]
    head.bias[blank] = lead[len(silent) :].quantile(1 - SPARSE)
    assert lead[: len(silent)].max() < head.bias[blank], "it writes about silence"


def _tokenizer(transformers: Any) -> Any:
    """Byte-pair pieces as SentencePiece writes them."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    made = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(WORD_MARK)
    made.decoder = decoders.Metaspace(WORD_MARK)
    trainer = trainers.BpeTrainer(vocab_size=TEXT_TOKENS, special_tokens=["<pad>", "<unk>"], show_progress=False)
    made.train_from_iterator(SENTENCES, trainer)
    made.add_special_tokens([BLANK])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", unk_token="<unk>")
