# SPDX-License-Identifier: MIT
"""The torch.nn yardstick computes what the model computes; else its times would mean nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from seq2seq_ext.data.batching import Example, collate
from seq2seq_ext.data.tokenizer import PAD
from seq2seq_ext.training.translator import Translator
from seq2seq_ext.training.twin import TorchTwin, compare, interleaved

Make = Callable[..., Translator]


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_same_function(
    cell: str, layers: int, bidirectional: bool, make_translator: Make, examples: list[Example]
) -> None:
    options = {"cell": cell, "num_layers": layers, "bidirectional": bidirectional}
    model = make_translator(**options).model.double().eval()
    twin = TorchTwin(model.float())
    twin, model = twin.double(), model.double()
    batch = collate(examples[:32])
    arguments = (batch.source, batch.source_lengths, batch.target_in)
    torch.testing.assert_close(model(*arguments), twin(*arguments), rtol=0, atol=1e-12)
    ours = model.generate(batch.source, batch.source_lengths, suppress_tokens=None)
    assert isinstance(ours, torch.Tensor)
    theirs = twin.generate(batch.source, batch.source_lengths, 8)
    width = max(ours.size(1), theirs.size(1))
    padded = [torch.nn.functional.pad(t, (0, width - t.size(1)), value=PAD) for t in (ours, theirs)]
    assert torch.equal(*padded)


def test_compare(make_translator: Make, examples: list[Example]) -> None:
    result = compare(make_translator().model, [collate(examples[:16])], rounds=2)
    assert [timing.name for timing in result.timings] == [
        "training, 1 batches of 16",
        "greedy, 1 batches of 16",
        "greedy, 4 one by one",
    ]
    assert all(t.ours > 0 and t.torch_nn > 0 for t in result.timings)
    assert result.same_tokens == 1
    assert result.largest_difference < 1e-5


def test_interleaved_takes_turns() -> None:
    calls: list[str] = []
    interleaved("x", lambda: calls.append("a"), lambda: calls.append("b"), 2)
    assert calls == ["a", "b", "a", "b", "b", "a"]


def test_other_shapes_are_refused(make_translator: Make) -> None:
    for options in ({"context": "every_step"}, {"input_feeding": True}, {"tied_embeddings": True}):
        with pytest.raises(ValueError, match="model: expected"):
            TorchTwin(make_translator(**options).model)
