//! TLS towards clients, and the gateway's own key towards a node.

use std::sync::Arc;

use control::ModelStatus::Ready;
use testkit::fake_neuron::{Answer as Script, FakeNeuron};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::client::{TestGateway, until};

fn connector(certificate: CertificateDer<'static>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a certificate");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("known versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

#[tokio::test]
async fn clients_are_spoken_to_by_tls() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a key");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let tls = format!(
        "[gateway.tls]\ncert_file = \"{}\"\nkey_file = \"{}\"\n",
        cert.display(),
        key.display()
    );
    let gateway = TestGateway::start(&[neuron.url()], &tls).await;
    let connector = connector(made.cert.der().clone());
    let socket = TcpStream::connect(gateway.addr).await.expect("it listens");
    let name = ServerName::try_from("localhost").expect("a name");
    let mut socket = connector.connect(name, socket).await.expect("a handshake");
    let request = b"GET /version HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    socket.write_all(request).await.expect("open");
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("cortex"), "{answer}");
    // In the clear, nothing is answered.
    let mut plain = TcpStream::connect(gateway.addr).await.expect("it listens");
    plain.write_all(request).await.expect("open");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_missing_certificate_is_named() {
    let text = "[gateway]\nlisten = \"127.0.0.1:0\"\nmetrics_listen = \"127.0.0.1:0\"\n\
                [gateway.tls]\ncert_file = \"/nowhere/cert.pem\"\nkey_file = \"/nowhere/key.pem\"\n\
                [[neurons]]\nname = \"n\"\nendpoint = \"http://127.0.0.1:1\"\n";
    let config = cortex::Config::from_text(text, "test").expect("good as a text");
    let error = cortex::Server::bind(config).await.err().expect("refused").to_string();
    assert!(error.contains("/nowhere/cert.pem"), "{error}");
}

#[tokio::test]
async fn a_node_is_shown_the_gateways_key_and_not_the_clients() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let body = b"{\"choices\":[]}".to_vec();
    let (status, headers) = (200, Vec::new());
    neuron.answer_with(Script::Whole { status, content_type: "application/json", headers, body });
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("neuron.key");
    std::fs::write(&file, "s3cret\n").expect("written");
    let text = format!(
        "[gateway]\nlisten = \"127.0.0.1:0\"\nmetrics_listen = \"127.0.0.1:0\"\n\
         poll_interval_ms = 50\n\
         [[neurons]]\nname = \"n0\"\nendpoint = \"{}\"\napi_key_file = \"{}\"\n",
        neuron.url(),
        file.display()
    );
    let config = cortex::Config::from_text(&text, "test").expect("good");
    let server = cortex::Server::bind(config).await.expect("free ports");
    let addr = server.addr();
    tokio::spawn(server.run(std::future::pending()));
    let ask = async || {
        let chat = r#"{"model":"m","messages":[]}"#;
        let headers = "authorization: Bearer of-the-client\r\n";
        let path = "/v1/chat/completions";
        let mut open =
            crate::client::Open::request(addr, "POST", path, headers, chat.as_bytes()).await;
        open.read_all().await.status
    };
    until(async || ask().await == 200).await;
    let received = neuron.received();
    assert_eq!(received[0].header("authorization"), Some("Bearer s3cret"));
}
