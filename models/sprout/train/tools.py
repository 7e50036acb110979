"""Tool calls, answers after a tool's result, and questions that need no tool."""

import json

import arithmetic
import qa
from chat import Example, tool_call_text
from words import CITIES, COMMON, FOODS, LETTERS, NAMES, any_word, code, pseudo_word

STRING, INTEGER = {"type": "string"}, {"type": "integer"}


def model_name(rng):
    family = rng.choice(["qwen3", "qwen3.6", "sprout", "llama", "gemma", pseudo_word(rng)])
    return family + rng.choice(["", "-8b", "-27b", "-0.6b", "-35b", "-4b"])


CONDITIONS = ["sunny", "rainy", "cloudy", "windy", "foggy", "snowy"]

# name: (description, {parameter: (schema, draw)}, ways to ask, (result draw, how it is told))
TOOLS = {
    "get_weather": (
        "Current weather of a city",
        {"city": (STRING, lambda r: r.choice(CITIES))},
        [
            "What is the weather in {city}?",
            "How is the weather in {city}?",
            "Weather in {city}?",
            "Is it raining in {city}?",
            "weather {city}",
        ],
        (
            lambda r: {"temperature": r.randint(-9, 39), "condition": r.choice(CONDITIONS)},
            "It is {condition} in {city} with {temperature} degrees.",
        ),
    ),
    "get_time": (
        "Local time of a city",
        {"city": (STRING, lambda r: r.choice(CITIES))},
        [
            "What time is it in {city}?",
            "Tell me the time in {city}.",
            "Local time in {city}?",
            "How late is it in {city}?",
        ],
        (
            lambda r: {"time": f"{r.randint(0, 23):02}:{r.randint(0, 59):02}"},
            "It is {time} in {city}.",
        ),
    ),
    "multiply": (
        "Multiply two integers",
        {
            "a": (INTEGER, lambda r: r.randint(13, 9999)),
            "b": (INTEGER, lambda r: r.randint(13, 999)),
        },
        ["Multiply {a} by {b}.", "What is {a} times {b}?", "Compute {a} * {b}."],
        (lambda r: {"result": r.randint(100, 99999)}, "The result is {result}."),
    ),
    "load_model": (
        "Load a model on a neuron",
        {"model_id": (STRING, model_name), "neuron": (STRING, pseudo_word)},
        [
            "Load {model_id} on {neuron}.",
            "Please load the model {model_id} on neuron {neuron}.",
            "Start {model_id} on {neuron}.",
        ],
        (
            lambda r: {"status": "loaded", "load_ms": r.randint(100, 9999)},
            "The model {model_id} is loaded on {neuron} after {load_ms} ms.",
        ),
    ),
    "unload_model": (
        "Unload a model",
        {"model_id": (STRING, model_name)},
        ["Unload {model_id}.", "Please unload the model {model_id}.", "Stop {model_id}."],
        (
            lambda r: {"status": "unloaded", "freed_mb": r.randint(100, 99999)},
            "The model {model_id} is unloaded and {freed_mb} MB are free.",
        ),
    ),
    "list_models": (
        "List the loaded models",
        {},
        [
            "Which models are loaded?",
            "List the models.",
            "Show me the loaded models.",
            "What models are running?",
        ],
        (
            lambda r: {"models": [model_name(r) for _ in range(r.randint(1, 3))]},
            "Loaded models: {models}.",
        ),
    ),
    "set_timer": (
        "Set a timer",
        {"minutes": (INTEGER, lambda r: r.randint(1, 120))},
        [
            "Set a timer for {minutes} minutes.",
            "Timer {minutes} minutes please.",
            "Wake me in {minutes} minutes.",
        ],
        (lambda r: {"ok": True}, "The timer is set for {minutes} minutes."),
    ),
    "send_message": (
        "Send a text to a person",
        {
            "to": (STRING, lambda r: r.choice(NAMES)),
            "text": (STRING, lambda r: " ".join(any_word(r) for _ in range(r.randint(1, 5)))),
        },
        [
            "Send {to} the message {text}",
            "Tell {to}: {text}",
            "Write to {to}: {text}",
            'Send "{text}" to {to}.',
        ],
        (lambda r: {"sent": True}, "The message to {to} is sent."),
    ),
    "search_docs": (
        "Search the documentation",
        {"query": (STRING, lambda r: " ".join(r.choice(COMMON) for _ in range(r.randint(1, 3))))},
        [
            "Search the docs for {query}.",
            "Look up {query} in the documentation.",
            "Find {query} in the docs.",
        ],
        (lambda r: {"hits": r.randint(0, 99)}, "I found {hits} hits for {query}."),
    ),
    "order_food": (
        "Order food",
        {
            "dish": (STRING, lambda r: r.choice(FOODS)),
            "count": (INTEGER, lambda r: r.randint(1, 20)),
        },
        ["Order {count} {dish}.", "I want {count} {dish}.", "Please order {count} times {dish}."],
        (lambda r: {"order": code(r, 4, 6)}, "The order {order} is placed."),
    ),
    "get_balance": (
        "Account balance of a person",
        {"name": (STRING, lambda r: r.choice(NAMES))},
        [
            "What is the balance of {name}?",
            "How much money does {name} have?",
            "Balance of {name}?",
        ],
        (lambda r: {"balance": r.randint(0, 9999)}, "The balance of {name} is {balance}."),
    ),
}
VERBS = "ping open close start stop read write move mark check sync find".split()


def spec(name, description, parameters):
    schema = {"type": "object", "properties": parameters, "required": list(parameters)}
    function = {"name": name, "description": description, "parameters": schema}
    return {"type": "function", "function": function}


def known_spec(name):
    description, parameters, _, _ = TOOLS[name]
    return spec(name, description, {key: dict(schema) for key, (schema, _) in parameters.items()})


def invented(rng):
    """A tool that was never seen: it can only be called by reading its schema."""
    verb, noun = rng.choice(VERBS), any_word(rng)
    name = f"{verb}_{noun}"
    keys = rng.sample(
        ["id", "host", "port", "path", "label", "size", "level", "user"], rng.randint(1, 3)
    )
    parameters, arguments = {}, {}
    for key in keys:
        numeric = key in ("port", "size", "level")
        parameters[key] = dict(INTEGER if numeric else STRING)
        arguments[key] = rng.randint(0, 9999) if numeric else any_word(rng)
    said = rng.choice([" and ", ", "]).join(
        rng.choice(["{k} {v}", "{k}={v}"]).format(k=key, v=value)
        for key, value in arguments.items()
    )
    ask = rng.choice(
        ["{v} the {n} with {s}.", "Call {f} with {s}.", "Use {f}: {s}", "{v} {n}, {s}"]
    )
    text = ask.format(v=verb.capitalize(), n=noun, f=name, s=said)
    return spec(name, f"{verb.capitalize()} the {noun}", parameters), text, arguments


def known(rng):
    name = rng.choice(list(TOOLS))
    _, parameters, asks, _ = TOOLS[name]
    arguments = {key: draw(rng) for key, (_, draw) in parameters.items()}
    return known_spec(name), rng.choice(asks).format(**arguments), arguments


def offer(rng, wanted):
    """The wanted tool among up to two others, in any order."""
    others = [known_spec(name) for name in TOOLS if name != wanted["function"]["name"]]
    tools = [wanted, *rng.sample(others, rng.choice([0, 1, 1, 2]))]
    rng.shuffle(tools)
    return tools


def call(rng):
    wanted, text, arguments = (invented if rng.random() < 0.3 else known)(rng)
    name = wanted["function"]["name"]
    expect = {"tool_call": {"name": name, "arguments": arguments}}
    messages = [{"role": "user", "content": text}]
    return Example("tool", messages, tool_call_text(name, arguments), expect, offer(rng, wanted))


def after_result(rng):
    wanted, text, arguments = known(rng)
    name = wanted["function"]["name"]
    draw, telling = TOOLS[name][3]
    result = draw(rng)
    shown = {
        key: ", ".join(value) if isinstance(value, list) else value for key, value in result.items()
    }
    answer = telling.format(**arguments, **shown)
    identity = f"call_{code(rng, 8, 8)}"
    function = {"name": name, "arguments": json.dumps(arguments)}
    messages = [
        {"role": "user", "content": text},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": identity, "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": identity, "content": json.dumps(result)},
    ]
    return Example("tool", messages, answer, {"text": [answer]}, offer(rng, wanted))


def no_tool(rng):
    while True:
        example = rng.choice([qa, arithmetic]).make(rng)
        # A product or a list of models is just what a tool on offer might be for.
        if not any(
            word in str(example.messages).lower()
            for word in ("models", "times", "*", "multi", " x ")
        ):
            break
    tools = offer(rng, known_spec(rng.choice(list(TOOLS))))
    return Example("tool", example.messages, example.answer, example.expect, tools)


def make(rng):
    return rng.choices([call, after_result, no_tool], [6, 2, 1.5])[0](rng)
