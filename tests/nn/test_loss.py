# SPDX-License-Identifier: MIT
import pytest
import torch
from torch import nn

from seq2seq_ext.nn import CrossEntropy, LinearCrossEntropy, Seq2Seq


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_is_torchs_loss(label_smoothing, reduction):
    logits = torch.randn(3, 4, 7, dtype=torch.float64, requires_grad=True)
    target = torch.randint(7, (3, 4))
    target[0, 2:] = 0
    options = {"ignore_index": 0, "label_smoothing": label_smoothing, "reduction": reduction}
    got = CrossEntropy(**options)(logits, target)
    want = nn.CrossEntropyLoss(**options)(logits.flatten(0, 1), target.flatten())
    torch.testing.assert_close(got.flatten(), want.flatten())
    one = torch.autograd.grad(got.sum(), logits, retain_graph=True)
    torch.testing.assert_close(one, torch.autograd.grad(want.sum(), logits))


def test_by_hand():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]))
    loss = CrossEntropy(ignore_index=-1, label_smoothing=0.3)(logits, torch.tensor([0, -1]))
    want = -(0.8 * torch.tensor(0.5).log() + 0.2 * torch.tensor(0.25).log())
    torch.testing.assert_close(loss, want)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_nothing_to_predict_is_zero_and_not_nan(reduction):
    logits = torch.randn(2, 3, 7, requires_grad=True)
    loss = CrossEntropy(ignore_index=0, reduction=reduction)(logits, torch.zeros(2, 3).long())
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_16_bit_logits_are_summed_in_float32(dtype):
    logits, target = torch.randn(5, 5000).to(dtype), torch.randint(5000, (5,))
    loss = CrossEntropy()(logits, target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, nn.functional.cross_entropy(logits.float(), target))


def test_errors():
    with pytest.raises(ValueError, match="label_smoothing must lie in"):
        CrossEntropy(label_smoothing=1.5)
    with pytest.raises(ValueError, match="reduction must be one of"):
        CrossEntropy(reduction="avg")
    with pytest.raises(ValueError, match=r"target must have the shape.*\(2, 3\), got \(2, 4\)"):
        CrossEntropy()(torch.zeros(2, 3, 7), torch.zeros(2, 4, dtype=torch.int64))
    with pytest.raises(IndexError):
        CrossEntropy()(torch.zeros(2, 7), torch.tensor([1, 7]))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("bias", [False, True], ids=["nobias", "bias"])
def test_linear_is_the_same_of_logits_not_made(label_smoothing, reduction, bias):
    options = {"ignore_index": 0, "label_smoothing": label_smoothing, "reduction": reduction}
    features = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    output = nn.Linear(5, 7, bias=bias, dtype=torch.float64)
    target = torch.randint(7, (3, 4))
    target[1, 1:] = 0
    got = LinearCrossEntropy(**options)(features, output.weight, target, output.bias)
    want = CrossEntropy(**options)(output(features), target)
    torch.testing.assert_close(got, want)
    leaves = [features, *output.parameters()]
    g = torch.randn_like(want)
    torch.testing.assert_close(
        torch.autograd.grad(got, leaves, g), torch.autograd.grad(want, leaves, g)
    )


def test_linear_owns_options_only():
    loss = LinearCrossEntropy(ignore_index=3, label_smoothing=0.1, reduction="sum")
    assert not loss.state_dict()
    assert repr(loss) == (
        "LinearCrossEntropy(ignore_index=3, label_smoothing=0.1, reduction='sum')"
    )
    with pytest.raises(ValueError, match="LinearCrossEntropy: label_smoothing must lie in"):
        LinearCrossEntropy(label_smoothing=-1.0)
    with pytest.raises(ValueError, match=r"target: expected shape \(2, 3\), got shape \(3,\)"):
        loss(torch.zeros(2, 3, 4), torch.zeros(7, 4), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(IndexError, match="target: expected 0 to 6, or ignore_index 3, got 7"):
        loss(torch.zeros(1, 4), torch.zeros(7, 4), torch.tensor([7]))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"context": "every_step", "cell": "lstm"},
        {"input_feeding": True},
        {"tied_embeddings": True, "embedding_size": 6},
        {"tied_embeddings": True, "embedding_size": 10},
    ],
    ids=str,
)
@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_model_loss_is_that_of_its_logits(options, ratio):
    model = Seq2Seq.build(11, 13, **({"embedding_size": 6, "hidden_size": 6} | options)).double()
    src, lengths = torch.randint(3, 11, (4, 5)), torch.tensor([5, 2, 4, 3])
    tgt_in, target = torch.randint(3, 13, (4, 6)), torch.randint(0, 13, (4, 6))
    results = []
    for fused in (False, True):
        torch.manual_seed(7)  # scheduled sampling draws
        if fused:
            criterion = LinearCrossEntropy(ignore_index=0, label_smoothing=0.1)
            drawn = {"teacher_forcing_ratio": ratio}
            loss = model.loss(src, lengths, tgt_in, target, criterion, **drawn)
        else:
            logits = model(src, lengths, tgt_in, teacher_forcing_ratio=ratio)
            loss = CrossEntropy(ignore_index=0, label_smoothing=0.1)(logits, target)
        results.append((loss, *torch.autograd.grad(loss, list(model.parameters()))))
    torch.testing.assert_close(*results)
