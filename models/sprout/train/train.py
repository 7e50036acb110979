"""Trains sprout and writes everything that models/sprout holds.

    python models/sprout/train/train.py --out models/sprout

The corpus, the split and the initial weights follow from fixed seeds. The learning rate follows
the clock, so the number of steps depends on the machine; `--steps` fixes it instead.
"""

import argparse
import json
import math
import os
import shutil
import threading
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer

import card
import corpus
import evaluate
import export
import vocabulary
from chat import TEMPLATE_PATH
from model import Dims, Sprout
from optimiser import Muon, split

MTP_WEIGHT = 0.2


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=7.5, help="of training, the corpus aside")
    parser.add_argument("--steps", type=int, default=0, help="train so many steps, not minutes")
    parser.add_argument("--examples", type=int, default=3_000_000)
    parser.add_argument("--rows", type=int, default=64, help="rows of 1024 tokens per step")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--muon-lr", type=float, default=5e-3)
    parser.add_argument("--adam-lr", type=float, default=3e-3)
    parser.add_argument("--evaluations", type=int, default=4)
    parser.add_argument("--resume", type=Path, help="a checkpoint written by an earlier run")
    parser.add_argument("--start", type=float, default=0.0, help="progress at which to resume")
    parser.add_argument("--eager", action="store_true", help="do without the compiler")
    return parser.parse_args()


class Trainer:
    """The model, its optimisers and one step over fixed input buffers."""

    def __init__(self, args, dims):
        torch.manual_seed(1)
        torch.backends.cuda.matmul.allow_tf32 = True
        self.args, self.device = args, args.device
        self.model = Sprout(dims).to(args.device)
        matrices, rest = split(self.model)
        rate = torch.zeros((), device=args.device)
        self.muon_rate, self.adam_rate = rate.clone(), rate.clone()
        self.muon = Muon(matrices, self.muon_rate)
        on_gpu = args.device == "cuda"
        self.adam = torch.optim.AdamW(
            rest,
            lr=self.adam_rate,
            betas=(0.9, 0.98),
            weight_decay=0.01,
            fused=on_gpu,
            capturable=on_gpu,
        )
        shape = (args.rows, corpus.ROW)
        self.batch = [
            torch.zeros(shape, dtype=kind, device=args.device)
            for kind in (torch.long, torch.int32, torch.int32, torch.float32)
        ]
        self.forward = self.model if args.eager else torch.compile(self.model)
        self.sums = torch.zeros(3, device=args.device)
        self.graph = None

    def compute(self):
        with torch.autocast(self.device, torch.bfloat16):
            loss, draft, right = self.forward(*self.batch)
        (loss + MTP_WEIGHT * draft).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
        self.muon.step()
        self.adam.step()
        self.adam.zero_grad(set_to_none=False)
        for group in self.muon.groups:
            torch._foreach_zero_([m.grad for m in group])
        self.sums += torch.stack([loss.detach(), draft.detach(), right.float()])

    def capture(self):
        """Warms up on empty rows at rate zero, then records the whole step as one graph."""
        if self.device != "cuda":
            return
        self.batch[3].fill_(1.0)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.compute()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.compute()
        self.reset()

    def reset(self):
        """Forgets the warm-up in the optimisers. The rate was zero, so the weights are as new."""
        for buffer in self.muon.buffers:
            buffer.zero_()
        for state in self.adam.state.values():
            for value in state.values():
                value.zero_()
        self.sums.zero_()

    def step(self, rows, rate):
        tokens, document, position, supervised = rows
        weight = torch.where(supervised > 0, 1.0, corpus.CONTEXT_WEIGHT) * (document < 255)
        for buffer, value in zip(self.batch, (tokens, document, position, weight)):
            buffer.copy_(value)
        self.muon_rate.fill_(self.args.muon_lr * rate)
        self.adam_rate.fill_(self.args.adam_lr * rate)
        self.graph.replay() if self.graph else self.compute()

    def state(self):
        """What a later run needs to go on. Optimiser state keeps bf16, which is precise enough."""
        adam = [
            {name: value.bfloat16() for name, value in self.adam.state[parameter].items()}
            for parameter in self.adam.param_groups[0]["params"]
        ]
        muon = [buffer.bfloat16() for buffer in self.muon.buffers]
        return {"model": self.model.state_dict(), "muon": muon, "adam": adam}

    def load(self, path):
        saved = torch.load(path, map_location=self.device)
        self.model.load_state_dict(saved["model"])
        for mine, theirs in zip(self.muon.buffers, saved["muon"]):
            mine.copy_(theirs)
        for parameter, state in zip(self.adam.param_groups[0]["params"], saved["adam"]):
            for name, value in state.items():
                if parameter in self.adam.state:
                    self.adam.state[parameter][name].copy_(value)


def rate_at(progress):
    """Short warm-up, flat, then a long cosine to nothing."""
    if progress < 0.02:
        return progress / 0.02
    return 0.5 * (1 + math.cos(math.pi * max(0.0, (progress - 0.25) / 0.75)))


def train(trainer, data, args, evaluation):
    """Steps until the time or the steps are used up. Returns steps and seconds."""
    total = data[0].shape[0]
    generator = torch.Generator().manual_seed(2)
    order, at, step, shown, checks = torch.randperm(total, generator=generator), 0, 0, 0, 0
    start = time.time()
    while True:
        elapsed = time.time() - start
        done = step / args.steps if args.steps else elapsed / (60 * args.minutes)
        progress = args.start + (1 - args.start) * done
        if progress >= 1:
            return step, elapsed
        if at + args.rows > total:
            order, at = torch.randperm(total, generator=generator), 0
        chosen = order[at : at + args.rows].to(data[0].device)
        trainer.step([column[chosen] for column in data], rate_at(progress))
        at, step, shown = at + args.rows, step + 1, shown + 1
        if step % 100 == 0 or trainer.device == "cpu":
            loss, draft, right = (trainer.sums / shown).tolist()
            trainer.sums.zero_()
            shown = 0
            speed = step * args.rows * corpus.ROW / (time.time() - start) / 1e6
            if step % 500 == 0 or step <= 500:
                print(
                    f"step {step} {progress:.3f} loss {loss:.4f} mtp {draft:.4f} right {right:.4f} "
                    f"{speed:.2f} Mtok/s",
                    flush=True,
                )
        if progress * (args.evaluations + 1) > checks + 1:
            checks += 1
            evaluation(f"at {progress:.2f}")


def evaluator(trainer, encoder, examples, args):
    limits = [corpus.MAX_TOKENS[e.kind] for e in examples]

    def run(label, change=export.as_bf16, verbose=False):
        model, began = trainer.model, time.time()
        old = export.with_transform(model, change)
        torch.backends.cuda.matmul.allow_tf32 = False
        tally, prompts, answers = evaluate.score(
            model, encoder, examples, limits, args.device, verbose
        )
        print(f"held out {label}: {evaluate.show(tally)} ({time.time() - began:.1f} s)", flush=True)
        accepted = (
            evaluate.mtp_acceptance(model, prompts, answers, args.device) if verbose else None
        )
        torch.backends.cuda.matmul.allow_tf32 = True
        model.load_state_dict(old)
        if not verbose:
            save(trainer, args.out)
        return tally, accepted

    return run


def save(trainer, out):
    export.write_weights(out, trainer.model)
    torch.save(trainer.state(), out / "checkpoint.pt.part")
    os.replace(out / "checkpoint.pt.part", out / "checkpoint.pt")


def as_q8_0(name, tensor):
    return evaluate.simulate_q8_0(tensor) if tensor.ndim == 2 else tensor


def prepare(args, dims):
    """Tokenizer, configuration and held-out files; returns what the corpus needs."""
    args.out.mkdir(parents=True, exist_ok=True)
    examples, hashes = corpus.held_out()
    tokenizer = vocabulary.train(dims.vocab, hashes, 30_000)
    vocabulary.write(tokenizer, args.out, export.CONTEXT)
    tokenizer = Tokenizer.from_file(str(args.out / "tokenizer.json"))
    export.write_configs(args.out, dims, tokenizer.token_to_id)
    if TEMPLATE_PATH.parent.resolve() != args.out.resolve():
        shutil.copy(TEMPLATE_PATH, args.out)
    lines = [json.dumps(line, ensure_ascii=False) for line in corpus.held_out_lines(examples)]
    (args.out / "heldout.jsonl").write_text("\n".join(lines) + "\n")
    return corpus.Encoder(tokenizer), examples, hashes


def main():
    args, dims = arguments(), Dims()
    began = time.time()
    encoder, examples, hashes = prepare(args, dims)
    built = {}

    def build():
        built["data"] = corpus.build(
            args.out / "tokenizer.json", args.examples, hashes, args.workers
        )
        print(
            f"corpus of {built['data'][0].shape[0]} rows after {time.time() - began:.0f} s",
            flush=True,
        )

    # The compiler and the corpus take about as long as each other, so they run side by side.
    builder = threading.Thread(target=build)
    builder.start()
    trainer = Trainer(args, dims)
    parameters = sum(p.numel() for p in trainer.model.parameters())
    print(f"{parameters} parameters on {args.device}", flush=True)
    trainer.capture()
    print(f"step ready after {time.time() - began:.0f} s", flush=True)
    if args.resume:
        trainer.load(args.resume)
    builder.join()
    data = [torch.from_numpy(column).to(args.device) for column in built["data"]]
    evaluation = evaluator(trainer, encoder, examples, args)
    steps, seconds = train(trainer, data, args, evaluation)
    save(trainer, args.out)
    bf16, accepted = evaluation("in bf16", verbose=True)
    q8_0, _ = evaluation("in Q8_0", as_q8_0, verbose=True)
    card.write_scores(
        args.out,
        {
            "parameters": parameters,
            "steps": steps,
            "seconds": round(seconds),
            "tokens": steps * args.rows * corpus.ROW,
            "rows": int(data[0].shape[0]),
            "device": torch.cuda.get_device_name() if args.device == "cuda" else "CPU",
            "bf16": bf16,
            "q8_0": q8_0,
            "mtp_acceptance": round(accepted, 4),
        },
    )


if __name__ == "__main__":
    main()
