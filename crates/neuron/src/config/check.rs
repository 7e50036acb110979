//! What a value may be, beyond its type.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use control::LoadRequest;
use http::Uri;

use super::{Config, ConfigError, Native, Traces};
use crate::models::spec;

type Checked = Result<(), ConfigError>;

pub(super) fn check(config: &Config) -> Checked {
    within("body_limit_mb", config.body_limit_mb.into(), 1..=1024)?;
    if let Some(url) = &config.advertise_url {
        is_url("advertise_url", url)?;
    }
    engine(&config.harness.native)?;
    traces(&config.traces)?;
    models(&config.default_models)?;
    let is_open = !config.listen.ip().is_loopback() && config.api_key_file.is_none();
    if is_open && !config.allow_open_listen {
        let problem = "other machines could use this node without a key: set `api_key_file`, or \
                       `allow_open_listen = true` if the network is trusted";
        return refuse("listen", &config.listen, problem);
    }
    Ok(())
}

fn engine(native: &Native) -> Checked {
    within("harness.native.max_running", native.max_running.into(), 1..=4096)?;
    let budget = native.token_budget.unwrap_or(1);
    within("harness.native.token_budget", budget.into(), 1..=1_048_576)?;
    within("harness.native.stall_ms", native.stall_ms.into(), 1..=60_000)?;
    within("harness.native.step_timeout_secs", native.step_timeout_secs, 1..=86_400)?;
    within("harness.native.threads", native.threads.unwrap_or(1).into(), 1..=4096)?;
    within("harness.native.memory_mb", native.memory_mb.unwrap_or(1), 1..=u64::MAX >> 20)?;
    match native.engine_command.as_deref() {
        Some([]) => refuse("harness.native.engine_command", "[]", "names no program"),
        _ => Ok(()),
    }
}

fn traces(traces: &Traces) -> Checked {
    if let Some(endpoint) = &traces.endpoint {
        is_url("traces.endpoint", endpoint)?;
    }
    match (0.0..=1.0).contains(&traces.share) {
        true => Ok(()),
        false => refuse("traces.share", &traces.share, "must be from 0 to 1"),
    }
}

fn models(models: &[LoadRequest]) -> Checked {
    let mut ids = HashSet::new();
    for model in models {
        if !ids.insert(&model.model_id) {
            return refuse("default_models.model_id", &model.model_id, "named twice");
        }
        if let Err(problem) = spec::check(model) {
            return refuse("default_models.model_id", &model.model_id, problem);
        }
    }
    Ok(())
}

fn within(key: &'static str, value: u64, range: RangeInclusive<u64>) -> Checked {
    match range.contains(&value) {
        true => Ok(()),
        false => refuse(key, &value, format!("must be from {} to {}", range.start(), range.end())),
    }
}

fn is_url(key: &'static str, url: &str) -> Checked {
    let parsed: Option<Uri> = url.parse().ok();
    let is_one = parsed.is_some_and(|uri| {
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        is_http && uri.host().is_some_and(|host| !host.is_empty()) && uri.query().is_none()
    });
    match is_one {
        true => Ok(()),
        false => refuse(key, url, "must be a URL such as `http://10.0.0.5:13131`"),
    }
}

fn refuse(
    key: &'static str,
    value: &(impl ToString + ?Sized),
    problem: impl Into<String>,
) -> Checked {
    Err(ConfigError::Value { key, value: value.to_string(), problem: problem.into() })
}
