//! A hub in this process, with the shapes of the real one: an API that lists files, a resolver that
//! sends large ones on to another host, ETags, ranges, and the refusals.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Response, StatusCode, Uri, header};
use futures_util::stream;
use neuron::hub::{Settings, Token};
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

pub const COMMIT: &str = "1111111111111111111111111111111111111111";

/// What goes wrong with the next request for a file's bytes, or for the listing.
#[derive(Clone, Debug)]
pub enum Fault {
    /// An answer of this status, with `retry-after` in seconds.
    Status(u16, Option<u64>),
    /// The connection ends after so many bytes.
    Cut(usize),
    /// No bytes come after so many, and the connection stays.
    Hang(usize),
    /// All bytes come, one of them changed.
    Spoilt,
    /// A range is not known: all of the file comes.
    NoRange,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub is_hub: bool,
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

#[derive(Default)]
pub struct State {
    /// Bytes by path.
    pub files: BTreeMap<String, Vec<u8>>,
    pub commit: String,
    pub seen: Vec<Seen>,
    /// Of the API, and of whoever has the bytes.
    pub api_faults: VecDeque<Fault>,
    pub faults: VecDeque<Fault>,
    /// Only who has this token may read.
    pub gate: Option<String>,
    /// What the listing says of every file's size, instead of the truth.
    pub claim: Option<u64>,
    /// Put in front of the names in the listing.
    pub prefix: &'static str,
    cdn: String,
}

/// The hub and the host of its large files, until it is dropped.
pub struct MockHub {
    pub url: String,
    state: Arc<Mutex<State>>,
    _runtime: tokio::runtime::Runtime,
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_large(path: &str) -> bool {
    path.ends_with(".safetensors") || path.ends_with(".gguf")
}

fn etag(path: &str, bytes: &[u8]) -> String {
    if is_large(path) {
        return hex(&Sha256::digest(bytes));
    }
    hex(&Sha1::new().chain_update(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize())
}

impl MockHub {
    pub fn new(files: &[(&str, &[u8])]) -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        let state = Arc::new(Mutex::new(State { commit: COMMIT.to_owned(), ..State::default() }));
        let hub = runtime.block_on(listen(state.clone(), true));
        let cdn = runtime.block_on(listen(state.clone(), false));
        let named = files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec()));
        let this = Self { url: format!("http://{hub}"), state, _runtime: runtime };
        let mut state = this.state();
        state.files = named.collect();
        state.cdn = format!("http://{cdn}");
        drop(state);
        this
    }

    /// With the files of a directory, of which none is in a further one.
    pub fn of_dir(dir: &Path) -> Self {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                files.push((name, std::fs::read(&path).unwrap()));
            }
        }
        let files: Vec<_> = files.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
        Self::new(&files)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn settings(&self, token: Option<&str>) -> Settings {
        let token = token.and_then(Token::new);
        Settings { endpoint: self.url.clone(), token, offline: false }
    }

    /// What came since the last call.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state().seen)
    }
}

async fn listen(state: Arc<Mutex<State>>, is_hub: bool) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().fallback(move |request: Request| {
        let answer = answer(&mut state.lock().unwrap(), is_hub, request.uri(), request.headers());
        async move { answer }
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

fn status(code: u16) -> axum::http::response::Builder {
    Response::builder().status(StatusCode::from_u16(code).unwrap())
}

fn answer(state: &mut State, is_hub: bool, uri: &Uri, headers: &HeaderMap) -> Response<Body> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let (range, authorization) = (text(header::RANGE), text(header::AUTHORIZATION));
    let path = uri.path().to_owned();
    let seen = Seen { is_hub, path: path.clone(), range: range.clone(), authorization };
    state.seen.push(seen.clone());
    if !is_hub {
        assert!(uri.query().is_some_and(|query| query.contains("Signature=")), "{uri}");
        return bytes(state, path.trim_start_matches("/cdn/"), range.as_deref());
    }
    let allowed = state
        .gate
        .as_ref()
        .is_none_or(|gate| seen.authorization.as_deref() == Some(&format!("Bearer {gate}")));
    if let Some(rest) = path.strip_prefix("/api/models/org/model/revision/") {
        let known = ["main".to_owned(), "refs%2Fpr%2F1".to_owned(), state.commit.clone()];
        assert_eq!(uri.query(), Some("blobs=true"));
        if let Some(Fault::Status(code, after)) = state.api_faults.pop_front() {
            return refusal(code, after, "");
        }
        let found = known.contains(&rest.to_owned());
        return if found { listing(state) } else { refusal(404, None, "RevisionNotFound") };
    }
    let cache = format!("/api/resolve-cache/models/org/model/{}/", state.commit);
    if let Some(file) = path.strip_prefix(&cache) {
        return bytes(state, file, range.as_deref());
    }
    let prefix = format!("/org/model/resolve/{}/", state.commit);
    let Some(file) = path.strip_prefix(&prefix).map(str::to_owned) else {
        return refusal(401, None, "RepoNotFound");
    };
    if !allowed {
        let code = if seen.authorization.is_none() { 401 } else { 403 };
        return refusal(code, None, "GatedRepo");
    }
    let Some(content) = state.files.get(&file) else { return refusal(404, None, "EntryNotFound") };
    if !is_large(&file) {
        let to = format!("{cache}{file}");
        return status(307).header("location", to).body(Body::empty()).unwrap();
    }
    let (etag, size) = (etag(&file, content), content.len());
    status(302)
        .header("location", format!("{}/cdn/{file}?Expires=1&Signature=secret", state.cdn))
        .header("x-repo-commit", &state.commit)
        .header("x-linked-etag", format!("\"{etag}\""))
        .header("x-linked-size", size)
        .body(Body::empty())
        .unwrap()
}

fn refusal(code: u16, after: Option<u64>, word: &str) -> Response<Body> {
    let mut answer = status(code).header("x-error-code", word);
    if let Some(after) = after {
        answer = answer.header("retry-after", after);
    }
    answer.body(Body::from("no")).unwrap()
}

fn listing(state: &State) -> Response<Body> {
    let sibling = |(path, bytes): (&String, &Vec<u8>)| -> Value {
        let name = format!("{}{path}", state.prefix);
        let size = state.claim.unwrap_or(bytes.len() as u64);
        let mut sibling = json!({"rfilename": name, "size": size, "blobId": COMMIT});
        if is_large(path) {
            let lfs = json!({"sha256": etag(path, bytes), "size": size, "pointerSize": 134});
            sibling["lfs"] = lfs;
        } else {
            sibling["blobId"] = etag(path, bytes).into();
        }
        sibling
    };
    let siblings: Vec<_> = state.files.iter().map(sibling).collect();
    let body = json!({"id": "org/model", "sha": state.commit, "siblings": siblings});
    status(200).header("content-type", "application/json").body(body.to_string().into()).unwrap()
}

fn bytes(state: &mut State, file: &str, range: Option<&str>) -> Response<Body> {
    let mut content = state.files[file].clone();
    let fault = state.faults.pop_front();
    let from = match (&fault, range) {
        (Some(Fault::NoRange), _) | (_, None) => None,
        (_, Some(range)) => {
            let from = range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
            Some(from.unwrap().parse::<usize>().unwrap())
        }
    };
    let (size, start) = (content.len(), from.unwrap_or(0));
    if let Some(Fault::Status(code, after)) = fault {
        return refusal(code, after, "");
    }
    if let Some(Fault::Spoilt) = fault {
        *content.last_mut().unwrap() ^= 1;
    }
    let rest = content.split_off(start);
    let mut answer = status(if from.is_some() { 206 } else { 200 })
        .header("etag", format!("\"{}\"", etag(file, &state.files[file])))
        .header("content-length", rest.len());
    if from.is_some() {
        answer = answer.header("content-range", format!("bytes {start}-{}/{size}", size - 1));
    }
    if let Some(Fault::Hang(at)) = fault {
        let some = Ok::<_, Infallible>(Bytes::copy_from_slice(&rest[..at]));
        let never = stream::pending();
        let body = stream::StreamExt::chain(stream::iter([some]), never);
        return answer.body(Body::from_stream(body)).unwrap();
    }
    if let Some(Fault::Cut(at)) = fault {
        let some = Ok::<_, std::io::Error>(Bytes::copy_from_slice(&rest[..at]));
        let end = Err(std::io::Error::other("cut"));
        // Lets the bytes reach the other side before the connection goes.
        let late = stream::once(async {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            end
        });
        let body = stream::StreamExt::chain(stream::iter([some]), late);
        return answer.body(Body::from_stream(body)).unwrap();
    }
    let whole = stream::iter([Ok::<_, Infallible>(Bytes::from(rest))]);
    answer.body(Body::from_stream(whole)).unwrap()
}
