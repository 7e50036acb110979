//! Connections to nodes, kept open between requests.
//!
//! Whoever waits for an answer drives its connection: no task stands between a node's bytes and
//! the client's, so that a piece of a stream costs one wake-up, and nothing crosses a thread.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::HOST;
use http::uri::Authority;
use http::{HeaderValue, Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::workers::number;

/// Below the 5 s at which common servers close an idle connection, so that a request is not sent
/// into one that is about to be closed.
const IDLE_LIMIT: Duration = Duration::from_secs(4);
/// How often connections that nobody has used are looked for.
const SWEEP: Duration = Duration::from_secs(1);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a request has no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// There is no connection.
    Connect(BoxError),
    /// There was one.
    Broken(hyper::Error),
}

/// The connections that are open and idle.
pub(crate) struct Pool {
    connector: HttpConnector,
    shelf: Mutex<Shelf>,
}

struct Shelf {
    /// By the thread that watches the connection, and where it leads to.
    idle: HashMap<(usize, Authority), Vec<Idle>>,
    swept: Instant,
}

struct Idle {
    line: Box<Line>,
    since: Instant,
}

/// One connection.
struct Line {
    requests: SendRequest<Full<Bytes>>,
    /// None once it has ended.
    connection: Option<Connection<TokioIo<TcpStream>, Full<Bytes>>>,
}

impl Pool {
    pub(crate) fn new(connector: HttpConnector) -> Pool {
        let shelf = Mutex::new(Shelf { idle: HashMap::new(), swept: Instant::now() });
        Pool { connector, shelf }
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// A kept connection may have ended unseen: a request that cannot be given to it goes by
    /// another one.
    pub(crate) async fn send(
        self: &Arc<Pool>,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Answer>, Failure> {
        let uri = request.uri().clone();
        let place = uri.authority().cloned().ok_or_else(|| no_host(&uri))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().unwrap_or_default();
        if let Ok(host) = HeaderValue::from_str(place.as_str()) {
            request.headers_mut().insert(HOST, host);
        }
        loop {
            let kept = self.take(&place);
            let is_kept = kept.is_some();
            let mut line = match kept {
                Some(line) => line,
                None => self.connect(uri.clone()).await?,
            };
            match line.exchange(request).await {
                Ok(answer) => {
                    let pool = Arc::clone(self);
                    return Ok(answer.map(|body| Answer {
                        body,
                        line: Some(line),
                        has_ended: false,
                        pool,
                        place,
                    }));
                }
                Err(mut error) => match error.take_message().filter(|_| is_kept) {
                    Some(unsent) => request = unsent,
                    None => return Err(Failure::Broken(error.into_error())),
                },
            }
        }
    }

    async fn connect(&self, uri: Uri) -> Result<Box<Line>, Failure> {
        let connected = async {
            let mut connector = self.connector.clone();
            poll_fn(|cx| connector.poll_ready(cx)).await?;
            connector.call(uri).await
        };
        let io = connected.await.map_err(|error| Failure::Connect(error.into()))?;
        let (requests, connection) = Builder::new().handshake(io).await.map_err(Failure::Broken)?;
        Ok(Box::new(Line { requests, connection: Some(connection) }))
    }

    /// The connection that was used last; the others may end in peace.
    fn take(&self, place: &Authority) -> Option<Box<Line>> {
        let mut shelf = self.shelf();
        let idle = shelf.idle.get_mut(&(number(), place.clone()))?.pop()?;
        drop(shelf);
        (idle.since.elapsed() < IDLE_LIMIT).then_some(idle.line)
    }

    /// Keeps a connection whose answer has been read to its end.
    fn keep(&self, place: &Authority, mut line: Box<Line>) {
        // Whoever has used it is not to be woken by what happens to it from now on.
        if line.poll(&mut noop()).is_ready() || !line.is_free() {
            return;
        }
        let now = Instant::now();
        let mut shelf = self.shelf();
        let stale = shelf.sweep(now);
        let idle = Idle { line, since: now };
        shelf.idle.entry((number(), place.clone())).or_default().push(idle);
        drop(shelf);
        // Closing them is a call of the system each.
        drop(stale);
    }

    fn shelf(&self) -> std::sync::MutexGuard<'_, Shelf> {
        // A list of connections is whole at any time.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes nobody.
fn noop() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn no_host(uri: &Uri) -> Failure {
    Failure::Connect(format!("{uri} names no host").into())
}

impl Shelf {
    /// Takes down what nobody has used for long.
    fn sweep(&mut self, now: Instant) -> Vec<Idle> {
        let mut stale = Vec::new();
        if now.duration_since(self.swept) < SWEEP {
            return stale;
        }
        self.swept = now;
        self.idle.retain(|_, lines| {
            // The oldest come first.
            let is_fresh = |idle: &Idle| now.duration_since(idle.since) < IDLE_LIMIT;
            let old = lines.iter().position(is_fresh).unwrap_or(lines.len());
            stale.extend(lines.drain(..old));
            !lines.is_empty()
        });
        stale
    }
}

impl Line {
    /// Drives the connection; ready when it has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(connection) = &mut self.connection {
            // How it ended is told to whoever waits for an answer or reads one.
            std::task::ready!(Pin::new(connection).poll(cx)).ok();
            self.connection = None;
        }
        Poll::Ready(())
    }

    fn is_free(&self) -> bool {
        self.requests.is_ready()
    }

    async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Full<Bytes>>>> {
        let mut answer = pin!(self.requests.try_send_request(request));
        poll_fn(|cx| {
            // Its end is told by the answer.
            let _ = self.poll(cx);
            answer.as_mut().poll(cx)
        })
        .await
    }
}

/// The body of a node's answer, and the connection that it comes by. Dropped before its end it
/// closes the connection, which is how a node hears that nobody wants the rest.
pub(crate) struct Answer {
    body: Incoming,
    line: Option<Box<Line>>,
    has_ended: bool,
    pool: Arc<Pool>,
    place: Authority,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(line) = &mut self.line
            && line.poll(cx).is_ready()
        {
            self.line = None;
        }
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.has_ended |= matches!(frame, Poll::Ready(None));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if (self.has_ended || self.body.is_end_stream())
            && let Some(line) = self.line.take()
        {
            self.pool.keep(&self.place, line);
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const WHOLE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
    const CHUNKED: &[u8] =
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    const HALF: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi";

    struct Server {
        listener: TcpListener,
        pool: Arc<Pool>,
    }

    impl Server {
        async fn start() -> Server {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            Server { listener, pool: Arc::new(Pool::new(HttpConnector::new())) }
        }

        async fn ask(&self) -> Result<Response<Answer>, Failure> {
            let addr = self.listener.local_addr().expect("bound");
            let request = Request::post(format!("http://{addr}/path?a=b"));
            self.pool.send(request.body(Full::from("body")).expect("a request")).await
        }

        async fn accept(&self) -> TcpStream {
            self.listener.accept().await.expect("open").0
        }
    }

    /// Reads a request and answers it.
    async fn answer(socket: &mut TcpStream, with: &[u8]) -> String {
        let mut seen = Vec::new();
        while !seen.ends_with(b"body") {
            assert!(socket.read_buf(&mut seen).await.expect("open") > 0, "it ended early");
        }
        socket.write_all(with).await.expect("open");
        String::from_utf8(seen).expect("text").to_ascii_lowercase()
    }

    async fn read(answer: Result<Response<Answer>, Failure>) -> Bytes {
        let answer = answer.expect("an answer");
        answer.into_body().collect().await.expect("a whole body").to_bytes()
    }

    #[tokio::test]
    async fn a_connection_is_used_again_and_replaced_when_it_has_ended() {
        let server = Server::start().await;
        let first = async {
            let mut socket = server.accept().await;
            let seen = answer(&mut socket, WHOLE).await;
            assert!(seen.starts_with("post /path?a=b http/1.1\r\n"), "{seen}");
            assert!(seen.contains("host: 127.0.0.1:"), "{seen}");
            answer(&mut socket, CHUNKED).await;
        };
        let asks = async {
            for _ in 0..2 {
                assert_eq!(read(server.ask().await).await, "hi");
            }
        };
        // Its end closes the server's side of the connection.
        tokio::join!(asks, first);
        let has_ended = |idle: &mut Idle| idle.line.poll(&mut noop()).is_ready();
        while !server.pool.shelf().idle.values_mut().flatten().all(has_ended) {
            tokio::task::yield_now().await;
        }
        assert!(!server.pool.shelf().idle.is_empty());
        let second = async { answer(&mut server.accept().await, WHOLE).await };
        let asks = async { assert_eq!(read(server.ask().await).await, "hi") };
        tokio::join!(asks, second);
    }

    #[tokio::test]
    async fn an_answer_that_nobody_wants_closes_its_connection() {
        let server = Server::start().await;
        let there = async {
            let mut socket = server.accept().await;
            answer(&mut socket, HALF).await;
            assert_eq!(socket.read(&mut [0; 9]).await.expect("a proper end"), 0);
        };
        let here = async {
            let mut body = server.ask().await.expect("an answer").into_body();
            let frame = body.frame().await.expect("a piece").expect("whole so far");
            assert_eq!(frame.into_data().expect("data"), "hi");
        };
        tokio::join!(there, here);
    }

    #[tokio::test]
    async fn an_answer_that_is_cut_is_told_so() {
        let server = Server::start().await;
        let there = async { answer(&mut server.accept().await, HALF).await };
        let here = async {
            let body = server.ask().await.expect("an answer").into_body();
            assert!(body.collect().await.is_err());
        };
        tokio::join!(there, here);
        let addr = server.listener.local_addr().expect("bound");
        drop(server.listener);
        let gone = Request::post(format!("http://{addr}/")).body(Full::from("body"));
        let asked = server.pool.send(gone.expect("a request")).await;
        assert!(matches!(asked, Err(Failure::Connect(_))));
    }
}
