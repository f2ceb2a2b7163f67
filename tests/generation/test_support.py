# SPDX-License-Identifier: MIT
"""What decodes by the loop in Python says so, and why."""

import contextlib
import warnings

import pytest
import torch

from seq2seq_ext import _backend
from seq2seq_ext.generation import Ensemble, native, native_reason
from seq2seq_ext.nn.decoder import Decoder

from .models import make, sources


class OtherDecoder(Decoder):
    def step(self, *arguments, **options):
        return super().step(*arguments, **options)


def plain():
    return make()


def in_float16():
    return make(torch.float16)


def in_two_dtypes():
    model = make()
    model.decoder.output.double()
    return model


def hooked():
    model = make()
    model.decoder.rnn.register_forward_hook(lambda *arguments: None)
    return model


def with_a_step_of_its_own():
    model = make()
    model.decoder.__class__ = OtherDecoder
    return model


AUTOCAST = torch.autocast("cpu", dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("make_model", "context", "reason"),
    [
        (plain, AUTOCAST, "autocast is on for cpu"),
        (in_float16, contextlib.nullcontext(), "weights are torch.float16, on cpu"),
        (in_two_dtypes, contextlib.nullcontext(), "weights are in 2 dtypes"),
        (hooked, contextlib.nullcontext(), "a module of the decoder has forward hooks"),
        (with_a_step_of_its_own, contextlib.nullcontext(), "a OtherDecoder with a step of its own"),
    ],
)
def test_it_says_why_and_warns_once(make_model, context, reason):
    _backend.warn_of_python_loop.cache_clear()
    model, (src, lengths) = make_model(), sources(3)
    with context:
        assert reason in native_reason(model)
        assert reason in native_reason(Ensemble([model, model]), num_beams=2)
        if make_model is in_two_dtypes:  # it cannot step, but for the reason
            return
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            model.generate(src, lengths, max_new_tokens=2)
            model.generate(src, lengths, max_new_tokens=2)
            model.score(src, src, lengths)
    told = [one for one in told if one.category is _backend.BackendWarning]
    assert len(told) == 1
    assert reason in str(told[0].message)
    assert told[0].filename == __file__


def test_it_is_silent_where_it_decodes_natively_or_is_told_not_to():
    _backend.warn_of_python_loop.cache_clear()
    model, (src, lengths) = make(), sources(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert native_reason(model) is None
        assert native_reason(model, callback=print, num_beams=3) is None
        model.generate(src, lengths, max_new_tokens=2)
        with native.disabled():
            assert native_reason(model) == "it is disabled"
            model.generate(src, lengths, max_new_tokens=2)
            model.score(src, src, lengths)


def test_it_refuses_what_generate_refuses():
    model = make()
    with pytest.raises(TypeError, match="model: a Seq2Seq or an Ensemble, got NoneType"):
        native_reason(None)
    with pytest.raises(TypeError, match="generation_config: a GenerationConfig, got int"):
        native_reason(model, 3)
    with pytest.raises(TypeError, match="unknown option nonsense"):
        native_reason(model, nonsense=1)
    with pytest.raises(ValueError, match="num_beams"):
        native_reason(model, num_beams=-1)
