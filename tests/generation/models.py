# SPDX-License-Identifier: MIT
"""Models and sources for the tests of decoding."""

import functools

import torch

from seq2seq_ext.nn import Seq2Seq

from . import oracle

EOS = [2, 3, 4, 5, 6, 7, 8]

KINDS = [
    {"context": "initial_state", "bridge": "copy"},
    {"context": "initial_state", "bridge": "mean"},
    {"context": "every_step", "summary": "mean"},
    {"context": "attention", "attention": "general"},
    {"context": "attention", "attention": "additive", "input_feeding": True},
    {"context": "attention", "attention": "scaled_dot", "tied_embeddings": True},
]
# A projection (of LSTM cells; other cells go without).
ALL_KINDS = [
    *KINDS,
    {"context": "attention", "attention": "general", "input_feeding": True, "proj_size": 4},
]


def make(dtype=torch.float32, vocab=23, eos=EOS, **options):
    """A model whose rows end at different steps: its weights are larger than fresh ones."""
    arguments = {"embedding_size": 16, "hidden_size": 24, "bidirectional": True, "cell": "lstm"}
    arguments |= options
    if arguments["cell"] != "lstm":
        arguments.pop("proj_size", None)
    model = Seq2Seq.build(vocab, vocab, eos_token_id=eos, **arguments)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embedding" not in name or options.get("tied_embeddings"):
                parameter.mul_(4)
    return model.to(dtype).eval()


def sources(batch=13, size=9, vocab=23):
    lengths = torch.randint(1, size + 1, (batch,))
    lengths[0] = size
    src = torch.randint(3, vocab, (batch, size))
    return torch.where(torch.arange(size) < lengths[:, None], src, 0), lengths


@functools.lru_cache
def tiny(vocab=4, seed=4, **options):
    """A float64 model, its source batch and lengths, and the oracle's view of each row."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 6, "embedding_size": 4}
    model = make(torch.float64, vocab, eos=2, **{**sizes, **options})
    lengths = torch.tensor([4, 1, 3, 2, 4])
    src = torch.randint(1, vocab, (5, 4))
    src = torch.where(torch.arange(4) < lengths[:, None], src, 0)
    rows = zip(src, lengths.tolist(), strict=True)
    return model, src, lengths, [oracle.Source(model, row[:n]) for row, n in rows]


def sentences(source_rows, options, **arguments):
    """arguments: by name, a list with each row's."""
    return [
        oracle.Sentence(source, options, **{name: rows[i] for name, rows in arguments.items()})
        for i, source in enumerate(source_rows)
    ]
