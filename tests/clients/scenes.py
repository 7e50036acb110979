"""What the scripted models say, and to which prompts.

A scene fits when all texts of `when` stand in the prompt and none of `unless`; the first one that
fits is played. Suites send the words below, so that each of them knows what has to come back.
"""

import json

GREETING = "Hello from a script: é, 日本, 🌱 and \"quotes\"."
THOUGHT = "The question is old.\nThe answer is short."
ANSWER = "It is 42."
WEATHER = [("weather", {"city": "Oslo", "days": 2}), ("weather", {"city": "Lima", "days": 1})]
WEATHER_WORDS = "Oslo has rain and Lima has sun."
BEFORE_CALLS = "I will look."
FORECAST = {"city": "Oslo", "days": 2}
LONG = " ".join(f"word{number}" for number in range(400))

ALWAYS_READY = [
    "sprout", "sprout-long", "sprout-embeds", "scripted", "scripted-xml", "broken", "busy",
    "picky", "doomed",
]
XML_TEMPLATE = "crates/text/tests/fixtures/xml_calls.jinja"

# Between these, a model that writes its calls as JSON or as XML.
CALL = "<tool_call>\n{}\n</tool_call>"


def scene(*when, say, unless=(), **more):
    return {"when": list(when), "unless": list(unless), "say": say, **more}


def json_call(name, arguments):
    return CALL.format(json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False))


def xml_call(name, arguments):
    parameters = "".join(
        f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in arguments.items()
    )
    return CALL.format(f"<function={name}>\n{parameters}</function>")


def general(call):
    """What every client is tried on; `call` writes a call in the model's form."""
    calls = "\n".join(call(name, arguments) for name, arguments in WEATHER)
    return [
        scene("Weather?", "<tool_response>\n", say=WEATHER_WORDS),
        scene("Weather?", say=f"{BEFORE_CALLS}\n\n{calls}"),
        scene("One forecast", say=call(*WEATHER[0])),
        # A prompt that ends in an open thought is gone on with there; where the template has
        # closed it, the model was told not to think.
        scene("Think!", unless=["</think>\n\n"], say=f"{THOUGHT}\n</think>\n\n{ANSWER}"),
        scene("Think!", say=ANSWER),
        scene("As JSON", say=json.dumps(FORECAST)),
        scene("At length", say=LONG),
        scene("Fault!", say=LONG, fault_after=8),
        scene("Greet me", say=GREETING),
    ]


def script(scenes, **more):
    return {"scenes": scenes, "vocab_size": 1536, "context": 262144, "step_ms": 1, **more}


def models(tasks):
    """Id -> script and, where it is not sprout's, the template."""
    def agents(call, thinks):
        return [scene for task in tasks for scene in task.scenes(call, thinks)]

    def plays(call):
        return general(call) + [scene(say="I have nothing to say to that.")]

    frail = {
        f"frail-{client}": (script(general(json_call)), None)
        for client in ("openai-python", "anthropic-python", "openai-node", "anthropic-node",
                       "langchain", "litellm", "open-webui", "claude", "codex", "qwen")
    }
    return {
        "scripted": (script(agents(json_call, False) + plays(json_call)), None),
        "scripted-xml": (script(agents(xml_call, True) + plays(xml_call)), XML_TEMPLATE),
        "broken": (script(general(json_call), not_finite_after=3), None),
        "busy": (script(general(json_call), max_waiting=0), None),
        "picky": (script(general(json_call)), XML_TEMPLATE),
        **frail,
    }


def locked_models():
    return {"secret": (script(general(json_call)), None)}


def doomed_models():
    """Slow enough that there is a middle."""
    return {"doomed": (script(general(json_call), step_ms=20), None)}
