"""The official OpenAI client for Python, with strict validation of every answer."""

import asyncio
import base64
import json
import struct
from typing import Annotated, Literal

import openai
from pydantic import BaseModel, Field

import scenes
from fleet import kill_doomed, until_it_answers
from shapes import Forecast, says
from suite import raises, run, twice

CLIENT = "openai-python"
FRAIL = "frail-openai-python"


class Reading(BaseModel):
    """Of a bounded length, since a model of random temper may write any string for a city."""

    count: Annotated[int, Field(ge=1, le=9)]
    unit: Literal["C", "F"]


WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": Forecast.model_json_schema()},
}
FLAT_WEATHER = {
    "type": "function",
    "name": "weather",
    "parameters": Forecast.model_json_schema(),
    "strict": None,
}


def client(fleet, url="url", key="unused", strict=True):
    return openai.OpenAI(
        base_url=fleet[url] + "/v1",
        api_key=key,
        max_retries=0,
        timeout=60,
        _strict_response_validation=strict,
    )


def legacy_stream(fleet, **asked):
    """Not strict: the client's type wants a finish reason in every chunk of this dialect, which
    OpenAI's own servers leave null until the last one."""
    return client(fleet, strict=False).completions.create(stream=True, **asked)


def ask(fleet, text, model="scripted", **more):
    return client(fleet).chat.completions.create(model=model, messages=says(text), **more)


def chat(fleet):
    answer = ask(fleet, "Greet me.")
    (choice,) = answer.choices
    assert choice.message.content == scenes.GREETING, choice
    assert (choice.message.role, choice.finish_reason) == ("assistant", "stop"), choice
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage
    assert answer._request_id, "the client finds the request's id"


def shape_of_a_stream(fleet):
    """One id, the role first, one finish reason, and the usage last if it was asked for."""
    for wanted in (False, True):
        more = {"stream_options": {"include_usage": True}} if wanted else {}
        chunks = list(ask(fleet, "Greet me.", stream=True, **more))
        assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1, chunks
        with_choice = [chunk for chunk in chunks if chunk.choices]
        assert with_choice[0].choices[0].delta.role == "assistant", with_choice[0]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in with_choice)
        assert text == scenes.GREETING, text
        reasons = [c.choices[0].finish_reason for c in with_choice if c.choices[0].finish_reason]
        assert reasons == ["stop"] and with_choice[-1].choices[0].finish_reason, reasons
        assert (chunks[-1].usage is not None) == wanted, chunks[-1]
        assert all(chunk.usage is None for chunk in chunks[:-1])
        assert len(chunks) - len(with_choice) == wanted, "one chunk without choices, if asked for"


def stops(fleet):
    answer = ask(fleet, "At length.", max_completion_tokens=5)
    assert answer.choices[0].finish_reason == "length", answer
    assert answer.usage.completion_tokens == 5, answer.usage
    answer = ask(fleet, "At length.", stop=["word3"])
    assert answer.choices[0].message.content == "word0 word1 word2 ", answer
    assert answer.choices[0].finish_reason == "stop", answer


def calls_of(message):
    calls = [call.function for call in message.tool_calls]
    return [(call.name, json.loads(call.arguments)) for call in calls]


def results_of(message):
    return [
        {"role": "tool", "tool_call_id": call.id, "content": "rain" if index == 0 else "sun"}
        for index, call in enumerate(message.tool_calls)
    ]


def tools(fleet):
    """Two calls at once, in both forms that models write, and an answer to their results."""
    for model in ("scripted", "scripted-xml"):
        answer = ask(fleet, "Weather?", model=model, tools=[WEATHER])
        (choice,) = answer.choices
        assert choice.finish_reason == "tool_calls", choice
        assert calls_of(choice.message) == scenes.WEATHER, choice
        assert choice.message.content == scenes.BEFORE_CALLS, choice
        assert len({call.id for call in choice.message.tool_calls}) == 2, choice
        turns = says("Weather?") + [choice.message] + results_of(choice.message)
        done = client(fleet).chat.completions.create(model=model, messages=turns, tools=[WEATHER])
        assert done.choices[0].message.content == scenes.WEATHER_WORDS, done
        assert done.choices[0].finish_reason == "stop", done


def tools_in_a_stream(fleet):
    with client(fleet).chat.completions.stream(
        model="scripted", messages=says("Weather?"), tools=[WEATHER]
    ) as stream:
        events = list(stream)
        answer = stream.get_final_completion()
    assert calls_of(answer.choices[0].message) == scenes.WEATHER, answer
    assert answer.choices[0].finish_reason == "tool_calls", answer
    done = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    assert [event.index for event in done] == [0, 1], done


def no_tools_no_calls(fleet):
    """What looks like a call is text where no tool is on offer, or where none may be called."""
    for more in ({}, {"tools": [WEATHER], "tool_choice": "none"}):
        choice = ask(fleet, "Weather?", **more).choices[0]
        assert choice.finish_reason == "stop" and not choice.message.tool_calls, choice
        assert "<tool_call>" in choice.message.content, choice


def a_cut_call_stays_visible(fleet):
    choice = ask(fleet, "One forecast.", tools=[WEATHER], max_tokens=6).choices[0]
    assert choice.finish_reason == "length" and not choice.message.tool_calls, choice
    assert choice.message.content.startswith("<tool_call>"), choice


def thinking(fleet):
    answer = ask(fleet, "Think!", reasoning_effort="low")
    message = answer.choices[0].message
    assert message.content == scenes.ANSWER, message
    assert message.reasoning_content == scenes.THOUGHT, message
    thought = answer.usage.completion_tokens_details.reasoning_tokens
    assert 0 < thought < answer.usage.completion_tokens, answer.usage
    reasoning, text = "", ""
    for chunk in ask(fleet, "Think!", reasoning_effort="low", stream=True):
        delta = chunk.choices[0].delta
        reasoning += getattr(delta, "reasoning_content", None) or ""
        text += delta.content or ""
    assert (reasoning, text) == (scenes.THOUGHT, scenes.ANSWER), (reasoning, text)
    answer = ask(fleet, "Think!", reasoning_effort="none")
    assert answer.choices[0].message.content == scenes.ANSWER, answer
    assert not getattr(answer.choices[0].message, "reasoning_content", None), answer


def structured_output(fleet):
    answer = client(fleet).chat.completions.parse(
        model="scripted", messages=says("As JSON."), response_format=Forecast
    )
    assert answer.choices[0].message.parsed == Forecast(**scenes.FORECAST), answer
    with client(fleet).chat.completions.stream(
        model="scripted", messages=says("As JSON."), response_format=Forecast
    ) as stream:
        parsed = stream.get_final_completion().choices[0].message.parsed
    assert parsed == Forecast(**scenes.FORECAST), parsed
    # The real engine keeps the form by a mask, whatever its small model would rather say.
    answer = client(fleet).chat.completions.parse(
        model="sprout", messages=says("What is a neuron?"), response_format=Reading,
        temperature=0, max_tokens=200,
    )
    assert isinstance(answer.choices[0].message.parsed, Reading), answer


def legacy_completions(fleet):
    prompt = "Greet me."
    answer = client(fleet).completions.create(model="scripted", prompt=prompt, max_tokens=200)
    assert answer.choices[0].text == scenes.GREETING, answer
    assert answer.choices[0].finish_reason == "stop", answer
    chunks = list(legacy_stream(fleet, model="scripted", prompt=prompt, max_tokens=200))
    assert "".join(chunk.choices[0].text for chunk in chunks) == scenes.GREETING, chunks
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason]
    assert reasons == ["stop"], reasons


def responses(fleet):
    answer = client(fleet).responses.create(
        model="scripted", instructions="Be kind.", input="Greet me."
    )
    assert (answer.status, answer.output_text) == ("completed", scenes.GREETING), answer
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    cut = client(fleet).responses.create(model="scripted", input="At length.", max_output_tokens=5)
    assert cut.status == "incomplete", cut
    assert cut.incomplete_details.reason == "max_output_tokens", cut


def numbers_of_responses_events(fleet):
    """Rising numbers without a gap, items announced before they are spoken of, one end."""
    stream = client(fleet).responses.create(
        model="scripted", input="Weather?", tools=[FLAT_WEATHER], stream=True
    )
    events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events))), events
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"], kinds
    ends = {"response.completed", "response.incomplete", "response.failed"}
    assert kinds[-1] == "response.completed" and len(ends & set(kinds)) == 1, kinds
    added = [event for event in events if event.type == "response.output_item.added"]
    assert [event.output_index for event in added] == [0, 1, 2], added
    assert [event.item.type for event in added] == ["message", "function_call", "function_call"]
    output = events[-1].response.output
    assert [item.type for item in output] == [event.item.type for event in added], output
    assert json.loads(output[1].arguments) == scenes.WEATHER[0][1], output


def responses_stream_helper(fleet):
    with client(fleet).responses.stream(
        model="scripted", input="Think!", reasoning={"effort": "low"}
    ) as stream:
        kinds = [event.type for event in stream]
        answer = stream.get_final_response()
    assert answer.output_text == scenes.ANSWER, answer
    thoughts = [item for item in answer.output if item.type == "reasoning"]
    assert thoughts[0].content[0].text == scenes.THOUGHT, thoughts
    assert "response.reasoning_text.delta" in kinds, kinds
    assert answer.usage.output_tokens_details.reasoning_tokens > 0, answer.usage


def responses_tools(fleet):
    """The calls go back with their results, as agents send the whole conversation."""
    given = [{"role": "user", "content": "Weather?"}]
    asked = {"model": "scripted", "tools": [FLAT_WEATHER]}
    answer = client(fleet).responses.create(input=given, **asked)
    calls = [item for item in answer.output if item.type == "function_call"]
    assert [(call.name, json.loads(call.arguments)) for call in calls] == scenes.WEATHER, calls
    given += answer.output
    given += [
        {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
        for call in calls
    ]
    answer = client(fleet).responses.create(input=given, **asked)
    assert answer.output_text == scenes.WEATHER_WORDS, answer


def responses_structured(fleet):
    answer = client(fleet).responses.parse(
        model="scripted", input="As JSON.", text_format=Forecast
    )
    assert answer.output_parsed == Forecast(**scenes.FORECAST), answer


def models(fleet):
    listed = [model.id for model in client(fleet).models.list()]
    assert {"sprout", "scripted"} <= set(listed) and listed == sorted(listed), listed
    assert client(fleet).models.retrieve("scripted").id == "scripted"


def embeddings(fleet):
    """Strictly as numbers; by itself the client asks for base64, decodes it, and has no strict
    type for it."""
    create = client(fleet).embeddings.create
    texts = ["a cat", "two dogs"]
    answer = create(model="sprout-embeds", input=texts, encoding_format="float")
    assert [item.index for item in answer.data] == [0, 1], answer
    first, second = (item.embedding for item in answer.data)
    assert len(first) == 160 and abs(sum(x * x for x in first) - 1) < 1e-4, len(first)
    assert first != second
    usage = answer.usage
    assert usage.prompt_tokens == usage.total_tokens > 0, usage
    lax = client(fleet, strict=False).embeddings.create
    for more in ({}, {"encoding_format": "base64"}):
        told = lax(model="sprout-embeds", input=texts[0], **more).data[0].embedding
        if isinstance(told, str):
            told = struct.unpack("<160f", base64.b64decode(told))
        assert all(abs(a - b) < 1e-6 for a, b in zip(told, first, strict=True)), more
    short = lax(model="sprout-embeds", input=texts[0], dimensions=16).data[0].embedding
    assert len(short) == 16, short
    refused(fleet, openai.BadRequestError, 400, "no_embeddings",
            lambda: create(model="scripted", input="x"))
    refused(fleet, openai.NotFoundError, 404, "model_not_found",
            lambda: create(model="none", input="x"))


def fields_that_ask_for_nothing_here(fleet):
    """What applications send along is taken, and comes back in the shapes that they know."""
    common = {
        "metadata": {"trip": "1"}, "store": False, "service_tier": "auto", "user": "ann",
        "safety_identifier": "ann", "prompt_cache_key": "k", "parallel_tool_calls": True,
        "top_p": 0.9, "temperature": 0.5,
    }
    answer = ask(
        fleet, "Greet me.", **common, modalities=["text"], seed=7, n=1,
        logit_bias={"100": 1}, presence_penalty=0, frequency_penalty=0, tool_choice="auto",
        tools=[WEATHER, {"type": "custom", "custom": {"name": "free"}}], stop=None,
    )
    assert answer.choices[0].message.content == scenes.GREETING, answer
    messages = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "name": "ann", "content": [{"type": "text", "text": "Hello."}]},
        {"role": "system", "content": [{"type": "text", "text": "And brief."}]},
        {"role": "assistant", "content": None, "refusal": None, "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "rain"}]},
        *says("Greet me."),
    ]
    answer = client(fleet).chat.completions.create(
        model="scripted", messages=messages, tools=[WEATHER], stream=False
    )
    assert answer.choices[0].message.content == scenes.GREETING, answer
    answer = client(fleet).responses.create(
        model="scripted", input="Greet me.", **common, truncation="disabled", max_tool_calls=5,
        text={"verbosity": "medium", "format": {"type": "text"}}, top_logprobs=0, background=False,
        include=["reasoning.encrypted_content"], reasoning={"effort": "none", "summary": "auto"},
        tools=[FLAT_WEATHER, {"type": "web_search"}], tool_choice="auto",
    )
    assert answer.output_text == scenes.GREETING, answer
    assert answer.metadata == common["metadata"] and answer.temperature == 0.5, answer


def images_are_refused_by_name(fleet):
    """Requirement 33: a model that cannot see is not made to guess."""
    picture = {"url": "data:image/png;base64,iVBORw0KGgo="}
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": picture}]}]
    error = raises(openai.BadRequestError, lambda: client(fleet).chat.completions.create(
        model="scripted", messages=messages))
    assert "image" in error.message and error.param == "messages[0].content[0]", error


def asynchronous(fleet):
    async def streams():
        async with openai.AsyncOpenAI(
            base_url=fleet["url"] + "/v1", api_key="unused", max_retries=0,
            _strict_response_validation=True,
        ) as asker:
            async def one():
                stream = await asker.chat.completions.create(
                    model="scripted", messages=says("Greet me."), stream=True
                )
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            return await asyncio.gather(*(one() for _ in range(8)))

    assert set(asyncio.run(streams())) == {scenes.GREETING}


def refused(fleet, kind, status, code, ask):
    error = raises(kind, ask)
    assert error.status_code == status, error
    assert error.code == code, (error.code, error.body)
    assert set(error.body) == {"message", "type", "param", "code"}, error.body
    assert error.message and error.type, error.body
    assert error.request_id == error.response.headers["x-request-id"], error
    passes = status in (429, 503) and code != "insufficient_quota"
    assert error.response.headers["x-should-retry"] == ("true" if passes else "false"), error
    assert ("retry-after" in error.response.headers) == passes, error.response.headers


def error_classes(fleet):
    def chat(text="Greet me.", **more):
        return lambda: ask(fleet, text, **more)

    locked = client(fleet, "locked_url", "a-wrong-key")
    is_large = "x" * fleet["body_limit_bytes"]
    no_question = [{"role": "system", "content": "Be kind."}]

    def unrendered():
        return client(fleet).chat.completions.create(model="picky", messages=no_question)

    def unlocked():
        return locked.chat.completions.create(model="secret", messages=says("Greet me."))

    for stream in ({}, {"stream": True}):
        for kind, status, code, asked in (
            (openai.BadRequestError, 400, "invalid_value", chat(temperature="hot", **stream)),
            (openai.BadRequestError, 400, "context_length_exceeded",
             chat(max_tokens=10**6, **stream)),
            (openai.NotFoundError, 404, "model_not_found", chat(model="none", **stream)),
            (openai.APIStatusError, 413, "request_too_large", chat(is_large, **stream)),
            (openai.InternalServerError, 503, "overloaded", chat(model="busy", **stream)),
        ):
            refused(fleet, kind, status, code, asked)
    refused(fleet, openai.AuthenticationError, 401, "invalid_api_key", unlocked)
    refused(fleet, openai.UnprocessableEntityError, 422, "template_render_failed", unrendered)
    refused(fleet, openai.InternalServerError, 500, "numerical_error", chat(model="broken"))
    opened = client(fleet, "locked_url", fleet["key"])
    answer = opened.chat.completions.create(model="secret", messages=says("Greet me."))
    assert answer.choices[0].message.content == scenes.GREETING, answer


def keys_of_the_gateway(fleet):
    def asks(key, **more):
        keyed = client(fleet, "keyed_url", key).chat.completions
        return lambda: keyed.create(model="scripted", messages=says("Greet me."), **more)

    assert asks("key-open")().choices[0].message.content == scenes.GREETING
    assert client(fleet, "keyed_url", "key-open").models.list().data
    refused(fleet, openai.AuthenticationError, 401, "invalid_api_key", asks("key-unknown"))
    refused(fleet, openai.AuthenticationError, 401, "invalid_api_key",
            client(fleet, "keyed_url", "key-unknown").models.list)
    refused(fleet, openai.PermissionDeniedError, 403, "insufficient_permissions",
            asks("key-metrics"))
    for more in ({}, {"stream": True}):
        refused(fleet, openai.RateLimitError, 429, "rate_limit_exceeded",
                twice(asks("key-slow", **more)))
    # A balance that is spent does not come back: the client is told not to try again.
    refused(fleet, openai.RateLimitError, 429, "insufficient_quota", twice(asks("key-spent")))


def errors_of_responses(fleet):
    create = client(fleet).responses.create
    refused(fleet, openai.NotFoundError, 404, "model_not_found",
            lambda: create(model="none", input="Greet me."))
    refused(fleet, openai.BadRequestError, 400, "previous_response_not_found",
            lambda: create(model="scripted", input="x", previous_response_id="resp_1"))
    refused(fleet, openai.BadRequestError, 400, "missing_required_parameter",
            lambda: create(model="scripted"))


def broken_streams(fleet, model, text, break_it):
    """Every dialect's stream breaks after its first words; the client must hear of it."""
    def chat():
        for chunk in ask(fleet, text, model=model, stream=True):
            yield chunk.choices[0].delta.content

    def completions():
        for chunk in legacy_stream(fleet, model=model, prompt=text, max_tokens=2000):
            yield chunk.choices[0].text

    def responses():
        for event in client(fleet).responses.create(model=model, input=text, stream=True):
            assert event.type not in ("response.completed", "response.incomplete"), event
            if event.type == "response.failed":
                assert event.response.status == "failed" and event.response.error.message, event
                raise openai.APIError("told by its event", request=None, body=None)
            if event.type == "response.output_text.delta":
                yield event.delta

    for stream in (chat, completions, responses):
        until_it_answers(fleet, model)
        words = ""

        def read():
            nonlocal words
            is_broken = False
            for piece in stream():
                words += piece or ""
                if words and not is_broken:
                    is_broken = True
                    break_it()

        try:
            read()
        except openai.APIError:
            pass
        else:
            raise AssertionError(f"{stream.__name__}: {words!r} passes for a whole answer")
        assert words and words != scenes.LONG, words


def the_engine_dies_in_a_stream(fleet):
    broken_streams(fleet, FRAIL, "Fault!", lambda: None)


def the_node_dies_in_a_stream(fleet):
    broken_streams(fleet, "doomed", "At length.", lambda: kill_doomed(fleet))


def the_engine_dies_in_a_body(fleet):
    until_it_answers(fleet, FRAIL)
    error = raises(openai.InternalServerError, lambda: ask(fleet, "Fault!", model=FRAIL))
    assert (error.status_code, error.code) == (503, "engine_failed"), error


run(CLIENT, openai.__version__, [
    chat, shape_of_a_stream, stops, tools, tools_in_a_stream, no_tools_no_calls,
    a_cut_call_stays_visible, thinking, structured_output, legacy_completions, responses,
    numbers_of_responses_events, responses_stream_helper, responses_tools, responses_structured,
    embeddings,
    fields_that_ask_for_nothing_here, images_are_refused_by_name, models, asynchronous,
    error_classes, keys_of_the_gateway, errors_of_responses, the_engine_dies_in_a_stream,
    the_node_dies_in_a_stream, the_engine_dies_in_a_body,
])
