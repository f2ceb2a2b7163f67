# SPDX-License-Identifier: MIT
"""torch's own module database, run on our modules against torch.nn's."""

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence
from torch.testing._internal.common_modules import ModuleErrorEnum, module_db

from tests.nn._helpers import OURS, run, tensors

INFOS = [info for info in module_db if info.module_cls in OURS]
IDS = [info.name for info in INFOS]


def leaves(value):
    if isinstance(value, (PackedSequence, torch.Tensor)):
        return tensors(value)
    if isinstance(value, (tuple, list)):
        return [leaf for part in value for leaf in leaves(part)]
    return []


def test_the_database_has_all_six():
    assert {info.module_cls for info in INFOS} == set(OURS)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("info", INFOS, ids=IDS)
def test_sample_inputs(info, dtype, training):
    options = {"with_packed_sequence": True} if info.name in ("nn.RNN", "nn.GRU") else {}
    samples = info.module_inputs_func(
        info, device="cpu", dtype=dtype, requires_grad=True, training=training, **options
    )
    count = 0
    for sample in samples:
        made, given = sample.constructor_input, sample.forward_input
        theirs = info.module_cls(*made.args, **made.kwargs, dtype=dtype).train(training)
        ours = OURS[info.module_cls](*made.args, **made.kwargs, dtype=dtype).train(training)
        ours.load_state_dict(theirs.state_dict())
        wrt = [leaf for leaf in leaves(given.args) if leaf.requires_grad and leaf.is_leaf]
        assert wrt
        want = run(theirs, *given.args, wrt=wrt, **given.kwargs)
        got = run(ours, *given.args, wrt=wrt, **given.kwargs)
        torch.testing.assert_close(got, want)
        count += 1
    assert count >= 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("info", INFOS, ids=IDS)
def test_error_inputs(info, dtype):
    """The same exception type and words as torch.nn."""
    samples = info.module_error_inputs_func(
        info, device="cpu", dtype=dtype, requires_grad=False, training=True
    )
    count = 0
    for sample in samples:
        made = sample.module_error_input.constructor_input
        cls = OURS[info.module_cls]
        if sample.error_on == ModuleErrorEnum.CONSTRUCTION_ERROR:
            with pytest.raises(sample.error_type, match=sample.error_regex):
                cls(*made.args, **made.kwargs)
        else:
            given = sample.module_error_input.forward_input
            module = cls(*made.args, **{"dtype": dtype, **made.kwargs})
            if info.name.endswith("Cell"):
                module.to(dtype)
            with pytest.raises(sample.error_type, match=sample.error_regex):
                module(*given.args, **given.kwargs)
        count += 1
    assert count >= 4
