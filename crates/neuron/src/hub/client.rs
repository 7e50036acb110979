//! Questions to the hub: redirects, the token, and tries again.

use std::io::Read;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Response, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ureq::Body;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::endpoint::{Origin, Settings, follow};
use super::listing::{Digest, Listing};
use super::watch::{Event, Watch};
use super::{PullError, RepoName};

/// What stays as it is in a part of a path.
const PART: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const MAX_REDIRECTS: usize = 5;
/// The largest repositories have some thousands of files of some hundred bytes each.
const MAX_LISTING_BYTES: u64 = 32 << 20;
/// A hub that wants a longer pause has its wish told to the caller instead.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// How a request that fails is tried again.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Tries in a row that bring nothing, the first one included.
    pub tries: u32,
    /// The pause after the first of them; each further one is twice as long, up to a minute, and
    /// a random part is taken off, so that many hosts do not come back at the same moment.
    pub pause: Duration,
    /// How long an answer, or the next bytes of one, may take.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let (pause, silence) = (Duration::from_secs(1), Duration::from_secs(30));
        Self { tries: 6, pause, silence }
    }
}

/// A hub, and who asks it.
pub struct Hub {
    agent: ureq::Agent,
    settings: Settings,
    origin: Origin,
    patience: Patience,
}

/// Why a try brought nothing.
pub(super) enum Failure {
    /// It may work later, at the earliest after the pause that the hub asks for.
    Again { why: String, after: Option<Duration> },
    /// It will not.
    Final(PullError),
}

/// The bytes of a file, from some place on.
pub(super) struct Stream {
    /// Where they begin: at 0 if the host knows no ranges.
    pub(super) from: u64,
    /// The hash that the hub gives with the file.
    pub(super) digest: Option<Digest>,
    pub(super) body: Body,
}

impl Hub {
    /// Reads the system's certificates; asks nothing yet.
    ///
    /// # Errors
    ///
    /// `Refused` for an endpoint that is no URL, and for https without one certificate.
    pub fn new(settings: Settings, patience: Patience) -> Result<Self, PullError> {
        let origin = Origin::of(&settings.endpoint).ok_or_else(|| {
            PullError::Refused(format!("{} is no http or https URL", settings.endpoint))
        })?;
        let found = rustls_native_certs::load_native_certs().certs;
        if found.is_empty() && origin.scheme == "https" && !settings.offline {
            return Err(PullError::refused(
                "this host has no certificates of authorities, so nobody's identity can be \
                 checked: install the package ca-certificates, or name a file in SSL_CERT_FILE",
            ));
        }
        let certificates: Vec<Certificate<'static>> =
            found.iter().map(|found| Certificate::from_der(found).to_owned()).collect();
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(certificates)))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        // No proxy reaches this host's own loopback.
        let proxy = if origin.is_loopback() { None } else { ureq::Proxy::try_from_env() };
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
            .proxy(proxy)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(patience.silence))
            .timeout_recv_response(Some(patience.silence))
            .timeout_per_read(Some(patience.silence))
            .user_agent(concat!("neuron/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self { agent: config.into(), settings, origin, patience })
    }

    /// Whether nothing may be asked.
    pub(super) fn is_offline(&self) -> bool {
        self.settings.offline
    }

    /// One look at a repository.
    pub(super) fn listing(
        &self,
        name: &RepoName,
        watch: &mut Watch<'_>,
    ) -> Result<Listing, PullError> {
        if self.settings.token.is_some() && self.origin.is_open() {
            watch(Event::Note(
                "the token is not sent, since HF_ENDPOINT is plain http and others could read it",
            ));
        }
        let revision = utf8_percent_encode(&name.revision, PART);
        let path = format!("/api/models/{}/revision/{revision}?blobs=true", name.repo);
        let body = self.patiently(&name.to_string(), watch, |_| {
            let (answer, _) = self.get(name, &path, None)?;
            let mut body = Vec::new();
            let mut reader = answer.into_body().into_reader().take(MAX_LISTING_BYTES);
            reader.read_to_end(&mut body).map_err(|error| again(&error))?;
            Ok(body)
        })?;
        Listing::read(&name.repo, &body)
    }

    /// Calls `attempt` until it works, gives up, or fails too often without getting anywhere; it
    /// is told how often it has failed since, and resets that by setting it to 0.
    pub(super) fn patiently<T>(
        &self,
        what: &str,
        watch: &mut Watch<'_>,
        mut attempt: impl FnMut(&mut Attempt<'_, '_>) -> Result<T, Failure>,
    ) -> Result<T, PullError> {
        let mut failed = 0;
        loop {
            let mut state = Attempt { failed: &mut failed, watch: &mut *watch };
            let (why, after) = match attempt(&mut state) {
                Ok(done) => return Ok(done),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Again { why, after }) => (why, after),
            };
            failed += 1;
            let asked = after.unwrap_or_default();
            if failed >= self.patience.tries || asked > LONGEST_PAUSE {
                let wish = match after {
                    Some(asked) => format!("; it asks for a pause of {} s", asked.as_secs()),
                    None => String::new(),
                };
                let host = &self.settings.endpoint;
                return Err(PullError::Unreachable(format!(
                    "{what}: {why}{wish}. {host} was asked {failed} times; the same call goes on \
                     where this one ended, and --offline uses what is there"
                )));
            }
            let pause = self.patience.pause.saturating_mul(1 << (failed - 1).min(10));
            let pause = pause.min(Duration::from_secs(60)).mul_f64(0.5 + fastrand::f64() / 2.0);
            let delay = pause.max(asked);
            watch(Event::Waiting { why: &format!("{what}: {why}"), delay });
            thread::sleep(delay);
        }
    }

    /// Opens a file of a pinned commit at a byte.
    pub(super) fn open(
        &self,
        name: &RepoName,
        commit: &str,
        file: &str,
        from: u64,
    ) -> Result<Stream, Failure> {
        let file: Vec<_> =
            file.split('/').map(|part| utf8_percent_encode(part, PART).to_string()).collect();
        let path = format!("/{}/resolve/{commit}/{}", name.repo, file.join("/"));
        let (answer, digest) = self.get(name, &path, (from > 0).then_some(from))?;
        let from = match answer.status() {
            StatusCode::PARTIAL_CONTENT if starts_at(answer.headers()) == Some(from) => from,
            StatusCode::PARTIAL_CONTENT => {
                let why = "the host sent another part than was asked for".to_owned();
                return Err(Failure::Again { why, after: None });
            }
            _ => 0,
        };
        Ok(Stream { from, digest, body: answer.into_body() })
    }

    /// Follows redirects, each host told only what it may know, to an answer that is a success.
    fn get(
        &self,
        name: &RepoName,
        path: &str,
        from: Option<u64>,
    ) -> Result<(Response<Body>, Option<Digest>), Failure> {
        let mut url = format!("{}{path}", self.settings.endpoint);
        let mut digest = None;
        for _ in 0..=MAX_REDIRECTS {
            // Signed addresses carry secrets in their query.
            let place = url.split('?').next().unwrap_or(&url).to_owned();
            let mut request = self.agent.get(&url).header(header::ACCEPT_ENCODING, "identity");
            let is_hub = Origin::of(&url).as_ref() == Some(&self.origin);
            if let (Some(token), true) = (&self.settings.token, is_hub && !self.origin.is_open()) {
                request =
                    request.header(header::AUTHORIZATION, format!("Bearer {}", token.reveal()));
            }
            if let Some(from) = from {
                request = request.header(header::RANGE, format!("bytes={from}-"));
            }
            let answer = request.call().map_err(|error| failed(&place, &error))?;
            // What the hub says of a file counts, not what the host of the bytes says.
            if is_hub && digest.is_none() {
                digest = digest_of(answer.headers());
            }
            let status = answer.status();
            if !status.is_redirection() {
                let refused = || self.refusal(name, &place, is_hub, &answer);
                return if status.is_success() { Ok((answer, digest)) } else { Err(refused()) };
            }
            let location = answer.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
            url = location.and_then(|to| follow(&url, to)).ok_or_else(|| {
                let message = format!("{place}: leads nowhere, or to plain http");
                Failure::Final(PullError::Corrupt(message))
            })?;
        }
        let message = format!("{path}: more than {MAX_REDIRECTS} redirects");
        Err(Failure::Final(PullError::Corrupt(message)))
    }

    /// What an answer that is no success means.
    fn refusal(
        &self,
        name: &RepoName,
        place: &str,
        is_hub: bool,
        answer: &Response<Body>,
    ) -> Failure {
        let (status, headers) = (answer.status(), answer.headers());
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let code = text("x-error-code").unwrap_or_default();
        let passing = [408, 416, 429].contains(&status.as_u16()) || status.is_server_error();
        // A signed address of another host wears off; the hub gives a new one.
        if passing || !is_hub {
            let after = text("retry-after").and_then(|after| pause_of(after, SystemTime::now()));
            return Failure::Again { why: format!("{place}: {status}"), after };
        }
        let (repo, hub) = (&name.repo, &self.settings.endpoint);
        let sent = self.settings.token.is_some() && !self.origin.is_open();
        let gated = code == "GatedRepo" || status == StatusCode::FORBIDDEN;
        let message = match (status.as_u16(), sent) {
            (401 | 403, false) if gated => format!(
                "{repo} is gated: its owner gives it to those who ask. Accept its terms at \
                 {hub}/{repo}, make a token that may read at {hub}/settings/tokens, and put it \
                 into HF_TOKEN; no token was sent"
            ),
            (401 | 403, true) if gated => format!(
                "{repo} is gated, and the account of this token has no access: accept its terms \
                 at {hub}/{repo} (some owners look at each wish), and see that the token may read \
                 gated repositories at {hub}/settings/tokens"
            ),
            (401, true) => format!(
                "the hub does not take the token, or {repo} is not for it: make another one at \
                 {hub}/settings/tokens, and look at HF_TOKEN"
            ),
            (401 | 404, false) if code != "RevisionNotFound" && code != "EntryNotFound" => format!(
                "the hub shows nobody a repository {repo}: look at the name, and if it is a \
                 private one, put a token of its owner into HF_TOKEN"
            ),
            (404, _) if code == "RevisionNotFound" => {
                format!("{repo} has no revision `{}`", name.revision)
            }
            (404, _) => format!("{place}: the hub has no such thing, or not for this token"),
            _ => format!("{place}: the hub answers {status}"),
        };
        Failure::Final(PullError::Refused(message))
    }
}

/// What a try may say while it goes on.
pub(super) struct Attempt<'a, 'w> {
    failed: &'a mut u32,
    pub(super) watch: &'a mut Watch<'w>,
}

impl Attempt<'_, '_> {
    /// Some bytes came: what failed before does not count any more.
    pub(super) fn got_somewhere(&mut self) {
        *self.failed = 0;
    }
}

pub(super) fn again(error: &impl ToString) -> Failure {
    Failure::Again { why: error.to_string(), after: None }
}

/// A request without an answer. A host that cannot prove who it is will not the next time either.
fn failed(place: &str, error: &ureq::Error) -> Failure {
    let inner = match error {
        ureq::Error::Io(error) => error.get_ref().and_then(|inner| inner.downcast_ref()),
        ureq::Error::Rustls(error) => Some(error),
        _ => None,
    };
    if let Some(rustls::Error::InvalidCertificate(why)) = inner {
        return Failure::Final(PullError::Refused(format!(
            "{place}: the host's certificate is not trusted: {why}. If an authority of your own \
             signs it, add that one to the system's, or name its file in SSL_CERT_FILE"
        )));
    }
    again(&format!("{place}: {error}"))
}

fn digest_of(headers: &HeaderMap) -> Option<Digest> {
    headers.get("x-linked-etag")?.to_str().ok().and_then(Digest::from_etag)
}

/// What `retry-after` asks for, in seconds or as a date; one that has passed asks for nothing.
fn pause_of(after: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = after.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(after).ok()?;
    Some(until.duration_since(now).unwrap_or_default())
}

/// The first byte of `content-range: bytes 5-9/10`.
fn starts_at(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:07 GMT").unwrap();
        let of = |after| pause_of(after, now).map(|pause| pause.as_secs());
        assert_eq!((of("7"), of("0")), (Some(7), Some(0)));
        assert_eq!(of("Sun, 06 Nov 1994 08:49:37 GMT"), Some(30));
        assert_eq!(of("Sun, 06 Nov 1994 08:48:00 GMT"), Some(0));
        assert_eq!((of("soon"), of("-1")), (None, None));
    }
}
