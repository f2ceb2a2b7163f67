# SPDX-License-Identifier: MIT
"""Training: the loss falls, stopping, exact continuation, what is saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from seq2seq_ext.data.batching import Batch, Example
from seq2seq_ext.training.checkpoint import CHECKPOINT, load_checkpoint
from seq2seq_ext.training.config import TrainConfig
from seq2seq_ext.training.trainer import Progress, Reporter, Trainer
from seq2seq_ext.training.translator import ModelError, Translator

Make = Callable[..., Translator]


class StopAfter(Reporter):
    """Asks to stop after a number of batches, as Ctrl-C does."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def on_batch(self, batch: Batch, loss: float, progress: Progress) -> None:
        self.left -= 1

    def stop_requested(self) -> bool:
        return self.left <= 0


def _weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in trainer.model.state_dict().items()}


def _same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_loss_falls(make_translator: Make, examples: list[Example]) -> None:
    config = TrainConfig(epochs=5, batch_size=16, learning_rate=0.01)
    trainer = Trainer(make_translator(), examples[:150], examples[150:], config)
    assert trainer.run() == "epochs"
    losses = [entry["train_loss"] for entry in trainer.progress.history]
    assert len(losses) == 5
    assert losses[-1] < 0.9 * losses[0]
    assert trainer.progress.history[-1]["valid_loss"] == pytest.approx(trainer.validate())


@pytest.mark.parametrize("stop_after", [3, 10, 17])
@pytest.mark.parametrize("schedule", ["constant", "linear", "plateau"])
def test_resumed_run_is_the_same_run(
    stop_after: int,
    schedule: str,
    make_translator: Make,
    examples: list[Example],
    tmp_path: Path,
) -> None:
    """Interrupted in the middle of an epoch, at its end, and later: the same bits as in one go."""
    config = TrainConfig(epochs=4, batch_size=32, schedule=schedule, learning_rate=0.03)
    train, valid = examples[:160], examples[160:]  # 5 batches an epoch
    whole = Trainer(make_translator(), train, valid, config)
    assert whole.run() == "epochs"

    first = Trainer(
        make_translator(), train, valid, config, directory=tmp_path, reporter=StopAfter(stop_after)
    )
    assert first.run() == "interrupted"
    torch.manual_seed(12345)  # whatever happened in between
    second = Trainer(make_translator(), train, valid, config, directory=tmp_path)
    second.restore()
    assert second.progress.epoch * 5 + second.progress.batch == stop_after
    assert second.run() == "epochs"
    assert _same(_weights(whole), _weights(second))
    drop = {"seconds"}
    histories = [
        [{k: v for k, v in entry.items() if k not in drop} for entry in t.progress.history]
        for t in (whole, second)
    ]
    assert histories[0] == histories[1]


def test_interrupted_directory_is_usable(
    make_translator: Make, examples: list[Example], tmp_path: Path
) -> None:
    trainer = Trainer(
        make_translator(),
        examples,
        [],
        TrainConfig(epochs=3, batch_size=32),
        directory=tmp_path,
        reporter=StopAfter(2),
    )
    assert trainer.run() == "interrupted"
    assert _same(Translator.load(tmp_path).model.state_dict(), _weights(trainer))


def test_best_weights_are_kept(
    make_translator: Make, examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([3.0, 1.0, 2.0, 2.5, 0.1])
    monkeypatch.setattr(Trainer, "validate", lambda self: next(losses))
    seen = []

    class Keep(Reporter):
        def on_epoch(self, entry: dict[str, float], progress: Progress) -> None:
            seen.append(_weights(trainer))

    config = TrainConfig(epochs=5, patience=2, schedule="plateau")
    trainer = Trainer(
        make_translator(), examples[:64], examples[:4], config, directory=tmp_path, reporter=Keep()
    )
    assert trainer.run() == "patience"
    assert len(seen) == 4
    assert trainer.progress.best_epoch == 2
    assert trainer.progress.rate_scale == 0.25
    assert not _same(seen[1], seen[3])
    assert _same(Translator.load(tmp_path).model.state_dict(), seen[1])
    trainer.load_best()
    assert _same(_weights(trainer), seen[1])


def test_time_limit(make_translator: Make, examples: list[Example]) -> None:
    trainer = Trainer(make_translator(), examples, [], TrainConfig(max_minutes=1e-9))
    assert trainer.run() == "time"
    assert trainer.progress.epoch == 1


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_dtypes(dtype: str, make_translator: Make, examples: list[Example], tmp_path: Path) -> None:
    config = TrainConfig(epochs=2, dtype=dtype)
    trainer = Trainer(make_translator(), examples, examples[:20], config, directory=tmp_path)
    trainer.run()
    expected = torch.float64 if dtype == "float64" else torch.float32
    model = Translator.load(tmp_path).model
    assert {p.dtype for p in model.parameters()} == {expected}
    history = trainer.progress.history
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_scheduled_sampling_and_smoothing_run(
    make_translator: Make, examples: list[Example]
) -> None:
    config = TrainConfig(epochs=2, teacher_forcing=0.5, label_smoothing=0.1)
    trainer = Trainer(make_translator(), examples, [], config)
    trainer.run()
    assert trainer.progress.history[1]["train_loss"] < trainer.progress.history[0]["train_loss"]


def test_clip_bounds_the_gradient(make_translator: Make, examples: list[Example]) -> None:
    trainer = Trainer(make_translator(), examples, [], TrainConfig(clip=1e-3))
    trainer.step(next(trainer.batches.epoch(0)))
    norms = [p.grad.norm() for p in trainer.model.parameters() if p.grad is not None]
    assert torch.stack(norms).norm() == pytest.approx(1e-3, rel=1e-3)


def test_diverged_loss_is_an_error(make_translator: Make, examples: list[Example]) -> None:
    trainer = Trainer(make_translator(), examples, [], TrainConfig())
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(float("nan"))
    with pytest.raises(ArithmeticError, match="loss became nan"):
        trainer.run()


def test_checkpoint_errors(make_translator: Make, examples: list[Example], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing to resume"):
        load_checkpoint(tmp_path)
    trainer = Trainer(make_translator(), examples, [], TrainConfig(epochs=1), directory=tmp_path)
    trainer.run()
    other = Trainer(make_translator(), examples[1:], [], TrainConfig(), directory=tmp_path)
    with pytest.raises(ModelError, match="other training data"):
        other.restore()
    wider = Trainer(
        make_translator(hidden_size=32), examples, [], TrainConfig(), directory=tmp_path
    )
    with pytest.raises(ModelError, match="does not fit the model"):
        wider.restore()
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ModelError, match="broken checkpoint"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs: expected at least 1"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"schedule": "cosine"}, "schedule: expected one of constant"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"teacher_forcing": 1.5}, "teacher_forcing"),
        ({"dtype": "float16"}, "dtype"),
        ({"max_minutes": 0.0}, "max_minutes"),
    ],
)
def test_bad_config(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**options)
