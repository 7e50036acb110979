"""Compares sprout with HF transformers, scores it there, and writes parity.jsonl.

python models/sprout/train/verify.py models/sprout [--random] [--score] [--q8] [--parity]
"""

import argparse
import json
import tempfile
from collections import defaultdict
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer, Qwen3_5ForCausalLM

import corpus
import evaluate
import export
from chat import judge
from model import CHUNK, Dims, Sprout


def compare(folder, ours, theirs, prompts):
    """Largest difference of logits over whole prompts, and whether greedy answers are equal."""
    worst = 0.0
    for prompt in prompts:
        width = -(-len(prompt) // CHUNK) * CHUNK
        tokens = torch.tensor([prompt + [0] * (width - len(prompt))])
        with torch.no_grad():
            mine = ours.logits(ours.hidden(tokens, evaluate.layout_for(width, 1, ours.dims, "cpu")))
            other = theirs(tokens[:, : len(prompt)]).logits
        worst = max(worst, (mine[:, : len(prompt)] - other).abs().max().item())
    limits = [24] * len(prompts)
    mine = evaluate.generate(ours, prompts, limits, [], "cpu")
    other = [greedy(theirs, prompt, 24, []) for prompt in prompts]
    print(f"{folder}: worst logit difference {worst:.2e}, same greedy tokens: {mine == other}")
    return worst <= 1e-3 and mine == other


def greedy(model, prompt, limit, ends):
    """Greedy tokens with the cache, one prompt at a time."""
    made, cache, feed = [], None, torch.tensor([prompt])
    with torch.no_grad():
        while len(made) < limit:
            out = model(feed, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            made.append(out.logits[0, -1].argmax().item())
            if made[-1] in ends:
                break
            feed = torch.tensor([[made[-1]]])
    return made


def check_random(tokenizer):
    """Parity at random weights, before any training: the math is the same or it is not."""
    torch.manual_seed(5)
    ours = Sprout(Dims())
    for parameter in ours.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        export.write_configs(folder, ours.dims, tokenizer.token_to_id)
        export.write_weights(folder, ours)
        export.load_weights(folder, ours)
        theirs = Qwen3_5ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        generator = torch.Generator().manual_seed(1)
        prompts = [torch.randint(0, 1500, (n,), generator=generator).tolist() for n in (7, 64, 200)]
        assert compare("random weights", ours, theirs, prompts)


def check_template(folder, encoder, examples):
    """HF's own tokenizer and template give the same ids as ours."""
    theirs = AutoTokenizer.from_pretrained(folder)
    for example, mine in zip(examples, evaluate.encode_prompts(encoder, examples)):
        other = theirs.apply_chat_template(
            example.messages,
            tools=example.tools,
            add_generation_prompt=True,
            enable_thinking=example.reasoning is not None,
            return_dict=False,
        )
        assert list(other) == mine, (example.messages, theirs.decode(other))
    text = "Grüße, 世界! 🙂 e\u0301 12345 \t\n done"
    assert theirs.decode(theirs(text)["input_ids"]) == text.replace("e\u0301", "é")
    print(f"{type(theirs).__name__}: same prompt ids for {len(examples)} prompts")


def score(model, encoder, examples, label):
    tally = defaultdict(lambda: [0, 0])
    prompts = evaluate.encode_prompts(encoder, examples)
    for example, prompt in zip(examples, prompts):
        answer = greedy(model, prompt, corpus.MAX_TOKENS[example.kind], [encoder.end])
        text = encoder.tokenizer.decode(answer, skip_special_tokens=True)
        fine = judge(example.expect, text, example.reasoning is not None)
        tally[example.kind][0] += fine
        tally[example.kind][1] += 1
        if not fine:
            print(f"  wrong {example.kind}: {text!r}, not {example.answer!r}")
    print(f"{label} in transformers: {evaluate.show(tally)}")


def write_parity(folder, model, encoder, examples):
    """Eight prompts, each kind once, with the greedy ids of f32 arithmetic on the bf16 weights."""
    chosen = {}
    for example in examples:
        chosen.setdefault(example.kind, example)
    picked = [*chosen.values(), examples[3]]
    with open(folder / "parity.jsonl", "w") as out:
        for example, prompt in zip(picked, evaluate.encode_prompts(encoder, picked)):
            answer = greedy(model, prompt, corpus.MAX_TOKENS[example.kind], [encoder.end])
            line = {"kind": example.kind, "messages": example.messages}
            if example.tools:
                line["tools"] = example.tools
            if example.reasoning is not None:
                line["chat_template_kwargs"] = {"enable_thinking": True}
            line |= {"prompt_ids": prompt, "greedy_ids": answer}
            out.write(json.dumps(line, ensure_ascii=False) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    for flag in ("--random", "--score", "--q8", "--parity"):
        parser.add_argument(flag, action="store_true")
    args = parser.parse_args()
    encoder = corpus.Encoder(Tokenizer.from_file(str(args.folder / "tokenizer.json")))
    examples, _ = corpus.held_out()
    check_template(args.folder, encoder, examples)
    if args.random:
        check_random(encoder.tokenizer)
    if not (args.folder / "model.safetensors").exists():
        return
    ours = Sprout(Dims())
    export.load_weights(args.folder, ours)
    theirs = Qwen3_5ForCausalLM.from_pretrained(args.folder, dtype=torch.float32).eval()
    assert compare(args.folder, ours, theirs, evaluate.encode_prompts(encoder, examples[::25]))
    if args.score:
        score(theirs, encoder, examples, "bf16 weights")
    if args.parity:
        write_parity(args.folder, theirs, encoder, examples)
    if args.q8:
        for name, tensor in theirs.state_dict().items():
            if tensor.ndim == 2 and "lm_head" not in name:
                tensor.copy_(evaluate.simulate_q8_0(tensor))
        score(theirs, encoder, examples, "Q8_0 weights")


if __name__ == "__main__":
    main()
