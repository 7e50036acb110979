//! Body -> request.

use std::collections::BTreeMap;

use dialog::{GenerateRequest, Json, Prompt, Reasoning, SamplingParams};
use serde_json::value::RawValue;

use super::{message, tools};
use crate::fields::{self, Object};
use crate::{WireError, peek};

/// How the caller wants the answer told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplyOptions {
    /// Event by event instead of one body.
    pub stream: bool,
    /// A chunk with the usage before the end of the stream.
    pub include_usage: bool,
}

/// Reads a chat completion request.
///
/// # Errors
///
/// The first field found wrong, by its path, with the value and the allowed range; a field that
/// would change the answer and is not honoured is refused by name.
pub fn parse(body: &[u8]) -> Result<(GenerateRequest, ReplyOptions), WireError> {
    let body = fields::body(body)?;
    let model = peek::model(&body)?;
    refuse_what_is_not_done(&body)?;
    let messages = message::conversation(&body)?;
    let (reasoning, template_arguments) = reasoning(&body)?;
    let (tools, tool_choice) = tools::offer(&body)?;
    let max_tokens = peek::max_tokens(&body)?;
    let request = GenerateRequest {
        tools,
        tool_choice,
        reasoning,
        template_arguments,
        sampling: sampling(&body)?,
        max_tokens,
        min_tokens: min_tokens(&body, max_tokens)?,
        stop: stop(&body)?,
        ignore_eos: body.flag("ignore_eos")?.unwrap_or(false),
        ..GenerateRequest::new(model, Prompt::Chat(messages))
    };
    Ok((request, reply_options(&body)?))
}

fn reply_options(body: &Object<'_>) -> Result<ReplyOptions, WireError> {
    let stream = body.flag("stream")?.unwrap_or(false);
    let include_usage = match body.object("stream_options")? {
        Some(options) => options.flag("include_usage")?.unwrap_or(false),
        None => false,
    };
    Ok(ReplyOptions { stream, include_usage: stream && include_usage })
}

fn sampling(body: &Object<'_>) -> Result<SamplingParams, WireError> {
    let top_k = body.integer("top_k", -1..=i64::from(i32::MAX))?;
    let seed = body.integer("seed", 0..=i64::MAX)?;
    Ok(SamplingParams {
        temperature: body.number("temperature", 0.0..=2.0, false)?,
        top_p: body.number("top_p", 0.0..=1.0, true)?,
        top_k: top_k.map(|keep| u32::try_from(keep).unwrap_or(0)),
        min_p: body.number("min_p", 0.0..=1.0, false)?,
        repetition_penalty: body.number("repetition_penalty", 0.0..=10.0, true)?,
        presence_penalty: body.number("presence_penalty", -2.0..=2.0, false)?,
        frequency_penalty: body.number("frequency_penalty", -2.0..=2.0, false)?,
        seed: seed.map(i64::unsigned_abs),
        logit_bias: logit_bias(body)?,
    })
}

fn logit_bias(body: &Object<'_>) -> Result<Vec<(u32, f32)>, WireError> {
    const MOST: usize = 1024;
    let Some(biases) = body.object("logit_bias")? else { return Ok(Vec::new()) };
    let mut by_token = BTreeMap::new();
    for (key, raw) in biases.entries() {
        let token = key.parse::<u32>().map_err(|_| {
            body.wrong("logit_bias", "must have token ids as keys, such as \"1234\"")
        })?;
        let bias = raw.get().parse::<f32>().ok().filter(|bias| (-100.0..=100.0).contains(bias));
        let expected = || "must be a number from -100 to 100".to_owned();
        let bias = bias.ok_or_else(|| fields::invalid(biases.at(key), expected(), raw))?;
        by_token.insert(token, bias);
    }
    if by_token.len() > MOST {
        return Err(body.wrong("logit_bias", format!("must hold at most {MOST} tokens")));
    }
    Ok(by_token.into_iter().collect())
}

fn min_tokens(body: &Object<'_>, max_tokens: Option<u32>) -> Result<u32, WireError> {
    let most = max_tokens.map_or(i64::from(i32::MAX), i64::from);
    let least = body.integer("min_tokens", 0..=most)?.unwrap_or(0);
    Ok(u32::try_from(least).unwrap_or(0))
}

fn stop(body: &Object<'_>) -> Result<Vec<String>, WireError> {
    const MOST: usize = 4;
    const LONGEST_BYTES: usize = 1024;
    let expected =
        || format!("must be a string or up to {MOST} strings of 1 to {LONGEST_BYTES} bytes each");
    let Some(raw) = body.raw("stop") else { return Ok(Vec::new()) };
    let raws = match raw.get().starts_with('[') {
        true => body.array("stop")?.unwrap_or_default(),
        false => vec![raw],
    };
    let texts: Result<Vec<String>, _> =
        raws.iter().map(|raw| fields::text(raw, || "stop".to_owned())).collect();
    let texts = texts.map_err(|_| body.wrong("stop", expected()))?;
    if texts.len() > MOST || texts.iter().any(|text| text.is_empty() || text.len() > LONGEST_BYTES)
    {
        return Err(body.wrong("stop", expected()));
    }
    Ok(texts)
}

/// The most particular wish wins: `chat_template_kwargs.enable_thinking`, then
/// `enable_thinking`, then `thinking.type`, then `reasoning_effort`.
fn reasoning(body: &Object<'_>) -> Result<(Reasoning, Option<Json>), WireError> {
    let effort = match body.text("reasoning_effort")?.as_deref() {
        None => None,
        Some("none") => Some(false),
        Some("minimal" | "low" | "medium" | "high" | "xhigh") => Some(true),
        Some(_) => {
            let expected = "must be one of none, minimal, low, medium, high, xhigh";
            return Err(body.wrong("reasoning_effort", expected));
        }
    };
    let thinking = match body.object("thinking")? {
        None => None,
        Some(thinking) => match thinking.text("type")?.as_deref() {
            Some("enabled") => Some(true),
            Some("disabled") => Some(false),
            _ => return Err(thinking.wrong("type", "must be enabled or disabled")),
        },
    };
    let flat = body.flag("enable_thinking")?;
    let (nested, arguments) = template_arguments(body)?;
    let reasoning = match nested.or(flat).or(thinking).or(effort) {
        None => Reasoning::ModelDefault,
        Some(false) => Reasoning::Off,
        Some(true) => Reasoning::On,
    };
    Ok((reasoning, arguments))
}

fn template_arguments(body: &Object<'_>) -> Result<(Option<bool>, Option<Json>), WireError> {
    let Some(arguments) = body.object("chat_template_kwargs")? else { return Ok((None, None)) };
    let enable_thinking = arguments.flag("enable_thinking")?;
    let mut others = serde_json::Map::new();
    for (name, raw) in arguments.entries().filter(|(name, _)| *name != "enable_thinking") {
        let value = serde_json::from_str(raw.get()).map_err(|_| {
            fields::invalid(arguments.at(name), "must be plain JSON".to_owned(), raw)
        })?;
        others.insert(name.to_owned(), value);
    }
    let others = (!others.is_empty()).then(|| Json(serde_json::Value::Object(others).to_string()));
    Ok((enable_thinking, others))
}

/// Fields that change the answer and are not honoured, with the values that ask for nothing.
const NOT_DONE: &[(&str, &[&str])] = &[
    ("logprobs", &["false"]),
    ("top_logprobs", &["0"]),
    ("prompt_logprobs", &["0"]),
    ("echo", &["false"]),
    ("suffix", &["\"\""]),
    ("best_of", &["1"]),
    ("audio", &[]),
    ("modalities", &["[\"text\"]"]),
    ("functions", &["[]"]),
    ("function_call", &["\"none\"", "\"auto\""]),
    ("web_search_options", &[]),
    ("verbosity", &["\"medium\""]),
    ("chat_template", &[]),
    ("add_generation_prompt", &["true"]),
    ("continue_final_message", &["false"]),
    ("documents", &["[]"]),
    ("grammar", &["\"\""]),
    ("json_schema", &[]),
    ("structured_outputs", &[]),
    ("guided_json", &[]),
    ("guided_regex", &[]),
    ("guided_choice", &[]),
    ("guided_grammar", &[]),
    ("use_beam_search", &["false"]),
    ("length_penalty", &["1", "1.0"]),
    ("stop_token_ids", &["[]"]),
    ("bad_words", &["[]"]),
    ("allowed_token_ids", &[]),
    ("include_stop_str_in_output", &["false"]),
    ("skip_special_tokens", &["true"]),
    ("include_reasoning", &["true"]),
    ("repeat_last_n", &[]),
    ("typical_p", &["1", "1.0"]),
    ("top_a", &["0", "0.0"]),
    ("tfs_z", &["1", "1.0"]),
    ("mirostat", &["0"]),
    ("dry_multiplier", &["0", "0.0"]),
    ("xtc_probability", &["0", "0.0"]),
];

fn refuse_what_is_not_done(body: &Object<'_>) -> Result<(), WireError> {
    for (name, neutral) in NOT_DONE {
        let asked = body.raw(name).map(RawValue::get);
        if asked.is_some_and(|value| !neutral.contains(&value)) {
            return Err(body.unsupported(name, "leave it out"));
        }
    }
    if body.integer("n", 1..=128)?.unwrap_or(1) > 1 {
        return Err(body.unsupported("n", "values above 1 are not served, send several requests"));
    }
    body.flag("parallel_tool_calls")?;
    response_format(body)
}

fn response_format(body: &Object<'_>) -> Result<(), WireError> {
    let Some(format) = body.object("response_format")? else { return Ok(()) };
    match format.text("type")?.as_deref() {
        None => Err(format.missing("type")),
        Some("text") => Ok(()),
        Some("json_object" | "json_schema") => {
            Err(body.unsupported("response_format", "only the type text is served"))
        }
        Some(_) => Err(format.wrong("type", "must be text, json_object or json_schema")),
    }
}
