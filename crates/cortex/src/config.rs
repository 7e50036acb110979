//! `cortex.toml`, then the environment: `CORTEX_GATEWAY__LISTEN` overrides `[gateway] listen`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Duration;

use figment::Figment;
use figment::providers::{Env, Format, Toml};
use http::HeaderValue;
use serde::Deserialize;

mod complaint;
mod keys;
mod ledger;
mod spans;

pub(crate) use complaint::{check_syntax, complain};
pub use keys::{Auth, Budget, Key, Scope, Scopes};
pub use ledger::Ledger;
pub use spans::Spans;

use crate::Error;

/// A node must be able to miss [`fleet::MISSED_LIMIT`] polls before its last report is stale.
const SLOWEST_POLL_MS: u64 = fleet::STALE_AFTER_MS / fleet::MISSED_LIMIT as u64;

/// Everything that an operator can say.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `[gateway]`.
    #[serde(default)]
    pub gateway: Gateway,
    /// `[eviction]`.
    #[serde(default)]
    pub eviction: Eviction,
    /// `[[neurons]]`.
    #[serde(default)]
    pub neurons: Vec<Neuron>,
    /// `[auth]`.
    #[serde(default)]
    pub auth: Auth,
    /// `[ledger]`.
    #[serde(default)]
    pub ledger: Ledger,
    /// `[traces]`.
    #[serde(default)]
    pub traces: Spans,
    /// The file that it was read from, to be read again.
    #[serde(skip)]
    pub file: Option<PathBuf>,
}

/// `[eviction]`: who gives way when a model needs room.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Eviction {
    /// By what it is decided.
    pub strategy: EvictionStrategy,
}

/// See [`fleet::Strategy`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvictionStrategy {
    /// Who was not asked for the longest time.
    #[default]
    Lru,
    /// Who has the lowest priority, then the least recently used.
    Priority,
}

/// `[gateway]`: cortex itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gateway {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where `/metrics` and `/admin/fleet` are served; for operators only.
    pub metrics_listen: SocketAddr,
    /// The catalogue of models; a relative path counts from the file that names it.
    pub models_config: Option<PathBuf>,
    /// How long a request may wait for a model that has to be loaded first.
    pub hold_timeout_secs: u64,
    /// Bodies that are kept for a second try or for a continuation, of all requests together, in
    /// MiB.
    pub retry_buffer_mb: u32,
    /// A stream that is silent for this long has its node looked at.
    pub silence_ms: u64,
    /// How long that node has to show that it lives.
    pub probe_timeout_ms: u64,
    /// The largest request body, in MiB.
    pub body_limit_mb: u32,
    /// A stream that is silent for this long is ended with an error.
    pub idle_timeout_secs: u64,
    /// How long a neuron may take to accept a connection.
    pub connect_timeout_ms: u64,
    /// From one poll of a neuron to the next.
    pub poll_interval_ms: u64,
    /// How long one poll may take.
    pub poll_timeout_ms: u64,
    /// Threads that serve clients; half of the cores where nothing is said.
    pub threads: Option<NonZero<usize>>,
    /// How long open requests may go on after a signal to stop.
    pub shutdown_grace_secs: u64,
    /// Serve without keys on an address that other hosts can reach.
    pub allow_unauthenticated: bool,
    /// Who shares what the nodes computed for a prompt.
    pub cache_isolation: CacheIsolation,
    /// `[gateway.tls]`: what clients are spoken to with; in the clear without it.
    pub tls: Option<TlsFiles>,
}

/// `[gateway.tls]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate and those that sign it, in PEM.
    pub cert_file: PathBuf,
    /// Its private key, in PEM.
    pub key_file: PathBuf,
}

/// Who shares what the nodes computed for a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheIsolation {
    /// Everybody: the set-up of one tenant.
    Shared,
    /// Those who present the same credential.
    Credential,
}

impl Default for Gateway {
    fn default() -> Gateway {
        Gateway {
            listen: SocketAddr::from(([127, 0, 0, 1], 31313)),
            metrics_listen: SocketAddr::from(([127, 0, 0, 1], 31314)),
            models_config: None,
            hold_timeout_secs: 300,
            retry_buffer_mb: 64,
            silence_ms: 1_000,
            probe_timeout_ms: 600,
            body_limit_mb: 32,
            idle_timeout_secs: 300,
            connect_timeout_ms: 2_000,
            poll_interval_ms: 1_000,
            poll_timeout_ms: 1_000,
            threads: None,
            shutdown_grace_secs: 30,
            allow_unauthenticated: false,
            cache_isolation: CacheIsolation::Shared,
            tls: None,
        }
    }
}

impl Gateway {
    /// [`Gateway::body_limit_mb`] in bytes.
    #[must_use]
    pub fn body_limit_bytes(&self) -> usize {
        self.body_limit_mb as usize * 1024 * 1024
    }

    /// [`Gateway::threads`], as many as there are to be. The fewer, the more each finds to do when
    /// it is woken, which is most of what a piece of a stream costs.
    #[must_use]
    pub fn threads(&self) -> NonZero<usize> {
        let cores = available_parallelism().map_or(1, NonZero::get);
        self.threads.or(NonZero::new(cores / 2)).unwrap_or(NonZero::<usize>::MIN)
    }

    /// [`Gateway::idle_timeout_secs`] as a duration.
    #[must_use]
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_secs(self.idle_timeout_secs)
    }
}

/// `[[neurons]]`: one host.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Neuron {
    /// How the operator calls it.
    pub name: String,
    /// Its base URL, for example `http://10.0.0.5:13131`.
    pub endpoint: String,
    /// A file with the key that the neuron asks for.
    pub api_key_file: Option<PathBuf>,
}

impl Neuron {
    /// What the neuron is told with each request, where it asks for a key.
    ///
    /// # Errors
    /// [`Error::Config`] when the file holds no key.
    pub fn authorization(&self) -> Result<Option<HeaderValue>, Error> {
        let Some(path) = &self.api_key_file else { return Ok(None) };
        let wrong = |problem| Error::Config { place: path.display().to_string(), problem };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let key = text.trim();
        if key.is_empty() {
            return Err(wrong("it holds no key".to_owned()));
        }
        let value = HeaderValue::from_str(&format!("Bearer {key}"));
        let mut value = value.map_err(|_| wrong("its key is not of plain letters".to_owned()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

impl Config {
    /// Reads `file`, then the environment, and checks the whole.
    ///
    /// # Errors
    /// [`Error::Config`] with the file, the line and column where they are known, and what to do.
    pub fn load(file: &Path) -> Result<Config, Error> {
        let text = std::fs::read_to_string(file).map_err(|error| Error::Config {
            place: file.display().to_string(),
            problem: format!("{error}; write the file or name another one with --config"),
        })?;
        let mut config = Config::from_text(&text, &file.display().to_string())?;
        if let (Some(models), Some(directory)) = (&config.gateway.models_config, file.parent()) {
            config.gateway.models_config = Some(directory.join(models));
        }
        config.file = Some(file.to_owned());
        Ok(config)
    }

    /// As [`Config::load`], from a text that came from `place`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_text(text: &str, place: &str) -> Result<Config, Error> {
        check_syntax(text, place)?;
        let figment = Figment::from(Toml::string(text)).merge(Env::prefixed("CORTEX_").split("__"));
        let config: Config = figment.extract().map_err(|error| complain(&error, text, place))?;
        config.checked().map_err(|problem| Error::Config { place: place.to_owned(), problem })
    }

    /// What types alone cannot say.
    fn checked(mut self) -> Result<Config, String> {
        let gateway = &self.gateway;
        let positive = [
            ("body_limit_mb", u64::from(gateway.body_limit_mb)),
            ("idle_timeout_secs", gateway.idle_timeout_secs),
            ("connect_timeout_ms", gateway.connect_timeout_ms),
            ("poll_interval_ms", gateway.poll_interval_ms),
            ("poll_timeout_ms", gateway.poll_timeout_ms),
            ("hold_timeout_secs", gateway.hold_timeout_secs),
            ("silence_ms", gateway.silence_ms),
            ("probe_timeout_ms", gateway.probe_timeout_ms),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(format!("gateway.{key} is 0; give it 1 or more"));
        }
        let (interval, limit) = (gateway.poll_interval_ms, gateway.poll_timeout_ms);
        if interval.saturating_add(limit) > SLOWEST_POLL_MS {
            return Err(format!(
                "gateway.poll_interval_ms and gateway.poll_timeout_ms are {interval} and {limit}; \
                 together they may be {SLOWEST_POLL_MS} at most"
            ));
        }
        if gateway.body_limit_mb > 1024 {
            let given = gateway.body_limit_mb;
            return Err(format!("gateway.body_limit_mb is {given}; the most is 1024"));
        }
        if gateway.listen == gateway.metrics_listen && gateway.listen.port() != 0 {
            let both = gateway.listen;
            return Err(format!("gateway.listen and gateway.metrics_listen are both {both}"));
        }
        self.check_neurons()?;
        self.traces.check()?;
        self.auth.check()?;
        let budgeted = self.auth.keys.iter().find(|key| key.budget.is_some());
        if let Some(key) = budgeted.filter(|_| !self.ledger.is_configured()) {
            return Err(format!(
                "the key `{}` has a budget, which a restart would forget; set ledger.url, \
                 for example to sqlite:///var/lib/cortex/ledger.sqlite",
                key.name
            ));
        }
        Ok(self)
    }

    /// Reads the catalogue of models that the configuration names, and counts its entries.
    ///
    /// # Errors
    /// [`Error::Config`] with what is wrong with it.
    pub fn check_models(&self) -> Result<usize, Error> {
        let settings = crate::settings::Settings::new(self.clone())?;
        Ok(settings.models.catalogue.models.len())
    }

    fn check_neurons(&mut self) -> Result<(), String> {
        if self.neurons.is_empty() {
            return Err("no neuron is configured; add a [[neurons]] table with name and endpoint"
                .to_owned());
        }
        let mut names = HashMap::new();
        let mut endpoints = HashMap::new();
        for (place, neuron) in self.neurons.iter_mut().enumerate() {
            neuron.endpoint = checked_endpoint(&neuron.name, &neuron.endpoint)?;
            let (name, endpoint) = (&neuron.name, &neuron.endpoint);
            if name.is_empty()
                || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            {
                return Err(format!(
                    "neurons[{place}].name is `{name}`; use letters, digits, `-`, `_` and `.`"
                ));
            }
            if names.insert(name.clone(), place).is_some() {
                return Err(format!("two neurons are called `{name}`; names must differ"));
            }
            if let Some(other) = endpoints.insert(endpoint.clone(), name.clone()) {
                return Err(format!("neurons `{other}` and `{name}` are both at {endpoint}"));
            }
        }
        let own = format!("http://{}", self.gateway.listen);
        match endpoints.get(&own) {
            Some(name) => Err(format!("neuron `{name}` is at {own}, where cortex itself listens")),
            None => Ok(()),
        }
    }

    /// Refuses to serve strangers: without keys, an address that other hosts can reach needs the
    /// operator's word.
    ///
    /// # Errors
    /// [`Error::Config`] with the address and the flag.
    pub fn check_exposure(&self) -> Result<(), Error> {
        let gateway = &self.gateway;
        let exposed = [("listen", gateway.listen), ("metrics_listen", gateway.metrics_listen)];
        let exposed = exposed.into_iter().find(|(_, addr)| !addr.ip().is_loopback());
        match exposed {
            Some((key, addr)) if !gateway.allow_unauthenticated && self.auth.keys.is_empty() => {
                Err(Error::Config {
                    place: format!("gateway.{key}"),
                    problem: format!(
                        "{addr} can be reached from other hosts and cortex asks nobody for a key; \
                     add [[auth.keys]], listen on 127.0.0.1, or accept this with \
                     --allow-unauthenticated"
                    ),
                })
            }
            _ => Ok(()),
        }
    }
}

/// The endpoint without a trailing slash, or what is wrong with it.
fn checked_endpoint(name: &str, endpoint: &str) -> Result<String, String> {
    let wrong = |why: &str| {
        format!("neuron `{name}` has the endpoint `{endpoint}`: {why}; write http://HOST:PORT")
    };
    let uri: http::Uri = endpoint.parse().map_err(|_| wrong("it is not a URL"))?;
    if uri.scheme_str() != Some("http") {
        return Err(wrong("its scheme is not http"));
    }
    let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
    if authority.as_str().contains('@') {
        return Err(wrong("it holds a user name"));
    }
    if uri.query().is_some() {
        return Err(wrong("it holds a query"));
    }
    Ok(endpoint.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests;
