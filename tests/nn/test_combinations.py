# SPDX-License-Identifier: MIT
"""Every combination of cell, direction and context trains and decodes."""

import pytest
import torch

from seq2seq_ext.nn import CrossEntropy, Seq2Seq

CONTEXTS = [
    {"context": "initial_state"},
    {"context": "initial_state", "bridge": "mean"},
    {"context": "every_step", "bridge": "copy"},
    {"context": "every_step", "summary": "mean", "bridge": "zero"},
    {"context": "attention", "attention": "dot"},
    {"context": "attention", "attention": "scaled_dot"},
    {"context": "attention", "attention": "general", "bridge": "linear"},
    {"context": "attention", "attention": "additive"},
    {"context": "attention", "attention": "dot", "input_feeding": True},
    {"context": "attention", "attention": "additive", "input_feeding": True},
]
PROJECTIONS = [
    {"context": "initial_state"},
    {"context": "initial_state", "bridge": "copy"},
    {"context": "every_step", "tied_embeddings": True},
    {"attention": "dot", "num_layers": 2},
    {"attention": "additive", "input_feeding": True, "bridge": "mean"},
]
PAD, BOS, EOS = 0, 1, 2


def a_batch():
    """Eight sentences to be copied, of lengths 1 to 4."""
    lengths = torch.tensor([1, 2, 3, 4, 4, 3, 2, 1])
    words = torch.randint(3, 10, (8, 4))
    src = torch.where(torch.arange(4) < lengths[:, None], words, PAD)
    tgt_in = torch.cat([torch.full((8, 1), BOS), src], 1)
    tgt_out = torch.cat([src, torch.full((8, 1), PAD)], 1)
    tgt_out[torch.arange(8), lengths] = EOS
    return src, lengths, tgt_in, tgt_out


@pytest.mark.parametrize("options", CONTEXTS, ids=lambda o: "-".join(map(str, o.values())))
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one", "both"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_trains_and_decodes(cell, bidirectional, options):
    trains_and_decodes(cell=cell, bidirectional=bidirectional, **options)


@pytest.mark.parametrize("options", PROJECTIONS, ids=str)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one", "both"])
def test_projections_train_and_decode(bidirectional, options):
    trains_and_decodes(cell="lstm", proj_size=14, bidirectional=bidirectional, **options)


def trains_and_decodes(**options):
    model = Seq2Seq.build(10, 10, **{"embedding_size": 12, "hidden_size": 24, **options})
    src, lengths, tgt_in, tgt_out = a_batch()
    criterion = CrossEntropy(ignore_index=PAD)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    losses = []
    for _ in range(30):
        loss = criterion(model(src, lengths, tgt_in), tgt_out)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]

    out = model.generate(src, lengths, max_new_tokens=8, return_dict_in_generate=True)
    # What decoding says of its choice is what training's forward says of it.
    fed = torch.cat([torch.full((8, 1), BOS), out.sequences[:, :-1]], 1)
    with torch.no_grad():
        log_probs = torch.log_softmax(model(src, lengths, fed), -1)
    own = log_probs.gather(-1, out.sequences[..., None])[..., 0]
    inside = torch.arange(out.sequences.size(1)) < out.lengths[:, None]
    torch.testing.assert_close(own[inside], out.token_log_probs[inside], rtol=1e-3, atol=1e-4)
    assert (log_probs.amax(-1) - own)[inside].max() < 1e-4
    # And the model has learnt something of its eight sentences.
    best = min(out.sequences.size(1), 5)
    right = (out.sequences[:, :best] == tgt_out[:, :best]) & (tgt_out[:, :best] != PAD)
    assert right.sum() >= 0.5 * (tgt_out != PAD).sum()
