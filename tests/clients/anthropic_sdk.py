"""The official Anthropic client for Python, with strict validation of every answer."""

import re
from typing import Literal

import anthropic
from pydantic import BaseModel

import scenes
from fleet import kill_doomed, until_it_answers
from shapes import Forecast, says
from suite import raises, run, twice

CLIENT = "anthropic-python"
FRAIL = "frail-anthropic-python"


class Reading(BaseModel):
    """Of a bounded length, since a small model may write any string for a city."""

    unit: Literal["C", "F"]
    is_warm: bool


WEATHER = {"name": "weather", "description": "The weather.",
           "input_schema": Forecast.model_json_schema()}
THINKING = {"type": "enabled", "budget_tokens": 1024}


def client(fleet, url="url", key="unused"):
    return anthropic.Anthropic(
        base_url=fleet[url],
        api_key=key,
        max_retries=0,
        timeout=60,
        _strict_response_validation=True,
    )


def arguments(text, model="scripted", **more):
    return {"model": model, "messages": says(text), "max_tokens": 4000, **more}


def ask(fleet, text, **more):
    return client(fleet).messages.create(**arguments(text, **more))


def message(fleet):
    answer = ask(fleet, "Greet me.", system="Be kind.")
    assert [block.type for block in answer.content] == ["text"], answer
    assert answer.content[0].text == scenes.GREETING, answer
    assert (answer.role, answer.stop_reason) == ("assistant", "end_turn"), answer
    assert answer.stop_sequence is None, answer
    assert answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0, answer.usage
    assert answer._request_id, "the client finds the request's id"


def stops(fleet):
    answer = ask(fleet, "At length.", stop_sequences=["word3"])
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "word3"), answer
    assert answer.content[0].text == "word0 word1 word2 ", answer
    answer = ask(fleet, "At length.", max_tokens=5)
    assert answer.stop_reason == "max_tokens" and answer.usage.output_tokens == 5, answer


def order_of(events):
    """Blocks from 0 on, one after the other, each with a start, deltas and a stop."""
    kinds = [event.type for event in events]
    assert kinds[0] == "message_start" and kinds[-2:] == ["message_delta", "message_stop"], kinds
    assert kinds.count("message_delta") == 1 and events[-2].delta.stop_reason, kinds
    open_block, next_block = None, 0
    for event in events[1:-2]:
        if event.type == "content_block_start":
            assert open_block is None and event.index == next_block, event
            open_block, next_block = event.index, next_block + 1
        elif event.type == "content_block_stop":
            assert event.index == open_block, event
            open_block = None
        else:
            assert event.type == "content_block_delta" and event.index == open_block, event
    assert open_block is None
    return next_block


def raw_stream(fleet, text, **more):
    return list(ask(fleet, text, stream=True, **more))


def order_of_a_stream(fleet):
    assert order_of(raw_stream(fleet, "Greet me.")) == 1
    assert order_of(raw_stream(fleet, "Weather?", tools=[WEATHER])) == 3
    assert order_of(raw_stream(fleet, "Think!", thinking=THINKING)) == 2
    assert order_of(raw_stream(fleet, "At length.", max_tokens=3)) == 1


def stream_helper(fleet):
    with client(fleet).messages.stream(**arguments("Greet me.")) as stream:
        text = "".join(stream.text_stream)
        answer = stream.get_final_message()
    assert text == scenes.GREETING and answer.content[0].text == text, answer
    assert answer.stop_reason == "end_turn" and answer.usage.output_tokens > 0, answer
    whole = ask(fleet, "Greet me.")
    assert whole.content[0].text == text and whole.usage == answer.usage, (whole, answer)


def calls_of(answer):
    return [(block.name, block.input) for block in answer.content if block.type == "tool_use"]


def results_of(answer):
    calls = [block for block in answer.content if block.type == "tool_use"]
    return [{"type": "tool_result", "tool_use_id": call.id, "content": "rain"} for call in calls]


def tools(fleet):
    for model in ("scripted", "scripted-xml"):
        answer = ask(fleet, "Weather?", model=model, tools=[WEATHER])
        assert answer.stop_reason == "tool_use" and calls_of(answer) == scenes.WEATHER, answer
        assert answer.content[0].text == scenes.BEFORE_CALLS, answer
        turns = says("Weather?") + [
            {"role": "assistant", "content": answer.content},
            {"role": "user", "content": results_of(answer)},
        ]
        done = client(fleet).messages.create(
            model=model, messages=turns, max_tokens=500, tools=[WEATHER]
        )
        assert done.content[0].text == scenes.WEATHER_WORDS, done
        assert done.stop_reason == "end_turn", done


def tools_in_a_stream(fleet):
    with client(fleet).messages.stream(**arguments("Weather?", tools=[WEATHER])) as stream:
        answer = stream.get_final_message()
    assert answer.stop_reason == "tool_use" and calls_of(answer) == scenes.WEATHER, answer


def thinking(fleet):
    """A thought has its signature, and goes back with the next turn."""
    answer = ask(fleet, "Think!", thinking=THINKING)
    assert [block.type for block in answer.content] == ["thinking", "text"], answer
    assert answer.content[0].thinking == scenes.THOUGHT and answer.content[0].signature, answer
    assert answer.content[1].text == scenes.ANSWER, answer
    with client(fleet).messages.stream(**arguments("Think!", thinking=THINKING)) as stream:
        streamed = stream.get_final_message()
    told = [block.model_dump(exclude_none=True) for block in answer.content]
    assert [block.model_dump(exclude_none=True) for block in streamed.content] == told, streamed
    turns = says("Think!") + [{"role": "assistant", "content": answer.content}]
    turns += says("Greet me.")
    client(fleet).messages.create(
        model="scripted", messages=turns, max_tokens=4000, thinking=THINKING
    )
    for more in ({}, {"thinking": {"type": "disabled"}}):
        answer = ask(fleet, "Think!", **more)
        assert [block.type for block in answer.content] == ["text"], answer
        assert answer.content[0].text == scenes.ANSWER, answer


def structured_output(fleet):
    answer = client(fleet).messages.parse(**arguments("As JSON."), output_format=Forecast)
    assert answer.parsed_output == Forecast(**scenes.FORECAST), answer
    with client(fleet).messages.stream(**arguments("As JSON."), output_format=Forecast) as stream:
        assert stream.get_final_message().parsed_output == Forecast(**scenes.FORECAST)
    greedy = {"extra_body": {"temperature": 0}}
    asked = arguments("What is a neuron?", model="sprout", max_tokens=200, **greedy)
    answer = client(fleet).messages.parse(**asked, output_format=Reading)
    assert isinstance(answer.parsed_output, Reading), answer


def fields_that_ask_for_nothing_here(fleet):
    """What agents send along is taken: marks for caches, servers' own tools, unknown betas."""
    marked = {"cache_control": {"type": "ephemeral"}}
    searched = {"type": "web_search_20250305", "name": "web_search", "max_uses": 2}
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "Hello.", **marked}]},
        {"role": "assistant", "content": [
            {"type": "redacted_thinking", "data": "x"},
            {"type": "thinking", "thinking": "hm", "signature": "of-another-model"},
            {"type": "text", "text": "Let me see."},
            {"type": "tool_use", "id": "t", "name": "weather", "input": {"city": "Oslo"}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t", "is_error": True,
             "content": [{"type": "text", "text": "no such city"}]},
            {"type": "text", "text": "Greet me."}]},
    ]
    asked = {
        "model": "scripted", "max_tokens": 400, "messages": turns,
        "system": [{"type": "text", "text": "Be kind.", **marked}],
        "tools": [{**WEATHER, **marked, "type": "custom"}, searched],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": False},
        "metadata": {"user_id": "ann"}, "service_tier": "auto",
    }
    assert client(fleet).messages.create(**asked).content[0].text == scenes.GREETING
    beta = client(fleet).beta.messages
    betas = ["context-management-2025-06-27", "a-beta-of-next-year"]
    edits = {"edits": [{"type": "clear_tool_uses_20250919"}]}
    answer = beta.create(**asked, betas=betas, context_management=edits)
    assert answer.content[0].text == scenes.GREETING, answer
    with beta.stream(**asked, betas=betas) as stream:
        assert stream.get_final_message().content[0].text == scenes.GREETING
    del asked["max_tokens"], asked["metadata"], asked["service_tier"]
    assert beta.count_tokens(**asked, betas=betas).input_tokens > 20


def tool_runner(fleet):
    """The client's own loop, which would rather have its server keep the conversation."""
    asked = []

    @anthropic.beta_tool
    def weather(city: str, days: int) -> str:
        """The weather of a city.

        Args:
            city: Its name.
            days: How many.
        """
        asked.append({"city": city, "days": days})
        return "rain"

    runner = client(fleet).beta.messages.tool_runner(
        model="scripted", max_tokens=400, messages=says("Weather?"), tools=[weather]
    )
    *_, last = runner
    assert last.content[0].text == scenes.WEATHER_WORDS, last
    assert asked == [given for _, given in scenes.WEATHER], asked


def images_are_refused_by_name(fleet):
    """Requirement 33: a model that cannot see is not made to guess."""
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    turns = [{"role": "user", "content": [{"type": "image", "source": source}]}]
    error = raises(anthropic.BadRequestError, lambda: client(fleet).messages.create(
        model="scripted", max_tokens=10, messages=turns))
    said = error.body["error"]["message"]
    assert "image" in said and "messages[0].content[0]" in said, said


def a_required_tool_of_the_real_engine(fleet):
    tool = {"name": "weather", "input_schema": Reading.model_json_schema()}
    for choice in ({"type": "any"}, {"type": "tool", "name": "weather"}):
        answer = ask(fleet, "What is a neuron?", model="sprout", tools=[tool],
                     tool_choice={**choice, "disable_parallel_tool_use": True},
                     max_tokens=300, extra_body={"temperature": 0})
        ((name, given),) = calls_of(answer)
        assert name == "weather" and Reading(**given), answer


def count_tokens(fleet):
    """The count is what the message then has as its input, tools and system included."""
    asked = {"model": "scripted", "system": "Be kind.", "messages": says("Greet me.")}
    for more in ({}, {"tools": [WEATHER]}):
        counted = client(fleet).messages.count_tokens(**asked, **more).input_tokens
        usage = client(fleet).messages.create(**asked, **more, max_tokens=5).usage
        assert counted == usage.input_tokens + (usage.cache_read_input_tokens or 0), usage


def models(fleet):
    listed = [model.id for model in client(fleet).models.list()]
    assert {"sprout", "scripted"} <= set(listed), listed
    found = client(fleet).models.retrieve("scripted")
    assert (found.id, found.type) == ("scripted", "model"), found


def refused(fleet, kind, status, name, ask):
    error = raises(kind, ask)
    assert error.status_code == status, error
    assert error.body["type"] == "error" and error.body["error"]["type"] == name, error.body
    assert error.body["error"]["message"], error.body
    headers = error.response.headers
    assert error.request_id == headers["request-id"] == error.body["request_id"], error.body
    passes = status in (429, 529)
    assert headers["x-should-retry"] == ("true" if passes else "false"), headers
    assert ("retry-after" in headers) == passes, headers


def error_classes(fleet):
    def asks(text="Greet me.", **more):
        return lambda: ask(fleet, text, **more)

    def unlocked():
        locked = client(fleet, "locked_url", "a-wrong-key")
        return locked.messages.create(**arguments("Greet me.", model="secret"))

    is_large = "x" * fleet["body_limit_bytes"]
    hot = asks(extra_body={"temperature": "hot"})
    table = [
        (anthropic.BadRequestError, 400, "invalid_request_error", hot),
        (anthropic.BadRequestError, 400, "invalid_request_error", asks("x " * 300_000)),
        (anthropic.NotFoundError, 404, "not_found_error", asks(model="none")),
        (anthropic.ContentTooLargeError, 413, "request_too_large", asks(is_large)),
        (anthropic.OverloadedError, 529, "overloaded_error", asks(model="busy")),
    ]
    for kind, status, name, asked in table:
        refused(fleet, kind, status, name, asked)
    for kind, status, name, model in (
        (anthropic.NotFoundError, 404, "not_found_error", "none"),
        (anthropic.OverloadedError, 529, "overloaded_error", "busy"),
    ):
        refused(fleet, kind, status, name, asks(model=model, stream=True))
    refused(fleet, anthropic.AuthenticationError, 401, "authentication_error", unlocked)
    refused(fleet, anthropic.InternalServerError, 500, "api_error", asks(model="broken"))
    counted = client(fleet).messages.count_tokens
    refused(fleet, anthropic.NotFoundError, 404, "not_found_error",
            lambda: counted(model="none", messages=says("x")))
    opened = client(fleet, "locked_url", fleet["key"])
    answer = opened.messages.create(**arguments("Greet me.", model="secret"))
    assert answer.content[0].text == scenes.GREETING, answer


def keys_of_the_gateway(fleet):
    def asks(key, **more):
        keyed = client(fleet, "keyed_url", key).messages
        return lambda: keyed.create(**arguments("Greet me.", **more))

    assert asks("key-open")().content[0].text == scenes.GREETING
    refused(fleet, anthropic.AuthenticationError, 401, "authentication_error", asks("key-unknown"))
    refused(fleet, anthropic.PermissionDeniedError, 403, "permission_error", asks("key-metrics"))
    for more in ({}, {"stream": True}):
        refused(fleet, anthropic.RateLimitError, 429, "rate_limit_error",
                twice(asks("key-slow", **more)))


def too_long_in_the_words_that_agents_know(fleet):
    error = raises(anthropic.BadRequestError, lambda: ask(fleet, "x " * 300_000))
    # Claude Code reads by how much out of the same words.
    words = r"prompt is too long: (\d+) tokens > (\d+) maximum"
    found = re.match(words, error.body["error"]["message"])
    assert found and int(found[1]) > int(found[2]), error.body


def broken_streams(fleet, model, text, break_it):
    def events():
        for event in ask(fleet, text, model=model, stream=True):
            assert event.type != "message_stop", "a clean end"
            if event.type == "content_block_delta":
                yield event.delta.text

    def helper():
        with client(fleet).messages.stream(**arguments(text, model=model)) as stream:
            yield from stream.text_stream
            stream.get_final_message()

    for stream in (events, helper):
        until_it_answers(fleet, model)
        words = ""
        try:
            for piece in stream():
                if not words:
                    break_it()
                words += piece
        except anthropic.APIStatusError as error:
            assert error.body["error"]["type"] in ("api_error", "overloaded_error"), error.body
        else:
            raise AssertionError(f"{stream.__name__}: {words!r} passes for a whole answer")
        assert words and words != scenes.LONG, words


def the_engine_dies_in_a_stream(fleet):
    broken_streams(fleet, FRAIL, "Fault!", lambda: None)


def the_node_dies_in_a_stream(fleet):
    broken_streams(fleet, "doomed", "At length.", lambda: kill_doomed(fleet))


def the_engine_dies_in_a_body(fleet):
    until_it_answers(fleet, FRAIL)
    refused(fleet, anthropic.OverloadedError, 529, "overloaded_error",
            lambda: ask(fleet, "Fault!", model=FRAIL))


run(CLIENT, anthropic.__version__, [
    message, stops, order_of_a_stream, stream_helper, tools, tools_in_a_stream, thinking,
    structured_output, fields_that_ask_for_nothing_here, tool_runner, images_are_refused_by_name,
    a_required_tool_of_the_real_engine, count_tokens, models, error_classes, keys_of_the_gateway,
    too_long_in_the_words_that_agents_know, the_engine_dies_in_a_stream, the_node_dies_in_a_stream,
    the_engine_dies_in_a_body,
])
