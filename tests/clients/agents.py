"""Claude Code, Codex and Qwen Code: a turn of words and a turn with a tool each.

Every agent runs as its user would start it for one task, in a home of its own, with its telemetry
and updates turned off by its own settings. The gateway's log tells how many requests that took.
"""

import json
import os
import re
import subprocess
import time
from pathlib import Path

import scenes
from suite import run

VERSIONS = json.loads(Path(__file__).with_name("package.json").read_text())["dependencies"]


class Claude:
    name, package, path = "claude", "@anthropic-ai/claude-code", "/v1/messages"
    quiet = {
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_TELEMETRY": "1",
        "DISABLE_AUTOUPDATER": "1", "DISABLE_ERROR_REPORTING": "1",
    }

    def environment(self, fleet, model, home):
        told = {"ANTHROPIC_BASE_URL": fleet["url"], "ANTHROPIC_MODEL": model, **self.quiet}
        # The one is sent as `x-api-key`, the other as a bearer's token.
        name = "ANTHROPIC_API_KEY" if "agent_key" in fleet else "ANTHROPIC_AUTH_TOKEN"
        return {**told, name: fleet.get("agent_key", "unused")}

    def command(self, model, prompt):
        return ["claude", "-p", prompt, "--output-format", "json"]

    def said(self, output):
        told = json.loads(output)
        assert not told["is_error"], told
        return told["result"]


class Codex:
    name, package, path = "codex", "@openai/codex", "/v1/responses"

    def environment(self, fleet, model, home):
        folder = home / ".codex"
        folder.mkdir(exist_ok=True)
        lines = [
            f'model = "{model}"', 'model_provider = "cortex"',
            "check_for_update_on_startup = false",
            "[analytics]", "enabled = false",
            "[model_providers.cortex]", 'name = "cortex"', f'base_url = "{fleet["url"]}/v1"',
            'wire_api = "responses"', 'env_key = "CORTEX_KEY"',
            "request_max_retries = 0", "stream_max_retries = 0",
        ]
        (folder / "config.toml").write_text("\n".join(lines) + "\n")
        return {"CORTEX_KEY": fleet.get("agent_key", "unused")}

    def command(self, model, prompt):
        return ["codex", "exec", "--skip-git-repo-check",
                "--dangerously-bypass-approvals-and-sandbox", prompt]

    def said(self, output):
        return output


class Qwen:
    name, package, path = "qwen", "@qwen-code/qwen-code", "/v1/chat/completions"

    def environment(self, fleet, model, home):
        folder = home / ".qwen"
        folder.mkdir(exist_ok=True)
        # Its background memory would ask the model a second time for every prompt.
        settings = {
            "general": {"enableAutoUpdate": False},
            "privacy": {"usageStatisticsEnabled": False},
            "telemetry": {"enabled": False},
            "memory": {"enableManagedAutoMemory": False, "enableManagedAutoDream": False},
            "security": {"auth": {"selectedType": "openai"}},
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        return {"OPENAI_BASE_URL": f"{fleet['url']}/v1", "OPENAI_MODEL": model,
                "OPENAI_API_KEY": fleet.get("agent_key", "unused")}

    def command(self, model, prompt):
        return ["qwen", "--yolo", "-p", prompt]

    def said(self, output):
        return output


AGENTS = [Claude(), Codex(), Qwen()]


def start(agent, fleet, model, prompt, folder):
    home = Path(os.environ["HOME"]) / agent.name
    home.mkdir(exist_ok=True)
    environment = {**os.environ, "HOME": str(home), **agent.environment(fleet, model, home)}
    bin_folder = Path(os.environ["CLIENTS_MODULES"]) / ".bin"
    environment["PATH"] = f"{bin_folder}:{environment['PATH']}"
    return subprocess.run(
        agent.command(model, prompt), cwd=folder, env=environment, timeout=120,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )


def requests_since(fleet, offset):
    """Path and outcome of each request that the gateway has logged, once its log stands still."""
    size = -1
    while size != (size := os.path.getsize(fleet["cortex_log"])):
        time.sleep(0.5)
    with open(fleet["cortex_log"], errors="replace") as log:
        log.seek(offset)
        lines = [line for line in log if " request id=" in line]
    field = re.compile(r'(\w+)=("[^"]*"|\S+)')
    told = [{key: value.strip('"') for key, value in field.findall(line)} for line in lines]
    return [(line["path"], line["status"], line["end"]) for line in told]


def turn(agent, fleet, model, prompt, answer, requests):
    task = fleet["tasks"][agent.name]
    offset = os.path.getsize(fleet["cortex_log"])
    ran = start(agent, fleet, model, prompt, task["folder"])
    log = f"{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}"
    assert ran.returncode == 0, f"exit status {ran.returncode}: {log}"
    assert answer in agent.said(ran.stdout), log
    made = requests_since(fleet, offset)
    assert made == [(agent.path, "200", "complete")] * requests, made


def checks_of(agent):
    def words(fleet):
        turn(agent, fleet, "scripted", fleet["tasks"][agent.name]["greeting"], scenes.GREETING, 1)

    def tool(fleet):
        task = fleet["tasks"][agent.name]
        turn(agent, fleet, "scripted", task["errand"], task["answer"], 2)

    def tool_of_a_model_that_thinks_and_writes_xml(fleet):
        task = fleet["tasks"][agent.name]
        turn(agent, fleet, "scripted-xml", task["errand"], task["answer"], 2)

    def words_with_a_key(fleet):
        keyed = {**fleet, "url": fleet["keyed_url"], "cortex_log": fleet["keyed_log"]}
        task = fleet["tasks"][agent.name]
        given = {**keyed, "agent_key": "key-open"}
        turn(agent, given, "scripted", task["greeting"], scenes.GREETING, 1)
        ran = start(agent, {**keyed, "agent_key": "key-unknown"}, "scripted", task["greeting"],
                    task["folder"])
        assert ran.returncode != 0, f"exit status 0: {ran.stdout[-2000:]}"

    def the_engine_dies_in_its_answer(fleet):
        """Each tries again in its own way; in the end it must not pass for an answer."""
        folder = fleet["tasks"][agent.name]["folder"]
        ran = start(agent, fleet, f"frail-{agent.name}", "Fault!", folder)
        log = f"{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}"
        assert ran.returncode != 0, f"exit status 0: {log}"
        print(f"        exit status {ran.returncode}: {ran.stdout[-300:]} {ran.stderr[-300:]}")

    def a_tool_that_has_to_be_searched_first(fleet):
        task = fleet["tasks"][agent.name]
        turn(agent, fleet, "scripted", task["search"], task["searched"], 3)

    checks = [words, tool, tool_of_a_model_that_thinks_and_writes_xml,
              words_with_a_key, the_engine_dies_in_its_answer]
    if agent.name == "claude":
        checks.append(a_tool_that_has_to_be_searched_first)
    for check in checks:
        check.__name__ = f"{agent.package}@{VERSIONS[agent.package]}: {check.__name__}"
    return checks


if __name__ == "__main__":
    versions = ", ".join(f"{agent.package}@{VERSIONS[agent.package]}" for agent in AGENTS)
    run("agents", f"({versions})", [check for agent in AGENTS for check in checks_of(agent)])
