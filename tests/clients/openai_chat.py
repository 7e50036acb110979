#!/usr/bin/env python3
"""The official OpenAI client against a cortex that runs, with strict response validation.

Every answer has to fit the client's own types, errors included: a field that is missing or of the
wrong kind is a failure here, as it is in the programs that people really use.
"""

import argparse
import json
import sys

import openai

QUESTION = [{"role": "user", "content": "What is a neuron?"}]


def chat(client, model):
    answer = client.chat.completions.create(model=model, messages=QUESTION, temperature=0)
    choice = answer.choices[0]
    assert choice.message.role == "assistant", choice
    assert choice.message.content, "the answer is empty"
    assert choice.finish_reason == "stop", choice.finish_reason
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage
    return choice.message.content


def stream(client, model):
    """The pieces of a stream are the whole answer, and it ends as an answer has to."""
    chunks = list(
        client.chat.completions.create(
            model=model,
            messages=QUESTION,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    with_choice = [chunk for chunk in chunks if chunk.choices]
    assert with_choice[0].choices[0].delta.role == "assistant", with_choice[0]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in with_choice)
    reasons = [c.choices[0].finish_reason for c in with_choice if c.choices[0].finish_reason]
    assert reasons == ["stop"], reasons
    assert len({chunk.id for chunk in chunks}) == 1, "one answer has one id"
    assert chunks[-1].usage and not chunks[-1].choices, chunks[-1]
    whole = chat(client, model)
    assert text == whole, f"streamed {text!r}, but whole it is {whole!r}"


def usage_only_when_asked(client, model):
    """Requirement 134: a chunk without choices crashes clients that did not ask for it."""
    for chunk in client.chat.completions.create(model=model, messages=QUESTION, stream=True):
        assert chunk.choices, chunk


def length(client, model):
    answer = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=2)
    assert answer.choices[0].finish_reason == "length", answer.choices[0]
    assert answer.usage.completion_tokens == 2, answer.usage


SCHEMA = {
    "type": "object",
    "properties": {
        "count": {"type": "integer", "minimum": 1, "maximum": 9},
        "unit": {"type": "string", "enum": ["C", "F"]},
    },
    "required": ["count", "unit"],
    "additionalProperties": False,
}


def fits_schema(text):
    value = json.loads(text)
    assert set(value) == {"count", "unit"}, value
    assert value["count"] in range(1, 10) and value["unit"] in ("C", "F"), value


def response_format(client, model):
    form = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": SCHEMA}}
    answer = client.chat.completions.create(
        model=model, messages=QUESTION, max_tokens=200, response_format=form
    )
    assert answer.choices[0].finish_reason == "stop", answer.choices[0]
    fits_schema(answer.choices[0].message.content)
    answer = client.chat.completions.create(
        model=model,
        messages=QUESTION,
        max_tokens=300,
        temperature=0,
        response_format={"type": "json_object"},
    )
    text = answer.choices[0].message.content
    assert text.startswith("{"), text
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(text), dict), text


def unsupported_schema(client, model):
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"not": {}}}}
    refused = refusal(
        openai.BadRequestError,
        lambda: client.chat.completions.create(
            model=model, messages=QUESTION, response_format=form
        ),
    )
    assert "not" in refused.message and refused.param == "response_format", refused


def responses_format(client, model):
    answer = client.responses.create(
        model=model,
        input="How warm is it?",
        max_output_tokens=200,
        text={"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}},
    )
    assert answer.status == "completed", answer
    fits_schema(answer.output_text)


def required_tool(client, model):
    tool = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        answer = client.chat.completions.create(
            model=model,
            messages=QUESTION,
            max_tokens=300,
            tools=[tool],
            tool_choice=choice,
            parallel_tool_calls=False,
        ).choices[0]
        assert answer.finish_reason == "tool_calls", answer
        (call,) = answer.message.tool_calls
        assert call.function.name == "weather", call
        fits_schema(call.function.arguments)


def logprobs(client, model):
    ask = {"model": model, "messages": QUESTION, "temperature": 0, "max_tokens": 8}
    ask |= {"logprobs": True, "top_logprobs": 2}
    choice = client.chat.completions.create(**ask).choices[0]
    tokens = choice.logprobs.content
    assert b"".join(bytes(t.bytes) for t in tokens).decode() == choice.message.content, tokens
    for token in tokens:
        assert token.logprob <= 0 and len(token.top_logprobs) == 2, token
        assert token.top_logprobs[0].token == token.token, "greedy takes the best"
    chunks = client.chat.completions.create(**ask, stream=True)
    streamed = [
        token
        for chunk in chunks
        for choice in chunk.choices
        if choice.logprobs
        for token in choice.logprobs.content
    ]
    assert streamed == tokens, streamed
    legacy = client.completions.create(
        model=model, prompt="A neuron is", max_tokens=4, temperature=0, logprobs=2
    )
    lists = legacy.choices[0].logprobs
    assert len(lists.tokens) == len(lists.token_logprobs) == len(lists.text_offset) == 4, lists


def several_answers(client, model):
    ask = {"model": model, "messages": QUESTION, "n": 3, "seed": 5, "temperature": 1.5}
    ask |= {"max_tokens": 12}
    answer = client.chat.completions.create(**ask)
    assert [choice.index for choice in answer.choices] == [0, 1, 2], answer.choices
    texts = [choice.message.content for choice in answer.choices]
    single = client.chat.completions.create(**(ask | {"n": 1}))
    assert answer.usage.prompt_tokens == single.usage.prompt_tokens, answer.usage
    assert single.choices[0].message.content == texts[0], "the first has the request's seed"
    streamed = ["", "", ""]
    for chunk in client.chat.completions.create(**ask, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts, (streamed, texts)


def list_models(client, model):
    assert model in [entry.id for entry in client.models.list()], "the model is not listed"


def retrieve_model(client, model):
    assert client.models.retrieve(model).id == model


def unknown_model(client, _model):
    refused = refusal(
        openai.NotFoundError,
        lambda: client.chat.completions.create(model="no-such-model", messages=QUESTION),
    )
    assert refused.code == "model_not_found", refused
    assert "no-such-model" in refused.message, refused
    refusal(openai.NotFoundError, lambda: client.models.retrieve("no-such-model"))


def unknown_model_stream(client, _model):
    """Requirement 7: a refusal is an HTTP status also where a stream was asked for."""
    refusal(
        openai.NotFoundError,
        lambda: client.chat.completions.create(
            model="no-such-model", messages=QUESTION, stream=True
        ),
    )


def bad_body(client, model):
    refusal(
        openai.BadRequestError,
        lambda: client.chat.completions.create(model=model, messages="not a list"),
    )
    refusal(
        openai.BadRequestError,
        lambda: client.chat.completions.create(
            model=model, messages=QUESTION, temperature="hot"
        ),
    )


def refusal(kind, ask):
    """The refusal of this kind, with the envelope that clients read."""
    try:
        ask()
    except kind as error:
        assert isinstance(error.body, dict), f"no error envelope: {error.body!r}"
        assert error.body.get("message"), error.body
        assert error.type, error.body
        return error
    raise AssertionError(f"{kind.__name__} was expected, and nothing was refused")


CHECKS = [
    chat,
    stream,
    usage_only_when_asked,
    length,
    response_format,
    unsupported_schema,
    responses_format,
    required_tool,
    logprobs,
    several_answers,
    list_models,
    retrieve_model,
    unknown_model,
    unknown_model_stream,
    bad_body,
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:31313")
    parser.add_argument("--model", default="sprout")
    arguments = parser.parse_args()
    client = openai.OpenAI(
        base_url=arguments.url.rstrip("/") + "/v1",
        api_key="unused",
        max_retries=0,
        timeout=120,
        _strict_response_validation=True,
    )
    failed = 0
    for check in CHECKS:
        try:
            check(client, arguments.model)
            print(f"ok      {check.__name__}")
        except (AssertionError, openai.OpenAIError) as error:
            failed += 1
            print(f"FAILED  {check.__name__}: {type(error).__name__}: {error}")
    print(f"openai-python {openai.__version__}: {len(CHECKS) - failed} of {len(CHECKS)} pass")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
