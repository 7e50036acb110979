"""The calls of Open WebUI, in the shapes of its version below.

Open WebUI itself is a gigabyte of other people's models; what it sends and how it reads the
answers was taken down from its release, and is sent and read here in the same way.
"""

import json
import time
import urllib.error
import urllib.request

import scenes
from fleet import kill_doomed, until_it_answers
from shapes import says
from suite import run

VERSION = "0.12.4"
FRAIL = "frail-open-webui"

# Who asks, where an operator has it told on.
HEADERS = {
    "Content-Type": "application/json", "Authorization": "Bearer sk-anything",
    "X-OpenWebUI-User-Name": "Ann%20B", "X-OpenWebUI-User-Id": "f3b0", "X-OpenWebUI-Chat-Id": "c1",
    "X-OpenWebUI-User-Email": "ann@example.org", "X-OpenWebUI-User-Role": "admin",
}
# All settings of its panel for a model, as it converts them.
SETTINGS = {
    "temperature": 0.8, "top_p": 0.9, "top_k": 40, "min_p": 0.0, "max_tokens": 4000,
    "frequency_penalty": 0.0, "presence_penalty": 0.0, "seed": 42, "stop": ["<|end|>"],
    "logit_bias": {"100": 5},
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather", "description": "The weather.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "The city."},
                "days": {"type": "integer", "description": ""},
            },
            "required": ["city", "days"],
        },
    },
}


def opened(fleet, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{fleet['url']}/v1{path}", data, HEADERS)
    return urllib.request.urlopen(request, timeout=60)


def chat(fleet, messages, model="scripted", **more):
    body = {"model": model, "messages": messages, "stream": False, **more}
    with opened(fleet, "/chat/completions", body) as answer:
        return json.load(answer)


def data_of(fleet, path, body):
    """What it makes of a stream: lines of `data:`, everything else left out."""
    with opened(fleet, path, body) as answer:
        assert "text/event-stream" in answer.headers["content-type"], answer.headers
        for line in answer:
            line = line.decode("utf-8", "replace")
            if line.startswith("data:") and (data := line[5:].strip()) != "[DONE]":
                yield json.loads(data)


def streamed(fleet, messages, model="scripted", **more):
    """Text, thoughts, calls by their index, usage with timings, and an error if there is one."""
    told = {"text": "", "thoughts": "", "calls": {}, "usage": {}, "error": None}
    body = {"model": model, "messages": messages, "stream": True,
            "stream_options": {"include_usage": True}, **more}
    for data in data_of(fleet, "/chat/completions", body):
        told["error"] = data.get("error") or told["error"]
        told["usage"] |= {**(data.get("usage") or {}), **data.get("timings", {})}
        for choice in data.get("choices", []):
            delta = choice.get("delta", {}) or {}
            told["text"] += delta.get("content") or ""
            thought = delta.get("reasoning_content") or delta.get("reasoning")
            told["thoughts"] += thought or ""
            for piece in delta.get("tool_calls") or []:
                call = told["calls"].setdefault(piece["index"], {"name": "", "arguments": ""})
                call["id"] = piece.get("id") or call["id"]
                function = piece.get("function") or {}
                call["name"] = function.get("name") or call["name"]
                call["arguments"] += function.get("arguments") or ""
    return told


def list_of_models(fleet):
    """It is fetched with every page, and one that is late empties the whole list."""
    begin = time.monotonic()
    with opened(fleet, "/models") as answer:
        listed = json.load(answer)
    assert time.monotonic() - begin < 1, "the list is late"
    assert listed["object"] == "list", listed
    by_id = {model["id"]: model for model in listed["data"]}
    assert {"sprout", "scripted"} <= set(by_id), listed
    assert by_id["scripted"]["object"] == "model" and by_id["scripted"]["owned_by"], by_id


def a_chat_with_all_settings(fleet):
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Greet me."}]},
    ]
    told = streamed(fleet, messages, **SETTINGS)
    assert told["text"] == scenes.GREETING and told["error"] is None, told
    # It shows both beneath the answer.
    assert told["usage"]["completion_tokens"] > 0, told
    assert told["usage"]["predicted_per_second"] > 0, told


def a_thought(fleet):
    told = streamed(fleet, says("Think!"), reasoning_effort="low")
    assert (told["thoughts"], told["text"]) == (scenes.THOUGHT, scenes.ANSWER), told
    # On the next turn it sends the thought back in the same field.
    messages = says("Think!") + [
        {"role": "assistant", "content": told["text"], "reasoning_content": told["thoughts"]},
        *says("Greet me."),
    ]
    assert streamed(fleet, messages)["error"] is None


def calls_in_its_native_mode(fleet):
    told = streamed(fleet, says("Weather?"), tools=[WEATHER])
    calls = [told["calls"][index] for index in sorted(told["calls"])]
    made = [(call["name"], json.loads(call["arguments"])) for call in calls]
    assert made == scenes.WEATHER, told
    messages = says("Weather?") + [
        {
            "role": "assistant", "content": told["text"],
            "tool_calls": [
                {
                    "id": call["id"], "type": "function", "index": index,
                    "function": {"name": call["name"], "arguments": call["arguments"]},
                }
                for index, call in enumerate(calls)
            ],
        },
        *({"role": "tool", "tool_call_id": call["id"], "content": "rain"} for call in calls),
    ]
    assert streamed(fleet, messages, tools=[WEATHER])["text"] == scenes.WEATHER_WORDS


def tasks_beside_a_chat(fleet):
    """Titles, tags and follow-ups are asked for whole, with a cap, and read as JSON."""
    answer = chat(fleet, says("As JSON"), max_tokens=1000)
    assert json.loads(answer["choices"][0]["message"]["content"]) == scenes.FORECAST, answer
    assert answer["usage"]["total_tokens"] > 0 and answer["timings"], answer


def a_connection_of_type_responses(fleet):
    def item(role, kind, text):
        return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}

    body = {
        "model": "scripted", "stream": True, "instructions": "Be kind.",
        "input": [
            item("user", "input_text", "Hello."),
            item("assistant", "output_text", "Hi."),
            {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "rain"},
            item("user", "input_text", "Greet me."),
        ],
        "tools": [{"type": "function", **WEATHER["function"], "strict": False}],
        "temperature": 0.8, "top_p": 0.9, "seed": 42, "max_output_tokens": 4000,
    }
    events = list(data_of(fleet, "/responses", body))
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == scenes.GREETING, events
    assert events[-1]["type"] == "response.completed", events[-1]
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == scenes.GREETING, events


def embeddings_of_documents(fleet):
    with opened(fleet, "/embeddings", {"input": ["a cat", "dogs"], "model": "sprout-embeds"}) as it:
        answer = json.load(it)
    assert [len(item["embedding"]) for item in answer["data"]] == [160, 160], answer


def errors(fleet):
    """It shows the message of whatever comes, with the status that came."""
    for model, status in (("none", 404), ("busy", 503), ("broken", 500)):
        try:
            chat(fleet, says("Greet me."), model=model)
        except urllib.error.HTTPError as error:
            assert error.code == status, error
            assert json.load(error)["error"]["message"], error
        else:
            raise AssertionError(f"{model} was not refused")


def broken_stream(fleet, told):
    assert told["error"] and told["error"]["message"], told
    assert told["text"] and told["text"] != scenes.LONG, told


def the_engine_dies_in_a_stream(fleet):
    broken_stream(fleet, streamed(fleet, says("Fault!"), model=FRAIL))


def the_node_dies_in_a_stream(fleet):
    until_it_answers(fleet, "doomed")
    body = {"model": "doomed", "messages": says("At length."), "stream": True}
    seen = []
    for data in data_of(fleet, "/chat/completions", body):
        if not seen:
            kill_doomed(fleet)
        seen.append(data)
    assert seen[-1]["error"]["message"], seen[-1]


run("open-webui (recorded shapes)", VERSION, [
    list_of_models, a_chat_with_all_settings, a_thought, calls_in_its_native_mode,
    tasks_beside_a_chat, a_connection_of_type_responses,
    embeddings_of_documents, errors, the_engine_dies_in_a_stream,
    the_node_dies_in_a_stream,
])
