# SPDX-License-Identifier: MIT
"""Random sentences through the native loop with random options, for as long as one likes.

    python -m tests.generation.soak --sentences 100000

One sentence in a hundred is decoded again by the loop in Python, alone, and must come out the same;
memory must stay flat. Ends with a line of JSON; its status says whether all was well.
"""

import argparse
import json
import random
import resource
import sys
import time

import torch

from seq2seq_ext.generation import Ensemble, native

from .models import ALL_KINDS, make

V, SIZE = 233, 12
CELLS = ("lstm", "gru", "rnn")
DTYPES = (torch.float32, torch.bfloat16)


def random_options(rng):
    """Of one batch; and whether all of what is reported must be the same bits."""
    options = {"max_new_tokens": rng.randint(1, 40)}
    way = rng.choice(["greedy", "beam", "groups", "top_k", "all", "nucleus"])
    if way == "beam":
        options |= {"num_beams": rng.randint(2, 6), "length_penalty": rng.choice([0.0, 0.6, 1.0])}
        options["early_stopping"] = rng.choice([True, False, "never"])
        options["num_return_sequences"] = rng.randint(1, options["num_beams"])
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


def random_lists(rng, batch):
    """A shortlist of each sentence's own, now and then."""
    if rng.random() < 0.8:
        return None
    return [rng.sample(range(V), rng.randint(1, V)) for _ in range(batch)]


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
    )


def run(sentences, seed=0, every=100, largest=400):
    """What happened, as plain data."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    models = [
        make(dtype, V, hidden_size=24, num_layers=1 + i % 2, cell=CELLS[i % 3], **kind)
        for i, kind in enumerate(ALL_KINDS)
        for dtype in DTYPES
    ]
    for combine in ("probabilities", "log_probabilities"):
        models.append(Ensemble(rng.sample(models[: 2 * len(ALL_KINDS)], 2), combine=combine))
    done = checked = tokens = 0
    differences, warm, start = [], 0, time.perf_counter()
    while done < sentences:
        model, batch = rng.choice(models), min(rng.randint(1, largest), sentences - done)
        size = rng.randint(1, SIZE)
        lengths = torch.randint(1, size + 1, (batch,))
        src = torch.randint(3, V, (batch, size))
        options = {"return_dict_in_generate": True, **random_options(rng)}
        lists = random_lists(rng, batch)
        own = {} if lists is None else {"shortlist": lists}
        found = model.generate(src, lengths, **{**options, **own})
        count = len(found.lengths) // batch
        tokens += int(found.lengths.sum())
        for row in range(-done % every, batch, every):
            if lists is not None:
                own = {"shortlist": lists[row : row + 1]}
            with native.disabled():
                alone = model.generate(
                    src[row : row + 1],
                    lengths[row : row + 1],
                    row_ids=[row],
                    **{**options, **own},
                )
            checked += 1
            if not same(found, alone, row, count):
                differences.append({"sentence": done + row, "options": str(options)})
        done += batch
        if done > sentences / 4 and not warm:
            warm = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - warm
    return {
        "sentences": done,
        "tokens": tokens,
        "checked": checked,
        "differences": differences,
        "grown_mb": round(grown / 1024, 1),
        "seconds": round(time.perf_counter() - start, 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sentences", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    result = run(arguments.sentences, arguments.seed)
    print(json.dumps(result))
    sys.exit(bool(result["differences"]) or result["grown_mb"] > 50)
