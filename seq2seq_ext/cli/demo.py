# SPDX-License-Identifier: MIT
"""`demo`: the whole path, from the phrasebook to "Je t'aime"."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import torch
from rich.table import Table

from seq2seq_ext import backend_info
from seq2seq_ext.cli.console import (
    CommandError,
    Interrupt,
    TrainingBar,
    command_prefix,
    console,
    new_directory,
    print_scores,
    set_threads,
)
from seq2seq_ext.cli.evaluate import evaluate_pairs
from seq2seq_ext.cli.options import build_model
from seq2seq_ext.cli.trace import make_trace, plot_trace
from seq2seq_ext.data import phrasebook
from seq2seq_ext.data.batching import collate, encode_pairs
from seq2seq_ext.data.corpus import Pair
from seq2seq_ext.data.tokenizer import Tokenizer
from seq2seq_ext.training.config import ModelConfig, TrainConfig
from seq2seq_ext.training.trainer import Trainer
from seq2seq_ext.training.translator import CONFIG, Translator
from seq2seq_ext.training.twin import Comparison, compare

MISSION = "I love you"
SENTENCES = (
    MISSION,
    "Do you love me?",
    "She loves him",
    "I do not have a dog",
    "He saw her yesterday",
    "We will go to the market tomorrow",
    "My sister is very happy",
    "Why did they not wait for us?",
)
MAX_NEW_TOKENS = 32
# Measured: 98 % of the held-out sentences right; larger batches and dropout need more epochs.
_SETTINGS = TrainConfig(batch_size=32, learning_rate=3e-3, schedule="linear")
_TIMED_BATCH = 64


def _train(
    output: Path, train: list[Pair], valid: list[Pair], config: ModelConfig, settings: TrainConfig
) -> Translator:
    source = Tokenizer.train("word", (s for s, _ in train), attach_punctuation=True)
    target = Tokenizer.train("word", (t for _, t in train))
    torch.manual_seed(settings.seed)
    translator = build_model(config, source, target, MAX_NEW_TOKENS)
    interrupt = Interrupt()
    bar = TrainingBar(settings.epochs, settings.max_minutes, interrupt)
    trainer = Trainer(
        translator,
        encode_pairs(source, target, train),
        encode_pairs(source, target, valid),
        settings,
        directory=output,
        reporter=bar,
    )
    with interrupt.watching(), bar.drawing():
        if trainer.run() == "interrupted":
            raise KeyboardInterrupt
    trainer.load_best()
    return translator


def _print_comparison(comparison: Comparison) -> None:
    console.print(
        "Speed against the same model on torch.nn: same weights, runs in turn, median; "
        f"{torch.get_num_threads()} threads. Training is forward and backward."
    )
    table = Table(box=None)
    table.add_column("")
    for column in ("seq2seq_ext", "torch.nn", "faster by"):
        table.add_column(column, justify="right")
    for timing in comparison.timings:
        table.add_row(
            timing.name,
            f"{1e3 * timing.ours:.1f} ms",
            f"{1e3 * timing.torch_nn:.1f} ms",
            f"{timing.ratio:.2f}x",
        )
    console.print(table)
    console.print(
        f"both decode {100 * comparison.same_tokens:.1f} % of the sentences to the same tokens; "
        f"largest difference of logits {comparison.largest_difference:.1e} of the largest\n"
    )


def run(
    output: Path, *, epochs: int, size: int, hidden: int, seed: int, threads: int | None
) -> None:
    set_threads(threads)
    if hidden % 2:
        raise CommandError(f"--hidden: expected an even number, got {hidden}")
    model_directory = output / "model"
    new_directory(model_directory, CONFIG, overwrite=True)
    train, held_out = phrasebook.split(size, min(phrasebook.DEFAULT_HELD_OUT, size // 5), seed=seed)
    cpu = backend_info()["cpu"]
    what = f"fused kernels, {cpu['isa']}" if cpu["available"] else "PyTorch reference"
    console.print(
        f"Phrasebook: {len(train):,} pairs to learn, {len(held_out):,} held out. Model: "
        f"bidirectional GRU with attention, hidden size {hidden}, on the CPU ({what}).\n"
    )
    # The pairs stand in random order: the last ones validate.
    cut = max(len(train) // 50, 1)
    translator = _train(
        model_directory,
        train[:-cut],
        train[-cut:],
        ModelConfig(hidden_size=hidden, embedding_size=hidden, dropout=0.0),
        replace(_SETTINGS, epochs=epochs, seed=seed),
    )
    scores, _ = evaluate_pairs(translator, held_out, any_reference=False)
    print_scores(scores, "\nHeld-out sentences")
    console.print()
    known = {source for source, _ in train}
    for sentence, found in zip(SENTENCES, translator.translate(SENTENCES), strict=True):
        seen = "" if sentence in known else "   (not in the training part)"
        console.print(f"  {sentence}  ->  {found}{seen}")
    console.print()
    picture = output / "attention.png"
    plot_trace(make_trace(translator, MISSION), picture)
    examples = encode_pairs(translator.source, translator.target, held_out)
    examples = examples[: 4 * _TIMED_BATCH]
    batches = [
        collate(examples[at : at + _TIMED_BATCH]) for at in range(0, len(examples), _TIMED_BATCH)
    ]
    _print_comparison(compare(translator.model, batches))
    console.print(f"Picture of the attention: {picture}\nModel: {model_directory}; try")
    for command in ("translate", "trace"):  # soft_wrap: a line that is folded cannot be pasted
        line = f'  {command_prefix()} {command} {shlex.quote(str(model_directory))} "{MISSION}"'
        console.print(line, soft_wrap=True)
