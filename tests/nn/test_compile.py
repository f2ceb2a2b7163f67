# SPDX-License-Identifier: MIT
"""torch.compile(fullgraph=True), gradcheck, and data-parallel training of the modules."""

import os
import socket

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from seq2seq_ext import nn as snn
from tests.nn._helpers import CELLS, LAYERS, class_name, tensors

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Counting:
    """A backend that runs the graph as it is and counts compilations."""

    def __init__(self):
        self.count = 0

    def __call__(self, graph, inputs):
        self.count += 1
        return graph.forward


@pytest.fixture(autouse=True)
def _fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(("theirs", "ours"), LAYERS, ids=class_name)
@pytest.mark.parametrize("with_lengths", [False, True])
def test_layers_compile_as_one_graph_with_dynamic_sizes(theirs, ours, with_lengths):
    module = ours(5, 7, num_layers=2, bidirectional=True, batch_first=True)
    backend = Counting()
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend=backend)
    for batch, steps in ((3, 6), (4, 9), (7, 5)):
        x = torch.randn(batch, steps, 5)
        lengths = torch.randint(1, steps + 1, (batch,)) if with_lengths else None
        got, want = tensors(compiled(x, lengths=lengths)), tensors(module(x, lengths=lengths))
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(
            torch.autograd.grad(sum(t.sum() for t in got), list(module.parameters())),
            torch.autograd.grad(sum(t.sum() for t in want), list(module.parameters())),
        )
    assert backend.count == 1


@pytest.mark.parametrize(("theirs", "ours"), LAYERS, ids=class_name)
def test_packed_sequences_compile_with_a_graph_break(theirs, ours):
    """The batch size is a value in `batch_sizes`, so one break there is the price."""
    module = ours(5, 7, num_layers=2, bidirectional=True)
    compiled = torch.compile(module, backend=Counting())
    for lengths in ([2, 5, 3], [4, 4, 1, 6]):
        packed = pack_sequence([torch.randn(n, 5) for n in lengths], enforce_sorted=False)
        packed.data.requires_grad_()
        wanted = [packed.data, *module.parameters()]
        got, want = compiled(packed), module(packed)
        torch.testing.assert_close(tensors(got), tensors(want))
        assert torch.equal(got[0].batch_sizes, packed.batch_sizes)
        torch.testing.assert_close(
            torch.autograd.grad(sum(t.square().sum() for t in tensors(got)), wanted),
            torch.autograd.grad(sum(t.square().sum() for t in tensors(want)), wanted),
        )


@pytest.mark.parametrize(("theirs", "ours"), LAYERS, ids=class_name)
def test_export_with_dynamic_sizes(theirs, ours):
    module = ours(5, 7, num_layers=2, bidirectional=True, batch_first=True)
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("time")}
    program = torch.export.export(module, (torch.randn(3, 6, 5),), dynamic_shapes=(sizes,))
    x = torch.randn(5, 9, 5)
    torch.testing.assert_close(tensors(program.module()(x)), tensors(module(x)))


@pytest.mark.parametrize(("theirs", "ours"), CELLS, ids=class_name)
def test_cells_compile_as_one_graph(theirs, ours):
    module = ours(5, 7)
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend=Counting())
    for batch in (3, 4):
        x = torch.randn(batch, 5)
        torch.testing.assert_close(tensors(compiled(x)), tensors(module(x)))
        with torch.no_grad():
            torch.testing.assert_close(tensors(compiled(x)), tensors(module(x)))


def test_a_model_compiles_as_one_graph():
    model = snn.Seq2Seq.build(11, 13, embedding_size=6, hidden_size=8, bidirectional=True)
    backend = Counting()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=backend)
    for batch, source, target in ((3, 6, 5), (4, 7, 6), (5, 9, 8)):
        src, tgt = torch.randint(3, 11, (batch, source)), torch.randint(3, 13, (batch, target))
        lengths = torch.randint(1, source + 1, (batch,))
        torch.testing.assert_close(compiled(src, lengths, tgt), model(src, lengths, tgt))
    assert backend.count == 1


def test_the_default_backend_trains():
    """Inductor once, end to end: forward, backward and a step."""
    module = snn.GRU(5, 7)
    x = torch.randn(6, 3, 5)
    want = torch.autograd.grad(module(x)[0].sum(), list(module.parameters()))
    got = torch.autograd.grad(
        torch.compile(module, fullgraph=True)(x)[0].sum(), list(module.parameters())
    )
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize(("theirs", "ours"), LAYERS, ids=class_name)
def test_gradcheck_layers(theirs, ours):
    options = {"proj_size": 2} if ours is snn.LSTM else {}
    module = ours(2, 3, num_layers=2, bidirectional=True, dtype=torch.float64, **options)
    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)

    def function(x, *weights):
        names = [name for name, _ in module.named_parameters()]
        values = dict(zip(names, weights, strict=True))
        out = torch.func.functional_call(module, values, (x,), {"lengths": [3, 2]})
        return tuple(tensors(out))

    weights = tuple(p.detach().requires_grad_() for p in module.parameters())
    assert torch.autograd.gradcheck(function, (x, *weights), fast_mode=True)
    assert torch.autograd.gradgradcheck(function, (x, *weights), fast_mode=True)


@pytest.mark.parametrize(("theirs", "ours"), CELLS, ids=class_name)
def test_gradcheck_cells(theirs, ours):
    module = ours(2, 3, dtype=torch.float64)
    x = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    h = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    hx = (h, h) if ours is snn.LSTMCell else h
    assert torch.autograd.gradcheck(lambda x, h: tuple(tensors(module(x, hx))), (x, h))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = snn.LSTM(3, 4, 2, bidirectional=True)
        self.cell = snn.GRUCell(8, 4)

    def forward(self, x):
        return self.cell(self.layers(x)[0][-1])


def _a_batch():
    torch.manual_seed(1)
    return torch.randn(5, 4, 3)


def _worker(rank, world, port, results):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    model = nn.parallel.DistributedDataParallel(Recurrent())
    model(_a_batch()[:, rank::world]).square().mean().backward()
    if rank == 0:
        results.put([p.grad.numpy() for p in model.parameters()])
    dist.barrier()
    dist.destroy_process_group()


def _free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.mark.skipif(not dist.is_available(), reason="torch without torch.distributed")
def test_distributed_data_parallel():
    """Two gloo processes on halves of a batch give the gradients of one process on all of it."""
    context = torch.multiprocessing.get_context("spawn")
    results, port = context.Queue(), _free_port()
    workers = [context.Process(target=_worker, args=(rank, 2, port, results)) for rank in range(2)]
    for worker in workers:
        worker.start()
    got = [torch.from_numpy(g) for g in results.get(timeout=120)]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    model = Recurrent()
    model(_a_batch()).square().mean().backward()
    torch.testing.assert_close(got, [p.grad for p in model.parameters()])
