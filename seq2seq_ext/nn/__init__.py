# SPDX-License-Identifier: MIT
"""Modules: drop-in `LSTM`, `GRU`, `RNN` and their cells, and the parts of an encoder-decoder."""

from seq2seq_ext.nn.attention import Attention, AttentionMemory
from seq2seq_ext.nn.bridge import Bridge
from seq2seq_ext.nn.cells import GRUCell, LSTMCell, RNNCell
from seq2seq_ext.nn.decoder import Decoder, DecoderMemory, DecoderOutput, DecoderState, DecoderStep
from seq2seq_ext.nn.encoder import Encoder, EncoderOutput
from seq2seq_ext.nn.freezing import freeze, is_frozen, unfreeze
from seq2seq_ext.nn.loss import CrossEntropy, LinearCrossEntropy
from seq2seq_ext.nn.rnn import GRU, LSTM, RNN
from seq2seq_ext.nn.seq2seq import Seq2Seq, Seq2SeqOutput

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Attention",
    "AttentionMemory",
    "Bridge",
    "CrossEntropy",
    "Decoder",
    "DecoderMemory",
    "DecoderOutput",
    "DecoderState",
    "DecoderStep",
    "Encoder",
    "EncoderOutput",
    "GRUCell",
    "LSTMCell",
    "LinearCrossEntropy",
    "RNNCell",
    "Seq2Seq",
    "Seq2SeqOutput",
    "freeze",
    "is_frozen",
    "unfreeze",
]
