// The official Anthropic client for Node.

import assert from "node:assert/strict";

import Anthropic, {
  APIError, AuthenticationError, BadRequestError, ContentTooLargeError, InternalServerError,
  NotFoundError, OverloadedError, PermissionDeniedError, RateLimitError,
} from "@anthropic-ai/sdk";
import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema";
import { VERSION } from "@anthropic-ai/sdk/version";

import { fleet, killDoomed, raises, run, scenes, twice, untilItAnswers } from "./suite.mjs";

const FRAIL = "frail-anthropic-node";
const client = new Anthropic({ baseURL: fleet.url, apiKey: "unused", maxRetries: 0 });
const locked = (apiKey) => new Anthropic({ baseURL: fleet.locked_url, apiKey, maxRetries: 0 });
const says = (content) => [{ role: "user", content }];
const request = (content, more = {}) => (
  { model: "scripted", max_tokens: 4000, messages: says(content), ...more });
const ask = (content, more) => client.messages.create(request(content, more));

const input_schema = {
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
const tool = { name: "weather", input_schema };
const thinks = { thinking: { type: "enabled", budget_tokens: 1024 } };
const calls = ({ content }) =>
  content.filter(({ type }) => type === "tool_use").map(({ name, input }) => [name, input]);

async function message() {
  const answer = await ask("Greet me.", { system: [{ type: "text", text: "Be kind." }] });
  assert.deepEqual(answer.content, [{ type: "text", text: scenes.GREETING }]);
  assert.deepEqual([answer.stop_reason, answer.stop_sequence], ["end_turn", null]);
  assert.ok(answer.usage.input_tokens > 0 && answer.usage.output_tokens > 0);
  assert.ok(answer._request_id);
}

async function order_of_a_stream() {
  for (const [text, more, blocks] of [
    ["Greet me.", {}, 1], ["Weather?", { tools: [tool] }, 3], ["Think!", thinks, 2],
  ]) {
    const kinds = [];
    let open = null;
    let next = 0;
    for await (const event of await ask(text, { stream: true, ...more })) {
      kinds.push(event.type);
      if (event.type === "content_block_start") {
        assert.deepEqual([open, event.index], [null, next]);
        open = next++;
      } else if (event.type === "content_block_stop") {
        assert.equal(event.index, open);
        open = null;
      } else if (event.type === "content_block_delta") {
        assert.equal(event.index, open);
      }
    }
    assert.equal(next, blocks);
    assert.equal(kinds[0], "message_start");
    assert.deepEqual(kinds.slice(-2), ["message_delta", "message_stop"]);
    assert.equal(kinds.filter((kind) => kind === "message_delta").length, 1);
  }
}

async function stream_helper() {
  const stream = client.messages.stream(request("Greet me."));
  let text = "";
  stream.on("text", (piece) => { text += piece; });
  const final = await stream.finalMessage();
  assert.equal(text, scenes.GREETING);
  assert.deepEqual(final.content, [{ type: "text", text }]);
  const stream_of_calls = client.messages.stream(request("Weather?", { tools: [tool] }));
  const called = await stream_of_calls.finalMessage();
  assert.equal(called.stop_reason, "tool_use");
  assert.deepEqual(calls(called), scenes.WEATHER);
}

async function tools() {
  for (const model of ["scripted", "scripted-xml"]) {
    const answer = await ask("Weather?", { model, tools: [tool] });
    assert.deepEqual(calls(answer), scenes.WEATHER);
    const results = answer.content.filter(({ type }) => type === "tool_use").map(({ id }) => (
      { type: "tool_result", tool_use_id: id, content: [{ type: "text", text: "rain" }] }));
    const messages = [
      ...says("Weather?"),
      { role: "assistant", content: answer.content },
      { role: "user", content: results },
    ];
    const done = await ask("", { model, messages, tools: [tool] });
    assert.deepEqual(done.content, [{ type: "text", text: scenes.WEATHER_WORDS }]);
  }
}

// The client's own loop, which would rather have its server keep the conversation.
async function tool_runner() {
  const asked = [];
  const run = (given) => {
    asked.push(given);
    return "rain";
  };
  const weather = betaTool({
    name: "weather", description: "The weather of a city.", inputSchema: input_schema, run,
  });
  const more = { tools: [weather] };
  const last = await client.beta.messages.toolRunner(request("Weather?", more)).runUntilDone();
  assert.equal(last.content[0].text, scenes.WEATHER_WORDS);
  assert.deepEqual(asked, scenes.WEATHER.map(([, given]) => given));
}

async function thinking() {
  const answer = await ask("Think!", thinks);
  assert.deepEqual(answer.content.map(({ type }) => type), ["thinking", "text"]);
  assert.equal(answer.content[0].thinking, scenes.THOUGHT);
  assert.ok(answer.content[0].signature);
  const streamed = await client.messages.stream(request("Think!", thinks)).finalMessage();
  assert.deepEqual(streamed.content, answer.content);
  const messages = [
    ...says("Think!"), { role: "assistant", content: answer.content }, ...says("Greet me."),
  ];
  await ask("", { messages, ...thinks });
}

async function structured_output() {
  const output_config = { format: { type: "json_schema", schema: input_schema } };
  const answer = await client.messages.parse(request("As JSON.", { output_config }));
  assert.deepEqual(JSON.parse(answer.content[0].text), scenes.FORECAST);
  const masked = await ask("What is a neuron?", {
    model: "sprout",
    output_config: { format: { type: "json_schema", schema: reading } },
    temperature: 0,
    max_tokens: 200,
  });
  assert.deepEqual(Object.keys(JSON.parse(masked.content[0].text)), ["unit", "warm"]);
}

async function count_tokens() {
  const asked = { model: "scripted", messages: says("Greet me."), tools: [tool] };
  const { input_tokens } = await client.messages.countTokens(asked);
  const { usage } = await client.messages.create({ ...asked, max_tokens: 5 });
  assert.equal(input_tokens, usage.input_tokens + usage.cache_read_input_tokens);
}

async function models() {
  const listed = [];
  for await (const model of client.models.list()) listed.push(model.id);
  assert.ok(listed.includes("sprout") && listed.includes("scripted"), listed);
  assert.equal((await client.models.retrieve("scripted")).type, "model");
}

async function refused(kind, status, name, ask) {
  const error = await raises(kind, ask);
  assert.equal(error.status, status);
  assert.equal(error.error.type, "error");
  assert.equal(error.error.error.type, name);
  assert.equal(error.requestID, error.error.request_id);
  const passes = [429, 529].includes(status);
  assert.equal(error.headers.get("x-should-retry"), String(passes));
}

async function error_classes() {
  const large = "x".repeat(fleet.body_limit_bytes);
  for (const stream of [false, true]) {
    const asks = (more, text = "Greet me.") => () => ask(text, { stream, ...more });
    await refused(BadRequestError, 400, "invalid_request_error", asks({ temperature: "hot" }));
    await refused(NotFoundError, 404, "not_found_error", asks({ model: "none" }));
    await refused(ContentTooLargeError, 413, "request_too_large", asks({}, large));
    await refused(OverloadedError, 529, "overloaded_error", asks({ model: "busy" }));
  }
  await refused(InternalServerError, 500, "api_error", () => ask("Greet me.", { model: "broken" }));
  const secret = request("Greet me.", { model: "secret" });
  await refused(AuthenticationError, 401, "authentication_error", () =>
    locked("a-wrong-key").messages.create(secret));
  const opened = await locked(fleet.key).messages.create(secret);
  assert.equal(opened.content[0].text, scenes.GREETING);
}

async function keys_of_the_gateway() {
  const asks = (key) => () => new Anthropic({
    baseURL: fleet.keyed_url, apiKey: key, maxRetries: 0,
  }).messages.create(request("Greet me."));
  assert.equal((await asks("key-open")()).content[0].text, scenes.GREETING);
  await refused(AuthenticationError, 401, "authentication_error", asks("key-unknown"));
  await refused(PermissionDeniedError, 403, "permission_error", asks("key-metrics"));
  await refused(RateLimitError, 429, "rate_limit_error", twice(asks("key-slow")));
}

async function broken_streams(model, text, breakIt) {
  const streams = {
    events: () => ask(text, { model, stream: true }),
    helper: async () => client.messages.stream(request(text, { model })),
  };
  for (const [name, open] of Object.entries(streams)) {
    await untilItAnswers(model);
    let words = "";
    let raised;
    try {
      for await (const event of await open()) {
        assert.notEqual(event.type, "message_stop");
        if (event.type === "content_block_delta") {
          if (!words) breakIt();
          words += event.delta.text;
        }
      }
    } catch (error) {
      raised = error;
    }
    assert.ok(raised instanceof APIError, `${name}: ${raised?.stack ?? words}`);
    assert.ok(words && words !== scenes.LONG, words);
  }
}

async function the_engine_dies_in_a_stream() {
  await broken_streams(FRAIL, "Fault!", () => {});
}

async function the_node_dies_in_a_stream() {
  await broken_streams("doomed", "At length.", killDoomed);
}

await run("anthropic-node", VERSION, [
  message, order_of_a_stream, stream_helper, tools, tool_runner, thinking, structured_output,
  count_tokens, models, error_classes, keys_of_the_gateway, the_engine_dies_in_a_stream,
  the_node_dies_in_a_stream,
]);
