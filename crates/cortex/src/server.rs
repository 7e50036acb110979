//! Listening, and stopping without cutting a stream that could still end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::app::{self, App};
use crate::auth::Doorkeeper;
use crate::config::Config;
use crate::forward::Client;
use crate::ledger::Ledger;
use crate::reply::Reply;
use crate::settings::Settings;
use crate::tls::Tls;
use crate::workers::{Open, Workers};
use crate::{Error, reload};

/// Requirement 128.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes that a request's headers may have.
const MOST_HEADER_BYTES: usize = 64 << 10;
/// How long requests have to end once they were told to.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long accepting rests when the system has no more file descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// A gateway that listens.
pub struct Server {
    app: Arc<App>,
    clients: TcpListener,
    operators: TcpListener,
    addr: SocketAddr,
    metrics_addr: SocketAddr,
    workers: Workers,
    /// True from the signal to stop on.
    closing: watch::Sender<bool>,
}

#[derive(Clone, Copy)]
enum Door {
    Clients,
    Operators,
}

impl Server {
    /// Listens on both addresses. Nothing is answered before [`Server::run`].
    ///
    /// # Errors
    /// [`Error::Listen`] with the address; [`Error::Config`] when it is open to strangers.
    pub async fn bind(config: Config) -> Result<Server, Error> {
        config.check_exposure()?;
        let settings = Settings::new(config)?;
        let config = &settings.config;
        let (clients, addr) = listen(config.gateway.listen).await?;
        let (operators, metrics_addr) = listen(config.gateway.metrics_listen).await?;
        let ledger = Ledger::open(&config.ledger).await?;
        let door = Doorkeeper::open(&config.auth, ledger).await?;
        let client = Client::new(&config.gateway).with_keys(&config.neurons)?;
        let threads = config.gateway.threads();
        let tls = config.gateway.tls.as_ref().map(Tls::read).transpose()?;
        let traces = config.traces.start()?;
        let mut app = App::new(settings, door, client);
        app.traces = traces;
        let app = Arc::new(app);
        let closing = watch::Sender::new(false);
        let (served, closed) = (Arc::clone(&app), closing.subscribe());
        let workers = Workers::start(threads, move |socket, counted| {
            let (app, tls, closed) = (Arc::clone(&served), tls.clone(), closed.clone());
            welcome(app, socket, Door::Clients, tls, closed, Some(counted))
        })?;
        Ok(Server { app, clients, operators, addr, metrics_addr, workers, closing })
    }

    /// Where clients connect.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where `/metrics` is.
    #[must_use]
    pub fn metrics_addr(&self) -> SocketAddr {
        self.metrics_addr
    }

    /// Serves until `stop` ends, then lets open requests finish within the configured grace.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        self.app.follow_nodes();
        let watching = tokio::spawn(reload::watch(Arc::clone(&self.app)));
        let (closing, closed) = (self.closing.clone(), self.closing.subscribe());
        let grace =
            Duration::from_secs(self.app.settings.load().config.gateway.shutdown_grace_secs);
        let doors = async {
            let clients = dispatch(self.workers, self.clients, closed.clone());
            let operators = accept(&self.app, self.operators, closed);
            tokio::join!(clients, operators)
        };
        let stopped = async {
            stop.await;
            tracing::info!(grace_secs = grace.as_secs(), "stopping: open requests may finish");
            closing.send_replace(true);
            tokio::time::sleep(grace).await;
            self.app.cut.send_replace(true);
            tokio::time::sleep(LAST_WORDS).await;
        };
        tokio::select! {
            _ = doors => tracing::info!("stopped: every request had ended"),
            () = stopped => tracing::warn!("stopped: requests that were still open are cut"),
        }
        watching.abort();
        self.app.stop_polling();
        self.app.door.ledger().flush().await;
        if let Some(traces) = self.app.traces.clone() {
            // It waits for the collector, which no thread of the runtime may.
            let _ = tokio::task::spawn_blocking(move || traces.stop()).await;
        }
    }
}

async fn listen(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let cannot = |source| Error::Listen { addr, source };
    let listener = TcpListener::bind(addr).await.map_err(cannot)?;
    let addr = listener.local_addr().map_err(cannot)?;
    Ok((listener, addr))
}

/// Gives clients' connections to the workers. Returns when `closed` and every connection has ended.
async fn dispatch(mut workers: Workers, listener: TcpListener, mut closed: watch::Receiver<bool>) {
    loop {
        let socket = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = closed.changed() => break,
        };
        let given = match socket {
            Ok((socket, _)) => workers.give(socket).await,
            Err(error) => Err(error),
        };
        if let Err(error) = given {
            rest(&error).await;
        }
    }
    drop(listener);
    workers.finish().await;
}

/// Serves operators. Returns when `closed` and every connection has ended.
async fn accept(app: &Arc<App>, listener: TcpListener, mut closed: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    let door = Door::Operators;
                    let app = Arc::clone(app);
                    connections.spawn(welcome(app, socket, door, None, closed.clone(), None));
                }
                Err(error) => rest(&error).await,
            },
            Some(_) = connections.join_next() => {}
            _ = closed.changed() => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn rest(error: &std::io::Error) {
    tracing::warn!(%error, "a connection could not be accepted");
    tokio::time::sleep(ACCEPT_REST).await;
}

async fn welcome(
    app: Arc<App>,
    socket: TcpStream,
    door: Door,
    tls: Option<Tls>,
    closed: watch::Receiver<bool>,
    _counted: Option<Open>,
) {
    // Requirement 130: an answer's first bytes must not wait for an acknowledgement.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "a connection has ended already");
        return;
    }
    let Some(tls) = tls else { return serve(app, socket, door, closed).await };
    // Boxed, so that a connection in the clear has no room for what TLS needs.
    Box::pin(async move {
        match tls.accept(socket).await {
            Ok(socket) => serve(app, socket, door, closed).await,
            Err(error) => tracing::debug!(%error, "a client did not get through the handshake"),
        }
    })
    .await;
}

async fn serve<S>(app: Arc<App>, socket: S, door: Door, closed: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let answer = move |request| {
        let app = Arc::clone(&app);
        // A connection keeps room for what its requests need: boxed, that is a pointer while none
        // is being answered, or while an answer streams.
        async move { Ok::<_, Infallible>(Box::pin(enter(app, door, request)).await) }
    };
    speak(socket, answer, closed).await;
}

/// Serves one connection until it ends, or until nothing is left to answer once `closed` says so.
async fn speak<S, A, F, B>(socket: S, answer: A, mut closed: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    A: Fn(Request<Incoming>) -> F + Send,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    // A piece of a stream is copied for less than the system takes to gather it from its parts.
    builder.http1().max_buf_size(MOST_HEADER_BYTES).writev(false);
    builder.http2().timer(TokioTimer::new()).max_header_list_size(MOST_HEADER_BYTES as u32);
    let has_asked = AtomicBool::new(false);
    let service = service_fn(|request| {
        has_asked.store(true, Ordering::Relaxed);
        answer(request)
    });
    // Pinned where it is made: a future has room for each place that a value is moved to.
    let mut connection = pin!(builder.serve_connection(TokioIo::new(socket), service));
    // The time-out of headers begins only when first bytes have told which HTTP is spoken.
    let mut silence = pin!(tokio::time::sleep(HEADER_TIMEOUT));
    let mut is_closing = *closed.borrow();
    if is_closing {
        connection.as_mut().graceful_shutdown();
    }
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = silence.as_mut(), if !has_asked.load(Ordering::Relaxed) => {
                if !has_asked.load(Ordering::Relaxed) {
                    tracing::debug!("a connection asked nothing");
                    return;
                }
            }
            _ = closed.changed(), if !is_closing => {
                is_closing = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn enter(app: Arc<App>, door: Door, request: Request<Incoming>) -> Reply {
    match door {
        Door::Clients => app::answer(app, request).await,
        Door::Operators => app::answer_operator(app, request).await,
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::{Instant, timeout};

    use super::*;

    /// How long a connection stays that has sent so much, and what it was answered.
    async fn until_closed(sent: &[u8]) -> (Duration, Vec<u8>) {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let (_closing, closed) = watch::channel(false);
        let answer = |_| async { Ok(Response::new(Empty::<Bytes>::new())) };
        tokio::spawn(speak(near, answer, closed));
        let began = Instant::now();
        far.write_all(sent).await.expect("it is open");
        let mut read = Vec::new();
        let ended = timeout(4 * HEADER_TIMEOUT, far.read_to_end(&mut read)).await;
        ended.expect("it stays open for ever").ok();
        (began.elapsed(), read)
    }

    /// Requirement 128. The third begins as HTTP/2 does.
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_asks_nothing_is_ended() {
        for sent in ["", "GET / HTTP/1.1\r\nhost: x\r\n", "PRI * HT"] {
            let (waited, _) = until_closed(sent.as_bytes()).await;
            assert!(waited >= HEADER_TIMEOUT && waited < 2 * HEADER_TIMEOUT, "{sent}: {waited:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn headers_without_end_are_refused() {
        let mut sent = b"GET / HTTP/1.1\r\nhost: x\r\nlong: ".to_vec();
        sent.resize(2 * MOST_HEADER_BYTES, b'x');
        let (waited, answer) = until_closed(&sent).await;
        assert!(waited < HEADER_TIMEOUT, "{waited:?}");
        assert!(answer.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&answer));
    }
}
