"""LiteLLM as a client of the gateway, in each dialect that it speaks to a server."""

import json
import os
from importlib.metadata import version

# Prices of other people's models; without this it asks for them at its start.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm  # noqa: E402

import scenes  # noqa: E402
from fleet import kill_doomed, until_it_answers  # noqa: E402
from shapes import says  # noqa: E402
from suite import raises, run  # noqa: E402

FRAIL = "frail-litellm"
litellm.telemetry = False
litellm.num_retries = 0
litellm.suppress_debug_info = True

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
        },
    },
}


def where(fleet):
    """The provider's prefix, and the base URL that it wants."""
    return {
        "openai": fleet["url"] + "/v1",
        "hosted_vllm": fleet["url"] + "/v1",
        "anthropic": fleet["url"],
    }


def ask(fleet, provider, text, model="scripted", **more):
    return litellm.completion(
        model=f"{provider}/{model}", api_base=where(fleet)[provider], api_key="unused",
        messages=says(text), **more,
    )


def chat(fleet):
    for provider in where(fleet):
        answer = ask(fleet, provider, "Greet me.")
        (choice,) = answer.choices
        assert choice.message.content == scenes.GREETING, (provider, answer)
        assert choice.finish_reason == "stop", (provider, answer)
        assert answer.usage.prompt_tokens > 0 and answer.usage.completion_tokens > 0, answer


def stream(fleet):
    for provider in where(fleet):
        chunks = list(ask(fleet, provider, "Greet me.", stream=True,
                          stream_options={"include_usage": True}))
        whole = litellm.stream_chunk_builder(chunks)
        assert whole.choices[0].message.content == scenes.GREETING, (provider, whole)
        reasons = [c.choices[0].finish_reason for c in chunks if c.choices and
                   c.choices[0].finish_reason]
        assert reasons == ["stop"], (provider, reasons)
        assert whole.usage.completion_tokens > 0, (provider, whole)


def calls_of(message):
    calls = [call.function for call in message.tool_calls]
    return [(call.name, json.loads(call.arguments)) for call in calls]


def tools(fleet):
    for provider in where(fleet):
        asked = {"tools": [WEATHER]}
        answer = ask(fleet, provider, "Weather?", **asked).choices[0]
        assert answer.finish_reason == "tool_calls", (provider, answer)
        assert calls_of(answer.message) == scenes.WEATHER, (provider, answer)
        streamed = litellm.stream_chunk_builder(
            list(ask(fleet, provider, "Weather?", stream=True, **asked))
        )
        assert calls_of(streamed.choices[0].message) == scenes.WEATHER, (provider, streamed)
        results = [
            {"role": "tool", "tool_call_id": call.id, "content": "rain"}
            for call in answer.message.tool_calls
        ]
        done = litellm.completion(
            model=f"{provider}/scripted", api_base=where(fleet)[provider], api_key="unused",
            messages=[*says("Weather?"), answer.message, *results], **asked,
        )
        assert done.choices[0].message.content == scenes.WEATHER_WORDS, (provider, done)


def thinking(fleet):
    # LiteLLM has a list of models that think, in which no model of yours stands.
    unlisted = {"allowed_openai_params": ["thinking", "reasoning_effort"]}
    for provider, more in (
        ("hosted_vllm", {"reasoning_effort": "low"}),
        ("anthropic", {"thinking": {"type": "enabled", "budget_tokens": 1024}}),
    ):
        message = ask(fleet, provider, "Think!", max_tokens=4000, **more, **unlisted)
        message = message.choices[0].message
        assert message.content == scenes.ANSWER, (provider, message)
        assert message.reasoning_content == scenes.THOUGHT, (provider, message)


def structured_output(fleet):
    schema = {**WEATHER["function"]["parameters"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "f", "strict": True, "schema": schema}}
    for provider in ("openai", "hosted_vllm"):
        answer = ask(fleet, provider, "As JSON.", response_format=form)
        assert json.loads(answer.choices[0].message.content) == scenes.FORECAST, answer


def responses(fleet):
    asked = {"model": "openai/scripted", "api_base": fleet["url"] + "/v1", "api_key": "unused"}
    answer = litellm.responses(input="Greet me.", **asked)
    assert answer.output[0].content[0].text == scenes.GREETING, answer
    events = list(litellm.responses(input="Greet me.", stream=True, **asked))
    assert events[-1].type == "response.completed", events[-1]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == scenes.GREETING, text


def text_completion(fleet):
    answer = litellm.text_completion(
        model="text-completion-openai/scripted", api_base=fleet["url"] + "/v1", api_key="unused",
        prompt="Greet me.", max_tokens=200,
    )
    assert answer.choices[0].text == scenes.GREETING, answer


def anthropic_messages_by_way_of_responses(fleet):
    """Its own translation of Anthropic's messages into what this server then gets."""
    import asyncio

    answer = asyncio.run(litellm.anthropic_messages(
        model="openai/scripted", api_base=fleet["url"] + "/v1", api_key="unused",
        messages=says("Greet me."), max_tokens=300,
    ))
    assert answer["content"][0]["text"] == scenes.GREETING, answer


def embeddings(fleet):
    for provider in ("openai", "hosted_vllm"):
        answer = litellm.embedding(
            model=f"{provider}/sprout-embeds", api_base=where(fleet)[provider], api_key="unused",
            input=["a cat", "two dogs"],
        )
        assert [len(item["embedding"]) for item in answer.data] == [160, 160], answer
        assert answer.usage.prompt_tokens > 0, answer


def error_classes(fleet):
    for provider in where(fleet):
        for kind, more in (
            (litellm.NotFoundError, {"model": "none"}),
            (litellm.BadRequestError, {"temperature": "hot"}),
            (litellm.ContextWindowExceededError, {"text": "x " * 300_000}),
        ):
            asked = {"text": "Greet me.", **more}
            raises(kind, lambda provider=provider, asked=asked: ask(fleet, provider, **asked))
    for provider in ("openai", "hosted_vllm"):
        raises(litellm.ServiceUnavailableError,
               lambda provider=provider: ask(fleet, provider, "Greet me.", model="busy"))


def broken_streams(fleet, model, text, break_it):
    for provider in where(fleet):
        until_it_answers(fleet, model)
        words = ""
        try:
            for chunk in ask(fleet, provider, text, model=model, stream=True):
                piece = chunk.choices[0].delta.content or ""
                if piece and not words:
                    break_it()
                words += piece
        except Exception as error:
            assert type(error).__module__.startswith("litellm"), repr(error)
        else:
            raise AssertionError(f"{provider}: {words!r} passes for a whole answer")
        assert words != scenes.LONG, words


def the_engine_dies_in_a_stream(fleet):
    broken_streams(fleet, FRAIL, "Fault!", lambda: None)


def the_node_dies_in_a_stream(fleet):
    broken_streams(fleet, "doomed", "At length.", lambda: kill_doomed(fleet))


run("litellm", version("litellm"), [
    chat, stream, tools, thinking, structured_output, responses, text_completion,
    anthropic_messages_by_way_of_responses, embeddings, error_classes, the_engine_dies_in_a_stream,
    the_node_dies_in_a_stream,
])
