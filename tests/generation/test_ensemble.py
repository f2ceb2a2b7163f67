# SPDX-License-Identifier: MIT
import math

import pytest
import torch

from seq2seq_ext.generation import Ensemble, GenerationConfig

from .models import make, sources

OPTIONS = {"max_new_tokens": 8, "return_dict_in_generate": True}


def models(dtype=torch.float64):
    return [
        make(dtype, cell="gru"),
        make(dtype, attention="additive", input_feeding=True, hidden_size=16, embedding_size=8),
        make(dtype, context="every_step", cell="rnn", num_layers=2),
    ]


def log_probs_of(model, src, lengths, tgt):
    fed = torch.cat([torch.ones(len(tgt), 1, dtype=torch.int64), tgt[:, :-1]], 1)
    with torch.no_grad():
        return model(src, lengths, fed).log_softmax(-1)


@pytest.mark.parametrize("combine", ["probabilities", "log_probabilities"])
def test_the_mean_of_the_models(combine):
    members = models()
    src, lengths = sources()
    ensemble = Ensemble(members, combine=combine)
    out = ensemble.generate(src, lengths, output_scores=True, eos_token_id=[2], **OPTIONS)
    parts = torch.stack([log_probs_of(m, src, lengths, out.sequences) for m in members])
    if combine == "probabilities":
        expected = parts.logsumexp(0) - math.log(3)
    else:
        expected = parts.mean(0)
    inside = torch.arange(out.sequences.size(1)) < out.lengths[:, None]
    torch.testing.assert_close(out.scores[inside], expected[inside])
    assert torch.equal(out.scores.argmax(-1)[inside], out.sequences[inside])
    found = ensemble.score(src, out.sequences, lengths, out.lengths)
    torch.testing.assert_close(found.token_log_probs, out.token_log_probs)
    if combine == "log_probabilities":
        alone = [m.score(src, out.sequences, lengths, out.lengths) for m in members]
        mean = sum(score.sequences_scores for score in alone) / 3
        torch.testing.assert_close(found.sequences_scores, mean)


@pytest.mark.parametrize("combine", ["probabilities", "log_probabilities"])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"num_beams": 3, "coverage_penalty": 0.2, "repetition_penalty": 1.4},
        {"do_sample": True, "seed": 3, "num_return_sequences": 2, "repetition_penalty": 0.8},
        {"shortlist": [9, 10, 14, 15, 16], "num_beams": 2},
    ],
    ids=str,
)
def test_a_model_with_itself_is_the_model(more, combine):
    model = make(torch.float64)
    src, lengths = sources()
    want = model.generate(src, lengths, **OPTIONS, **more)
    found = Ensemble([model, model], combine=combine).generate(src, lengths, **OPTIONS, **more)
    assert torch.equal(found.sequences, want.sequences)
    torch.testing.assert_close(found.token_log_probs, want.token_log_probs)
    torch.testing.assert_close(found.sequences_scores, want.sequences_scores)


def test_a_token_that_one_model_excludes():
    """log_probabilities: the others cannot save it; probabilities: they do."""
    first, second = make(torch.float64, cell="gru"), make(torch.float64, cell="rnn")
    src, lengths = sources()
    with torch.no_grad():
        first.decoder.output.bias[15] = -math.inf
    tgt = torch.full((13, 1), 15)
    both = Ensemble([first, second]).score(src, tgt, lengths).token_log_probs
    alone = second.score(src, tgt, lengths).token_log_probs
    torch.testing.assert_close(both, alone - math.log(2))
    mean = Ensemble([first, second], combine="log_probabilities").score(src, tgt, lengths)
    assert (mean.token_log_probs == -math.inf).all()
    with torch.no_grad():
        second.decoder.output.bias[15] = -math.inf
    both = Ensemble([first, second]).score(src, tgt, lengths).token_log_probs
    assert (both == -math.inf).all()


def test_attention_is_the_mean():
    members = models()[:2]
    src, lengths = sources()
    out = Ensemble(members).generate(src, lengths, output_attentions=True, **OPTIONS)
    parts = [
        m.score(src, out.sequences, lengths, out.lengths, output_attentions=True) for m in members
    ]
    mean = (parts[0].attentions + parts[1].attentions) / 2
    torch.testing.assert_close(out.attentions, mean)


def test_mixed_precision():
    members = [make(torch.float32), make(torch.bfloat16), make(torch.float64)]
    src, lengths = sources()
    out = Ensemble(members[:2]).generate(src, lengths, **OPTIONS)
    assert out.token_log_probs.dtype == torch.float32
    out = Ensemble(members).generate(src, lengths, num_beams=2, **OPTIONS)
    assert out.token_log_probs.dtype == torch.float64


def test_defaults_are_the_first_models():
    members = models()
    members[0].generation_config = members[0].generation_config.replace(max_new_tokens=2)
    src, lengths = sources()
    assert Ensemble(members).generate(src, lengths, eos_token_id=None).shape == (13, 2)
    config = GenerationConfig(bos_token_id=1, max_new_tokens=3)
    assert Ensemble(members, generation_config=config).generate(src, lengths).shape == (13, 3)


def test_bad_ensembles():
    model = make()
    for error, words, given in (
        (ValueError, "models must hold at least one", ([],)),
        (TypeError, "models must be Seq2Seq, got Encoder", ([model.encoder],)),
        (ValueError, "share one source vocabulary, got 23, 24", ([model, make(vocab=24)],)),
    ):
        with pytest.raises(error, match=words):
            Ensemble(*given)
    with pytest.raises(ValueError, match="combine must be one of probabilities, log_prob"):
        Ensemble([model], combine="sum")
    src, lengths = sources()
    for options, words in (
        ({"output_hidden_states": True}, "output_hidden_states is for one model"),
        ({"output_attentions": True}, "output_attentions needs a decoder with context"),
        ({"num_beams": 2, "coverage_penalty": 1.0}, "coverage_penalty needs a decoder"),
    ):
        with pytest.raises(ValueError, match=words):
            Ensemble([model, make(context="every_step")]).generate(src, lengths, **options)
