# SPDX-License-Identifier: MIT
"""`convert_decoder`: a decoder written with torch.nn's modules becomes a `Decoder`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from seq2seq_ext.nn.decoder import Decoder
from seq2seq_ext.nn.encoder import Encoder

__all__ = ["convert_decoder"]

Recurrent = nn.RNNBase | nn.RNNCellBase | Sequence[nn.RNNCellBase] | nn.ModuleList

_CELLS = {"LSTM": "lstm", "GRU": "gru", "RNN_TANH": "rnn", "RNN_RELU": "rnn"}
_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")


def convert_decoder(
    encoder: Encoder,
    *,
    embedding: nn.Embedding,
    rnn: Recurrent,
    output: nn.Linear,
    context: str = "attention",
    attention: str | None = None,
    key: nn.Linear | None = None,
    query: nn.Linear | None = None,
    v: Tensor | nn.Linear | None = None,
    combine: nn.Linear | None = None,
    input_feeding: bool = False,
    summary: str | None = None,
    bridge: str = "copy",
) -> Decoder:
    """A `Decoder` with the weights of modules that make one step as `Decoder` does:

        x = [embedding(token); c or the last attentional vector, where the step reads one]
        s = rnn(x); with attention c = attention(s), features = tanh(combine([c; s])), else s
        logits = output(features)

    The weights are copied. With `Seq2Seq(encoder, decoder)` the model decodes natively.

    Args:
        encoder: what the decoder reads.
        embedding: V words.
        rnn: torch.nn's LSTM, GRU or RNN of one direction, or a cell of these, or one a layer.
        output: its weight may be that of the embedding (tied).
        context, input_feeding, summary, bridge: as for `Decoder`. A bridge with weights starts
            fresh: "copy" and "zero" have none.
        attention: "dot", "scaled_dot", "general" or "additive", with
        key: of "general", without bias, and "additive": memory -> what is scored.
        query: of "additive".
        v: of "additive": (A,), or Linear(A, 1) without bias.
        combine: of attention: Linear(C + P, P) without bias, context first; P is the LSTM's
            proj_size, or H.

    Raises TypeError, ValueError: modules of another kind, or that do not fit together.
    """
    for name, module, kind in (
        ("embedding", embedding, nn.Embedding),
        ("output", output, nn.Linear),
    ):
        if not isinstance(module, kind):
            raise TypeError(
                f"convert_decoder: {name} must be a torch.nn.{kind.__name__}, "
                f"got {type(module).__name__}"
            )
    layers, cell, nonlinearity = _layers(rnn)
    hidden = layers[0]["weight_hh"].size(1)
    proj = 0
    if "weight_hr" in layers[0]:
        proj, hidden = layers[0]["weight_hr"].shape
    size = None
    if attention == "additive":
        size = _given("key", key).out_features
    decoder = Decoder(
        embedding.num_embeddings,
        embedding.embedding_dim,
        hidden,
        encoder=encoder,
        cell=cell,
        num_layers=len(layers),
        context=context,
        summary=summary,
        attention=attention,
        attention_size=size,
        input_feeding=input_feeding,
        bridge=bridge,
        tied_embeddings=output.weight is embedding.weight,
        padding_idx=embedding.padding_idx,
        nonlinearity=nonlinearity,
        proj_size=proj,
        device=embedding.weight.device,
        dtype=embedding.weight.dtype,
    )
    weights = {"embedding.weight": embedding.weight}
    for number, layer in enumerate(layers):
        weights |= {f"rnn.{name}_l{number}": value for name, value in layer.items()}
    bias = output.bias if output.bias is not None else output.weight.new_zeros(len(output.weight))
    if decoder.output is None:
        weights["output_bias"] = bias
    else:
        weights |= {"output.weight": output.weight, "output.bias": bias}
    if decoder.attention is not None:
        weights |= _attention(decoder, key, query, v, combine)
    elif any(part is not None for part in (key, query, v, combine)):
        raise ValueError("convert_decoder: key, query, v and combine are for context 'attention'")
    _load(decoder, weights)
    return decoder


def _layers(rnn: Recurrent) -> tuple[list[dict[str, Tensor]], str, str]:
    """Each layer's weights by the cells' names, the cell, the nonlinearity."""
    if isinstance(rnn, nn.RNNBase):
        if rnn.bidirectional:
            raise ValueError("convert_decoder: rnn must have one direction")
        rows = [
            {n: getattr(rnn, f"{n}_l{i}") for n in _NAMES if hasattr(rnn, f"{n}_l{i}")}
            for i in range(rnn.num_layers)
        ]
        cell, nonlinearity = _CELLS[rnn.mode], "relu" if rnn.mode == "RNN_RELU" else "tanh"
    else:
        many = isinstance(rnn, (Sequence, nn.ModuleList))
        cells: list[object] = list(rnn) if many else [rnn]  # type: ignore[arg-type]
        kinds = {type(c).__name__.removesuffix("Cell").lower() for c in cells}
        if not cells or not all(isinstance(c, nn.RNNCellBase) for c in cells) or len(kinds) > 1:
            raise TypeError(
                "convert_decoder: rnn must be torch.nn's LSTM, GRU, RNN, or their cells"
            )
        cell = kinds.pop()
        nonlinearity = getattr(cells[0], "nonlinearity", "tanh")
        rows = [
            {n: getattr(c, n) for n in _NAMES if getattr(c, n, None) is not None} for c in cells
        ]
    for row in rows:  # a Decoder's layers have biases
        for name in _NAMES[2:4]:
            row.setdefault(name, row["weight_ih"].new_zeros(len(row["weight_ih"])))
    return rows, cell, nonlinearity


def _given(name: str, module: object) -> nn.Linear:
    if not isinstance(module, nn.Linear):
        raise TypeError(
            f"convert_decoder: {name} must be a torch.nn.Linear, got {type(module).__name__}"
        )
    return module


def _plain(name: str, module: object) -> Tensor:
    linear = _given(name, module)
    if len(list(linear.parameters())) > 1:
        raise ValueError(f"convert_decoder: {name} must have no bias: a Decoder has none there")
    return linear.weight


def _attention(
    decoder: Decoder,
    key: nn.Linear | None,
    query: nn.Linear | None,
    v: Tensor | nn.Linear | None,
    combine: nn.Linear | None,
) -> dict[str, Tensor]:
    assert decoder.attention is not None
    kind, context = decoder.attention.kind, decoder.attention.memory_size
    mixed = _plain("combine", combine)
    if mixed.size(1) != context + decoder.output_size:
        raise ValueError(
            f"convert_decoder: combine must read {context} + {decoder.output_size} features, the "
            f"context's first, got {mixed.size(1)}"
        )
    weights = {
        "combine.weight_ih": mixed[:, :context],
        "combine.weight_hh": mixed[:, context:],
    }
    wanted = {"general": ("key",), "additive": ("key", "query", "v")}.get(kind, ())
    for name, part in (("key", key), ("query", query), ("v", v)):
        if part is not None and name not in wanted:
            raise ValueError(f"convert_decoder: {name} is not for attention {kind!r}")
    if kind == "general":
        weights["attention.key.weight"] = _plain("key", key)
    elif kind == "additive":
        keys, queries = _given("key", key), _given("query", query)
        biases = [b for b in (keys.bias, queries.bias) if b is not None]
        zero = keys.weight.new_zeros(len(keys.weight))
        weights["attention.key.weight"] = keys.weight
        weights["attention.key.bias"] = sum(biases, start=zero)
        weights["attention.query.weight"] = queries.weight
        weights["attention.v"] = v if isinstance(v, Tensor) else _plain("v", v)[0]
    return weights


def _load(decoder: Decoder, weights: dict[str, Tensor]) -> None:
    own = dict(decoder.named_parameters())
    with torch.no_grad():
        for name, value in weights.items():
            if own[name].shape != value.shape:
                raise ValueError(
                    f"convert_decoder: {name} must have shape {tuple(own[name].shape)}, "
                    f"got {tuple(value.shape)}"
                )
            own[name].copy_(value)
