"""The mixture, the held-out set, and rows of tokens for training."""

import hashlib
import json
import random
from multiprocessing import get_context

import numpy as np

import arithmetic
import copying
import json_objects
import qa
import reasoning
import recall
import tools
from chat import Renderer
from words import sentence

MAKERS = {
    "qa": qa.make,
    "arithmetic": arithmetic.make,
    "copy": copying.make,
    "recall": recall.make,
    "json": json_objects.make,
    "tool": tools.make,
    "reasoning": reasoning.make,
}
# Share of examples per kind. Tool prompts are several times longer, so theirs looks small.
MIXTURE = {
    "qa": 0.22,
    "arithmetic": 0.19,
    "copy": 0.17,
    "recall": 0.17,
    "json": 0.10,
    "tool": 0.12,
    "reasoning": 0.06,
}
HELD_OUT = {
    "qa": 40,
    "arithmetic": 34,
    "copy": 32,
    "recall": 32,
    "json": 26,
    "tool": 26,
    "reasoning": 10,
}
MAX_TOKENS = {
    "qa": 48,
    "arithmetic": 8,
    "copy": 160,
    "recall": 24,
    "json": 128,
    "tool": 96,
    "reasoning": 96,
}
SYSTEM_PROMPTS = [
    "You are a helpful assistant.",
    "You are sprout.",
    "Answer briefly.",
    "You are a helpful, concise assistant.",
    "Be brief and exact.",
]
ROW = 1024
CONTEXT_WEIGHT = 0.02
HELD_OUT_SEED = 20260131


def fingerprint(example):
    """Identity of a prompt, whatever the system prompt, the tools, the mode or the letter case."""
    turns = [
        (m["role"], m.get("content"), str(m.get("tool_calls") and "call"))
        for m in example.messages
        if m["role"] != "system"
    ]
    text = json.dumps(turns).lower()
    return hashlib.sha1(text.encode()).digest()[:10]


def final_question(example):
    """The last user turn on its own: a recall question repeats, so it cannot be held out alone."""
    if example.kind in ("recall", "tool"):
        return None
    text = example.messages[-1]["content"].lower()
    return hashlib.sha1(text.encode()).digest()[:10]


def with_system(rng, example):
    if example.messages[0]["role"] != "system" and rng.random() < 0.2:
        text = rng.choice(SYSTEM_PROMPTS)
        if rng.random() < 0.2:
            text += " " + " ".join(sentence(rng) for _ in range(rng.randint(1, 8)))
        system = {"role": "system", "content": text}
        example.messages = [system, *example.messages]
    return example


def held_out(renderer=None):
    """The 200 examples, and the hashes that the corpus must avoid."""
    rng = random.Random(HELD_OUT_SEED)
    examples, hashes = [], set()
    for kind, count in HELD_OUT.items():
        taken = 0
        while taken < count:
            example = MAKERS[kind](rng)
            mark = fingerprint(example)
            if mark in hashes or is_common(example):
                continue
            hashes |= {mark, final_question(example)} - {None}
            examples.append(with_system(rng, example))
            taken += 1
    return examples, hashes


def is_common(example):
    """Prompts so short that holding them out would take a whole fact from the corpus."""
    text = example.messages[-1]["content"]
    return example.kind == "qa" and len(text) < 12


def in_other_mode(rng, example):
    """Now and then thinking is on for what needs none, or off for what wants steps."""
    if example.kind == "reasoning":
        if rng.random() < 0.15:
            example.answer, example.reasoning = example.reasoning, None
            example.expect = {"text": [example.answer]}
    elif rng.random() < 0.07:
        example.reasoning = "I can answer this directly."
        if example.answer.startswith("<tool_call>"):
            name = example.expect["tool_call"]["name"]
            example.reasoning = f"I need the function {name}."
    return example


def held_out_lines(examples):
    lines = []
    for index, example in enumerate(examples):
        line = {
            "id": f"{example.kind}-{index:03}",
            "kind": example.kind,
            "messages": example.messages,
        }
        if example.tools:
            line["tools"] = example.tools
        if example.reasoning is not None:
            line["chat_template_kwargs"] = {"enable_thinking": True}
        lines.append(line | {"max_tokens": MAX_TOKENS[example.kind], "expect": example.expect})
    return lines


def draw(rng, hashes):
    """One training example whose prompt is not held out."""
    while True:
        kind = rng.choices(list(MIXTURE), list(MIXTURE.values()))[0]
        maker = MAKERS[kind]
        if kind == "recall" and rng.random() < 0.04:
            maker = recall.make_note
        example = maker(rng)
        if fingerprint(example) in hashes or final_question(example) in hashes:
            continue
        return with_system(rng, in_other_mode(rng, example))


class Encoder:
    """Turns examples into token ids and loss weights."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.end = tokenizer.token_to_id("<|im_end|>")
        # Most JSON writers put the spaces that HF puts; a few do not, or sort the keys.
        self.renderers = [Renderer()] * 8 + [Renderer(compact=True), Renderer(sort_keys=True)]

    def encode(self, example, rng):
        prompt = rng.choice(self.renderers).prompt(example)
        before = self.tokenizer.encode(prompt, add_special_tokens=False).ids
        after = self.tokenizer.encode(example.completion(), add_special_tokens=False).ids + [
            self.end
        ]
        return before, after


def pack(encoded):
    """Rows of ROW tokens, each filled first-fit from a small set of open rows.

    Returns tokens, document numbers, positions and loss weights, each [rows, ROW].
    """
    open_rows, closed = [], []
    for before, after in encoded:
        size = len(before) + len(after)
        if size > ROW:
            continue
        home = next((row for row in open_rows if row[0] + size <= ROW), None)
        if home is None:
            if len(open_rows) >= 12:
                closed.append(open_rows.pop(max(range(12), key=lambda i: open_rows[i][0])))
            home = [0, []]
            open_rows.append(home)
        home[0] += size
        home[1].append((before, after))
    rows = [row[1] for row in closed + open_rows]
    tokens = np.zeros((len(rows), ROW), np.int16)
    document = np.full((len(rows), ROW), 255, np.uint8)
    position = np.zeros((len(rows), ROW), np.int16)
    supervised = np.zeros((len(rows), ROW), np.uint8)
    for r, row in enumerate(rows):
        at = 0
        for number, (before, after) in enumerate(row):
            end = at + len(before) + len(after)
            tokens[r, at:end] = before + after
            document[r, at:end] = number
            position[r, at:end] = np.arange(end - at)
            supervised[r, at + len(before) : end] = 1
            at = end
        position[r, at:] = np.arange(ROW - at)
    return tokens, document, position, supervised


def make_shard(job):
    """One shard of packed rows; depends on nothing but its seed."""
    from tokenizers import Tokenizer

    seed, count, tokenizer_path, hashes = job
    rng = random.Random(seed)
    encoder = Encoder(Tokenizer.from_file(str(tokenizer_path)))
    return pack([encoder.encode(draw(rng, hashes), rng) for _ in range(count)])


def build(tokenizer_path, examples, hashes, workers, shard=8000):
    """The whole corpus, made by processes side by side. Same numbers whatever their count."""
    jobs = [(1000 + i, shard, tokenizer_path, hashes) for i in range(-(-examples // shard))]
    if workers <= 1:
        parts = [make_shard(job) for job in jobs]
    else:
        with get_context("spawn").Pool(workers) as pool:
            parts = pool.map(make_shard, jobs, chunksize=1)
    return tuple(np.concatenate(column) for column in zip(*parts))
