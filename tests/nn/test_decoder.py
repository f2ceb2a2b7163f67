# SPDX-License-Identifier: MIT
import pytest
import torch

from seq2seq_ext.nn import Decoder, Encoder, Seq2Seq

CONTEXTS = [
    {"context": "initial_state"},
    {"context": "initial_state", "bridge": "mean"},
    {"context": "every_step"},
    {"context": "every_step", "summary": "mean"},
    {"context": "attention"},
    {"context": "attention", "attention": "additive", "bridge": "zero"},
    {"context": "attention", "input_feeding": True},
]


def make(encoder_options=None, **options):
    encoder = Encoder(11, 5, 6, **(encoder_options or {}))
    return encoder, Decoder(13, 5, 6, encoder=encoder, **options)


def unrolled(decoder, encoded, tgt_in):
    """Teacher forcing by `step` alone."""
    memory, state = decoder.prepare(encoded)
    steps = []
    for t in range(tgt_in.size(1)):
        steps.append(decoder.step(tgt_in[:, t], state, memory))
        state = steps[-1].state
    return steps


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("options", CONTEXTS, ids=str)
def test_forward_is_the_steps_put_together(cell, options):
    encoder, decoder = make({"cell": cell, "num_layers": 2}, cell=cell, num_layers=2, **options)
    encoded = encoder(torch.randint(11, (4, 6)), [6, 1, 3, 4])
    tgt_in = torch.randint(13, (4, 5))
    out = decoder(tgt_in, encoded)
    assert out.logits.shape == (4, 5, 13)
    assert out.hidden.shape == (4, 5, 6)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            steps = unrolled(decoder, encoded, tgt_in)
        logits = decoder.logits(torch.stack([s.features for s in steps], 1))
        torch.testing.assert_close(logits, out.logits)
        torch.testing.assert_close(torch.stack([s.hidden for s in steps], 1), out.hidden)
        torch.testing.assert_close(steps[-1].state.hidden, tuple(out.state.hidden))
        if options["context"] == "attention":
            torch.testing.assert_close(torch.stack([s.context for s in steps], 1), out.context)
            torch.testing.assert_close(torch.stack([s.weights for s in steps], 1), out.weights)
            torch.testing.assert_close(out.weights.sum(-1), torch.ones(4, 5))
            assert not out.weights[1, :, 1:].any()
        else:
            torch.testing.assert_close(steps[-1].context, out.context)
            assert out.context.shape == (4, 6)
            assert out.weights is None


def test_equations_of_the_attentional_vector():
    """Luong et al. 2015: h~ = tanh(W [c; s]), logits = W_o h~ + b_o."""
    encoder, decoder = make()
    encoded = encoder(torch.randint(11, (2, 4)))
    out = decoder(torch.randint(13, (2, 3)), encoded)
    joined = torch.cat([out.context, out.hidden], -1)
    weight = torch.cat([decoder.combine.weight_ih, decoder.combine.weight_hh], -1)
    want = torch.tanh(joined @ weight.T) @ decoder.output.weight.T + decoder.output.bias
    torch.testing.assert_close(out.logits, want)


def test_input_feeding_feeds_the_attentional_vector():
    encoder, decoder = make(input_feeding=True)
    encoded = encoder(torch.randint(11, (2, 4)))
    memory, state = decoder.prepare(encoded)
    assert not state.feed.any()
    step = decoder.step(torch.tensor([1, 2]), state, memory)
    assert step.state.feed is step.features
    fed = decoder.step(torch.tensor([1, 2]), step.state, memory)
    unfed = decoder.step(torch.tensor([1, 2]), step.state._replace(feed=torch.zeros(2, 6)), memory)
    assert not torch.equal(fed.hidden, unfed.hidden)


def test_context_is_what_it_is_called():
    encoder, decoder = make({"bidirectional": True}, context="every_step")
    encoded = encoder(torch.randint(11, (2, 4)), [4, 2])
    last = torch.stack(
        [
            torch.cat([encoded.outputs[0, 3, :6], encoded.outputs[0, 0, 6:]]),
            torch.cat([encoded.outputs[1, 1, :6], encoded.outputs[1, 0, 6:]]),
        ]
    )
    torch.testing.assert_close(decoder.prepare(encoded)[0].context, last)
    decoder = Decoder(13, 5, 6, encoder=encoder, context="every_step", summary="mean")
    mean = torch.stack([encoded.outputs[0].mean(0), encoded.outputs[1, :2].mean(0)])
    torch.testing.assert_close(decoder.prepare(encoded)[0].context, mean)
    torch.testing.assert_close(decoder.prepare(encoded, invariant=True)[0].context, mean)


# -- one sequence call, or steps -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "ratio", "calls"),
    [({}, 1.0, 1), ({"input_feeding": True}, 1.0, 0), ({}, 0.5, 0), ({"num_layers": 2}, 1.0, 1)],
    ids=str,
)
def test_teacher_forcing_without_input_feeding_is_one_call(options, ratio, calls):
    encoder, decoder = make(**options)
    seen = []
    decoder.rnn.register_forward_hook(lambda module, args, out: seen.append(args[0].shape))
    decoder(
        torch.randint(13, (2, 5)),
        encoder(torch.randint(11, (2, 4))),
        teacher_forcing_ratio=ratio,
    )
    assert len(seen) == calls
    assert all(shape[1] == 5 for shape in seen)


@pytest.mark.parametrize("input_feeding", [False, True])
def test_scheduled_sampling(input_feeding):
    encoder, decoder = make(input_feeding=input_feeding)
    encoded = encoder(torch.randint(11, (8, 4)))
    tgt_in = torch.randint(13, (8, 6))
    # Ratio 0 reads nothing of the target but the start token, and feeds its own best token.
    free = decoder(tgt_in, encoded, teacher_forcing_ratio=0.0).logits
    other = torch.cat([tgt_in[:, :1], torch.randint(13, (8, 5))], 1)
    assert torch.equal(decoder(other, encoded, teacher_forcing_ratio=0.0).logits, free)
    own = torch.cat([tgt_in[:, :1], free.argmax(-1)[:, :-1]], 1)
    torch.testing.assert_close(decoder(own, encoded).logits, free)
    # In between each row and step is drawn by itself, from torch's generator.
    torch.manual_seed(5)
    half = decoder(tgt_in, encoded, teacher_forcing_ratio=0.5).logits
    torch.manual_seed(5)
    assert torch.equal(decoder(tgt_in, encoded, teacher_forcing_ratio=0.5).logits, half)
    forced = decoder(tgt_in, encoded).logits
    agrees = torch.isclose(half, forced, atol=1e-6).all(-1)
    assert agrees[:, 0].all()
    assert 0 < agrees[:, 1].sum() < 8


def test_gradients_reach_every_parameter():
    for options in CONTEXTS:
        encoder, decoder = make(cell="lstm", tied_embeddings=True, **options)
        for ratio in (1.0, 0.5):
            encoded = encoder(torch.randint(11, (4, 4)))
            out = decoder(torch.randint(13, (4, 5)), encoded, teacher_forcing_ratio=ratio)
            decoder.zero_grad()
            out.logits.square().sum().backward()
            for name, parameter in decoder.named_parameters():
                assert parameter.grad is not None, name
                assert parameter.grad.any(), name


# -- bridge ----------------------------------------------------------------------------------------


def test_copy_puts_directions_side_by_side_or_adds_them():
    encoder = Encoder(11, 5, 3, cell="lstm", num_layers=2, bidirectional=True)
    encoded = encoder(torch.randint(11, (4, 6)))
    options = {"encoder": encoder, "cell": "lstm", "num_layers": 2, "bridge": "copy"}
    h, c = encoded.hidden.view(2, 2, 4, 3), encoded.cell.view(2, 2, 4, 3)
    _, state = Decoder(13, 5, 6, **options).prepare(encoded)
    for layer in range(2):
        assert torch.equal(state.hidden[layer], torch.cat([h[layer, 0], h[layer, 1]], -1))
        assert torch.equal(state.cell[layer], torch.cat([c[layer, 0], c[layer, 1]], -1))
    _, state = Decoder(13, 5, 3, **options).prepare(encoded)
    assert torch.equal(state.hidden[1], h[1, 0] + h[1, 1])
    _, state = Decoder(13, 5, 6, **{**options, "cell": "gru"}).prepare(encoded)
    assert state.cell is None
    with pytest.raises(ValueError, match="as many encoder as decoder layers, got 2 and 1"):
        Decoder(13, 5, 6, **{**options, "num_layers": 1})
    with pytest.raises(ValueError, match=r"hidden_size to be 6 .* or 3 \(summed\), got 5"):
        Decoder(13, 5, 5, **options)


def test_copy_into_an_lstm_from_another_cell_starts_with_no_cell_state():
    encoder, decoder = make({"cell": "gru"}, cell="lstm", bridge="copy")
    encoded = encoder(torch.randint(11, (4, 6)))
    _, state = decoder.prepare(encoded)
    assert torch.equal(state.hidden[0], encoded.hidden[0])
    assert not state.cell[0].any()


@pytest.mark.parametrize("bridge", ["linear", "linear_tanh", "mean", "zero"])
@pytest.mark.parametrize("cells", [("gru", "lstm"), ("lstm", "gru"), ("lstm", "lstm")])
def test_other_bridges_take_any_sizes(bridge, cells):
    encoder = Encoder(11, 5, 4, cell=cells[0], num_layers=2, bidirectional=True)
    decoder = Decoder(13, 5, 7, encoder=encoder, cell=cells[1], num_layers=3, bridge=bridge)
    encoded = encoder(torch.randint(11, (4, 6)), [6, 2, 3, 1])
    _, state = decoder.prepare(encoded)
    assert len(state.hidden) == 3
    if bridge == "zero":
        assert not torch.stack(state.hidden).any()
        return
    for layer, source in enumerate((0, 1, 1)):
        given = encoded.hidden.view(2, 2, 4, 4)[source].transpose(0, 1).flatten(1)
        if bridge == "mean":
            given = encoded.outputs.sum(1) / encoded.lengths[:, None]
        want = decoder.bridge.hidden[layer](given)
        torch.testing.assert_close(
            state.hidden[layer], want if bridge == "linear" else torch.tanh(want)
        )
        if cells[1] == "lstm":
            if cells[0] == "lstm" and bridge != "mean":
                given = encoded.cell.view(2, 2, 4, 4)[source].transpose(0, 1).flatten(1)
            want = decoder.bridge.cell[layer](given)
            torch.testing.assert_close(
                state.cell[layer], want if bridge == "linear" else torch.tanh(want)
            )
    with torch.inference_mode():
        _, other = decoder.prepare(encoded, invariant=True)
    torch.testing.assert_close(other.hidden, state.hidden)


# -- output layer ----------------------------------------------------------------------------------


@pytest.mark.parametrize("embedding_size", [5, 6])
def test_tied_embeddings(embedding_size):
    encoder = Encoder(11, 5, 6)
    decoder = Decoder(13, embedding_size, 6, encoder=encoder, tied_embeddings=True, padding_idx=0)
    assert (decoder.projection is None) == (embedding_size == 6)
    pointers = [t.data_ptr() for t in decoder.state_dict().values()]
    assert len(set(pointers)) == len(pointers)
    assert not decoder.embedding.weight[0].any()
    features = torch.randn(4, 6)
    weight, bias = decoder.output_parameters()
    torch.testing.assert_close(features @ weight.T + bias, decoder.logits(features))
    out = decoder(torch.randint(13, (2, 5)), encoder(torch.randint(11, (2, 4))))
    assert out.logits.std() < 2


@pytest.mark.parametrize("bad", [-1, 13])
def test_step_names_a_token_out_of_range(bad):
    encoder, decoder = make()
    memory, state = decoder.prepare(encoder(torch.randint(11, (2, 4))))
    with pytest.raises(IndexError, match=rf"Decoder.step: tokens must hold ids in .* got {bad}"):
        decoder.step(torch.tensor([1, bad]), state, memory)


# -- configuration ---------------------------------------------------------------------------------

BAD = [
    ({"context": "none"}, "context must be one of initial_state, every_step, attention"),
    ({"bridge": "concat"}, "bridge must be one of copy, linear"),
    ({"cell": "sru"}, "cell must be one of"),
    ({"attention": "luong"}, "attention must be one of dot"),
    ({"context": "every_step", "attention": "dot"}, "attention is for context 'attention'"),
    ({"context": "initial_state", "input_feeding": True}, "input_feeding is for context"),
    ({"context": "initial_state", "bridge": "zero"}, "would never see the source"),
    ({"context": "initial_state", "summary": "mean"}, "summary 'mean' goes with bridge 'mean'"),
    ({"summary": "last"}, "summary is for one fixed context"),
    ({"context": "every_step", "summary": "first"}, "summary must be one of last, mean"),
    ({"dropout": -0.1}, "dropout must lie in"),
    ({"padding_idx": 13}, "padding_idx must lie in"),
    ({"num_layers": 0}, "num_layers must be greater than zero"),
]


@pytest.mark.parametrize(("options", "words"), BAD, ids=str)
def test_bad_arguments(options, words):
    with pytest.raises(ValueError, match=words):
        make(**options)


def test_dot_attention_needs_equal_sizes():
    with pytest.raises(ValueError, match="needs query_size == memory_size, got 6 and 12"):
        make({"bidirectional": True}, attention="dot")


def test_bad_input():
    encoder, decoder = make()
    encoded = encoder(torch.randint(11, (2, 4)))
    tgt = torch.randint(13, (2, 5))
    with pytest.raises(ValueError, match="tgt_in must have the source's 2 rows, got 3"):
        decoder(torch.randint(13, (3, 5)), encoded)
    with pytest.raises(IndexError, match=r"tgt_in must hold ids in \[0, 13\)"):
        decoder(tgt + 13, encoded)
    with pytest.raises(ValueError, match="tgt_in must have at least one position"):
        decoder(tgt[:, :0], encoded)
    with pytest.raises(ValueError, match=r"teacher_forcing_ratio must lie in \[0, 1\], got 2"):
        decoder(tgt, encoded, teacher_forcing_ratio=2)
    with pytest.raises(TypeError, match="encoder must be an Encoder, got Decoder"):
        Decoder(13, 5, 6, encoder=decoder)


# -- Seq2Seq ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", CONTEXTS, ids=str)
def test_config_rebuilds_the_model(options):
    import json

    model = Seq2Seq.build(
        11,
        13,
        embedding_size=6,
        hidden_size=8,
        cell="lstm",
        num_layers=2,
        bidirectional=True,
        eos_token_id=[2, 3],
        tied_embeddings=True,
        **options,
    )
    other = Seq2Seq.from_config(json.loads(json.dumps(model.config())))
    other.load_state_dict(model.state_dict(), strict=True)
    src, tgt = torch.randint(3, 11, (2, 5)), torch.randint(3, 13, (2, 4))
    assert torch.equal(other(src, None, tgt), model(src, None, tgt))
    assert other.generation_config.eos_token_ids == (2, 3)
    assert other.config() == json.loads(json.dumps(model.config()))


def test_details_show_every_symbol():
    model = Seq2Seq.build(11, 13, embedding_size=6, hidden_size=8, bidirectional=True)
    out = model(
        torch.randint(3, 11, (2, 5)), [5, 3], torch.randint(3, 13, (2, 4)), return_details=True
    )
    assert out.logits.shape == (2, 4, 13)
    assert out.encoder.embedded.shape == (2, 5, 6)
    assert out.encoder.outputs.shape == (*out.decoder.context.shape[:1], 5, 8)
    assert out.decoder.hidden.shape == (2, 4, 8)
    assert out.decoder.weights.shape == (2, 4, 5)


@pytest.mark.parametrize("options", CONTEXTS, ids=str)
def test_gradcheck_of_a_whole_model(options):
    model = Seq2Seq.build(
        5, 5, embedding_size=2, hidden_size=4, cell="lstm", bidirectional=True, **options
    ).double()
    src, tgt = torch.randint(3, 5, (2, 3)), torch.randint(3, 5, (2, 3))
    names = [name for name, _ in model.named_parameters()]

    def function(*weights):
        values = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(model, values, (src, [3, 2], tgt))

    weights = tuple(p.detach().requires_grad_() for p in model.parameters())
    assert torch.autograd.gradcheck(function, weights, fast_mode=True)


def test_deepcopy_and_pickle():
    import copy
    import pickle

    model = Seq2Seq.build(11, 13, embedding_size=6, hidden_size=8, tied_embeddings=True)
    src, tgt = torch.randint(3, 11, (2, 5)), torch.randint(3, 13, (2, 4))
    want = model(src, None, tgt)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(src, None, tgt), want)
        assert other.config() == model.config()
        other.decoder.embedding.weight.data.zero_()
    assert torch.equal(model(src, None, tgt), want)


def test_seq2seq_errors():
    with pytest.raises(ValueError, match="hidden_size must be even"):
        Seq2Seq.build(11, 13, hidden_size=7, bidirectional=True)
    with pytest.raises(TypeError, match="decoder must be of type Decoder, got Encoder"):
        Seq2Seq(Encoder(11, 5, 6), Encoder(11, 5, 6))
    with pytest.raises(ValueError, match="config lacks decoder"):
        Seq2Seq.from_config({"encoder": {}})
    with pytest.raises(ValueError, match="padding_idx must lie in"):
        Seq2Seq.build(11, 13, pad_token_id=20)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("options", CONTEXTS, ids=str)
def test_other_dtypes_train_and_decode(dtype, options):
    model = Seq2Seq.build(
        11, 13, embedding_size=6, hidden_size=8, cell="lstm", dtype=dtype, **options
    )
    src, tgt = torch.randint(3, 11, (2, 5)), torch.randint(3, 13, (2, 4))
    for ratio in (1.0, 0.5):
        logits = model(src, [5, 3], tgt, teacher_forcing_ratio=ratio)
        assert logits.dtype == dtype
        logits.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert model.generate(src, [5, 3], max_new_tokens=4).shape[0] == 2


@pytest.mark.parametrize("options", CONTEXTS, ids=str)
def test_autocast_trains_and_decodes(options):
    model = Seq2Seq.build(11, 13, embedding_size=6, hidden_size=8, cell="lstm", **options)
    src, tgt = torch.randint(3, 11, (2, 5)), torch.randint(3, 13, (2, 4))
    want = model(src, [5, 3], tgt)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = model(src, [5, 3], tgt)
        model.generate(src, [5, 3], max_new_tokens=4)
        model(src, [5, 3], tgt, teacher_forcing_ratio=0.5).float().square().mean().backward()
    torch.testing.assert_close(got.float(), want, rtol=5e-2, atol=5e-2)
    assert all(p.grad.isfinite().all() for p in model.parameters())


# -- projection ------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", CONTEXTS, ids=str)
def test_projection(options):
    """s_t has P features, c_t of the LSTM H; steps and sequence agree."""
    encoder = Encoder(11, 5, 7, cell="lstm", proj_size=4, num_layers=2)
    decoder = Decoder(13, 5, 6, encoder=encoder, cell="lstm", num_layers=2, proj_size=3, **options)
    encoded = encoder(torch.randint(11, (4, 6)), [6, 1, 3, 4])
    assert encoded.outputs.shape == (4, 6, 4)
    assert encoded.cell.shape == (2, 4, 7)
    tgt_in = torch.randint(13, (4, 5))
    out = decoder(tgt_in, encoded)
    assert out.hidden.shape == (4, 5, 3)
    assert [c.shape for c in out.state.cell] == [(4, 6)] * 2
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            steps = unrolled(decoder, encoded, tgt_in)
        logits = decoder.logits(torch.stack([s.features for s in steps], 1))
        torch.testing.assert_close(logits, out.logits)
    out.logits.square().sum().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_the_projecting_layers_are_torchs():
    encoder = Encoder(11, 5, 7, cell="lstm", proj_size=4)
    decoder = Decoder(13, 5, 6, encoder=encoder, cell="lstm", proj_size=3, context="initial_state")
    encoded = encoder(torch.randint(11, (4, 6)))
    tgt_in = torch.randint(13, (4, 5))
    lstm = torch.nn.LSTM(5, 6, proj_size=3, batch_first=True)
    lstm.load_state_dict(decoder.rnn.state_dict())
    h, c = decoder.bridge(encoded)
    want, _ = lstm(decoder.embedding(tgt_in), (torch.stack(h), torch.stack(c)))
    torch.testing.assert_close(decoder(tgt_in, encoded).hidden, want)
    torch.testing.assert_close(h[0], torch.tanh(decoder.bridge.hidden[0](encoded.hidden[0])))
    torch.testing.assert_close(c[0], torch.tanh(decoder.bridge.cell[0](encoded.cell[0])))


def test_bridges_of_projections():
    both = Encoder(11, 5, 6, cell="lstm", proj_size=4, bidirectional=True)
    encoded = both(torch.randint(11, (3, 6)))
    for proj, hidden in ((8, 12), (4, 6), (4, 12)):  # side by side, summed, one of each
        options = {"cell": "lstm", "bridge": "copy", "proj_size": proj}
        h, c = Decoder(13, 5, hidden, encoder=both, **options).bridge(encoded)
        assert (h[0].shape, c[0].shape) == ((3, proj), (3, hidden))
        whole = encoded.cell.transpose(0, 1)
        torch.testing.assert_close(c[0], whole.flatten(1) if hidden == 12 else whole.sum(1))
    # The encoder is no LSTM: c begins with zeros.
    gru = Encoder(11, 5, 4)
    decoder = Decoder(13, 5, 9, encoder=gru, cell="lstm", bridge="copy", proj_size=4)
    h, c = decoder.bridge(gru(torch.randint(11, (3, 6))))
    assert (h[0].shape, c[0].shape) == ((3, 4), (3, 9))
    assert not c[0].any()
    for kind in ("linear", "mean"):
        decoder = Decoder(13, 5, 9, encoder=gru, cell="lstm", bridge=kind, proj_size=3)
        h, c = decoder.bridge(gru(torch.randint(11, (3, 6))))
        assert (h[0].shape, c[0].shape) == ((3, 3), (3, 9))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"cell": "gru", "proj_size": 3}, ValueError, "proj_size is for cell 'lstm', got 3 with"),
        ({"cell": "rnn", "proj_size": 3}, ValueError, "proj_size is for cell 'lstm'"),
        ({"proj_size": 6}, ValueError, r"proj_size must be smaller than hidden_size \(6\), got 6"),
        ({"proj_size": -1}, ValueError, "proj_size must be at least 0, got -1"),
        ({"proj_size": 2.0}, TypeError, "proj_size must be an int, got float"),
        ({"proj_size": True}, TypeError, "proj_size must be an int, got bool"),
    ],
    ids=str,
)
def test_bad_projections(options, error, message):
    options = {"cell": "lstm", **options}
    with pytest.raises(error, match="Decoder: " + message):
        Decoder(13, 5, 6, encoder=Encoder(11, 5, 6), **options)
    with pytest.raises(error, match="Encoder: " + message):
        Encoder(11, 5, 6, **options)


def test_copies_between_projections_that_do_not_fit():
    encoder = Encoder(11, 5, 6, cell="lstm", proj_size=4)
    for proj, hidden, what in ((3, 6, "proj_size to be 4"), (4, 7, "hidden_size to be 6")):
        with pytest.raises(ValueError, match=f"'copy' needs the decoder's {what}"):
            Decoder(13, 5, hidden, encoder=encoder, cell="lstm", proj_size=proj, bridge="copy")


def test_building_with_a_projection():
    model = Seq2Seq.build(9, 9, cell="lstm", hidden_size=8, proj_size=4, bidirectional=True)
    assert model.encoder.output_size == 4
    assert model.decoder.output_size == 4
    again = Seq2Seq.from_config(model.config())
    again.load_state_dict(model.state_dict())
    assert again.encoder.rnn.proj_size == 2
    with pytest.raises(ValueError, match=r"proj_size must be even .* or encoder_proj_size"):
        Seq2Seq.build(9, 9, cell="lstm", hidden_size=8, proj_size=3, bidirectional=True)
    model = Seq2Seq.build(9, 9, cell="lstm", hidden_size=8, proj_size=3, encoder_proj_size=0)
    assert model.encoder.output_size == 8
