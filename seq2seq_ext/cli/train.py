# SPDX-License-Identifier: MIT
"""`train`: pairs to a model directory, and going on where a run stopped."""

from __future__ import annotations

import inspect
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer

from seq2seq_ext.cli.console import (
    CommandError,
    Interrupt,
    TrainingBar,
    command_prefix,
    log,
    new_directory,
    print_scores,
    set_threads,
)
from seq2seq_ext.cli.evaluate import evaluate_pairs, load_pairs
from seq2seq_ext.cli.options import MAX_SEED, MAX_SIZE, MAX_THREADS, build_model, in_options
from seq2seq_ext.data.batching import encode_pairs
from seq2seq_ext.data.corpus import Pair, filter_by_words, hold_out
from seq2seq_ext.data.tokenizer import Tokenizer
from seq2seq_ext.training.checkpoint import load_checkpoint
from seq2seq_ext.training.config import ModelConfig, TrainConfig
from seq2seq_ext.training.files import write_text
from seq2seq_ext.training.trainer import Trainer
from seq2seq_ext.training.translator import CONFIG, ModelError, Translator

HELD_OUT = "held_out.tsv"


Kind = Literal["word", "character", "whitespace", "bpe"]
Cell = Literal["gru", "lstm", "rnn"]
Context = Literal["attention", "every_step", "initial_state"]
Score = Literal["dot", "scaled_dot", "general", "additive"]
BridgeKind = Literal["linear_tanh", "linear", "copy", "zero", "mean"]
Schedule = Literal["constant", "linear", "plateau"]
DType = Literal["float32", "bfloat16", "float64"]


def _option(help: str, *names: str, **limits: Any) -> Any:
    return typer.Option(*names, help=help, **limits)


def train(
    data: Annotated[
        Path | None, typer.Argument(help="Pairs: source TAB target, plain or .gz.")
    ] = None,
    output: Annotated[Path | None, _option("Model directory to write.", "--output", "-o")] = None,
    source: Annotated[Path | None, _option("Source text, with --target.")] = None,
    target: Annotated[Path | None, _option("Target text, line by line.")] = None,
    valid: Annotated[Path | None, _option("Validation pairs (TSV).")] = None,
    valid_source: Annotated[Path | None, _option("Validation source text.")] = None,
    valid_target: Annotated[Path | None, _option("Validation target text.")] = None,
    valid_size: Annotated[
        int | None,
        _option("Sources to take out for validation; by default 1 in 20, 500 at most.", min=0),
    ] = None,
    held_out: Annotated[
        int,
        _option("Sources to take out, write to held_out.tsv and score at the end.", min=0),
    ] = 0,
    max_words: Annotated[
        int | None, _option("Leave out pairs with more words on a side.", min=1)
    ] = None,
    resume: Annotated[
        Path | None, _option("Go on with this model directory's run, on the same data.")
    ] = None,
    overwrite: Annotated[bool, _option("Replace a model that is there.", "--overwrite")] = False,
    tokenizer: Annotated[Kind, _option("Both sides.")] = "word",
    source_tokenizer: Annotated[Kind | None, _option("Source, if another.")] = None,
    target_tokenizer: Annotated[Kind | None, _option("Target, if another.")] = None,
    vocab_size: Annotated[
        int, _option("Largest vocabulary of each side.", min=5, max=MAX_SIZE)
    ] = 16_000,
    min_frequency: Annotated[int, _option("Rarer tokens are unknown.", min=1, max=MAX_SIZE)] = 1,
    lowercase: Annotated[bool, _option("Lower-case both sides.", "--lowercase")] = False,
    cell: Annotated[Cell, _option("Recurrent cell.")] = "gru",
    layers: Annotated[int, _option("Layers of encoder and decoder.", min=1, max=1000)] = 1,
    hidden: Annotated[int, _option("Hidden size of the decoder.", min=1, max=MAX_SIZE)] = 256,
    embedding: Annotated[int, _option("Embedding size.", min=1, max=MAX_SIZE)] = 256,
    bidirectional: Annotated[bool, _option("Encoder reads both ways.")] = True,
    context: Annotated[Context, _option("Where c enters the decoder.")] = "attention",
    attention: Annotated[Score | None, _option("Attention score; by default general.")] = None,
    input_feeding: Annotated[bool, _option("Feed the attentional vector back.")] = False,
    bridge: Annotated[BridgeKind, _option("Encoder state to decoder state.")] = "linear_tanh",
    dropout: Annotated[float, _option("Dropout.", min=0, max=1)] = 0.2,
    tied_embeddings: Annotated[bool, _option("Output weight is the target embedding.")] = False,
    batch_size: Annotated[int, _option("Sentences a batch, of similar length.", min=1)] = 64,
    lr: Annotated[float, _option("Adam's learning rate.", min=0)] = 1e-3,
    schedule: Annotated[Schedule, _option("Of the learning rate.")] = "constant",
    clip: Annotated[float, _option("Largest gradient norm; 0: none.", min=0)] = 1.0,
    label_smoothing: Annotated[float, _option("Label smoothing.", min=0, max=1)] = 0.0,
    teacher_forcing: Annotated[
        float, _option("Share of true previous tokens (scheduled sampling below 1).", min=0, max=1)
    ] = 1.0,
    epochs: Annotated[int | None, _option("Epochs; 20 if not given.", min=1)] = None,
    max_minutes: Annotated[float | None, _option("Stop training after this time.", min=0)] = None,
    patience: Annotated[
        int, _option("Stop after so many epochs without progress; 0: never.", min=0)
    ] = 0,
    seed: Annotated[
        int, _option("Of weights, order, dropout and splits.", min=0, max=MAX_SEED)
    ] = 0,
    dtype: Annotated[DType, _option("bfloat16: mixed, weights stay float32.")] = "float32",
    threads: Annotated[int | None, _option("CPU threads.", min=1, max=MAX_THREADS)] = None,
) -> None:
    """Train a model on pairs of sentences."""
    options = dict(locals())
    set_threads(threads)
    if resume is not None:
        _resume(resume, options)
        return
    if output is None:
        raise CommandError("--output is missing: the directory to write the model to")
    _start(output, options)


# What a resumed run may change; the data may have moved, and must be the same.
_RESUMABLE = ("epochs", "max_minutes", "patience", "data")


def _paths(options: dict[str, Any], *names: str) -> list[Path | None]:
    return [None if options[name] is None else Path(options[name]) for name in names]


def _load(options: dict[str, Any]) -> tuple[list[Pair], list[Pair], list[Pair]]:
    """(train, valid, held out): no source of one occurs in another that was split from it."""
    pairs = load_pairs(*_paths(options, "data", "source", "target"))
    if options["max_words"] is not None:
        pairs = filter_by_words(pairs, options["max_words"])
        if not pairs:
            raise CommandError(f"no pairs of at most {options['max_words']} words")
    seed = options["seed"]
    pairs, held_out = hold_out(pairs, options["held_out"], seed=seed)
    given = _paths(options, "valid", "valid_source", "valid_target")
    if any(path is not None for path in given):
        return pairs, load_pairs(*given), held_out
    size = options["valid_size"]
    if size is None:
        size = min(500, len({source for source, _ in pairs}) // 20)
    pairs, valid = hold_out(pairs, size, seed=seed + 1)
    return pairs, valid, held_out


def _tokenizers(options: dict[str, Any], pairs: list[Pair]) -> tuple[Tokenizer, Tokenizer]:
    shared = {name: options[name] for name in ("vocab_size", "min_frequency", "lowercase")}
    kinds = [options[f"{side}_tokenizer"] or options["tokenizer"] for side in ("source", "target")]
    source, target = (
        Tokenizer.train(
            kind, (pair[side] for pair in pairs), attach_punctuation=side == 0, **shared
        )
        for side, kind in enumerate(kinds)
    )
    return source, target


def _model_config(options: dict[str, Any]) -> ModelConfig:
    renamed = {"num_layers": "layers", "hidden_size": "hidden", "embedding_size": "embedding"}
    values = {f.name: options[renamed.get(f.name, f.name)] for f in fields(ModelConfig)}
    return ModelConfig(**values)


def _train_config(options: dict[str, Any]) -> TrainConfig:
    values: dict[str, Any] = {f.name: options.get(f.name) for f in fields(TrainConfig)}
    values |= {"learning_rate": options["lr"], "epochs": options["epochs"] or 20}
    try:
        return TrainConfig(**values)
    except ValueError as error:
        raise CommandError(in_options(str(error))) from None


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    return {name: str(v) if isinstance(v, Path) else v for name, v in options.items()}


def _start(output: Path, options: dict[str, Any]) -> None:
    config = _train_config(options)
    new_directory(output, CONFIG, options["overwrite"])
    pairs, valid, held_out = _load(options)
    source, target = _tokenizers(options, pairs)
    examples = encode_pairs(source, target, pairs)
    longest = max(len(ids) for _, ids in examples)
    torch.manual_seed(options["seed"])
    limit = longest + longest // 4 + 4
    translator = build_model(_model_config(options), source, target, limit)
    held_out_path = output / HELD_OUT
    if held_out:
        write_text(held_out_path, "".join(f"{s}\t{t}\n" for s, t in held_out))
    else:
        held_out_path.unlink(missing_ok=True)
    parameters = sum(p.numel() for p in translator.model.parameters())
    log.print(
        f"{len(pairs):,} training, {len(valid):,} validation, {len(held_out):,} held-out pairs; "
        f"vocabularies {source.vocab_size:,} and {target.vocab_size:,}; "
        f"{parameters:,} parameters; {torch.get_num_threads()} threads"
    )
    trainer = Trainer(
        translator,
        examples,
        encode_pairs(source, target, valid) if valid else [],
        config,
        directory=output,
        extra=_plain(options),
    )
    _run(trainer, output, held_out)


def _resume(directory: Path, options: dict[str, Any]) -> None:
    defaults = {name: p.default for name, p in inspect.signature(train).parameters.items()}
    changed = {name: value for name, value in options.items() if value != defaults[name]}
    fixed = set(changed) - {*_RESUMABLE, "resume", "threads"}
    if fixed:
        raise CommandError(
            f"--resume keeps the run's own settings: --{min(fixed).replace('_', '-')} cannot change"
        )
    translator = Translator.load(directory)
    state = load_checkpoint(directory)
    stored = dict(state["extra"])
    if not set(defaults) <= set(stored):
        raise ModelError(
            f"{directory}: not a run of `train` of this version, so it cannot be resumed"
        )
    stored |= {name: changed[name] for name in _RESUMABLE if name in changed}
    # "linear" is a share of all epochs: another number of epochs would change the past.
    if stored["schedule"] == "linear" and "epochs" in changed:
        raise CommandError("--epochs cannot change a run with --schedule linear")
    pairs, valid, held_out = _load(stored)
    trainer = Trainer(
        translator,
        encode_pairs(translator.source, translator.target, pairs),
        encode_pairs(translator.source, translator.target, valid) if valid else [],
        _train_config(stored),
        directory=directory,
        extra=_plain(stored),
    )
    trainer.restore(state)
    log.print(f"resuming after epoch {trainer.progress.epoch}, batch {trainer.progress.batch}")
    _run(trainer, directory, held_out)


def _run(trainer: Trainer, output: Path, held_out: list[Pair]) -> None:
    interrupt = Interrupt()
    bar = TrainingBar(trainer.config.epochs, trainer.config.max_minutes, interrupt)
    trainer.reporter = bar
    with interrupt.watching(), bar.drawing():
        reason = trainer.run()
    if reason == "interrupted":
        command = f"{command_prefix()} train --resume {shlex.quote(str(output))}"
        log.print(f"stopped; go on with: {command}")
        raise KeyboardInterrupt
    trainer.load_best()
    why = {"epochs": "all epochs done", "time": "time is up", "patience": "no more progress"}
    best = f", best epoch {trainer.progress.best_epoch}" if trainer.valid else ""
    log.print(f"{why[reason]} after {trainer.progress.seconds:.0f} s{best}; model in {output}")
    if held_out:
        scores, _ = evaluate_pairs(trainer.translator, held_out, any_reference=False)
        print_scores(scores, f"held-out pairs ({output / HELD_OUT})")
