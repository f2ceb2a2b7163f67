# SPDX-License-Identifier: MIT
import pytest
import torch

from seq2seq_ext.nn import Seq2Seq

from .models import EOS, KINDS, make, sources


def by_hand(model, src, length, limit, eos):
    """One row by the training forward: the whole prefix again at every step."""
    tokens, log_probs = [1], []
    while len(tokens) <= limit:
        logits = model(src[None, :length], [length], torch.tensor([tokens]))[0, -1]
        best = torch.log_softmax(logits.double(), -1).max(-1)
        tokens.append(int(best.indices))
        log_probs.append(float(best.values))
        if tokens[-1] in eos:
            break
    return tokens[1:], log_probs


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_rows_end_by_themselves_and_match_the_training_forward(options):
    model = make(torch.float64, **options)
    src, lengths = sources()
    out = model.generate(src, lengths, max_new_tokens=24, return_dict_in_generate=True)
    assert len(set(out.lengths.tolist())) > 1
    for row in range(len(src)):
        with torch.no_grad():
            tokens, log_probs = by_hand(model, src[row], int(lengths[row]), 24, set(EOS))
        n = int(out.lengths[row])
        assert out.sequences[row, :n].tolist() == tokens
        assert not out.sequences[row, n:].any()
        assert not out.token_log_probs[row, n:].any()
        torch.testing.assert_close(out.token_log_probs[row, :n], torch.tensor(log_probs).double())
        torch.testing.assert_close(out.sequences_scores[row], torch.tensor(sum(log_probs)).double())
    assert out.sequences.size(1) == out.lengths.max()


def test_everything_on_request():
    model = make()
    src, lengths = sources()
    out = model.generate(
        src,
        lengths,
        max_new_tokens=24,
        return_dict_in_generate=True,
        output_scores=True,
        output_attentions=True,
        output_hidden_states=True,
    )
    steps = out.sequences.size(1)
    inside = torch.arange(steps) < out.lengths[:, None]
    assert out.attentions.shape == (13, steps, 9)
    assert out.hidden_states.shape == (13, steps, 24)
    assert out.contexts.shape == (13, steps, 24)
    assert out.scores.shape == (13, steps, 23)
    torch.testing.assert_close(out.attentions.sum(-1), inside.float())
    assert not out.attentions[
        ~(torch.arange(9) < lengths[:, None])[:, None].expand(-1, steps, -1)
    ].any()
    torch.testing.assert_close(out.scores.exp().sum(-1)[inside], torch.ones(int(inside.sum())))
    torch.testing.assert_close(out.scores.amax(-1)[inside], out.token_log_probs[inside])
    assert torch.equal(out.scores.argmax(-1)[inside], out.sequences[inside])
    for buffer in (out.scores, out.hidden_states, out.contexts):
        assert not buffer[~inside].any()
    encoded = model.encoder(src, lengths)
    torch.testing.assert_close(out.contexts, out.attentions @ encoded.outputs)
    plain = model.generate(src, lengths, max_new_tokens=24, return_dict_in_generate=True)
    assert plain.scores is plain.attentions is plain.hidden_states is plain.contexts is None
    assert torch.equal(plain.sequences, out.sequences)


def test_a_fixed_context_is_returned_once():
    model = make(context="every_step")
    src, lengths = sources()
    options = {"max_new_tokens": 4, "return_dict_in_generate": True, "output_hidden_states": True}
    out = model.generate(src, lengths, **options)
    assert out.contexts.shape == (13, 24)
    with pytest.raises(ValueError, match="output_attentions needs a decoder with context"):
        model.generate(src, lengths, output_attentions=True)


def test_limits():
    model = make()
    src, lengths = sources()
    assert model.generate(src, lengths, max_new_tokens=1).shape == (13, 1)
    out = model.generate(
        src, lengths, min_new_tokens=9, max_new_tokens=40, return_dict_in_generate=True
    )
    assert out.lengths.min() >= 10  # nine tokens, then end-of-sequence at the earliest
    eos = torch.isin(out.sequences, torch.tensor(EOS))
    assert not eos[:, :9].any()
    free = model.generate(src, lengths, eos_token_id=None, max_new_tokens=40)
    assert free.shape == (13, 40)


def test_special_tokens():
    model = make()
    src, lengths = sources()
    base = model.generate(src, lengths, max_new_tokens=12)
    padded = model.generate(src, lengths, max_new_tokens=12, pad_token_id=22)
    out = model.generate(src, lengths, max_new_tokens=12, return_dict_in_generate=True)
    past = torch.arange(base.size(1)) >= out.lengths[:, None]
    assert past.any()
    assert (padded[past] == 22).all()
    assert torch.equal(padded[~past], base[~past])
    other = model.generate(src, lengths, max_new_tokens=12, decoder_start_token_id=17)
    assert not torch.equal(other[:, :1], base[:, :1])


def test_training_mode_comes_back_and_dropout_stays_off():
    model = make(dropout=0.5, num_layers=2)
    src, lengths = sources()
    want = model.generate(src, lengths, max_new_tokens=12)
    model.train()
    model.encoder.embedding.eval()
    assert torch.equal(model.generate(src, lengths, max_new_tokens=12), want)
    assert model.training
    assert model.decoder.rnn.training
    assert not model.encoder.embedding.training
    with pytest.raises(IndexError):
        model.generate(src + 23, lengths)
    assert model.training


def test_results_are_ordinary_tensors():
    model = make()
    src, lengths = sources()
    out = model.generate(src, lengths, max_new_tokens=5, return_dict_in_generate=True)
    assert not any(t.is_inference() for t in out if t is not None)
    fed = torch.cat([torch.full((13, 1), 1), out.sequences[:, :-1]], 1)
    model(src, lengths, fed).sum().backward()


def test_lengths_from_padding():
    model = make()
    src, lengths = sources()
    assert torch.equal(
        model.generate(src, max_new_tokens=9), model.generate(src, lengths, max_new_tokens=9)
    )


def test_empty_batch():
    model = make()
    out = model.generate(torch.zeros(0, 5, dtype=torch.int64), return_dict_in_generate=True)
    assert out.sequences.shape == (0, 0)
    assert out.lengths.shape == out.sequences_scores.shape == (0,)


def test_bad_calls():
    model = make()
    src, lengths = sources()
    with pytest.raises(TypeError, match="unknown option max_length"):
        model.generate(src, lengths, max_length=9)
    with pytest.raises(ValueError, match=r"eos_token_id must lie in \[0, 23\), got 23"):
        model.generate(src, lengths, eos_token_id=23)
    with pytest.raises(IndexError, match="src must hold ids"):
        model.generate(src + 23, lengths)
    with pytest.raises(ValueError, match="lengths"):
        model.generate(src, lengths + 9)
    with pytest.raises(ValueError, match="at least one position"):
        model.generate(src[:, :0])
    model = Seq2Seq.build(23, 23, bos_token_id=None)
    with pytest.raises(ValueError, match="decoder_start_token_id or bos_token_id must be given"):
        model.generate(src, lengths)


def test_logits_that_are_not_finite_are_refused():
    model = make()
    src, lengths = sources()
    with torch.no_grad():
        model.encoder.embedding.weight[src[4, 0]] = torch.nan
    first = int((src == src[4, 0]).any(1).nonzero()[0])
    with pytest.raises(ValueError, match=f"logits of row {first} are not finite at step 0"):
        model.generate(src, lengths)


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_an_empty_source_sentence_does_not_hurt_the_others(options):
    model = make(**options)
    src, lengths = sources()
    want = model.generate(src, lengths, max_new_tokens=8, return_dict_in_generate=True)
    lengths[5] = 0
    out = model.generate(src, lengths, max_new_tokens=8, return_dict_in_generate=True)
    others = torch.arange(13) != 5
    steps = min(out.sequences.size(1), want.sequences.size(1))
    assert torch.equal(out.sequences[others, :steps], want.sequences[others, :steps])
    assert out.token_log_probs.isfinite().all()
