"""Measures llama.cpp and `bench engine` on the same GGUF files, in turns, and keeps the medians.

    python -m venv v
    CMAKE_ARGS="-DGGML_NATIVE=ON" v/bin/pip install --no-binary llama-cpp-python llama-cpp-python
    cargo build --release -p bench
    v/bin/python bench/peers/against_llama_cpp.py --threads 2 \\
        --snapshot bench/peers/llama_cpp.json --table docs/cpu.md A.gguf B.gguf

Both get token ids, compute prompts in steps of at most 512 tokens and decode greedily. A figure is
the median over the rounds, and a ratio the median of the rounds' ratios; each round runs llama.cpp
and then the engine, so that both see the same machine. `spread` is half the distance between the
quartiles over the median. `--snapshot` writes every round as JSON; `--table` puts the table between
two marks of a document.
"""

import argparse
import ctypes
import json
import os
import pathlib
import platform
import statistics
import subprocess
import time

import llama_cpp as llama

PREFILL = 512
DEPTHS = (0, 1024)
MARKS = ("<!-- figures against llama.cpp -->\n", "<!-- end of figures -->\n")


class Peer:
    """A model and a context of llama.cpp."""

    def __init__(self, path, threads):
        llama.llama_backend_init()
        quiet = llama.llama_log_callback(lambda level, text, data: None)
        self.quiet = quiet
        llama.llama_log_set(quiet, ctypes.c_void_p(0))
        model = llama.llama_model_default_params()
        self.model = llama.llama_model_load_from_file(path.encode(), model)
        params = llama.llama_context_default_params()
        params.n_ctx = 2048
        params.n_batch = params.n_ubatch = PREFILL
        params.n_threads = params.n_threads_batch = threads
        self.context = llama.llama_init_from_model(self.model, params)
        if not self.context:
            raise SystemExit(f"llama.cpp does not open {path}")
        self.vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))
        self.turn = 0

    def decode(self, tokens):
        array = (llama.llama_token * len(tokens))(*tokens)
        if llama.llama_decode(self.context, llama.llama_batch_get_one(array, len(tokens))) != 0:
            raise SystemExit("llama.cpp failed a step")

    def choose(self):
        """The greedy token, by numpy over the logits: a small part of a step."""
        import numpy

        logits = llama.llama_get_logits_ith(self.context, -1)
        return int(numpy.ctypeslib.as_array(logits, shape=(self.vocab,)).argmax())

    def prompt(self, count):
        self.turn += 1
        llama.llama_memory_clear(llama.llama_get_memory(self.context), True)
        tokens = [(at * 7919 + self.turn * 104729) % self.vocab for at in range(count)]
        for first in range(0, count, PREFILL):
            self.decode(tokens[first : first + PREFILL])
        return self.choose()

    def prefill_rate(self):
        start = time.perf_counter()
        self.prompt(PREFILL)
        return PREFILL / (time.perf_counter() - start)

    def decode_rate(self, depth, tokens):
        token = self.prompt(max(depth, 1))
        start = time.perf_counter()
        for _ in range(tokens):
            self.decode([token])
            token = self.choose()
        return tokens / (time.perf_counter() - start)


def engine_rates(args, path):
    command = [args.bench, "engine", path, "--json", "--threads", str(args.threads)]
    command += ["--prefill", str(PREFILL), "--depth", ",".join(map(str, DEPTHS)), "--batch", "1"]
    command += ["--tokens", str(args.tokens), "--repeat", "1"]
    report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    rates = {f"prefill {PREFILL}": report["prefill"][0]["tok_s"]}
    for row in report["decode"]:
        rates[f"decode at {row['depth']}"] = row["tok_s"]
    return rates


def peer_rates(args, peer):
    rates = {f"prefill {PREFILL}": peer.prefill_rate()}
    for depth in DEPTHS:
        rates[f"decode at {depth}"] = peer.decode_rate(depth, args.tokens)
    return rates


def spread(values):
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4)
    return (high - low) / 2 / statistics.median(values)


def compare(args, path):
    peer = Peer(path, args.threads)
    peer_rates(args, peer)
    rounds = []
    for _ in range(args.rounds):
        load = os.getloadavg()[0]
        theirs, ours = peer_rates(args, peer), engine_rates(args, path)
        rounds.append({"load": load, "llama_cpp": theirs, "engine": ours})
    llama.llama_free(peer.context)
    llama.llama_model_free(peer.model)
    figures = []
    for name in rounds[0]["engine"]:
        theirs = [one["llama_cpp"][name] for one in rounds]
        ours = [one["engine"][name] for one in rounds]
        figures.append(
            {
                "figure": name,
                "llama_cpp_tok_s": statistics.median(theirs),
                "llama_cpp_spread": spread(theirs),
                "engine_tok_s": statistics.median(ours),
                "engine_spread": spread(ours),
                "ratio": statistics.median(o / t for o, t in zip(ours, theirs)),
            }
        )
    return {"model": pathlib.Path(path).name, "figures": figures, "rounds": rounds}


def processor():
    for line in open("/proc/cpuinfo", encoding="utf-8"):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def table(report):
    loads = [one["load"] for model in report["models"] for one in model["rounds"]]
    lines = [
        f"{report['date']}, {report['processor']}, {report['threads']} threads, "
        f"{report['rounds']} rounds, load average {min(loads):.1f} to {max(loads):.1f}, "
        f"llama-cpp-python {report['llama_cpp_python']}:",
        "",
        "| model | figure | llama.cpp, tok/s (spread) | engine, tok/s (spread) | ratio |",
        "|---|---|---|---|---|",
    ]
    for model in report["models"]:
        name = model["model"]
        for row in model["figures"]:
            lines.append(
                f"| {name} | {row['figure']} "
                f"| {row['llama_cpp_tok_s']:.1f} ({row['llama_cpp_spread']:.0%}) "
                f"| {row['engine_tok_s']:.1f} ({row['engine_spread']:.0%}) "
                f"| {row['ratio']:.2f} |"
            )
            name = ""
    return "\n".join(lines) + "\n"


def put_between_marks(path, text):
    document = pathlib.Path(path)
    before, rest = document.read_text(encoding="utf-8").split(MARKS[0], 1)
    after = rest.split(MARKS[1], 1)[1]
    document.write_text(before + MARKS[0] + text + MARKS[1] + after, encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--bench", default="target/release/bench")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--snapshot", metavar="JSON")
    parser.add_argument("--table", metavar="DOCUMENT")
    args = parser.parse_args()
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor(),
        "threads": args.threads,
        "rounds": args.rounds,
        "decoded_tokens": args.tokens,
        "llama_cpp_python": llama.__version__,
        "llama_cpp_build": llama.llama_print_system_info().decode().strip(),
        "models": [compare(args, path) for path in args.models],
    }
    text = table(report)
    print(text, end="")
    if args.snapshot:
        text_of = json.dumps(report, indent=1) + "\n"
        pathlib.Path(args.snapshot).write_text(text_of, encoding="utf-8")
    if args.table:
        put_between_marks(args.table, text)


if __name__ == "__main__":
    main()
