"""Greedy answers to the held-out prompts, scores by kind, and acceptance of the MTP head."""

from collections import defaultdict

import torch

from chat import judge
from model import CHUNK, layout_of


def simulate_q8_0(tensor):
    """The values a Q8_0 block keeps: 32 signed bytes under one f16 scale."""
    blocks = tensor.float().reshape(-1, 32)
    scale = blocks.abs().amax(1, keepdim=True) / 127
    inverse = torch.where(scale > 0, 1 / scale, 0)
    whole = (blocks * inverse).round()
    return (whole * scale.half().float()).view(tensor.shape)


def layout_for(length, rows, dims, device):
    position = torch.arange(length, device=device).expand(rows, length)
    return layout_of(torch.zeros_like(position), position, dims)


@torch.no_grad()
def generate(model, prompts, limits, ends, device):
    """Greedy tokens per prompt, by running the whole rows again for every token.

    Rows are padded on the right, where nothing causal can see the padding.
    """
    lengths = torch.tensor([len(p) for p in prompts], device=device)
    most = max(len(p) + n for p, n in zip(prompts, limits))
    tokens = torch.zeros(len(prompts), -(-most // CHUNK) * CHUNK, dtype=torch.long, device=device)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = torch.tensor(prompt, device=device)
    stops = torch.tensor(ends, device=device)
    limit = torch.tensor(limits, device=device)
    made = torch.zeros_like(lengths)
    done = torch.zeros_like(lengths, dtype=torch.bool)
    each = torch.arange(len(prompts), device=device)
    while not done.all():
        longest = int((lengths + made).max())
        width = -(-longest // CHUNK) * CHUNK
        layout = layout_for(width, len(prompts), model.dims, device)
        hidden = model.hidden(tokens[:, :width], layout)[each, lengths + made - 1]
        token = model.logits(hidden).argmax(-1)
        tokens[each[~done], (lengths + made)[~done]] = token[~done]
        made += ~done
        done |= torch.isin(token, stops) | (made >= limit)
    made = made.tolist()
    return [tokens[r, n : n + made[r]].tolist() for r, n in enumerate(lengths.tolist())]


@torch.no_grad()
def mtp_acceptance(model, prompts, answers, device):
    """Share of generated tokens, from the second on, that the MTP head had guessed."""
    right = total = 0
    for prompt, answer in zip(prompts, answers):
        row = prompt + answer
        width = -(-len(row) // CHUNK) * CHUNK
        tokens = torch.tensor([row + [0] * (width - len(row))], device=device)
        layout = layout_for(width, 1, model.dims, device)
        hidden = model.hidden(tokens, layout)
        guess = model.logits(model.draft_hidden(hidden, tokens, layout)).argmax(-1)[0]
        first = len(prompt) + 1
        right += (guess[first - 2 : len(row) - 2] == tokens[0, first : len(row)]).sum().item()
        total += len(row) - first
    return right / max(1, total)


def encode_prompts(encoder, examples):
    renderer = encoder.renderers[0]
    return [
        encoder.tokenizer.encode(renderer.prompt(e), add_special_tokens=False).ids for e in examples
    ]


def score(model, encoder, examples, limits, device, verbose=False):
    """Right answers per kind as (right, total), and what was generated."""
    prompts = encode_prompts(encoder, examples)
    answers = generate(model, prompts, limits, [encoder.end], device)
    tally = defaultdict(lambda: [0, 0])
    for example, answer in zip(examples, answers):
        body = answer[:-1] if answer and answer[-1] == encoder.end else answer
        text = encoder.tokenizer.decode(body, skip_special_tokens=True)
        fine = judge(example.expect, text, example.reasoning is not None)
        tally[example.kind][0] += fine
        tally[example.kind][1] += 1
        if verbose and not fine:
            asked = example.messages[-1]["content"]
            print(
                f"  wrong {example.kind}: {asked!r} -> {text!r}, not {example.answer!r}", flush=True
            )
    return dict(tally), prompts, answers


def show(tally):
    total = [sum(column) for column in zip(*tally.values())]
    parts = [f"{kind} {right}/{count}" for kind, (right, count) in tally.items()]
    return f"{total[0]}/{total[1]}  " + " ".join(parts)
