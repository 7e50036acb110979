//! The HTTP server: connections, their time-outs and their end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A client must have sent its headers by then (requirement 128).
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes that a request's headers may have.
const MAX_HEADER_BYTES: usize = 64 << 10;

/// How long to rest when the system has no descriptor for another connection.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Serves connections until `stop` turns true; then lets running requests end within `grace`.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    stop: watch::Receiver<bool>,
    grace: Duration,
) {
    let mut stopping = stop.clone();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = accept(&listener) => match accepted {
                Ok(stream) => {
                    connections.spawn(connection(stream, router.clone(), stop.clone()));
                }
                Err(error) => rest(&error).await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            () = stopped(&mut stopping) => break,
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(grace, ended).await.is_err() {
        tracing::warn!(connections = connections.len(), "connections cut off at the end of grace");
        connections.shutdown().await;
    }
}

/// Returns when the flag is set, or when nobody is left to set it.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Requirement 130: without TCP_NODELAY small frames wait for an acknowledgement.
async fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn rest(error: &io::Error) {
    // A peer that left before it was accepted is no reason to wait.
    if error.kind() != io::ErrorKind::ConnectionAborted {
        tracing::warn!("a connection cannot be accepted: {error}");
        tokio::time::sleep(ACCEPT_REST).await;
    }
}

async fn connection(stream: TcpStream, router: Router, mut stop: watch::Receiver<bool>) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .max_header_list_size(MAX_HEADER_BYTES as u32)
        .keep_alive_interval(Some(Duration::from_secs(30)));
    let (service, asked) = (TowerToHyperService::new(router), Arc::new(AtomicBool::new(false)));
    let has_asked = Arc::clone(&asked);
    let service = service_fn(move |request| {
        has_asked.store(true, Ordering::Relaxed);
        service.call(request)
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = silence(&asked) => {
            tracing::debug!("connection: no request came");
            return;
        }
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!("connection: {error}");
    }
}

/// Returns when a new connection has asked nothing for too long. The time-out of headers begins
/// only when a first byte has told which version of HTTP is spoken.
async fn silence(asked: &AtomicBool) {
    tokio::time::sleep(HEADER_TIMEOUT).await;
    if asked.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn accepted_sockets_do_not_wait_to_fill_a_packet() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(accept(&listener), TcpStream::connect(address));
        assert!(near.unwrap().nodelay().unwrap());
        drop(far);
    }

    #[tokio::test(start_paused = true)]
    async fn headers_that_never_end_end_the_connection() {
        // Requirement 128. The second begins like the preface of HTTP/2.
        for begun in ["GET / HTTP/1.1\r\nhost: x\r\n", "PRI * HT", ""] {
            let waited = until_closed(begun).await;
            assert!(waited >= HEADER_TIMEOUT && waited < 2 * HEADER_TIMEOUT, "{begun}: {waited:?}");
        }
    }

    async fn until_closed(begun: &str) -> Duration {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_stop, stopped) = watch::channel(false);
        tokio::spawn(serve(listener, Router::new(), stopped, Duration::ZERO));
        let mut client = TcpStream::connect(address).await.unwrap();
        let began = Instant::now();
        client.write_all(begun.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = client.read_to_end(&mut answer);
        tokio::time::timeout(4 * HEADER_TIMEOUT, read).await.expect("never closed").ok();
        began.elapsed()
    }

    #[tokio::test]
    async fn a_stop_ends_idle_connections() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let grace = Duration::from_secs(60);
        let server = tokio::spawn(serve(listener, Router::new(), stopped, grace));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        client.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 404");
        stop.send_replace(true);
        tokio::time::timeout(Duration::from_secs(10), server).await.expect("no end").unwrap();
    }
}
