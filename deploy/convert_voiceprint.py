"""Turns the speaker encoder of the Resemblyzer wheel into the ONNX file that the voiceprint engine runs.

    pip download --no-deps Resemblyzer==0.1.4 && pip install torch onnx onnxruntime
    python deploy/convert_voiceprint.py Resemblyzer-0.1.4-*.whl models/engines/voiceprint.onnx

The encoder is the GE2E speaker verification network (Wan et al., 2018; weights by Resemble AI, Apache-2.0): three LSTM
layers over 40 mel bands, a linear layer, ReLU, unit length. Input `mels` (batch, frames, 40), output `embeddings`
(batch, 256). The script compares both networks on random input before it writes anything.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

HIDDEN, MELS, LAYERS = 256, 40, 3
TOLERANCE = 1e-5


def read_weights(wheel: Path) -> dict[str, Any]:
    """The encoder's tensors as numpy arrays."""
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read("resemblyzer/pretrained.pt")
    checkpoint = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return {name: tensor.numpy() for name, tensor in checkpoint["model_state"].items()}


def onnx_gates(weights: Any) -> Any:
    """torch stacks the gates of an LSTM as input, forget, cell, output; ONNX as input, output, forget, cell."""
    i, f, g, o = np.split(weights, 4)
    return np.concatenate([i, o, f, g])


def build(weights: dict[str, Any]) -> onnx.ModelProto:
    """The network as an ONNX graph."""
    constants: dict[str, Any] = {
        "linear": weights["linear.weight"].T.copy(),
        "bias": weights["linear.bias"],
        "directions": np.array([1], np.int64),
        "layer": np.array([0], np.int64),
        "smallest": np.array(1e-9, np.float32),
    }
    nodes = [helper.make_node("Transpose", ["mels"], ["x0"], perm=[1, 0, 2])]
    for layer in range(LAYERS):
        biases = [onnx_gates(weights[f"lstm.bias_{kind}_l{layer}"]) for kind in ("ih", "hh")]
        constants[f"w{layer}"] = onnx_gates(weights[f"lstm.weight_ih_l{layer}"])[None]
        constants[f"r{layer}"] = onnx_gates(weights[f"lstm.weight_hh_l{layer}"])[None]
        constants[f"b{layer}"] = np.concatenate(biases)[None]
        inputs = [f"x{layer}", f"w{layer}", f"r{layer}", f"b{layer}"]
        nodes.append(helper.make_node("LSTM", inputs, [f"y{layer}", f"h{layer}"], hidden_size=HIDDEN))
        nodes.append(helper.make_node("Squeeze", [f"y{layer}", "directions"], [f"x{layer + 1}"]))
    nodes += [
        helper.make_node("Squeeze", [f"h{LAYERS - 1}", "layer"], ["last"]),
        helper.make_node("MatMul", ["last", "linear"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["positive"]),
        helper.make_node("ReduceL2", ["positive"], ["norm"], axes=[1], keepdims=1),
        helper.make_node("Max", ["norm", "smallest"], ["safe"]),
        helper.make_node("Div", ["positive", "safe"], ["embeddings"]),
    ]
    graph = helper.make_graph(
        nodes,
        "voiceprint",
        [helper.make_tensor_value_info("mels", TensorProto.FLOAT, ["batch", "frames", MELS])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["batch", HIDDEN])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def embed_with_torch(weights: dict[str, Any], mels: Any) -> Any:
    """The original network on the same input."""
    lstm = torch.nn.LSTM(MELS, HIDDEN, LAYERS, batch_first=True)
    linear = torch.nn.Linear(HIDDEN, HIDDEN)
    tensors = {name: torch.from_numpy(value) for name, value in weights.items()}
    lstm.load_state_dict({k.removeprefix("lstm."): v for k, v in tensors.items() if k.startswith("lstm.")})
    linear.load_state_dict({k.removeprefix("linear."): v for k, v in tensors.items() if k.startswith("linear.")})
    with torch.no_grad():
        _, (hidden, _) = lstm(torch.from_numpy(mels))
        raw = torch.relu(linear(hidden[-1]))
        return (raw / raw.norm(dim=1, keepdim=True)).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description="Convert the speaker encoder of the Resemblyzer wheel to ONNX.")
    parser.add_argument("wheel", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    weights = read_weights(arguments.wheel)
    data = build(weights).SerializeToString()
    mels = np.random.default_rng(0).random((5, 160, MELS), np.float32)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    difference = float(np.abs(session.run(None, {"mels": mels})[0] - embed_with_torch(weights, mels)).max())
    if difference > TOLERANCE:
        raise SystemExit(f"the converted network differs by {difference}")
    arguments.output.write_bytes(data)
    print(f"{len(data)} bytes, largest difference {difference:.1e}")  # noqa: T201 - a script says what it did


if __name__ == "__main__":
    main()
