//! A wire that can be cut: what is sent meanwhile is neither delivered nor refused. It stands in
//! for a network namespace where the kernel grants none; there is one difference, that a connection
//! is still accepted.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) struct Dropper {
    /// Where it is connected to.
    pub(crate) addr: SocketAddr,
    cut: watch::Sender<bool>,
}

impl Dropper {
    /// A wire to whoever listens at `to`.
    pub(crate) async fn to(to: SocketAddr) -> Dropper {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let cut = watch::Sender::new(false);
        let seen = cut.subscribe();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(connect(near, to, seen.clone()));
            }
        });
        Dropper { addr, cut }
    }

    pub(crate) fn cut(&self, is_cut: bool) {
        self.cut.send_replace(is_cut);
    }
}

async fn connect(near: TcpStream, to: SocketAddr, mut cut: watch::Receiver<bool>) {
    if cut.wait_for(|is_cut| !is_cut).await.is_err() {
        return;
    }
    let Ok(far) = TcpStream::connect(to).await else { return };
    let (Ok(()), Ok(())) = (near.set_nodelay(true), far.set_nodelay(true)) else { return };
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let there = carry(near_in, far_out, cut.clone());
    let back = carry(far_in, near_out, cut);
    tokio::select! {
        () = there => {}
        () = back => {}
    }
}

/// Carries bytes one way, until that way ends.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut cut: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).await;
        // What came just before the cut waits as well, and so does an end.
        if cut.wait_for(|is_cut| !is_cut).await.is_err() {
            return;
        }
        match read {
            Ok(count @ 1..) if to.write_all(&buffer[..count]).await.is_ok() => {}
            _ => return,
        }
    }
}
