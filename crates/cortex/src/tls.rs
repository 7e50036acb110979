//! TLS for clients, by rustls: the operator's certificate, and nothing older than TLS 1.2.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

use crate::Error;
use crate::config::TlsFiles;

/// A client must have shaken hands by then.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// Shakes hands with clients.
#[derive(Clone)]
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
}

impl Tls {
    /// Reads the certificate chain and its key.
    ///
    /// # Errors
    /// [`Error::Config`] with the file.
    pub(crate) fn read(files: &TlsFiles) -> Result<Tls, Error> {
        let wrong = |path: &Path, problem: String| Error::Config {
            place: path.display().to_string(),
            problem,
        };
        let chain = CertificateDer::pem_file_iter(&files.cert_file)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| wrong(&files.cert_file, error.to_string()))?;
        if chain.is_empty() {
            return Err(wrong(&files.cert_file, "it holds no PEM certificate".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_file(&files.key_file)
            .map_err(|error| wrong(&files.key_file, error.to_string()))?;
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let mut config = builder
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|error| wrong(&files.key_file, error.to_string()))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Tls { acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// Shakes hands.
    pub(crate) async fn accept(&self, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let shaken = timeout(HANDSHAKE_LIMIT, self.acceptor.accept(socket)).await;
        shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}
