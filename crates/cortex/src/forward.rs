//! Sends a request to a node: the same bytes, fewer headers.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH,
    CONTENT_TYPE, COOKIE, EXPECT, FORWARDED, HOST, HeaderName, PROXY_AUTHORIZATION, RETRY_AFTER,
    TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::connect::HttpConnector;

use crate::Error;
use crate::app::REQUEST_ID;
use crate::config::{Gateway, Neuron};
use crate::identity::IDENTITY;
use crate::upstream::{Answer, Failure, Pool};

const KEEPALIVE: Duration = Duration::from_secs(15);
/// The largest report that a node may send.
const REPORT_LIMIT_BYTES: usize = 8 << 20;

/// See [`control::USAGE_HEADER`].
const USAGE: HeaderName = HeaderName::from_static(control::USAGE_HEADER);

/// Says nothing of the host: it goes to the log, never to a client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// No connection.
    #[error("cannot connect")]
    Connect(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The connection ended before an answer began.
    #[error("no answer")]
    Broken(#[source] hyper::Error),
    /// The node stopped answering polls while its answer was awaited.
    #[error("the node was lost while its answer was awaited")]
    Lost,
    /// A stream that should have begun did not.
    #[error("nothing was heard within the idle time-out")]
    Silent,
    /// The gateway stops.
    #[error("the gateway stopped while an answer was awaited")]
    Stopped,
    /// The node's base URL and the path make no URL.
    #[error("cannot ask {0}")]
    Url(String),
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Fault {
        match failure {
            Failure::Connect(why) => Fault::Connect(why),
            Failure::Broken(why) => Fault::Broken(why),
        }
    }
}

/// Asks nodes.
#[derive(Clone)]
pub(crate) struct Client {
    pool: Arc<Pool>,
    keys: Arc<ArcSwap<NodeKeys>>,
}

/// What neurons that ask for a key are told, by where they are.
#[derive(Default)]
pub(crate) struct NodeKeys(HashMap<Authority, HeaderValue>);

impl NodeKeys {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// [`Error::Config`] when a key cannot be read.
    pub(crate) fn read(neurons: &[Neuron]) -> Result<NodeKeys, Error> {
        let mut keys = HashMap::new();
        for neuron in neurons {
            let uri: Option<Uri> = neuron.endpoint.parse().ok();
            let place = uri.and_then(|uri| uri.authority().cloned());
            if let (Some(value), Some(place)) = (neuron.authorization()?, place) {
                keys.insert(place, value);
            }
        }
        Ok(NodeKeys(keys))
    }
}

impl Client {
    pub(crate) fn new(gateway: &Gateway) -> Client {
        let mut connector = HttpConnector::new();
        // Requirement 130.
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_millis(gateway.connect_timeout_ms)));
        // A partition closes no connection; these probes find it, whatever is awaited.
        connector.set_keepalive(Some(KEEPALIVE));
        connector.set_keepalive_interval(Some(KEEPALIVE / 3));
        connector.set_keepalive_retries(Some(3));
        Client { pool: Arc::new(Pool::new(connector)), keys: Arc::default() }
    }

    /// The same, with the keys of the neurons that ask for one.
    ///
    /// # Errors
    /// [`Error::Config`] when a key cannot be read.
    pub(crate) fn with_keys(self, neurons: &[Neuron]) -> Result<Client, Error> {
        self.take_keys(NodeKeys::read(neurons)?);
        Ok(self)
    }

    /// Takes the keys of neurons that were configured anew.
    pub(crate) fn take_keys(&self, keys: NodeKeys) {
        self.keys.store(Arc::new(keys));
    }

    /// The same, with a key of one place.
    ///
    /// # Errors
    /// [`Error::Config`] when it cannot be read.
    pub(crate) fn with_key(self, url: &str, file: &Path) -> Result<Client, Error> {
        let (endpoint, api_key_file) = (url.to_owned(), Some(file.to_owned()));
        self.with_keys(&[Neuron { name: String::new(), endpoint, api_key_file }])
    }

    fn show_key(&self, request: &mut Request<Full<Bytes>>) {
        let key =
            request.uri().authority().and_then(|place| self.keys.load().0.get(place).cloned());
        if let Some(key) = key {
            request.headers_mut().insert(AUTHORIZATION, key);
        }
    }

    /// Sends `body` and waits for the head of the answer, however long that takes.
    pub(crate) async fn post(
        &self,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Answer>, Fault> {
        let uri: Uri = url.parse().map_err(|_| Fault::Url(url.to_owned()))?;
        let mut request = Request::post(uri).body(Full::new(body)).unwrap_or_default();
        *request.headers_mut() = headers;
        self.show_key(&mut request);
        Ok(self.pool.send(request).await?)
    }

    /// Fetches a whole, small answer.
    ///
    /// The error is for an operator.
    pub(crate) async fn get(&self, url: &str) -> Result<(u16, Bytes), String> {
        self.get_with(url, HeaderMap::new()).await
    }

    /// As [`Client::get`], with headers.
    pub(crate) async fn get_with(
        &self,
        url: &str,
        headers: HeaderMap,
    ) -> Result<(u16, Bytes), String> {
        let uri: Uri = url.parse().map_err(|_| format!("{url} is not a URL"))?;
        let mut request = Request::get(uri).body(Full::default()).unwrap_or_default();
        *request.headers_mut() = headers;
        self.show_key(&mut request);
        let answer = self.pool.send(request).await.map_err(|why| chained(&Fault::from(why)))?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), REPORT_LIMIT_BYTES).collect().await;
        Ok((status, body.map_err(|error| chained(&*error))?.to_bytes()))
    }
}

/// An error with its causes.
pub(crate) fn chained(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// What of a client's headers goes on to a node.
///
/// Left behind: what belongs to the connection (RFC 9110, 7.6.1), what identifies the client to the
/// gateway, what claims an identity (requirement 29; the gateway's own word takes its place), and
/// `accept-encoding`, so that the end of a stream can be seen.
pub(crate) fn request_headers(
    mut headers: HeaderMap,
    id: &str,
    identity: Option<HeaderValue>,
) -> HeaderMap {
    static DROPPED: [HeaderName; 17] = [
        HOST,
        CONNECTION,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
        CONTENT_LENGTH,
        EXPECT,
        ACCEPT_ENCODING,
        AUTHORIZATION,
        COOKIE,
        FORWARDED,
        HeaderName::from_static("x-api-key"),
        IDENTITY,
    ];
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let claims: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            let name = name.as_str();
            name.starts_with("x-forwarded-") || name.starts_with("x-cortex-") || name == "x-real-ip"
        })
        .cloned()
        .collect();
    for name in DROPPED.iter().chain(&named).chain(&claims) {
        headers.remove(name);
    }
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(USAGE, HeaderValue::from_static("1"));
    if let Some(identity) = identity {
        headers.insert(IDENTITY, identity);
    }
    headers
}

/// What of a node's headers goes back to the client.
pub(crate) fn reply_headers(upstream: HeaderMap) -> HeaderMap {
    static KEPT: [HeaderName; 6] = [
        CONTENT_TYPE,
        CONTENT_ENCODING,
        CACHE_CONTROL,
        RETRY_AFTER,
        HeaderName::from_static("retry-after-ms"),
        HeaderName::from_static("request-id"),
    ];
    let is_kept = |name: &HeaderName| {
        let text = name.as_str();
        KEPT.contains(name)
            || (text.starts_with("x-")
                && !text.starts_with("x-forwarded-")
                && !text.starts_with("x-cortex-"))
            || text.starts_with("openai-")
            || text.starts_with("anthropic-")
    };
    let mut kept = HeaderMap::with_capacity(upstream.len());
    let mut last = None;
    for (name, value) in upstream {
        // A repeated header comes once with its name and then without.
        last = name.or(last);
        if let Some(name) = last.as_ref().filter(|name| is_kept(name)) {
            kept.append(name, value);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::{reply_headers, request_headers};

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    // Requirement 29
    #[test]
    fn a_request_loses_what_is_the_connections_or_claims_an_identity() {
        let sent = request_headers(
            map(&[
                ("host", "gateway"),
                ("connection", "keep-alive, x-hop"),
                ("x-hop", "1"),
                ("transfer-encoding", "chunked"),
                ("authorization", "Bearer k"),
                ("x-api-key", "k"),
                ("cookie", "c"),
                ("x-forwarded-for", "1.2.3.4"),
                ("x-forwarded-host", "h"),
                ("x-cortex-identity", "somebody else"),
                ("accept-encoding", "gzip"),
                ("x-request-id", "bad id"),
                ("content-type", "application/json"),
                ("anthropic-beta", "a"),
                ("traceparent", "00-1"),
            ]),
            "id-1",
            Some(HeaderValue::from_static("a name")),
        );
        let wanted = map(&[
            ("content-type", "application/json"),
            ("anthropic-beta", "a"),
            ("traceparent", "00-1"),
            ("x-request-id", "id-1"),
            ("x-cortex-identity", "a name"),
            ("x-cortex-usage", "1"),
        ]);
        assert_eq!(sent, wanted);
        let forged = map(&[("x-cortex-identity", "somebody else")]);
        assert!(!request_headers(forged, "id-1", None).contains_key("x-cortex-identity"));
    }

    #[test]
    fn an_answer_keeps_what_clients_read() {
        let kept = reply_headers(map(&[
            ("content-type", "text/event-stream"),
            ("retry-after", "3"),
            ("x-ratelimit-limit-requests", "1"),
            ("x-ratelimit-limit-requests", "2"),
            ("openai-processing-ms", "7"),
            ("server", "uvicorn at 10.0.0.5"),
            ("set-cookie", "a=b"),
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
        ]));
        let wanted = map(&[
            ("content-type", "text/event-stream"),
            ("retry-after", "3"),
            ("x-ratelimit-limit-requests", "1"),
            ("x-ratelimit-limit-requests", "2"),
            ("openai-processing-ms", "7"),
        ]);
        assert_eq!(kept, wanted);
    }
}
