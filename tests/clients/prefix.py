"""Turns of one session of Claude Code share their prefix, on the project's own engine.

Claude Code holds its sessions with a scripted model, so that it says what it would say to a good
one. Its requests are taken down on the way and then asked of a model with weights, with no change
but the model's name and a short answer.
"""

import http.client
import http.server
import json
import threading
import urllib.parse
import urllib.request

from agents import VERSIONS, Claude, start
from suite import run

LEAST_SHARE = 0.95
BILLING = "x-anthropic-billing-header:"


class Recorder:
    """Stands between a client and the gateway, and keeps the bodies of requests for messages."""

    def __init__(self, url):
        self.bodies = []
        gateway, bodies = urllib.parse.urlsplit(url).netloc, self.bodies

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.path.startswith("/v1/messages?"):
                    bodies.append(json.loads(body))
                connection = http.client.HTTPConnection(gateway, timeout=60)
                headers = {"content-type": "application/json", "anthropic-version": "2023-06-01"}
                connection.request("POST", self.path, body, headers)
                answer = connection.getresponse()
                self.send_response(answer.status)
                self.send_header("content-type", answer.headers["content-type"])
                self.end_headers()
                self.wfile.write(answer.read())

            def do_HEAD(self):
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Continued(Claude):
    """Claude Code, going on with the last session of its folder."""

    def command(self, model, prompt):
        return [*super().command(model, prompt), "--continue"]


def session(fleet, *turns):
    """The bodies of its requests."""
    recorder = Recorder(fleet["url"])
    folder = fleet["tasks"]["claude"]["folder"]
    for agent, prompt in turns:
        ran = start(agent, {**fleet, "url": recorder.url}, "scripted", prompt, folder)
        assert ran.returncode == 0, ran.stderr
    lengths = [len(body["messages"]) for body in recorder.bodies]
    assert lengths == sorted(set(lengths)), f"each goes on with the one before: {lengths}"
    return recorder.bodies


def usage(fleet, body, cache):
    """What the engine computed and what its cache supplied; `cache` keeps sessions apart."""
    body = {**body, "model": "sprout-long", "max_tokens": 4, "stream": False, "cache_salt": cache}
    headers = {"content-type": "application/json", "anthropic-version": "2023-06-01"}
    url = f"{fleet['url']}/v1/messages?beta=true"
    asked = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(asked, timeout=300) as answer:
        told = json.load(answer)["usage"]
    cached = told["cache_read_input_tokens"]
    return told["input_tokens"] + cached, cached


def renamed(body, number):
    """The same with a first block that changes with each request and is not known as billing."""
    blocks = [dict(block) for block in body["system"]]
    assert blocks[0]["text"].startswith(BILLING), blocks[0]
    blocks[0]["text"] = f"x-other-header: cch={number:05}"
    return {**body, "system": blocks}


def billed(body, number):
    """The block changes with each request, as that of earlier versions did."""
    blocks = [dict(block) for block in body["system"]]
    assert blocks[0]["text"].startswith(BILLING), blocks[0]
    blocks[0]["text"] += f" cch={number:05};"
    return {**body, "system": blocks}


def two_turns_share_their_prefix(fleet):
    greeting = fleet["tasks"]["claude"]["greeting"]
    first, second = session(fleet, (Claude(), greeting), (Continued(), f"Again: {greeting}"))
    for name, change in (("as they came", lambda body, _: body), ("with a new cch", billed)):
        prompt, cached_before = usage(fleet, change(first, 1), cache=name)
        assert cached_before == 0, "nobody has asked this before"
        longer, cached = usage(fleet, change(second, 2), cache=name)
        print(f"{name}: first prompt {prompt} tokens, second {longer}, cached {cached}: "
              f"{cached / prompt:.1%} of the first")
        assert cached >= LEAST_SHARE * prompt, "the second turn is computed anew"
    # The measure itself: with a block that is not left out, little or nothing is shared.
    prompt, _ = usage(fleet, renamed(first, 1), cache="renamed")
    _, cached = usage(fleet, renamed(second, 2), cache="renamed")
    print(f"with an unknown changing block: cached {cached}: {cached / prompt:.1%}")
    assert cached < LEAST_SHARE * prompt, "this measure cannot fail"


def told_at_once(body):
    """The same with every tool in front of the conversation, wherever it was found."""
    at_once = [{key: tool[key] for key in tool if key != "defer_loading"} for tool in body["tools"]]
    return {**body, "tools": at_once}


def a_tool_that_joins_late_keeps_the_prefix(fleet):
    """The tool is searched in the first turn, joins the second request, and is called there."""
    bodies = session(fleet, (Claude(), fleet["tasks"]["claude"]["search"]))
    names = [[tool["name"] for tool in body["tools"]] for body in bodies]
    late = set(names[1]) - set(names[0])
    assert late and len(bodies) == 3, (late, len(bodies))

    def shares(name, change):
        before, _ = usage(fleet, change(bodies[0]), cache=name)
        for body in bodies[1:]:
            prompt, cached = usage(fleet, change(body), cache=name)
            print(f"{name}: of {before} tokens {cached} cached ({cached / before:.1%})")
            yield cached / before
            before = prompt

    assert min(shares("told where it was found", lambda body: body)) >= LEAST_SHARE
    assert min(shares("told at once", told_at_once)) < LEAST_SHARE, "this measure cannot fail"


if __name__ == "__main__":
    run("prefix of @anthropic-ai/claude-code", VERSIONS[Claude.package],
        [two_turns_share_their_prefix, a_tool_that_joins_late_keeps_the_prefix])
