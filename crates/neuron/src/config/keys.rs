//! The keys that `neuron.toml` and the environment may have, and what an unknown one may mean.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;
use crate::spelling::edit_distance;

/// Every key that a file may have; `default_models` is a list of tables.
pub(super) const KEYS: [&str; 32] = [
    "listen",
    "api_key_file",
    "advertise_url",
    "allow_open_listen",
    "model_dirs",
    "body_limit_mb",
    "traces",
    "traces.endpoint",
    "traces.share",
    "default_models",
    "default_models.model_id",
    "default_models.harness",
    "default_models.quant",
    "default_models.tensor_parallel",
    "default_models.devices",
    "default_models.context",
    "default_models.max_running",
    "default_models.source",
    "harness",
    "harness.native",
    "harness.candle",
    "harness.*.max_running",
    "harness.*.token_budget",
    "harness.*.stall_ms",
    "harness.*.threads",
    "harness.*.device",
    "harness.*.prefix_cache",
    "harness.*.memory_mb",
    "harness.*.host_cache_mb",
    "harness.*.cache_isolation",
    "harness.*.step_timeout_secs",
    "harness.*.engine_command",
];

pub(super) fn is_known(key: &str) -> bool {
    KEYS.iter().any(|known| *known == key || *known == generic(key))
}

/// `harness.native.threads` and `harness.candle.threads` are one key.
pub(super) fn generic(key: &str) -> String {
    match key.strip_prefix("harness.native.").or_else(|| key.strip_prefix("harness.candle.")) {
        Some(rest) => format!("harness.*.{rest}"),
        None => key.to_owned(),
    }
}

pub(super) fn check_keys(
    text: &str,
    path: &str,
    table: &DeTable<'_>,
    prefix: &str,
) -> Result<(), ConfigError> {
    for (name, value) in table {
        let key = format!("{prefix}{}", name.get_ref());
        if !is_known(&key) {
            let (line, column) = position(text, name.span().start);
            let place = format!("{path}:{line}:{column}");
            return Err(ConfigError::UnknownKey { place, nearest: nearest(&key), key });
        }
        for table in tables_of(value) {
            check_keys(text, path, table, &format!("{key}."))?;
        }
    }
    Ok(())
}

pub(super) fn tables_of<'a, 'i>(value: &'a Spanned<DeValue<'i>>) -> Vec<&'a DeTable<'i>> {
    match value.get_ref() {
        DeValue::Table(table) => vec![table],
        DeValue::Array(array) => array.iter().flat_map(tables_of).collect(),
        _ => vec![],
    }
}

/// Line and column, both from 1.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    (before.matches('\n').count() + 1, text[line_start..at].chars().count() + 1)
}

/// The known key with the smallest edit distance, if it is near at all.
pub(super) fn nearest(key: &str) -> Option<String> {
    let wanted = generic(key);
    let scored = KEYS.iter().map(|known| (edit_distance(&wanted, known), *known));
    let (distance, known) = scored.min()?;
    let near = distance <= 2 + wanted.len() / 4;
    near.then(|| known.replace("harness.*", "harness.native"))
}
