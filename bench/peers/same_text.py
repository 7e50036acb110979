"""Checks that llama.cpp opens GGUF files of `neuron convert` and says the same as `neuron serve`.

    python -m venv v
    v/bin/pip install llama-cpp-python
    v/bin/python bench/peers/same_text.py --neuron target/release/neuron \\
        --prompts models/sprout/parity.jsonl MODEL.gguf ...

Each line of the prompts has `prompt_ids`. Both programs decode greedily; the texts must be equal.
llama.cpp must also make the same ids of the prompt's text, with the tokenizer out of the file.
"""

import argparse
import json
import pathlib
import re
import subprocess
import tempfile
import urllib.request

import llama_cpp as llama

MAX_TOKENS = 32


def answers_of_llama(path, prompts):
    model = llama.Llama(path, n_ctx=1024, n_threads=2, verbose=False)
    vocab = llama.llama_model_get_vocab(model.model)
    answers = []
    for prompt in prompts:
        text = model.detokenize(prompt, special=True)
        if model.tokenize(text, add_bos=False, special=True) != prompt:
            raise SystemExit(f"{path}: llama.cpp makes other ids of a prompt")
        model.reset()
        ids = []
        for token in model.generate(prompt, temp=0.0, top_k=1):
            if llama.llama_vocab_is_eog(vocab, token):
                break
            ids.append(token)
            if len(ids) == MAX_TOKENS:
                break
        answers.append(model.detokenize(ids).decode())
    return answers


def answers_of_neuron(neuron, path, prompts):
    config = {"listen": "127.0.0.1:0"}
    model = {"model_id": "m", "source": str(pathlib.Path(path).resolve())}
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        lines = [f"{key} = {json.dumps(value)}" for key, value in config.items()]
        lines += ["[[default_models]]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in model.items()]
        file.write("\n".join(lines))
        file.flush()
        server = subprocess.Popen(
            [neuron, "serve", "--config", file.name], stderr=subprocess.PIPE, text=True
        )
        try:
            address = None
            while address is None:
                plain = re.sub(r"\x1b\[[0-9;]*m", "", next(server.stderr))
                found = re.search(r"listen=(\S+)", plain)
                address = found and found[1]
            post(address, "/models/load", {"model_id": "m"})
            answers = [post(address, "/v1/completions", body(ids)) for ids in prompts]
            return [answer["choices"][0]["text"] for answer in answers]
        finally:
            server.terminate()
            server.communicate()


def body(ids):
    return {"model": "m", "prompt": ids, "temperature": 0, "max_tokens": MAX_TOKENS}


def post(address, path, value):
    request = urllib.request.Request(
        f"http://{address}{path}", json.dumps(value).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--neuron", required=True)
    parser.add_argument("--prompts", required=True)
    parser.add_argument("models", nargs="+")
    arguments = parser.parse_args()
    lines = pathlib.Path(arguments.prompts).read_text().splitlines()
    prompts = [json.loads(line)["prompt_ids"] for line in lines]
    differ = 0
    for path in arguments.models:
        theirs = answers_of_llama(path, prompts)
        ours = answers_of_neuron(arguments.neuron, path, prompts)
        same = sum(a == b for a, b in zip(ours, theirs))
        print(f"{pathlib.Path(path).name}: {same} of {len(prompts)} answers are the same")
        for a, b in zip(ours, theirs):
            if a != b:
                differ += 1
                print(f"  neuron    {a!r}\n  llama.cpp {b!r}")
    if differ:
        raise SystemExit(1)


main()
