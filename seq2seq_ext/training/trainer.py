# SPDX-License-Identifier: MIT
"""The training loop: batches of similar length, Adam, validation, stopping, checkpoints."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seq2seq_ext.data.batching import Batch, Batches, Example, collate
from seq2seq_ext.data.tokenizer import PAD
from seq2seq_ext.nn import LinearCrossEntropy
from seq2seq_ext.training.checkpoint import fingerprint, load_checkpoint, save_checkpoint
from seq2seq_ext.training.config import TrainConfig
from seq2seq_ext.training.translator import ModelError, Translator


@dataclass
class Progress:
    """Where a run stands; stored in the checkpoint."""

    epoch: int = 0  # epochs completed
    batch: int = 0  # batches completed in the epoch under way
    loss_sum: float = 0.0  # of the epoch under way
    tokens: int = 0
    seconds: float = 0.0  # spent training, over all sittings
    best_loss: float | None = None
    best_epoch: int = 0
    bad_epochs: int = 0
    rate_scale: float = 1.0  # what "plateau" made of the learning rate
    history: list[dict[str, float]] = field(default_factory=list)


class Reporter:
    """Hears how training goes; the command line draws it."""

    def on_start(self, batches: int, progress: Progress) -> None: ...

    def on_batch(self, batch: Batch, loss: float, progress: Progress) -> None: ...

    def on_epoch(self, entry: dict[str, float], progress: Progress) -> None: ...

    def stop_requested(self) -> bool:
        """Asked after every batch; True leaves a checkpoint and ends the run."""
        return False


class Trainer:
    """Trains a translator's model and keeps `directory` usable all the time.

    The best weights (by validation loss; without validation examples the latest) are in
    `model.safetensors`, the latest with everything needed to go on in `checkpoint.pt`.

    Args:
        directory: where to save; None: nowhere.
        extra: plain data to keep in the checkpoint (the command line's own settings).
    """

    def __init__(
        self,
        translator: Translator,
        train: Sequence[Example],
        valid: Sequence[Example],
        config: TrainConfig,
        *,
        directory: Path | None = None,
        reporter: Reporter | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        self.translator, self.config, self.directory = translator, config, directory
        self.train_examples, self.valid = train, valid
        self.reporter = reporter or Reporter()
        self.extra = extra or {}
        self.model = translator.model.to(config.parameter_dtype)
        self.batches = Batches(train, config.batch_size, seed=config.seed)
        self.loss = LinearCrossEntropy(ignore_index=PAD, label_smoothing=config.label_smoothing)
        self.valid_loss = LinearCrossEntropy(ignore_index=PAD, reduction="sum")
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate)
        self.progress = Progress()

    # -- the loop ----------------------------------------------------------------------------------

    def run(self) -> str:
        """Trains until an end is reached.

        Returns:
            What ended it: "epochs", "time", "patience" or "interrupted".
        """
        progress = self.progress
        self.reporter.on_start(len(self.batches), progress)
        if progress.epoch == 0 and progress.batch == 0:
            self._save_best()  # from here on the directory holds a model
        reason = "epochs"
        while progress.epoch < self.config.epochs:
            reason = self._epoch()
            if reason == "interrupted":
                self.save_checkpoint()
                if progress.best_loss is None:
                    self._save_best()
                break
            self._finish_epoch()
            if reason == "time":
                break
            if self.config.patience and progress.bad_epochs >= self.config.patience:
                reason = "patience"
                break
            reason = "epochs"
        return reason

    def _epoch(self) -> str:
        """The rest of the epoch under way; returns what ended it."""
        progress = self.progress
        self.model.train()
        for batch in self.batches.epoch(progress.epoch, progress.batch):
            started = time.perf_counter()
            loss = self.step(batch)
            if not math.isfinite(loss):
                raise ArithmeticError(
                    f"the loss became {loss}: try a smaller learning rate or clip"
                )
            tokens = batch.target_tokens
            progress.batch += 1
            progress.loss_sum += loss * tokens
            progress.tokens += tokens
            progress.seconds += time.perf_counter() - started
            self.reporter.on_batch(batch, loss, progress)
            if self.reporter.stop_requested():
                return "interrupted"
            limit = self.config.max_minutes
            if limit is not None and progress.seconds >= 60 * limit:
                return "time"
        return "epoch"

    def step(self, batch: Batch) -> float:
        """One optimizer step; returns the mean loss per target token."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        with self._precision():
            loss = self._loss(batch, self.loss, self.config.teacher_forcing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.config.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        return float(loss.detach())

    def _loss(self, batch: Batch, criterion: LinearCrossEntropy, ratio: float = 1.0) -> Tensor:
        return self.model.loss(
            batch.source,
            batch.source_lengths,
            batch.target_in,
            batch.target_out,
            criterion,
            teacher_forcing_ratio=ratio,
        )

    def _rate(self) -> float:
        rate = self.config.learning_rate * self.progress.rate_scale
        if self.config.schedule == "linear":
            done = self.progress.epoch + self.progress.batch / len(self.batches)
            rate *= max(1 - done / self.config.epochs, 0.0)
        return rate

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self.config.dtype == "bfloat16":
            return torch.autocast("cpu", dtype=torch.bfloat16)
        return contextlib.nullcontext()

    # -- validation --------------------------------------------------------------------------------

    def validate(self) -> float:
        """Mean loss per target token of the validation examples, without smoothing or dropout."""
        self.model.eval()
        total, tokens = 0.0, 0
        with torch.no_grad(), self._precision():
            for batch in self._valid_batches():
                total += float(self._loss(batch, self.valid_loss))
                tokens += batch.target_tokens
        self.model.train()
        return total / max(tokens, 1)

    def _valid_batches(self) -> Iterator[Batch]:
        examples = sorted(self.valid, key=lambda e: (len(e[0]), len(e[1])))
        for start in range(0, len(examples), self.config.batch_size):
            yield collate(examples[start : start + self.config.batch_size])

    def _finish_epoch(self) -> None:
        """Books the epoch, validates, keeps the best weights, saves."""
        progress = self.progress
        entry = {
            "epoch": progress.epoch + 1,
            "train_loss": progress.loss_sum / max(progress.tokens, 1),
            "seconds": progress.seconds,
        }
        progress.epoch, progress.batch = progress.epoch + 1, 0
        progress.loss_sum, progress.tokens = 0.0, 0
        loss = None
        if self.valid:
            started = time.perf_counter()
            loss = entry["valid_loss"] = self.validate()
            progress.seconds += time.perf_counter() - started
        progress.history.append(entry)
        if loss is None or progress.best_loss is None or loss < progress.best_loss:
            progress.best_loss, progress.best_epoch, progress.bad_epochs = loss, progress.epoch, 0
            self._save_best()
        else:
            progress.bad_epochs += 1
            if self.config.schedule == "plateau":
                progress.rate_scale *= 0.5
        self.save_checkpoint()
        self.reporter.on_epoch(entry, progress)

    # -- files -------------------------------------------------------------------------------------

    def _save_best(self) -> None:
        if self.directory is not None:
            self.translator.training = {
                **self.config.to_dict(),
                "epochs_done": self.progress.epoch,
                "best_valid_loss": self.progress.best_loss,
            }
            self.translator.save(self.directory)

    def save_checkpoint(self) -> None:
        if self.directory is None:
            return
        save_checkpoint(
            self.directory,
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "rng": torch.get_rng_state(),
                "progress": asdict(self.progress),
                "config": self.config.to_dict(),
                "data": fingerprint(self.train_examples),
                "extra": self.extra,
            },
        )

    def restore(self, state: dict[str, Any] | None = None) -> None:
        """Goes back to the checkpoint in `directory`.

        Raises:
            ModelError: no or a broken checkpoint, or one of other training data.
        """
        if state is None:
            assert self.directory is not None
            state = load_checkpoint(self.directory)
        if state["data"] != fingerprint(self.train_examples):
            raise ModelError(f"{self.directory}: the checkpoint belongs to other training data")
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.progress = Progress(**state["progress"])
            torch.set_rng_state(state["rng"])
        except (RuntimeError, ValueError, TypeError, KeyError):
            raise ModelError(f"{self.directory}: the checkpoint does not fit the model") from None

    def load_best(self) -> None:
        """Takes the weights of the best epoch from `directory`."""
        if self.directory is not None:
            best = Translator.load(self.directory)
            self.model.load_state_dict(best.model.state_dict())
