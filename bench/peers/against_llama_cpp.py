"""Measures llama.cpp and `bench engine` on the same GGUF files, in turns, and prints medians.

    python -m venv v
    CMAKE_ARGS="-DGGML_NATIVE=ON" v/bin/pip install --no-binary llama-cpp-python llama-cpp-python
    v/bin/python bench/peers/against_llama_cpp.py --bench target/release/bench \\
        --threads 2 MODEL.gguf ...

Both get token ids, compute prompts in steps of at most 512 tokens and decode greedily. A figure is
the median over the rounds; each round runs llama.cpp and then the engine, so that both see the same
machine. `spread` is half the distance between the quartiles over the median.
"""

import argparse
import ctypes
import json
import statistics
import subprocess
import time

import llama_cpp as llama

PREFILL = 512
DEPTHS = (0, 1024)


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
    rounds = [(peer_rates(args, peer), engine_rates(args, path)) for _ in range(args.rounds)]
    print(path)
    for name in rounds[0][0]:
        theirs = [theirs[name] for theirs, _ in rounds]
        ours = [ours[name] for _, ours in rounds]
        ratio = statistics.median(o / t for o, t in zip(ours, theirs))
        print(
            f"  {name:16} llama.cpp {statistics.median(theirs):8.1f} tok/s (spread "
            f"{spread(theirs):.0%})  engine {statistics.median(ours):8.1f} tok/s (spread "
            f"{spread(ours):.0%})  ratio {ratio:.2f}"
        )
    llama.llama_free(peer.context)
    llama.llama_model_free(peer.model)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--bench", default="target/release/bench")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print(llama.llama_print_system_info().decode().strip())
    for path in args.models:
        compare(args, path)


if __name__ == "__main__":
    main()
