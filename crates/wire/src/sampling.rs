//! How tokens are chosen and where an answer ends, as every dialect's body says it.

use std::collections::BTreeMap;

use dialog::SamplingParams;

use crate::WireError;
use crate::fields::{self, Object};

/// The fields that choose tokens; the same in every dialect, whether or not its vendor has them.
pub(crate) fn sampling(body: &Object<'_>) -> Result<SamplingParams, WireError> {
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

/// A least number of tokens that is not above the most.
pub(crate) fn min_tokens(body: &Object<'_>, max_tokens: Option<u32>) -> Result<u32, WireError> {
    let most = max_tokens.map_or(i64::from(i32::MAX), i64::from);
    let least = body.integer("min_tokens", 0..=most)?.unwrap_or(0);
    Ok(u32::try_from(least).unwrap_or(0))
}

/// OpenAI's cap on stop texts.
pub(crate) const FOUR_STOPS: usize = 4;

/// Stop texts, from one string or an array.
pub(crate) fn stop(body: &Object<'_>, name: &str, most: usize) -> Result<Vec<String>, WireError> {
    const LONGEST_BYTES: usize = 1024;
    let expected =
        || format!("must be a string or up to {most} strings of 1 to {LONGEST_BYTES} bytes each");
    let Some(raw) = body.raw(name) else { return Ok(Vec::new()) };
    let raws = match raw.get().starts_with('[') {
        true => body.array(name)?.unwrap_or_default(),
        false => vec![raw],
    };
    let texts: Result<Vec<String>, _> =
        raws.iter().map(|raw| fields::text(raw, || body.at(name))).collect();
    let texts = texts.map_err(|_| body.wrong(name, expected()))?;
    if texts.len() > most || texts.iter().any(|text| text.is_empty() || text.len() > LONGEST_BYTES)
    {
        return Err(body.wrong(name, expected()));
    }
    Ok(texts)
}
