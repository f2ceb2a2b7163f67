# SPDX-License-Identifier: MIT
"""Decoding: what `Seq2Seq.generate` and `Seq2Seq.score` do, and in which order.

**One step of a row.** From the logits z of the vocabulary, or of its shortlist:

1. log p = z - log sum exp z: the model's log-probabilities. These are what is reported, whatever
   follows.
2. Bans, which make a score -inf: suppress_tokens, bad_words_ids, allowed_tokens,
   no_repeat_ngram_size, and the end-of-sequence tokens before min_new_tokens.
3. A forced prefix: nothing but its token is allowed, and that is allowed whatever is banned.
4. repetition_penalty, on the logit z of tokens that the row holds already, forced ones included
   and the start token not. What is not banned now has the score z' - log sum exp z.
5. Greedy decoding picks the highest score.
   Sampling: temperature, top_k, top_p, min_p, each on what the one before leaves; then a draw.
   Beam search adds the scores up along each hypothesis, takes diversity_penalty off for the step's
   choice alone, and goes on with the best num_beams that do not end; those that end, and are
   among the best num_beams, are finished.

Finished hypotheses are ranked by score / length**length_penalty, plus the coverage penalty; length
counts the end-of-sequence token. At max_new_tokens what runs is finished, too.

**Scores** reported are the model's log-probabilities (step 1) of each token, their sums, and these
over length**length_penalty. They are those of `score` for the same tokens (and the shortlist with
prefixes added), to the bit where the CPU library runs. `beam_scores` are the ranks.

**int8** (`Seq2Seq.prepare_for_decoding`). Picks are those of the same model unquantised in the
rescoring dtype: bfloat16 unless rescore_dtype says float32. In all log-probabilities, those of
`score` included, the sum over the vocabulary is the int8 weights': they are off by one number a
step, the same for all tokens (measured: see there), which may sway the order of beams. The loop in
Python, ensembles and shortlists do not read the int8 weights, and so have the exact sum; weights
prepared in float32, float64 or bfloat16 always do.

**Ties** go to the lowest id; between hypotheses to the lower beam, then to the lowest id.

**Batches.** A row's tokens and scores are the same bits alone and in any batch, whatever decodes
(CPU library loaded); nothing on the way adds up in an order that depends on the batch.

**What runs.** One native call decodes the whole batch. The loop in Python does the rest: a model in
more than one dtype, or on the CPU in float16, autocast, a decoder with a step of its own or with
forward hooks; on a GPU several models, a callback, output_scores, or shortlists of the rows' own.
It says so, once for each reason (`BackendWarning`; `native_reason` tells it beforehand), and is the
oracle of the other. Both give the same tokens and the same bits, but for `beam_scores` after a
repetition penalty (1e-6), and for a draw of the whole vocabulary from one model (top_k 0, top_p 1,
no min_p), whose noise the kernel computes in the weights' dtype: two tokens closer than its
rounding may be drawn in either's place. On a GPU top_p's sums are made in another order, which may
move its edge by one token where it is met to the last bits.

**Random numbers** are a function of (seed, row, step, token): `row` is the row's number in the
batch, or what row_ids says, and the sample's number. Give a sentence the same row_ids and seed, and
its samples are the same in any batch.

**At the edges:**

| | |
|---|---|
| a row's logits hold a NaN or an infinity, or nothing but -inf | ValueError, with row and step |
| every token is banned at some step, or has no probability | the row ends there, without an end |
| a row's allowed_tokens are empty, bans of all rows leave nothing | ValueError |
| fewer tokens than beams | beams stay empty; missing hypotheses: length 0, scores -inf |
| end-of-sequence first | length 1: it counts as a token |
| a source of length 0 | decoded from what the model makes of it; a batch with S = 0: ValueError |
| no rows | results of no rows |
| max_new_tokens 0 | ValueError |
| more samples or beams of a source than memory could hold | ValueError: see `GenerationConfig` |
| Ctrl-C, or a signal whose handler raises | the exception, within a tenth of a second and a step |
| a prefix longer than max_new_tokens, or with tokens behind its end of sequence | ValueError |
"""

from seq2seq_ext.generation.calls import generate, score
from seq2seq_ext.generation.config import GenerationConfig
from seq2seq_ext.generation.ensemble import Ensemble
from seq2seq_ext.generation.output import GenerateOutput, ScoreOutput, StepOutput
from seq2seq_ext.generation.support import native_reason

__all__ = [
    "Ensemble",
    "GenerateOutput",
    "GenerationConfig",
    "ScoreOutput",
    "StepOutput",
    "generate",
    "native_reason",
    "score",
]
