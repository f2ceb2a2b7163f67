# SPDX-License-Identifier: MIT
"""Random sentences through the native loop with random options, for as long as one likes.

    python -m tests.generation.soak --sentences 100000

One sentence in a hundred is decoded again by the loop in Python, alone, and must come out the same,
and `score` must give its tokens the same log-probabilities, all to the bit. A model prepared in
int8 is decoded alone by the native loop, to the bit, and by the one in Python for its tokens, but
for beams. Memory must stay flat after the first twentieth. Ends with a line of JSON; its status
says whether all was well.
"""

import argparse
import contextlib
import gc
import json
import random
import sys
import time

import torch

from seq2seq_ext.generation import Ensemble, native

from .models import ALL_KINDS, make

V, SIZE = 233, 12
CELLS = ("lstm", "gru", "rnn")
# Of the model, and of its prepared weights.
DTYPES = (
    (torch.float32, None),
    (torch.bfloat16, None),
    (torch.float32, torch.float32),
    (torch.float32, torch.bfloat16),
    (torch.float32, torch.int8),
)
MOST_GROWN = 50  # MB


def random_options(rng, attends):
    """Of one batch."""
    options = {"max_new_tokens": rng.randint(1, 40)}
    options["eos_token_id"] = rng.choice([2, [2, 3, 4, 5, 6, 7, 8], None])
    if attends and rng.random() < 0.1:
        options["output_attentions"] = True
    way = rng.choice(["greedy", "beam", "groups", "top_k", "all", "nucleus"])
    if way == "beam":
        options |= {"num_beams": rng.randint(2, 6), "length_penalty": rng.choice([0.0, 0.6, 1.0])}
        options["early_stopping"] = rng.choice([True, False, "never"])
        options["num_return_sequences"] = rng.randint(1, options["num_beams"])
        if attends and rng.random() < 0.3:
            options["coverage_penalty"] = rng.choice([0.2, 1.0])
    elif way == "groups":
        options |= {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5}
    elif way != "greedy":
        options |= {"do_sample": True, "seed": rng.getrandbits(64)}
        options |= {"num_return_sequences": rng.randint(1, 3)}
        options |= {"temperature": rng.choice([0.7, 1.0, 1.6]), "top_k": 0}
        if way == "top_k":
            options["top_k"] = rng.randint(1, 60)
        elif way == "nucleus":
            options |= {"top_p": rng.uniform(0.3, 1.0), "min_p": rng.choice([0.0, 0.03])}
    for name, values in {
        "repetition_penalty": [0.8, 1.3],
        "no_repeat_ngram_size": [1, 2, 3],
        "bad_words_ids": [[[9], [10, 11], [12, 13, 14]]],
        "suppress_tokens": [list(range(3, V, 7))],
        "shortlist": [list(range(0, V, 3))],
    }.items():
        if rng.random() < 0.2:
            options[name] = rng.choice(values)
    if rng.random() < 0.05:
        options["output_scores"] = True
    if rng.random() < 0.3:
        options["min_new_tokens"] = rng.randint(0, options["max_new_tokens"])
    return options


def random_rows(rng, batch, options):
    """What each sentence has of its own, now and then, by name: a list of them or a tensor."""
    rows = {}
    if rng.random() < 0.2:
        rows["shortlist"] = [rng.sample(range(V), rng.randint(1, V)) for _ in range(batch)]
    if rng.random() < 0.2:
        longest = min(3, options["max_new_tokens"])
        rows["prefix_tokens"] = [
            [rng.randrange(9, V) for _ in range(rng.randint(0, longest))] for _ in range(batch)
        ]
    if rng.random() < 0.2:
        allowed = torch.rand(batch, V) < rng.choice([0.1, 0.7])
        allowed[:, 9] = True  # one that is no end, and that no other option bans alone
        rows["allowed_tokens"] = allowed
    return rows


def resident_mb():
    gc.collect()
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096 / 2**20


def alone(model, src, lengths, row, options, rows, *, loop):
    own = {name: value[row : row + 1] for name, value in rows.items()}
    with native.disabled() if loop == "python" else contextlib.nullcontext():
        return model.generate(
            src[row : row + 1], lengths[row : row + 1], row_ids=[row], **{**options, **own}
        )


def scores_alike(model, src, lengths, row, found, options, rows):
    """Whether `score` says of the tokens what decoding says."""
    count = len(found.lengths)
    more = {"eos_token_id": options["eos_token_id"]}
    shortlist = rows["shortlist"][row] if "shortlist" in rows else options.get("shortlist")
    if shortlist is not None:  # prefixes count as if they were in it
        more["shortlist"] = [*shortlist, *rows.get("prefix_tokens", {row: ()})[row]]
    repeated = [row] * count
    told = model.score(src[repeated], found.sequences, lengths[repeated], found.lengths, **more)
    return torch.equal(told.token_log_probs, found.token_log_probs)


def same(whole, part, row, count):
    """Whether rows of the batch are those of the sentence by itself."""
    rows = slice(row * count, (row + 1) * count)
    size = part.sequences.size(1)
    return (
        torch.equal(whole.lengths[rows], part.lengths)
        and torch.equal(whole.sequences[rows, :size], part.sequences)
        and torch.equal(whole.token_log_probs[rows, :size], part.token_log_probs)
        and torch.equal(whole.sequences_scores[rows], part.sequences_scores)
        and (part.scores is None or torch.equal(whole.scores[rows, :size], part.scores))
        and (part.attentions is None or torch.equal(whole.attentions[rows, :size], part.attentions))
    )


def check(model, src, lengths, row, found, options, rows):
    """What of a sentence is not as it should be."""
    screened = not isinstance(model, Ensemble) and getattr(model._prepared, "screen", None)
    count = len(found.lengths) // len(src)
    by_itself = alone(
        model, src, lengths, row, options, rows, loop="native" if screened else "python"
    )
    wrong = [] if same(found, by_itself, row, count) else [{"what": "alone"}]
    if screened and "num_beams" not in options:
        oracle = alone(model, src, lengths, row, options, rows, loop="python")
        if not torch.equal(oracle.sequences, by_itself.sequences):
            wrong.append({"what": "tokens"})
    if not scores_alike(model, src, lengths, row, by_itself, options, rows):
        wrong.append({"what": "score"})
    return wrong


def random_models(rng):
    models = []
    for i, kind in enumerate(ALL_KINDS):
        for dtype, prepared in DTYPES:
            cell, layers = CELLS[i % 3], 1 + i % 2
            model = make(dtype, V, hidden_size=24, num_layers=layers, cell=cell, **kind)
            model.prepare_for_decoding(prepared)
            models.append(model)
    single = list(models)
    for combine in 2 * ("probabilities", "log_probabilities"):
        models.append(Ensemble(rng.sample(single, 2), combine=combine))
    return models


def attends(model):
    members = model.models if isinstance(model, Ensemble) else [model]
    return all(member.decoder.attention is not None for member in members)


def run(sentences, seed=0, every=100, largest=400):
    """What happened, as plain data."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    models = random_models(rng)
    done = checked = tokens = 0
    differences, memory, start = [], [], time.perf_counter()
    while done < sentences:
        model, batch = rng.choice(models), min(rng.randint(1, largest), sentences - done)
        size = rng.randint(1, SIZE)
        lengths = torch.randint(1, size + 1, (batch,))
        src = torch.randint(3, V, (batch, size))
        options = {"return_dict_in_generate": True, **random_options(rng, attends(model))}
        rows = random_rows(rng, batch, options)
        found = model.generate(src, lengths, **{**options, **rows})
        tokens += int(found.lengths.sum())
        for row in range(-done % every, batch, every):
            checked += 1
            for what in check(model, src, lengths, row, found, options, rows):
                what |= {"sentence": done + row, "model": models.index(model), "options": options}
                differences.append({name: str(value) for name, value in what.items()})
        done += batch
        if done >= sentences * (len(memory) + 1) / 20:
            memory.append(resident_mb())
    return {
        "sentences": done,
        "tokens": tokens,
        "checked": checked,
        "differences": differences,
        "resident_mb": [round(m, 1) for m in memory],
        "grown_mb": round(max(memory) - memory[0], 1),
        "seconds": round(time.perf_counter() - start, 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sentences", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    result = run(arguments.sentences, arguments.seed)
    print(json.dumps(result))
    sys.exit(bool(result["differences"]) or result["grown_mb"] > MOST_GROWN)
