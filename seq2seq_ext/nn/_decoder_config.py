# SPDX-License-Identifier: MIT
"""Which of a decoder's options go together."""

from __future__ import annotations

from typing import Any

from seq2seq_ext.nn._checks import (
    CELLS,
    check_choice,
    check_probability,
    check_proj_size,
    check_size,
    check_token_id,
)
from seq2seq_ext.nn.attention import ATTENTION_KINDS
from seq2seq_ext.nn.bridge import BRIDGES

CONTEXTS = ("initial_state", "every_step", "attention")
SUMMARIES = ("last", "mean")


def check_config(config: dict[str, Any]) -> None:
    for name in ("vocab_size", "embedding_size", "hidden_size", "num_layers"):
        check_size("Decoder", name, config[name])
    check_choice("Decoder", "cell", config["cell"], CELLS)
    check_proj_size("Decoder", config["proj_size"], config["cell"], config["hidden_size"])
    check_choice("Decoder", "context", config["context"], CONTEXTS)
    check_choice("Decoder", "bridge", config["bridge"], BRIDGES)
    check_probability("Decoder", "dropout", config["dropout"])
    if config["padding_idx"] is not None:
        check_token_id("Decoder", "padding_idx", config["padding_idx"], config["vocab_size"])
    context, summary, bridge = config["context"], config["summary"], config["bridge"]
    if summary is not None:
        check_choice("Decoder", "summary", summary, SUMMARIES)
        if context == "attention":
            raise ValueError("Decoder: summary is for one fixed context; 'attention' has none")
        if context == "initial_state" and (summary == "mean") != (bridge == "mean"):
            raise ValueError(
                "Decoder: with context 'initial_state' the bridge makes the context: summary "
                "'mean' goes with bridge 'mean' and with no other, "
                f"got summary {summary!r} and bridge {bridge!r}"
            )
    if context == "initial_state" and bridge == "zero":
        raise ValueError(
            "Decoder: context 'initial_state' with bridge 'zero' would never see the source"
        )
    if context == "attention":
        if config["attention"] is not None:
            check_choice("Decoder", "attention", config["attention"], ATTENTION_KINDS)
        return
    for name in ("attention", "attention_size", "input_feeding"):
        if config[name]:
            raise ValueError(
                f"Decoder: {name} is for context 'attention', got {config[name]!r} with {context!r}"
            )
