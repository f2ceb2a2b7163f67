# SPDX-License-Identifier: MIT
"""What a user would pick instead for a recurrent layer under inference, at its best setting.

A peer that is not installed, or cannot do a case, is left out with a note. With as many threads as
torch has. Each takes the same x: (T, B, I) and gives y: (T, B, H) of torch.nn's layer, one
direction, from a state of zeros.

- torch.nn: eager, under inference_mode.
- torch.compile: of the layer. Dynamo leaves an nn.LSTM or nn.GRU to the eager kernels.
- torch.compile, frozen (LSTM): with `allow_rnn` and frozen weights, oneDNN's layer with its weights
  packed beforehand. (It unrolls a GRU: two minutes of compiling 50 steps, and slower than eager.
  The recurrence written in Python over a compiled step is slower than eager, too: NOTES.md.)
- ONNX Runtime: no bfloat16 on the CPU.
- OpenVINO: latency hint, one stream; bfloat16 by its precision hint.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

Run = Callable[[], object]


@cache
def note(text: str) -> None:
    """Once in a run."""
    print(text, file=sys.stderr)


def sequence_peers(module: nn.Module, x: torch.Tensor, *, compile: bool = True) -> dict[str, Run]:
    """module: torch.nn.LSTM or GRU of one layer."""

    def eager(run: Callable = module) -> torch.Tensor:
        with torch.inference_mode():
            return run(x)[0]

    found: dict[str, Run] = {"torch.nn": eager}
    if compile:
        default = torch.compile(module, dynamic=False)
        found |= attempt("torch.compile", lambda: lambda: eager(default))
        if isinstance(module, nn.LSTM):
            found |= attempt("torch.compile, frozen", lambda: frozen(module, x))
    found |= attempt("ONNX Runtime", lambda: onnx_runtime(module, x))
    found |= attempt("OpenVINO", lambda: openvino(module, x))
    return found


def attempt(name: str, make: Callable[[], Run]) -> dict[str, Run]:
    """The peer, if it can be had and runs."""
    try:
        run = make()
        run()
    except ImportError as error:
        note(f"without {name}: {error}")
    except Exception as error:  # whatever a compiler or an engine may raise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        note(f"without {name}: {reason[0][:200]}")
    else:
        return {name: run}
    return {}


def frozen(module: nn.Module, x: torch.Tensor) -> Run:
    import torch._dynamo.config

    # Under inference_mode torch.compile would unroll the layer instead.
    with torch._dynamo.config.patch(allow_rnn=True), torch.no_grad():
        compiled = torch.compile(module, dynamic=False, options={"freezing": True})
        compiled(x)

    def run() -> torch.Tensor:
        with torch._dynamo.config.patch(allow_rnn=True), torch.no_grad():
            return compiled(x)[0]

    return run


def onnx_runtime(module: nn.Module, x: torch.Tensor) -> Run:
    if x.dtype != torch.float32:
        raise NotImplementedError("no bfloat16 LSTM or GRU on the CPU")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        onnx_model(module, x), options, providers=["CPUExecutionProvider"]
    )
    feed = {"x": x.numpy()}
    return lambda: session.run(["y"], feed)[0]


def openvino(module: nn.Module, x: torch.Tensor) -> Run:
    import openvino

    core = openvino.Core()
    core.set_property(
        "CPU",
        {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32" if x.dtype == torch.float32 else "bf16",
        },
    )
    model = core.compile_model(core.read_model(onnx_model(module, x)), "CPU")
    request, values = model.create_infer_request(), x.float().numpy()

    def run() -> object:
        request.infer({0: values}, share_inputs=True)
        return request.get_output_tensor(0).data

    return run


def onnx_model(module: Any, x: torch.Tensor) -> bytes:
    """The layer in float32 as an ONNX graph: x -> y: (T, 1, B, H)."""
    from onnx import TensorProto, helper, numpy_helper

    cell = type(module).__name__
    # torch's gates are i f g o and r z n; ONNX's i o f g and z r n.
    order = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2)}[cell]

    def ordered(name: str) -> np.ndarray:
        gates = np.split(getattr(module, name).detach().float().numpy(), len(order))
        return np.concatenate([gates[gate] for gate in order])

    biases = np.concatenate([ordered("bias_ih_l0"), ordered("bias_hh_l0")])
    weights = {"W": ordered("weight_ih_l0"), "R": ordered("weight_hh_l0"), "biases": biases}
    hidden = module.hidden_size
    # The reset gate acts after the recurrent product, as in torch.
    options = {"linear_before_reset": 1} if cell == "GRU" else {}
    node = helper.make_node(cell, ["x", *weights], ["y", ""], hidden_size=hidden, **options)
    shapes = {"x": list(x.shape), "y": [x.size(0), 1, x.size(1), hidden]}
    infos = {n: [helper.make_tensor_value_info(n, TensorProto.FLOAT, s)] for n, s in shapes.items()}
    stored = [numpy_helper.from_array(values[None], name) for name, values in weights.items()]
    graph = helper.make_graph([node], "layer", infos["x"], infos["y"], stored)
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()
