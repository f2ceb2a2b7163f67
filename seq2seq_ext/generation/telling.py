# SPDX-License-Identifier: MIT
"""What the native loop calls while it runs: a callback of each step, and whether to go on."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor

from seq2seq_ext.generation.output import Callback, StepOutput


class _Step(ctypes.Structure):
    """DecodeStep of csrc/kernels/common/decode.h."""

    _fields_ = (
        ("step", ctypes.c_int64),
        ("tokens", ctypes.c_void_p),
        ("parents", ctypes.c_void_p),
        ("log_probs", ctypes.c_void_p),
        ("done", ctypes.c_void_p),
    )


class _Called:
    """A function that the native loop may call by its address; what it raises is kept.

    What is called is a generator that waits inside its `try`: where Python handles signals first
    of all, on the way into a function, it is inside, and KeyboardInterrupt is caught like any
    other exception.
    """

    _function: Any = None  # lives as long as its address is used

    def __init__(self) -> None:
        self.error: BaseException | None = None  # handed on once the op has ended

    @property
    def address(self) -> int:
        if self._function is None:
            return 0
        # `cast` would hold the function until the collector comes.
        return ctypes.c_void_p.from_address(ctypes.addressof(self._function)).value or 0

    def close(self) -> None:
        """Lets go of the function, which would hold this for as long as this holds it."""
        self._function = None

    def _answers(self) -> Generator[bool, int, None]:
        going = True
        while True:
            try:
                argument = yield going
                self._answer(argument)
            except GeneratorExit:  # nobody asks any more
                return
            except BaseException as error:
                self.error, going = error, False

    def _answer(self, argument: int) -> None:
        raise NotImplementedError

    def _started(self) -> Generator[bool, int, None]:
        answers = self._answers()
        next(answers)
        return answers


class Teller(_Called):
    """Tells a callback of each step.

    Args:
        shape: (B, K).
        fill: stands for the tokens of rows that are done.
    """

    _TYPE = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p)

    def __init__(self, callback: Callback, shape: tuple[int, int], fill: int) -> None:
        super().__init__()
        self.callback, self.shape, self.fill = callback, shape, fill
        self._function = self._TYPE(self._started().send)

    def _answer(self, argument: int) -> None:
        step = _Step.from_address(argument)
        tokens = self._copy(step.tokens, ctypes.c_int64, torch.int64)
        self.callback(
            StepOutput(
                step.step,
                tokens.masked_fill(tokens < 0, self.fill),
                self._copy(step.parents, ctypes.c_int64, torch.int64),
                self._copy(step.log_probs, ctypes.c_double, torch.float64),
                self._copy(step.done, ctypes.c_bool, torch.bool),
            )
        )

    def _copy(self, address: int, kind: type[ctypes._SimpleCData], dtype: torch.dtype) -> Tensor:
        count = self.shape[0] * self.shape[1]
        array = (kind * count).from_address(address)
        return torch.frombuffer(array, dtype=dtype).clone().view(self.shape)


class Watch(_Called):
    """Asked ten times a second whether to go on: Python then sees to its signals, Ctrl-C among
    them. They come to the main thread alone; calls of other threads are not watched."""

    _TYPE = ctypes.CFUNCTYPE(ctypes.c_bool)

    def __init__(self) -> None:
        super().__init__()
        if threading.current_thread() is threading.main_thread():
            self._function = self._TYPE(self._started().__next__)

    def _answer(self, argument: int) -> None:
        pass
