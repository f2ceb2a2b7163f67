# SPDX-License-Identifier: MIT
"""Decoding whole sequences: `Seq2Seq.generate` against the same model on torch.nn, tokens a second.

One LSTM layer, general attention over 30 positions, input feeding; weights are random, sharpened to
logits of a trained model's spread. Every call decodes the same number of tokens from the source on:
encoder and first state are counted. Peers: eager PyTorch and torch.compile (see decode_peers), in
float32 and bfloat16, under inference_mode; the fastest of a dtype counts.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from seq2seq_ext.generation import GenerateOutput
from seq2seq_ext.nn import Seq2Seq

from .bandwidth import readers
from .ceilings import Ceilings, Work, sequence_work
from .common import arguments, begin, environment, interleaved, summary, write_rows
from .decode_peers import TorchModel, beam_search, compiled, greedy, judge
from .marks import SHARE as REACHABLE
from .marks import at_roofline
from .memory import peak_mb

OURS = "seq2seq_ext"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}
SOURCE, SOURCE_VOCABULARY, START = 30, 1000, 1
# How far a chosen token's float32 logit may lie under the best, in deviations of its row's logits;
# any other word lies about four under it.
TIE = {"float32": 1e-4, "bfloat16": 0.1, "int8": 0.1}
SHARE = 0.7  # of the read bandwidth, at batch 1


@dataclass(frozen=True)
class Case:
    V: int
    H: int
    B: int
    tokens: int  # new ones of each source, in a call
    beams: int = 1
    marks: Mapping[str, float] = field(default_factory=dict)  # speed-up over the best float32 peer


CASES = (
    Case(32000, 512, 1, 100, marks={"float32": 2.5, "bfloat16": 5, "int8": 8}),
    Case(32000, 512, 16, 30, marks={"float32": 3, "bfloat16": 6, "int8": 6}),
    Case(32000, 512, 64, 20, marks={"float32": 2, "bfloat16": 4, "int8": 4}),
    Case(8000, 256, 1, 200, marks={"float32": 2, "bfloat16": 4, "int8": 5}),
    Case(32000, 512, 16, 20, beams=5, marks={"float32": 5, "bfloat16": 5, "int8": 5}),
)


@dataclass(frozen=True)
class Setting:
    quick: bool
    compile: bool

    def tokens(self, case: Case) -> int:
        return min(case.tokens, 8 if case.B == 1 else 4) if self.quick else case.tokens

    @property
    def seconds(self) -> float:
        return 0.5 if self.quick else 20.0

    @property
    def least(self) -> int:
        return 3 if self.quick else 9


class Contenders:
    """All that decode one case, by "dtype name": `find` gives what is compared, `run` is timed."""

    def __init__(self, case: Case, setting: Setting) -> None:
        self.case, self.count = case, setting.tokens(case)
        generator = torch.Generator().manual_seed(0)
        shape = (case.B, SOURCE)
        self.src = torch.randint(3, SOURCE_VOCABULARY, shape, generator=generator)
        model = build(case.V, case.H)
        self.exact = TorchModel(model)
        self.judged: dict[bytes, tuple[Tensor, Tensor]] = {}
        self.find: dict[str, Callable[[], tuple[Tensor, Tensor | None]]] = {}
        self.run: dict[str, Callable[[], object]] = {}
        self._peers("float32", self.exact, setting)
        self._peers("bfloat16", TorchModel(model).bfloat16(), setting)
        self.bytes = {dtype: self._ours(dtype, model) for dtype in DTYPES}

    def _peers(self, dtype: str, peer: TorchModel, setting: Setting) -> None:
        case, count = self.case, self.count
        steps: dict[str, Callable] = {"torch": peer.pick}
        if case.beams > 1:
            steps = {"torch": peer.extend, "torch, flat": peer.extend_flat}
        elif case.B == 1:
            steps["torch, addmv"] = peer.pick_by_vector
        if setting.compile:
            with torch.inference_mode():
                state, memory = peer.start(self.src, case.beams)
            tokens, scores = torch.full((len(state[0]),), START), torch.zeros(case.B, case.beams)
            inputs = (tokens, scores, state, memory) if case.beams > 1 else (tokens, state, memory)
            steps = steps | compiled(steps, inputs)
        for name, step in steps.items():

            def find(step: Callable = step) -> tuple[Tensor, Tensor | None]:
                if case.beams > 1:
                    tokens, scores = beam_search(peer, step, self.src, count, START, case.beams)
                    return tokens.flatten(0, 1), scores.flatten()
                return greedy(peer, step, self.src, count, START), None

            self.find[f"{dtype} {name}"] = self.run[f"{dtype} {name}"] = find

    def _ours(self, dtype: str, model: Seq2Seq) -> int:
        """Adds ours; returns the bytes of weights that a step reads."""
        mine = copy.copy(model)  # the same weights; what is prepared is its own
        mine.prepare_for_decoding(DTYPES[dtype])
        case = self.case
        options: dict[str, Any] = {"max_new_tokens": self.count, "eos_token_id": None}
        if case.beams > 1:
            options["num_beams"] = case.beams

        def find() -> tuple[Tensor, Tensor | None]:
            found = mine.generate(
                self.src, num_return_sequences=case.beams, return_dict_in_generate=True, **options
            )
            assert isinstance(found, GenerateOutput)
            return found.sequences, found.sequences_scores if case.beams > 1 else None

        self.find[f"{dtype} {OURS}"] = find
        self.run[f"{dtype} {OURS}"] = lambda: mine.generate(self.src, **options)
        prepared = mine.prepared_weights()
        assert prepared is not None
        decoder = prepared.decoder
        output = prepared.output if prepared.screen is None else prepared.screen
        parts = [*decoder.rnn.parameters(), *decoder.combine.parameters(), *output]
        return sum(part.nbytes for part in parts)

    def judge(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """See `decode_peers.judge`; most contenders find the same tokens."""
        key = tokens.contiguous().numpy().tobytes()
        if key not in self.judged:
            self.judged[key] = judge(self.exact, self.src, tokens, START)
        return self.judged[key]


def build(words: int, hidden: int) -> Seq2Seq:
    torch.manual_seed(0)
    model = Seq2Seq.build(
        SOURCE_VOCABULARY,
        words,
        embedding_size=hidden,
        hidden_size=hidden,
        cell="lstm",
        attention="general",
        input_feeding=True,
        bridge="copy",
        bos_token_id=START,
    ).eval()
    with torch.no_grad():
        assert model.decoder.output is not None
        features = 0.085 * hidden**0.5  # about the length of an attentional vector
        model.decoder.output.weight.normal_(0, 3 / features)
    return model


def must_agree(contenders: Contenders) -> None:
    """Stops the run where the contenders do not decode the same."""
    found = {name: find() for name, find in contenders.find.items()}
    check = agree_by_beam if contenders.case.beams > 1 else agree
    for name, (tokens, scores) in found.items():
        why = check(contenders, name.split(" ", 1)[0], tokens, scores, found["float32 torch"])
        if why:
            sys.exit(f"{contenders.case}: {name} disagrees: {why}")
    ours = [found[f"{dtype} {OURS}"][0] for dtype in ("bfloat16", "int8")]
    if contenders.case.beams == 1 and not torch.equal(*ours):
        sys.exit(f"{contenders.case}: tokens by int8 are not those of bfloat16")


def agree(
    contenders: Contenders,
    dtype: str,
    tokens: Tensor,
    scores: Tensor | None,
    expected: tuple[Tensor, Tensor | None],
) -> str | None:
    """Every token is the best, or as good as the best, after those before it."""
    if len(tokens.unique()) < 2:
        return "one token again and again says nothing"
    worst = float(contenders.judge(tokens)[0].max())
    return None if worst <= TIE[dtype] else f"a token lies {worst:.2g} deviations under the best"


def agree_by_beam(
    contenders: Contenders,
    dtype: str,
    tokens: Tensor,
    scores: Tensor | None,
    expected: tuple[Tensor, Tensor | None],
) -> str | None:
    """In float32 the same hypotheses, near ties apart; in any dtype scores that are true, and no
    worse a hypothesis at the top than in float32."""
    assert scores is not None
    assert expected[1] is not None
    case = contenders.case
    true = contenders.judge(tokens)[1]
    allowed = {"float32": 1e-4}.get(dtype, 0.1) * contenders.count
    off = float((scores - true).abs().max())
    if not off <= allowed:
        return f"a score is off by {off:.2g}"
    if dtype == "float32":
        same = (tokens == expected[0]).reshape(case.B, -1).all(1).float().mean().item()
        if same < 0.9:
            return f"the hypotheses are the same for {same:.0%} of the sources"
    worse = float((expected[1].double() - true).view(case.B, -1)[:, 0].mean())
    return None if worse <= allowed else f"its best hypotheses are worse by {worse:.2g}"


def parts(case: Case, count: int, nbytes: int, dtype: str) -> list[tuple[Work, str]]:
    """A call's work and in which dtype: the encoder, and of all tokens layers and output layer,
    which wait for each other. nbytes: of all weights that a step reads."""
    R, narrow = case.B * case.beams, "float32" if dtype == "float32" else "bfloat16"
    size = {"float32": 4, "bfloat16": 2}[narrow]
    encoder = sequence_work(4, SOURCE, case.B, case.H, case.H, size, training=False)
    weights = 4 * case.H * 3 * case.H + 2 * case.H**2  # of the cell, and of what combines
    attention = 2 * SOURCE * case.H
    layers = Work(count * 2 * R * (weights + attention), ((count * weights * size, nbytes),))
    output = nbytes - weights * size
    words = Work(count * 2 * R * case.V * case.H, ((count * output, nbytes),))
    return [(encoder, narrow), (layers, narrow), (words, dtype)]


def measure(case: Case, setting: Setting, ceilings: Ceilings) -> list[dict[str, object]]:
    contenders = Contenders(case, setting)
    must_agree(contenders)
    runs, reading = dict(contenders.run), {}
    if case.B == 1:
        for dtype, nbytes in contenders.bytes.items():
            reading[dtype] = {f"{dtype} {n}, read": f for n, f in readers(nbytes, 10).items()}
            runs |= reading[dtype]
    times = interleaved(runs, seconds=setting.seconds, least=setting.least)
    work = case.B * contenders.count
    rates = {name: work / statistics.median(times[name]) for name in contenders.run}
    peers = {name: rate for name, rate in rates.items() if not name.endswith(OURS)}
    # The marks are against torch.nn's layers, eager or compiled.
    plain = {name: rate for name, rate in peers.items() if not name.endswith("addmv")}
    rows = []
    for name, rate in rates.items():
        dtype, contender = name.split(" ", 1)
        ours = contender == OURS
        narrow = "float32" if dtype == "float32" else "bfloat16"
        call = parts(case, contenders.count, contenders.bytes[dtype], dtype)
        bound = sum(ceilings.floor(part, of) for part, of in call)
        flops = sum(part.flops for part, _ in call)
        peak = peak_mb(contenders.run[name], warm=True)
        row: dict[str, object] = {
            "V": case.V,
            "H": case.H,
            "B": case.B,
            "beams": case.beams,
            "tokens": contenders.count,
            "dtype": dtype,
            "contender": contender,
            **summary(times[name]),
            "tokens_per_s": rate,
            "speedup": rate / best(peers, "float32"),
            "speedup_nn": rate / best(plain, "float32"),
            "speedup_same_dtype": rate / best(peers, narrow),
            "mark": case.marks.get(dtype, "") if ours else "",
            "flops": float(flops),
            "bytes": float(sum(part.bytes for part, _ in call)),
            "gflops": flops * rate / work / 1e9,
            "roofline_ms": bound * 1e3,
            "roofline": bound * rate / work,
            "peak_mb": "" if peak is None else peak,
        }
        here = [statistics.median(times[n]) / 10 for n in reading.get(dtype, ())] if ours else []
        rows.append(row | streaming(contenders, dtype, rate, here))
    torch._dynamo.reset()  # the next case compiles the same functions anew
    return rows


def best(rates: Mapping[str, float], dtype: str) -> float:
    return max(rate for name, rate in rates.items() if name.startswith(dtype))


def streaming(
    contenders: Contenders, dtype: str, rate: float, reading: Sequence[float]
) -> dict[str, object]:
    """Weights read a second, beside the fastest reader of as many bytes. The whole call's time over
    its tokens is the time of a step: encoder and Python are in it."""
    if not reading:
        return dict.fromkeys(("weight_mb", "gb_per_s", "read_gb_per_s", "share"), "")
    nbytes = contenders.bytes[dtype]
    moved, ceiling = nbytes * rate / 1e9, nbytes / min(reading) / 1e9
    return {
        "weight_mb": nbytes / 1e6,
        "gb_per_s": moved,
        "read_gb_per_s": ceiling,
        "share": moved / ceiling,
    }


def missed(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """The marks that rows do not reach."""
    found = []
    for row in rows:
        what = " ".join(f"{k}={row[k]}" for k in ("V", "H", "B", "beams", "dtype"))
        speedup, mark, share = float(row["speedup_nn"]), row["mark"], row["share"]  # type: ignore[arg-type]
        if mark != "" and speedup < float(mark):  # type: ignore[arg-type]
            limit = at_roofline(speedup, float(row["roofline"]))  # type: ignore[arg-type]
            binds = ", the roofline binds" if limit < float(mark) else ""  # type: ignore[arg-type]
            found.append(
                f"{what}: {speedup:.2f}x, mark {mark}x{binds} "
                f"(at {REACHABLE:.0%} of the roofline {limit:.2f}x)"
            )
        if share != "" and float(share) < SHARE:  # type: ignore[arg-type]
            found.append(f"{what}: {float(share):.0%} of the read bandwidth, mark {SHARE:.0%}")  # type: ignore[arg-type]
    return found


def show(rows: Sequence[Mapping[str, object]]) -> None:
    for row in rows:
        share = row["share"]
        reads = f"{row['gb_per_s']:7.1f} GB/s, {share:.0%} of reading" if share != "" else ""
        mark = f" (mark {row['mark']}x)" if row["mark"] != "" else ""
        print(
            f"{row['V']:6}{row['H']:5}{row['B']:4}{row['beams']:3} {row['dtype']:9}"
            f"{row['contender']:28}{row['tokens_per_s']:8.0f} tokens/s{row['speedup_nn']:7.2f}x"
            f"{mark}{row['speedup']:7.2f}x{row['speedup_same_dtype']:7.2f}x"
            f"{row['roofline']:6.0%} of the roofline{reads}",
            flush=True,
        )


def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.set_defaults(threads=2)
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="torch.compile is a peer, too; default: unless --quick, for it takes minutes",
    )
    options = parser.parse_args(argv)
    ceilings = begin("decode", options)
    wanted = not options.quick if options.compile is None else options.compile
    setting = Setting(options.quick, wanted)
    if not setting.compile:
        print("without torch.compile")
    cases = [case for case in CASES if not options.quick or case.B <= 16]
    print("speed-ups: over torch.nn in float32; over the best float32 peer; over that of the dtype")
    rows: list[dict[str, object]] = []
    for case in cases:
        measured = measure(case, setting, ceilings)
        show(measured)
        rows += measured
    where = environment()
    print(f"rows: {write_rows('decode', [{**row, **where} for row in rows])}")
    failures = missed(rows)
    if failures:
        print("marks missed:", *failures, sep="\n  ", file=sys.stderr)
    return 1 if options.check and failures else 0


if __name__ == "__main__":
    sys.exit(main())
