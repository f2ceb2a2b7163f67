# SPDX-License-Identifier: MIT
import pytest
import torch

from seq2seq_ext.nn import Encoder

CELLS = pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])


@CELLS
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_symbols(cell, bidirectional, num_layers):
    """Shapes of x_t, h_t and the states, and what they must equal."""
    encoder = Encoder(
        11, 5, 7, cell=cell, bidirectional=bidirectional, num_layers=num_layers, padding_idx=0
    )
    directions = 1 + bidirectional
    assert encoder.output_size == 7 * directions
    src = torch.randint(1, 11, (4, 6))
    out = encoder(src, [6, 2, 1, 4], return_embedded=True)
    assert out.outputs.shape == (4, 6, 7 * directions)
    assert out.hidden.shape == (num_layers * directions, 4, 7)
    assert (out.cell is not None) == (cell == "lstm")
    assert out.lengths.tolist() == [6, 2, 1, 4]
    assert out.mask.sum(1).tolist() == [6, 2, 1, 4]
    assert torch.equal(out.embedded, encoder.embedding(src))
    assert not out.outputs[~out.mask].any()
    for row, length in enumerate(out.lengths):
        torch.testing.assert_close(out.outputs[row, length - 1, :7], out.hidden[-directions, row])
        if bidirectional:
            torch.testing.assert_close(out.outputs[row, 0, 7:], out.hidden[-1, row])
        alone = encoder(src[row : row + 1, :length])
        torch.testing.assert_close(alone.outputs[0], out.outputs[row, :length])


def test_lengths_from_padding():
    encoder = Encoder(11, 5, 7, padding_idx=0)
    src = torch.tensor([[3, 4, 0, 0], [3, 0, 4, 5], [0, 0, 0, 0]])
    assert encoder(src).lengths.tolist() == [2, 4, 0]
    assert encoder(src, [4, 4, 4]).lengths.tolist() == [4, 4, 4]
    assert Encoder(11, 5, 7)(src).lengths.tolist() == [4, 4, 4]


def test_padding_does_not_matter():
    encoder = Encoder(11, 5, 7, bidirectional=True)
    src = torch.randint(11, (3, 6))
    other = src.clone()
    other[:, 4:] = torch.randint(11, (3, 2))
    one, two = encoder(src, [4, 3, 2]), encoder(other, [4, 3, 2])
    assert torch.equal(one.outputs, two.outputs)
    assert torch.equal(one.hidden, two.hidden)


def test_config_makes_the_same_encoder():
    encoder = Encoder(11, 5, 7, cell="rnn", num_layers=2, bidirectional=True, nonlinearity="relu")
    other = Encoder(**encoder.config())
    other.load_state_dict(encoder.state_dict(), strict=True)
    src = torch.randint(11, (3, 6))
    assert torch.equal(other(src).outputs, encoder(src).outputs)


def test_dropout_in_training_only():
    encoder = Encoder(11, 32, 7, dropout=0.5)
    src = torch.randint(11, (3, 6))
    embedded = encoder(src, return_embedded=True).embedded
    assert 0.3 < (embedded == 0).float().mean() < 0.7
    assert torch.equal(encoder.eval()(src).outputs, encoder(src).outputs)


BAD = [
    ({"vocab_size": 0}, ValueError, "vocab_size must be greater than zero"),
    ({"hidden_size": 2.5}, TypeError, "hidden_size must be an int, got float"),
    ({"num_layers": True}, TypeError, "num_layers must be an int, got bool"),
    ({"cell": "lstmx"}, ValueError, "cell must be one of lstm, gru, rnn; got 'lstmx'"),
    ({"dropout": 1.5}, ValueError, r"dropout must lie in \[0, 1\], got 1.5"),
    ({"padding_idx": 11}, ValueError, r"padding_idx must lie in \[0, 11\), got 11"),
    ({"cell": "rnn", "nonlinearity": "selu"}, ValueError, "Unknown nonlinearity"),
]


@pytest.mark.parametrize(("options", "error", "words"), BAD, ids=str)
def test_bad_arguments(options, error, words):
    arguments = {"vocab_size": 11, "embedding_size": 5, "hidden_size": 7, **options}
    with pytest.raises(error, match=words):
        Encoder(**arguments)


def test_bad_input():
    encoder = Encoder(11, 5, 7)
    src = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(IndexError, match=r"src must hold ids in \[0, 11\), got 11"):
        encoder(src + 11)
    with pytest.raises(IndexError, match=r"got -1"):
        encoder(src - 1)
    with pytest.raises(TypeError, match="src must be a tensor of token ids, got list"):
        encoder([[1, 2]])
    with pytest.raises(TypeError, match=r"src must be int64 or int32, got torch\.float32"):
        encoder(src.float())
    with pytest.raises(ValueError, match="src must be on the model's device meta, got cpu"):
        Encoder(11, 5, 7, device="meta")(src)
    with pytest.raises(ValueError, match="src must have 2 dimensions, got 1"):
        encoder(src[0])
    with pytest.raises(ValueError, match="src must have at least one position"):
        encoder(src[:, :0])
    with pytest.raises(ValueError, match=r"lengths must have shape \(2,\)"):
        encoder(src, [1, 2, 3])
    with pytest.raises(ValueError, match=r"lengths.*4"):
        encoder(src, [1, 4])
    assert encoder(src[:0]).outputs.shape == (0, 3, 7)
