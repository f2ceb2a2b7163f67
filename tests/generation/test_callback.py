# SPDX-License-Identifier: MIT
"""What a callback sees step by step, and reproducibility by seed."""

import math
from itertools import pairwise

import pytest
import torch

from .models import make, sources


def run(model, src, lengths, **options):
    steps = []
    out = model.generate(
        src,
        lengths,
        callback=steps.append,
        max_new_tokens=12,
        pad_token_id=0,
        return_dict_in_generate=True,
        **options,
    )
    for number, step in enumerate(steps):
        assert step.step == number
        assert step.tokens.shape == step.parents.shape == step.log_probs.shape == step.done.shape
    assert steps[-1].done.all() or len(steps) == 12
    return out, steps


@pytest.mark.parametrize(
    "mode", [{}, {"do_sample": True, "num_return_sequences": 3, "seed": 5}], ids=str
)
def test_every_token_comes_when_it_is_chosen(mode):
    model = make()
    src, lengths = sources()
    out, steps = run(model, src, lengths, **mode)
    count = mode.get("num_return_sequences", 1)
    for at, n in enumerate(out.lengths.tolist()):
        row, number = divmod(at, count)
        for t, step in enumerate(steps):
            assert step.parents[row, number] == number
            assert bool(step.done[row, number]) == ((t + 1 >= n and n < 12) or step.done.all())
            if t < n:
                assert step.tokens[row, number] == out.sequences[at, t]
                assert step.log_probs[row, number] == out.token_log_probs[at, t]
            else:
                assert step.tokens[row, number] == 0
                assert step.log_probs[row, number] == 0
    assert len(set(out.lengths.tolist())) > 1


def test_beams_can_be_followed_by_their_parents():
    """The hypotheses that run to the end are those that a callback puts together."""
    model = make()
    src, lengths = sources()
    options = {"num_beams": 3, "num_return_sequences": 3, "eos_token_id": None}
    out, steps = run(model, src, lengths, **options)
    beams = [[([], []) for _ in range(3)] for _ in range(13)]
    for step in steps:
        tokens, log_probs = step.tokens.tolist(), step.log_probs.tolist()
        for row, parents in enumerate(step.parents.tolist()):
            old = beams[row]
            beams[row] = [
                ([*old[p][0], tokens[row][i]], [*old[p][1], log_probs[row][i]])
                for i, p in enumerate(parents)
            ]
    for row in range(13):
        expected = out.sequences[3 * row : 3 * row + 3].tolist()
        assert [tokens for tokens, _ in beams[row]] == expected
        for i, (_, log_probs) in enumerate(beams[row]):
            assert out.token_log_probs[3 * row + i].tolist() == log_probs


def test_sources_that_are_done_say_nothing_more():
    model = make()
    src, lengths = sources()
    out, steps = run(model, src, lengths, num_beams=3)
    assert len({int(n) for n in out.lengths}) > 1
    for before, step in pairwise(steps):
        done = before.done
        assert (step.done | ~done).all()
        assert not step.tokens[done].any()
        assert not step.log_probs[done].any()
        assert torch.equal(step.parents[done], torch.arange(3).expand(13, -1)[done])


def test_an_exception_ends_decoding():
    model = make(dropout=0.5).train()
    src, lengths = sources()

    class Enough(Exception):  # noqa: N818
        pass

    def callback(step):
        if step.step == 2:
            raise Enough

    with pytest.raises(Enough):
        model.generate(src, lengths, callback=callback, min_new_tokens=5)
    assert model.training


def test_seeds():
    model = make()
    src, lengths = sources()
    options = {"do_sample": True, "temperature": 1.5, "max_new_tokens": 12}

    def draw(**more):
        return model.generate(src, lengths, return_dict_in_generate=True, **options, **more)

    one, two = draw(seed=1), draw(seed=1)
    assert torch.equal(one.sequences, two.sequences)
    assert not torch.equal(one.sequences[:, :3], draw(seed=2).sequences[:, :3])
    # Without a seed torch's default generator gives one.
    torch.manual_seed(3)
    first, second = draw(), draw()
    assert not torch.equal(first.sequences[:, :3], second.sequences[:, :3])
    torch.manual_seed(3)
    assert torch.equal(draw().sequences, first.sequences)
    # A sample's draws do not depend on how many there are.
    three, five = draw(seed=4, num_return_sequences=3), draw(seed=4, num_return_sequences=5)
    rows = (torch.arange(13)[:, None] * 5 + torch.arange(3)).flatten()
    steps = min(three.sequences.size(1), five.sequences.size(1))
    assert torch.equal(five.sequences[rows, :steps], three.sequences[:, :steps])
    # Equal rows draw differently, unless they have the same id.
    same = src[:1].expand(6, -1), lengths[:1].expand(6)
    free = model.generate(*same, seed=1, **options)
    assert len({tuple(row) for row in free.tolist()}) > 1
    tied = model.generate(*same, seed=1, row_ids=[7] * 6, **options)
    assert len({tuple(row) for row in tied.tolist()}) == 1


def test_extras_follow_the_beams():
    """Attention, states and scores of beam search are those of the hypothesis' own tokens."""
    model = make(torch.float64)
    src, lengths = sources()
    out = model.generate(
        src,
        lengths,
        num_beams=4,
        num_return_sequences=2,
        suppress_tokens=[9, 10],
        max_new_tokens=8,
        return_dict_in_generate=True,
        output_scores=True,
        output_attentions=True,
        output_hidden_states=True,
    )
    rows = torch.arange(13).repeat_interleave(2)
    fed = torch.cat([torch.ones(26, 1, dtype=torch.int64), out.sequences[:, :-1]], 1)
    with torch.no_grad():
        details = model(src[rows], lengths[rows], fed, return_details=True)
    inside = torch.arange(out.sequences.size(1)) < out.lengths[:, None]
    for mine, theirs in (
        (out.attentions, details.decoder.weights),
        (out.hidden_states, details.decoder.hidden),
        (out.contexts, details.decoder.context),
    ):
        torch.testing.assert_close(mine[inside], theirs[inside])
        assert not mine[~inside].any()
    log_probs = details.logits.log_softmax(-1)
    log_probs[..., [9, 10]] = -math.inf
    torch.testing.assert_close(out.scores[inside], log_probs[inside])


def test_fixed_contexts_of_several_hypotheses():
    model = make(context="every_step")
    src, lengths = sources()
    options = {"return_dict_in_generate": True, "output_hidden_states": True, "max_new_tokens": 4}
    one = model.generate(src, lengths, **options)
    two = model.generate(src, lengths, num_beams=3, num_return_sequences=2, **options)
    assert torch.equal(two.contexts, one.contexts.repeat_interleave(2, 0))
