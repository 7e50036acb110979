"""LangChain's OpenAI package, over chat completions and over responses."""

from importlib.metadata import version

import openai
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_openai.chat_models.base import OpenAIAPIError, OpenAIModelNotFoundError

import scenes
from fleet import kill_doomed, until_it_answers
from shapes import Forecast
from suite import raises, run

FRAIL = "frail-langchain"


@tool
def weather(city: str, days: int) -> str:
    """The weather of a city."""
    return f"{city}: rain for {days}"


def model(fleet, name="scripted", **more):
    return ChatOpenAI(
        model=name, base_url=fleet["url"] + "/v1", api_key="unused", max_retries=0, timeout=60,
        **more,
    )


def surfaces(fleet, **more):
    yield model(fleet, **more)
    yield model(fleet, use_responses_api=True, **more)


def invoke(fleet):
    for asked in surfaces(fleet):
        answer = asked.invoke("Greet me.")
        assert answer.text == scenes.GREETING, answer
        usage = answer.usage_metadata
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"], usage
    reason = model(fleet).invoke("Greet me.").response_metadata["finish_reason"]
    assert reason == "stop", reason


def stream(fleet):
    for asked in surfaces(fleet, stream_usage=True):
        whole = None
        for chunk in asked.stream("Greet me."):
            whole = chunk if whole is None else whole + chunk
        assert whole.text == scenes.GREETING, whole
        assert whole.usage_metadata["output_tokens"] > 0, whole


def usage_is_left_out_by_default(fleet):
    chunks = list(model(fleet).stream("Greet me."))
    assert "".join(chunk.text for chunk in chunks) == scenes.GREETING, chunks


def tools(fleet):
    """The loop of an agent: calls, results, answer; whole and as a stream."""
    for asked in surfaces(fleet):
        bound = asked.bind_tools([weather])
        whole = None
        for chunk in bound.stream("Weather?"):
            whole = chunk if whole is None else whole + chunk
        for answer in (bound.invoke("Weather?"), whole):
            calls = [(call["name"], call["args"]) for call in answer.tool_calls]
            assert calls == [(name, given) for name, given in scenes.WEATHER], answer
            assert not answer.invalid_tool_calls, answer
        results = [
            ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])
            for call in answer.tool_calls
        ]
        done = bound.invoke([HumanMessage("Weather?"), answer, *results])
        assert done.text == scenes.WEATHER_WORDS, done


def structured_output(fleet):
    for asked in surfaces(fleet):
        form = asked.with_structured_output(Forecast, method="json_schema")
        assert form.invoke("As JSON.") == Forecast(**scenes.FORECAST)
        mode = asked.with_structured_output(Forecast, method="json_mode")
        assert mode.invoke("As JSON.") == Forecast(**scenes.FORECAST)
        called = asked.with_structured_output(weather, method="function_calling")
        assert called.invoke("One forecast.") == scenes.WEATHER[0][1]


def thinking(fleet):
    answer = model(fleet, reasoning_effort="low").invoke("Think!")
    assert answer.text == scenes.ANSWER, answer
    assert answer.usage_metadata["output_token_details"]["reasoning"] > 0, answer.usage_metadata
    asked = model(fleet, use_responses_api=True, reasoning={"effort": "low"})
    answer = asked.invoke("Think!")
    assert answer.text == scenes.ANSWER, answer
    assert [block["type"] for block in answer.content_blocks] == ["reasoning", "text"], answer


def batch(fleet):
    answers = model(fleet).batch(["Greet me."] * 6)
    assert {answer.text for answer in answers} == {scenes.GREETING}, answers


def log_probabilities(fleet):
    answer = model(fleet, "sprout", temperature=0, max_tokens=8, logprobs=True).invoke("Hello")
    assert answer.response_metadata["logprobs"]["content"], answer


def embeddings(fleet):
    """Texts as they are: counting their tokens is for OpenAI's own models."""
    asked = OpenAIEmbeddings(
        model="sprout-embeds", base_url=fleet["url"] + "/v1", api_key="unused",
        check_embedding_ctx_length=False,
    )
    first, second = asked.embed_documents(["a cat", "two dogs"])
    assert len(first) == len(second) == 160 and first != second
    alone = asked.embed_query("a cat")
    assert all(abs(a - b) < 1e-6 for a, b in zip(first, alone, strict=True))


def error_classes(fleet):
    for asked in surfaces(fleet, name="none"):
        raises(OpenAIModelNotFoundError, lambda asked=asked: asked.invoke("Greet me."))
        raises(OpenAIModelNotFoundError, lambda asked=asked: list(asked.stream("Greet me.")))
    raises(OpenAIAPIError, lambda: model(fleet, "busy").invoke("Greet me."))


def too_long(fleet):
    """LangChain has a class of its own for this, found by the words of the error."""
    for asked in surfaces(fleet):
        try:
            answer = asked.invoke("x " * 300_000)
        except ContextOverflowError:
            continue
        raise AssertionError(answer)


def broken_streams(fleet, name, text, break_it):
    for asked in surfaces(fleet, name=name):
        until_it_answers(fleet, name)
        words = ""
        try:
            for chunk in asked.stream(text):
                if chunk.text and not words:
                    break_it()
                words += chunk.text
        except openai.APIError:
            pass
        except ValueError as error:
            # LangChain's own, for a response that says that it failed.
            assert "server_error" in str(error), error
        else:
            raise AssertionError(f"{words!r} passes for a whole answer")
        assert words and words != scenes.LONG, words


def the_engine_dies_in_a_stream(fleet):
    broken_streams(fleet, FRAIL, "Fault!", lambda: None)


def the_node_dies_in_a_stream(fleet):
    broken_streams(fleet, "doomed", "At length.", lambda: kill_doomed(fleet))


run("langchain-openai", version("langchain-openai"), [
    invoke, stream, usage_is_left_out_by_default, tools, structured_output, thinking, batch,
    log_probabilities, embeddings, error_classes, too_long, the_engine_dies_in_a_stream,
    the_node_dies_in_a_stream,
])
