"""Two gateways over four neurons on this machine, real programs all of them.

One neuron runs `sprout` with the project's own engine. The others run the engine child that plays
scripts (`crates/neuron/examples/scripted_engine.rs`), so that what a small model could not be
brought to say still goes through tokenizer, parsers, projectors and gateway: `script` plays all
kinds of answers, `locked` wants a key, and `doomed` is killed by tests in the middle of its
answers and started again. One of the gateways asks nobody for a key, the other one everybody.
"""

import hashlib

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import agent_tasks
import scenes

ROOT = Path(__file__).resolve().parents[2]
KEY = "a-key-of-the-locked-neuron"
# Of the gateway that wants them: what each may.
KEYS = {
    "open": "",
    "metrics": 'scope = "metrics"',
    "slow": "rpm = 1",
    "spent": "budget = { tokens = 1 }",
}
BODY_LIMIT_MB = 2


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def write_model(directory, script, template=None):
    """A model without weights: sprout's tokenizer, a template and what its engine plays."""
    sprout = ROOT / "models/sprout"
    directory.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(sprout / name, directory)
    shutil.copy(template or sprout / "chat_template.jinja", directory / "chat_template.jinja")
    (directory / "config.json").write_text('{"model_type": "scripted"}')
    (directory / "script.json").write_text(json.dumps(script, indent=1))


class Program:
    """One process; its log is a file. `respawn` starts it again whenever it dies."""

    def __init__(self, command, log, respawn=False):
        self.command, self.log, self.respawn = command, log, respawn
        self.pid_file = log.with_suffix(".pid")
        self.stopping = False
        self.start()
        if respawn:
            threading.Thread(target=self.watch, daemon=True).start()

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.pid_file.write_text(str(self.process.pid))

    def watch(self):
        while True:
            self.process.wait()
            if self.stopping:
                return
            self.start()

    def stop(self):
        self.stopping = True
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Fleet:
    """Everything that runs; a context."""

    def __init__(self, binaries, directory, tasks):
        self.binaries, self.directory, self.tasks = binaries, directory, tasks
        self.programs = []
        self.endpoints = {}

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for program in reversed(self.programs):
            program.stop()

    def start(self):
        sources = {"sprout": ROOT / "models/sprout", "sprout-long": self.long_sprout()}
        sources["sprout-embeds"] = self.embedding_sprout()
        self.neuron("sprout", sources, engine=None)
        self.neuron("script", self.scripted(scenes.models(self.tasks)))
        self.neuron("locked", self.scripted(scenes.locked_models()), key=True)
        self.neuron("doomed", self.scripted(scenes.doomed_models()), respawn=True)
        self.url = self.cortex("cortex")
        keys = ["[ledger]", f'url = "sqlite://{self.directory / "ledger.sqlite"}"']
        for name, limit in KEYS.items():
            sha256 = hashlib.sha256(f"key-{name}".encode()).hexdigest()
            keys += ["[[auth.keys]]", f'name = "{name}"', f'sha256 = "{sha256}"', limit]
        self.keyed_url = self.cortex("keyed", keys)
        expected = set(scenes.ALWAYS_READY)
        wait_for(f"{sorted(expected)} ready", lambda: expected <= ready_models(self.url))
        wait_for("the same with keys", lambda: expected <= ready_models(self.keyed_url, "key-open"))

    def long_sprout(self):
        """For the prompts of agents, which are longer than what sprout was trained on. What it
        then says is worth nothing; what its prefix cache does is what any model's does."""
        directory = self.copy_of_sprout("sprout-long")
        config = json.loads((directory / "config.json").read_text())
        config["max_position_embeddings"] = 65536
        (directory / "config.json").write_text(json.dumps(config))
        return directory

    def embedding_sprout(self):
        """With the files by which a model says how its hidden states become an embedding."""
        directory = self.copy_of_sprout("sprout-embeds")
        (directory / "1_Pooling").mkdir()
        pooling = {"word_embedding_dimension": 160, "pooling_mode_lasttoken": True}
        (directory / "1_Pooling/config.json").write_text(json.dumps(pooling))
        parts = ("Transformer", "Pooling", "Normalize")
        modules = [{"type": f"sentence_transformers.models.{part}"} for part in parts]
        (directory / "modules.json").write_text(json.dumps(modules))
        return directory

    def copy_of_sprout(self, name):
        directory = self.directory / "models" / name
        leave_out = shutil.ignore_patterns("train", "*.gguf", "*.jsonl")
        shutil.copytree(ROOT / "models/sprout", directory, ignore=leave_out)
        return directory

    def scripted(self, models):
        sources = {}
        for name, (script, template) in models.items():
            sources[name] = self.directory / "models" / name
            write_model(sources[name], script, template and ROOT / template)
        return sources

    def neuron(self, name, models, engine="examples/scripted_engine", key=False, respawn=False):
        port = free_port()
        lines = [f'listen = "127.0.0.1:{port}"', f"body_limit_mb = {BODY_LIMIT_MB}"]
        if key:
            key_file = self.directory / "key"
            key_file.write_text(KEY)
            key_file.chmod(0o600)
            lines.append(f'api_key_file = "{key_file}"')
        if engine:
            lines += ["[harness.native]", f'engine_command = ["{self.binaries / engine}"]']
        for model, source in models.items():
            lines += ["[[default_models]]", f'model_id = "{model}"', f'source = "{source}"']
        self.endpoints[name] = f"http://127.0.0.1:{port}"
        self.run(name, "neuron", lines, respawn)

    def cortex(self, name, more=()):
        port = free_port()
        lines = ["[gateway]", f'listen = "127.0.0.1:{port}"', 'metrics_listen = "127.0.0.1:0"']
        lines += ["poll_interval_ms = 200", f"body_limit_mb = {BODY_LIMIT_MB}"]
        for neuron, endpoint in self.endpoints.items():
            if neuron != "locked":
                lines += ["[[neurons]]", f'name = "{neuron}"', f'endpoint = "{endpoint}"']
        self.run(name, "cortex", lines + list(more))
        return f"http://127.0.0.1:{port}"

    def run(self, name, binary, lines, respawn=False):
        config = self.directory / f"{name}.toml"
        config.write_text("\n".join(lines) + "\n")
        command = [self.binaries / binary, "serve", "--config", config]
        self.programs.append(Program(command, self.directory / f"{name}.log", respawn))

    def description(self):
        """What suites in any language need to know, as a file of JSON."""
        path = self.directory / "fleet.json"
        told = {
            "url": self.url,
            "locked_url": self.endpoints["locked"],
            "key": KEY,
            "keyed_url": self.keyed_url,
            "body_limit_bytes": BODY_LIMIT_MB << 20,
            "doomed_pid_file": str(self.directory / "doomed.pid"),
            "cortex_log": str(self.directory / "cortex.log"),
            "keyed_log": str(self.directory / "keyed.log"),
            "tasks": {
                task.agent: {
                    "folder": str(task.folder), "greeting": task.greeting, "errand": task.errand,
                    "answer": task.answer, "search": task.search,
                    "searched": agent_tasks.SEARCHED,
                }
                for task in self.tasks
            },
            "scenes": {name: said for name, said in vars(scenes).items() if name.isupper()},
        }
        path.write_text(json.dumps(told))
        return path


def ready_models(url, key="unused"):
    """The ids of models that answer now."""
    asked = urllib.request.Request(f"{url}/v1/models", headers={"authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(asked, timeout=5) as answer:
            listed = json.load(answer)["data"]
    except OSError:
        return set()
    return {entry["id"] for entry in listed if entry.get("loaded")}


def wait_for(what, is_so, limit_s=60):
    end = time.monotonic() + limit_s
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError(f"never in {limit_s} s: {what}")
        time.sleep(0.05)


def until_it_answers(fleet, model):
    """Lists are as old as the gateway's last poll: after a death only an answer tells."""
    body = {"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": "Greet me."}]}
    url, headers = f"{fleet['url']}/v1/chat/completions", {"content-type": "application/json"}
    asked = urllib.request.Request(url, json.dumps(body).encode(), headers)

    def answers():
        try:
            with urllib.request.urlopen(asked, timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    wait_for(f"an answer of {model}", answers)


def kill_doomed(fleet):
    os.kill(int(Path(fleet["doomed_pid_file"]).read_text()), signal.SIGKILL)
