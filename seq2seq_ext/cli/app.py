# SPDX-License-Identifier: MIT
"""The commands and their options; what they do is in the modules beside this one."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from seq2seq_ext.cli.console import CommandError, Interrupted, ReaderGone, log
from seq2seq_ext.cli.options import (
    MAX_BEAM,
    MAX_SEED,
    MAX_SIZE,
    MAX_THREADS,
    Decoding,
    DecodingDtype,
    known_failure,
)
from seq2seq_ext.data.corpus import DataError
from seq2seq_ext.training.translator import ModelError

app = typer.Typer(
    name="seq2seq-ext",
    help="Train and use recurrent sequence-to-sequence models on the seq2seq_ext kernels.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


Threads = Annotated[
    int | None,
    typer.Option(min=1, max=MAX_THREADS, help="CPU threads; by default torch's own choice."),
]
Dtype = Annotated[
    DecodingDtype | None,
    typer.Option(
        help="What the weights are read in; by default what they are stored in. bfloat16 is faster "
        "and rounds; int8 is bfloat16 with a vocabulary screened in int8, faster still.",
    ),
]
ModelDir = Annotated[Path, typer.Argument(help="Model directory that `train` or `demo` wrote.")]


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write.")] = Path("demo"),
    epochs: Annotated[int, typer.Option(min=1)] = 5,
    size: Annotated[int, typer.Option(min=100, help="Pairs in the phrasebook.")] = 40_000,
    hidden: Annotated[
        int, typer.Option(min=2, max=MAX_SIZE, help="Hidden size; embeddings are as wide.")
    ] = 128,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED)] = 0,
    threads: Threads = None,
) -> None:
    """Train on the phrasebook, evaluate, translate, draw, and time against torch.nn."""
    from seq2seq_ext.cli.demo import run

    run(output, epochs=epochs, size=size, hidden=hidden, seed=seed, threads=threads)


@app.command()
def translate(
    model: ModelDir,
    sentences: Annotated[
        list[str] | None, typer.Argument(help="Sentences; none: the lines of --input.")
    ] = None,
    input: Annotated[
        str,
        typer.Option(
            "--input",
            "-i",
            help="Text file, plain or .gz, of any size; '-': stdin. Empty lines stay empty.",
        ),
    ] = "-",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; none or '-': stdout.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with an interrupted run into --output; if there is none, start one.",
        ),
    ] = False,
    beam: Annotated[
        int | None, typer.Option(min=1, max=MAX_BEAM, help="Beam search with so many hypotheses.")
    ] = None,
    n_best: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_BEAM, help="Print so many of --beam, or so many of --sample."),
    ] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Draw each token at random.")] = False,
    temperature: Annotated[float | None, typer.Option(help="With --sample: of the draws.")] = None,
    top_k: Annotated[
        int | None, typer.Option(min=0, help="With --sample: of the so many most probable tokens.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(min=0, max=1, help="With --sample: of so much probability.")
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="With --sample: relative to the most probable token."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=MAX_SEED, help="With --sample: draws that repeat.")
    ] = None,
    length_penalty: Annotated[
        float | None, typer.Option(help="Scores are divided by the length to this power.")
    ] = None,
    coverage_penalty: Annotated[
        float | None, typer.Option(min=0, help="With --beam: for words that got no attention.")
    ] = None,
    scores: Annotated[
        bool,
        typer.Option(
            "--scores", help="Print the log-probability, and over the length, before the text."
        ),
    ] = False,
    attention: Annotated[
        Path | None,
        typer.Option(
            help="Write attention weights: a picture (.png, .pdf, .svg) or .jsonl; all sentences "
            "are held in memory."
        ),
    ] = None,
    dtype: Dtype = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    window: Annotated[
        int,
        typer.Option(
            min=1, help="Lines of --input that are read, sorted by length and written at a time."
        ),
    ] = 4096,
    threads: Threads = None,
) -> None:
    """Translate sentences, one a line, from arguments, a file or stdin.

    While a file is translated into OUTPUT, its finished lines stand in OUTPUT.partial, and after an
    interruption --resume goes on behind them.
    """
    from seq2seq_ext.cli.translate import run

    run(
        model,
        sentences or [],
        input,
        output,
        decoding=Decoding(
            beam=beam,
            n_best=n_best,
            sample=sample,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            seed=seed,
            length_penalty=length_penalty,
            coverage_penalty=coverage_penalty,
        ),
        dtype=dtype,
        scores=scores,
        attention=attention,
        resume=resume,
        window=window,
        batch_size=batch_size,
        threads=threads,
    )


@app.command()
def evaluate(
    model: ModelDir,
    data: Annotated[
        Path | None, typer.Argument(help="Pairs: source TAB target, plain or .gz.")
    ] = None,
    source: Annotated[Path | None, typer.Option(help="Source text, with --target.")] = None,
    target: Annotated[Path | None, typer.Option(help="Target text, line by line.")] = None,
    references: Annotated[
        Literal["each", "any"],
        typer.Option(
            help="each: every line is scored by itself; any: all targets of a source are right."
        ),
    ] = "each",
    max_words: Annotated[
        int | None, typer.Option(min=1, help="Leave out pairs with more words on a side.")
    ] = None,
    hypotheses: Annotated[
        Path | None, typer.Option(help="Write source, hypothesis, references as TSV.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
    dtype: Dtype = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    threads: Threads = None,
) -> None:
    """Translate the sources and score the result against the targets."""
    from seq2seq_ext.cli.evaluate import run

    run(
        model,
        data,
        source,
        target,
        any_reference=references == "any",
        max_words=max_words,
        hypotheses=hypotheses,
        as_json=json,
        dtype=dtype,
        batch_size=batch_size,
        threads=threads,
    )


@app.command()
def trace(
    model: ModelDir,
    sentence: Annotated[str, typer.Argument(help="The sentence to follow.")],
    plot: Annotated[
        Path | None, typer.Option(help="PNG file with attention and state norms.")
    ] = None,
    values: Annotated[int, typer.Option(min=1, help="Values of each vector to show.")] = 4,
    threads: Threads = None,
) -> None:
    """Show x_t, h_t, c, s_t', y_t' and the attention of one translation."""
    from seq2seq_ext.cli.trace import run

    run(model, sentence, plot=plot, values=values, threads=threads)


@app.command()
def info(threads: Threads = None) -> None:
    """Show versions, libraries, instruction set and threads."""
    from seq2seq_ext.cli.info import run

    run(threads)


def _one_line(error: BaseException) -> str:
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return " ".join(message.split()) or type(error).__name__


def _register_train() -> None:
    # `train` has many options: they stand in a module of their own.
    from seq2seq_ext.cli.train import train

    app.command()(train)


_register_train()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line; returns the exit code.

    0: done; 2: bad input, with one line on stderr; 130: stopped by Ctrl-C.
    """
    command = typer.main.get_command(app)
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        result = command.main(
            args=given or ["--help"],
            prog_name="seq2seq-ext",
            standalone_mode=False,
        )
    except (KeyboardInterrupt, typer.Abort):
        log.print("interrupted")
        return 130
    except Interrupted as stop:
        log.print(str(stop))
        return 130
    except (BrokenPipeError, ReaderGone):
        # Whoever read us (head, less) has gone; Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (CommandError, DataError, ModelError, ArithmeticError) as error:
        return _fail(error)
    except UnicodeEncodeError as error:  # of the terminal: input is checked where it is read
        return _fail(
            CommandError(f"the output cannot be written as {error.encoding}: set PYTHONUTF8=1")
        )
    except OSError as error:  # a full disk, a file that was taken away meanwhile
        return _fail(CommandError(f"{error.filename or 'input or output'}: {error.strerror}"))
    except (MemoryError, RuntimeError) as error:
        known = known_failure(error)
        if known is None:
            raise
        return _fail(known)
    except Exception as error:
        if hasattr(error, "format_message"):  # typer's own: unknown option, missing argument, ...
            return _fail(error)
        raise
    if result == 130:  # what newer versions of typer make of Ctrl-C, without a word
        log.print("interrupted")
    return result if isinstance(result, int) else 0


def _fail(error: BaseException) -> int:
    print(f"seq2seq-ext: error: {_one_line(error)}", file=sys.stderr)
    return 2
