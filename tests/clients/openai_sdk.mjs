// The official OpenAI client for Node.

import assert from "node:assert/strict";

import OpenAI, {
  APIError, AuthenticationError, BadRequestError, InternalServerError, NotFoundError,
  PermissionDeniedError, RateLimitError, UnprocessableEntityError,
} from "openai";
import { VERSION } from "openai/version";

import { fleet, killDoomed, raises, run, scenes, twice, untilItAnswers } from "./suite.mjs";

const FRAIL = "frail-openai-node";
const client = new OpenAI({ baseURL: `${fleet.url}/v1`, apiKey: "unused", maxRetries: 0 });
const locked = (apiKey) =>
  new OpenAI({ baseURL: `${fleet.locked_url}/v1`, apiKey, maxRetries: 0 });
const says = (content) => [{ role: "user", content }];
const ask = (content, more = {}) =>
  client.chat.completions.create({ model: "scripted", messages: says(content), ...more });

const parameters = {
  type: "object",
  properties: { city: { type: "string" }, days: { type: "integer" } },
  required: ["city", "days"],
  additionalProperties: false,
};
// Of a bounded length, since a small model may write any string for a city.
const reading = {
  type: "object",
  properties: { unit: { type: "string", enum: ["C", "F"] }, warm: { type: "boolean" } },
  required: ["unit", "warm"],
  additionalProperties: false,
};
const tool = { type: "function", function: { name: "weather", parameters } };
const flatTool = { type: "function", name: "weather", parameters, strict: false };
const form = { name: "forecast", strict: true, schema: parameters };

async function all(stream) {
  const items = [];
  for await (const item of await stream) items.push(item);
  return items;
}

async function chat() {
  const answer = await ask("Greet me.");
  const [{ message, finish_reason, index, logprobs }] = answer.choices;
  assert.deepEqual([message.content, message.refusal], [scenes.GREETING, null]);
  assert.equal(message.role, "assistant");
  assert.deepEqual([finish_reason, index, logprobs], ["stop", 0, null]);
  const { total_tokens, prompt_tokens, completion_tokens } = answer.usage;
  assert.equal(total_tokens, prompt_tokens + completion_tokens);
  assert.ok(answer._request_id);
}

async function shape_of_a_stream() {
  for (const include_usage of [false, true]) {
    const more = include_usage ? { stream_options: { include_usage } } : {};
    const chunks = await all(ask("Greet me.", { stream: true, ...more }));
    assert.equal(new Set(chunks.map((chunk) => chunk.id)).size, 1);
    const choices = chunks.flatMap((chunk) => chunk.choices);
    assert.equal(choices[0].delta.role, "assistant");
    assert.equal(choices.map((choice) => choice.delta.content ?? "").join(""), scenes.GREETING);
    const reasons = choices.map((choice) => choice.finish_reason).filter(Boolean);
    assert.deepEqual(reasons, ["stop"]);
    assert.equal(chunks.filter((chunk) => !chunk.choices.length).length, include_usage ? 1 : 0);
    assert.equal(Boolean(chunks.at(-1).usage), include_usage);
  }
}

const calls = (message) =>
  message.tool_calls.map((call) => [call.function.name, JSON.parse(call.function.arguments)]);

async function tools() {
  for (const model of ["scripted", "scripted-xml"]) {
    const [{ message, finish_reason }] = (await ask("Weather?", { model, tools: [tool] })).choices;
    assert.equal(finish_reason, "tool_calls");
    assert.deepEqual(calls(message), scenes.WEATHER);
    const results = message.tool_calls.map((call) => (
      { role: "tool", tool_call_id: call.id, content: "rain" }));
    const messages = [...says("Weather?"), message, ...results];
    const done = await client.chat.completions.create({ model, messages, tools: [tool] });
    assert.equal(done.choices[0].message.content, scenes.WEATHER_WORDS);
  }
}

async function tools_in_a_stream() {
  const request = { model: "scripted", messages: says("Weather?"), tools: [tool] };
  const stream = client.chat.completions.stream(request);
  const { message, finish_reason } = (await stream.finalChatCompletion()).choices[0];
  assert.equal(finish_reason, "tool_calls");
  assert.deepEqual(calls(message), scenes.WEATHER);
}

// The client's own loop: it calls the functions and sends their results until none is called.
async function run_tools() {
  const asked = [];
  const weather = (given) => {
    asked.push(given);
    return "rain";
  };
  const functions = { ...tool.function, function: weather, parse: JSON.parse };
  const runner = client.chat.completions.runTools({
    model: "scripted",
    messages: says("Weather?"),
    tools: [{ type: "function", function: functions }],
  });
  assert.equal(await runner.finalContent(), scenes.WEATHER_WORDS);
  assert.deepEqual(asked, scenes.WEATHER.map(([, given]) => given));
}

async function thinking() {
  const answer = await ask("Think!", { reasoning_effort: "low" });
  assert.equal(answer.choices[0].message.content, scenes.ANSWER);
  assert.equal(answer.choices[0].message.reasoning_content, scenes.THOUGHT);
  assert.ok(answer.usage.completion_tokens_details.reasoning_tokens > 0);
  const chunks = await all(ask("Think!", { reasoning_effort: "low", stream: true }));
  const joined = (key) => chunks.map((chunk) => chunk.choices[0].delta[key] ?? "").join("");
  assert.equal(joined("reasoning_content"), scenes.THOUGHT);
  assert.equal(joined("content"), scenes.ANSWER);
}

async function structured_output() {
  const response_format = { type: "json_schema", json_schema: form };
  const answer = await ask("As JSON.", { response_format });
  assert.deepEqual(JSON.parse(answer.choices[0].message.content), scenes.FORECAST);
  const masked = await ask("What is a neuron?", {
    model: "sprout",
    response_format: { ...response_format, json_schema: { ...form, schema: reading } },
    temperature: 0,
    max_tokens: 200,
  });
  const value = JSON.parse(masked.choices[0].message.content);
  assert.deepEqual(Object.keys(value), ["unit", "warm"]);
}

async function legacy_completions() {
  const request = { model: "scripted", prompt: "Greet me.", max_tokens: 200 };
  const answer = await client.completions.create(request);
  assert.equal(answer.choices[0].text, scenes.GREETING);
  const chunks = await all(client.completions.create({ ...request, stream: true }));
  assert.equal(chunks.map((chunk) => chunk.choices[0].text).join(""), scenes.GREETING);
}

async function responses() {
  const answer = await client.responses.create({ model: "scripted", input: "Greet me." });
  assert.deepEqual([answer.status, answer.output_text], ["completed", scenes.GREETING]);
  const cut = await client.responses.create({
    model: "scripted", input: "At length.", max_output_tokens: 5,
  });
  assert.equal(cut.status, "incomplete");
  assert.equal(cut.incomplete_details.reason, "max_output_tokens");
}

async function responses_stream() {
  const request = { model: "scripted", input: "Weather?", tools: [flatTool] };
  const events = await all(client.responses.create({ ...request, stream: true }));
  assert.deepEqual(events.map((event) => event.sequence_number), [...events.keys()]);
  const added = events.filter((event) => event.type === "response.output_item.added");
  assert.deepEqual(added.map((event) => event.output_index), [0, 1, 2]);
  assert.equal(events.at(-1).type, "response.completed");
  const stream = client.responses.stream({
    model: "scripted", input: "Think!", reasoning: { effort: "low" },
  });
  const final = await stream.finalResponse();
  assert.equal(final.output_text, scenes.ANSWER);
  assert.equal(final.output[0].content[0].text, scenes.THOUGHT);
}

async function responses_tools() {
  const input = [{ role: "user", content: "Weather?" }];
  const request = { model: "scripted", tools: [flatTool] };
  const { output } = await client.responses.create({ ...request, input });
  const made = output.filter((item) => item.type === "function_call");
  assert.deepEqual(made.map((call) => [call.name, JSON.parse(call.arguments)]), scenes.WEATHER);
  const results = made.map(({ call_id }) => (
    { type: "function_call_output", call_id, output: "rain" }));
  const whole = [...input, ...output, ...results];
  const done = await client.responses.create({ ...request, input: whole });
  assert.equal(done.output_text, scenes.WEATHER_WORDS);
}

async function embeddings() {
  const asked = { model: "sprout-embeds", input: ["a cat", "two dogs"] };
  const { data, usage } = await client.embeddings.create(asked);
  assert.deepEqual(data.map(({ index }) => index), [0, 1]);
  assert.equal(data[0].embedding.length, 160);
  assert.equal(usage.prompt_tokens, usage.total_tokens);
  const floats = await client.embeddings.create({ ...asked, encoding_format: "float" });
  floats.data[0].embedding.forEach((value, at) =>
    assert.ok(Math.abs(value - data[0].embedding[at]) < 1e-6));
  await refused(BadRequestError, 400, "no_embeddings", () =>
    client.embeddings.create({ model: "scripted", input: "x" }));
}

async function models() {
  const listed = (await all(client.models.list())).map((model) => model.id);
  assert.ok(listed.includes("sprout") && listed.includes("scripted"), listed);
  assert.equal((await client.models.retrieve("scripted")).id, "scripted");
}

async function refused(kind, status, code, ask) {
  const error = await raises(kind, ask);
  assert.deepEqual([error.status, error.code], [status, code]);
  assert.deepEqual(Object.keys(error.error).sort(), ["code", "message", "param", "type"]);
  assert.equal(error.requestID, error.headers.get("x-request-id"));
  const passes = [429, 503].includes(status);
  assert.equal(error.headers.get("x-should-retry"), String(passes));
}

async function error_classes() {
  const large = "x".repeat(fleet.body_limit_bytes);
  const secret = { model: "secret", messages: says("Greet me.") };
  const unasked = { model: "picky", messages: [{ role: "system", content: "Be kind." }] };
  const picky = () => client.chat.completions.create(unasked);
  const unlocked = () => locked("a-wrong-key").chat.completions.create(secret);
  for (const stream of [false, true]) {
    const asks = (more, text = "Greet me.") => () => ask(text, { stream, ...more });
    await refused(BadRequestError, 400, "invalid_value", asks({ temperature: "hot" }));
    await refused(BadRequestError, 400, "context_length_exceeded", asks({ max_tokens: 1e6 }));
    await refused(NotFoundError, 404, "model_not_found", asks({ model: "none" }));
    await refused(APIError, 413, "request_too_large", asks({}, large));
    await refused(InternalServerError, 503, "overloaded", asks({ model: "busy" }));
  }
  await refused(AuthenticationError, 401, "invalid_api_key", unlocked);
  await refused(UnprocessableEntityError, 422, "template_render_failed", picky);
  await refused(InternalServerError, 500, "numerical_error", () =>
    ask("Greet me.", { model: "broken" }));
  await refused(BadRequestError, 400, "previous_response_not_found", () => client.responses.create(
    { model: "scripted", input: "x", previous_response_id: "resp_1" }));
  const opened = await locked(fleet.key).chat.completions.create(secret);
  assert.equal(opened.choices[0].message.content, scenes.GREETING);
}

async function keys_of_the_gateway() {
  const asks = (key) => () => new OpenAI({
    baseURL: `${fleet.keyed_url}/v1`, apiKey: key, maxRetries: 0,
  }).chat.completions.create({ model: "scripted", messages: says("Greet me.") });
  assert.equal((await asks("key-open")()).choices[0].message.content, scenes.GREETING);
  await refused(AuthenticationError, 401, "invalid_api_key", asks("key-unknown"));
  await refused(PermissionDeniedError, 403, "insufficient_permissions", asks("key-metrics"));
  await refused(RateLimitError, 429, "rate_limit_exceeded", twice(asks("key-slow")));
}

async function broken_streams(model, text, breakIt) {
  const streams = {
    chat: () => ask(text, { model, stream: true }),
    completions: () =>
      client.completions.create({ model, prompt: text, max_tokens: 2000, stream: true }),
    responses: () => client.responses.create({ model, input: text, stream: true }),
  };
  const wordsOf = (item) =>
    item.choices?.[0]?.delta?.content ?? item.choices?.[0]?.text ?? (item.delta || "");
  for (const [name, open] of Object.entries(streams)) {
    await untilItAnswers(model);
    let words = "";
    let shown = false;
    try {
      for await (const item of await open()) {
        assert.ok(!["response.completed", "response.incomplete"].includes(item.type), item.type);
        shown ||= item.type === "response.failed" && Boolean(item.response.error.message);
        if (!words && wordsOf(item)) breakIt();
        words += wordsOf(item);
      }
    } catch (error) {
      assert.ok(error instanceof APIError, error);
      shown = true;
    }
    assert.ok(shown && words && words !== scenes.LONG, `${name}: ${words} passes for an answer`);
  }
}

async function the_engine_dies_in_a_stream() {
  await broken_streams(FRAIL, "Fault!", () => {});
}

async function the_node_dies_in_a_stream() {
  await broken_streams("doomed", "At length.", killDoomed);
}

await run("openai-node", VERSION, [
  chat, shape_of_a_stream, tools, tools_in_a_stream, run_tools, thinking, structured_output,
  legacy_completions, responses, responses_stream, responses_tools, embeddings, models,
  error_classes,
  keys_of_the_gateway, the_engine_dies_in_a_stream, the_node_dies_in_a_stream,
]);
