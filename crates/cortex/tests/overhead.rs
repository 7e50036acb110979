//! What cortex adds to the first token of eight streams at once.

use std::time::{Duration, Instant};

use control::ModelStatus::Ready;
use cortex::{Config, Server};
use testkit::fake_neuron::{Answer, End, FakeNeuron};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const STREAMS: usize = 8;
const ROUNDS: usize = 40;
const LIMIT: Duration = Duration::from_millis(2);
const FIRST: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_streams_get_their_first_token_within_two_milliseconds_of_direct() {
    let neuron = FakeNeuron::start(&[("m", Ready)]).await;
    let pieces = vec![FIRST.as_bytes().to_vec(), b"data: [DONE]\n\n".to_vec()];
    neuron.answer_with(Answer::Stream { pieces, pause: Duration::from_millis(5), end: End::Clean });
    // An unoptimised build has more to do than one thread does in that time beside other tests.
    let text = format!(
        "[gateway]\nthreads = 2\nlisten = \"127.0.0.1:0\"\nmetrics_listen = \"127.0.0.1:0\"\n\
         [[neurons]]\nname = \"n\"\nendpoint = \"{}\"\n",
        neuron.url()
    );
    let config = Config::from_text(&text, "test").expect("a good configuration");
    let server = Server::bind(config).await.expect("free ports");
    let through = server.addr().to_string();
    tokio::spawn(server.run(std::future::pending()));
    let direct = neuron.url().trim_start_matches("http://").to_owned();
    while first_token(&through).await.is_none() {}

    // What else the machine does can only add: the best of three attempts is the nearest.
    let mut least = Duration::MAX;
    for _ in 0..3 {
        least = least.min(added(&direct, &through).await);
        if least < LIMIT {
            return;
        }
    }
    panic!("cortex adds {least:?}");
}

async fn added(direct: &str, through: &str) -> Duration {
    // Alternating, so that whatever else the machine does falls on both.
    let (mut added_direct, mut added_through) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        added_direct.extend(at_once(direct).await);
        added_through.extend(at_once(through).await);
    }
    let (direct, through) = (median(added_direct), median(added_through));
    let added = through.saturating_sub(direct);
    eprintln!("first token: direct {direct:?}, through cortex {through:?}, added {added:?}");
    added
}

async fn at_once(addr: &str) -> Vec<Duration> {
    let mut streams = JoinSet::new();
    for _ in 0..STREAMS {
        let addr = addr.to_owned();
        streams.spawn(async move { first_token(&addr).await.expect("an answer") });
    }
    streams.join_all().await
}

/// From the request's first byte, on an open connection, to the token; none when refused.
async fn first_token(addr: &str) -> Option<Duration> {
    let mut socket = TcpStream::connect(addr).await.expect("it listens");
    socket.set_nodelay(true).expect("an open socket");
    let body = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
    let length = body.len();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    let begun = Instant::now();
    socket.write_all(request.as_bytes()).await.expect("open");
    let mut bytes = Vec::new();
    loop {
        assert!(socket.read_buf(&mut bytes).await.expect("open") > 0, "it ended early");
        if bytes.windows(FIRST.len()).any(|window| window == FIRST.as_bytes()) {
            return Some(begun.elapsed());
        }
        if bytes.starts_with(b"HTTP/1.1 503") {
            return None;
        }
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
