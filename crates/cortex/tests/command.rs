//! The real binary: its configuration, its signals, its words.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const GOOD: &str = "
[gateway]
listen = \"127.0.0.1:0\"
metrics_listen = \"127.0.0.1:0\"
[[neurons]]
name = \"n\"
endpoint = \"http://127.0.0.1:1\"
";

fn cortex() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cortex"));
    command.env_remove("RUST_LOG");
    command
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("it takes text");
    file
}

fn check(text: &str, environment: &[(&str, &str)]) -> (bool, String) {
    let file = file(text);
    let mut command = cortex();
    command.args(["check-config", "--config"]).arg(file.path());
    let output = command.envs(environment.iter().copied()).output().expect("it runs");
    (output.status.success(), said(&output))
}

fn said(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(all).expect("text")
}

#[test]
fn check_config_says_what_serve_would() {
    let (good, text) = check(GOOD, &[]);
    assert!(good && text.contains("good; neurons: 1"), "{text}");
    let (good, text) = check(&GOOD.replace("endpoint", "endpiont"), &[]);
    let wanted = ":7:1: unknown key `endpiont`; did you mean `endpoint`?";
    assert!(!good && text.contains(wanted), "{text}");
    let (good, text) = check(&GOOD.replacen("127.0.0.1", "0.0.0.0", 1), &[]);
    assert!(!good && text.contains("--allow-unauthenticated"), "{text}");
    let output = cortex().args(["check-config", "--config", "/nowhere/c.toml"]).output();
    let output = output.expect("it runs");
    assert!(!output.status.success());
    assert!(said(&output).contains("/nowhere/c.toml: No such file"), "{}", said(&output));
}

#[test]
fn the_environment_overrides_the_file_and_is_checked_like_it() {
    let (good, text) = check(GOOD, &[("CORTEX_GATEWAY__LISTEN", "127.0.0.1:7")]);
    assert!(good && text.contains("listens on 127.0.0.1:7"), "{text}");
    let (good, text) = check(GOOD, &[("CORTEX_GATEWAY__LISTN", "127.0.0.1:7")]);
    let wanted = "CORTEX_GATEWAY__LISTN: unknown key `listn`; did you mean `listen`?";
    assert!(!good && text.contains(wanted), "{text}");
    let (good, text) = check(GOOD, &[("CORTEX_GATEWAY__LISTEN", "x")]);
    assert!(!good && text.contains("CORTEX_GATEWAY__LISTEN: "), "{text}");
    let neurons = "[{name=\"e\",endpoint=\"http://h:1\"},{name=\"f\",endpoint=\"http://h:2\"}]";
    let (good, text) = check(GOOD, &[("CORTEX_NEURONS", neurons)]);
    assert!(good && text.contains("neurons: 2"), "{text}");
}

#[test]
fn help_and_version_need_no_configuration() {
    for argument in ["--help", "--version"] {
        assert!(cortex().arg(argument).output().expect("it runs").status.success());
    }
    assert!(!cortex().arg("--nonsense").output().expect("it runs").status.success());
}

#[test]
fn serve_answers_soon_and_stops_on_a_signal() {
    for signal in ["-TERM", "-INT"] {
        let port = free_port();
        let file = file(&GOOD.replacen("127.0.0.1:0", &format!("127.0.0.1:{port}"), 1));
        let mut command = cortex();
        command.args(["serve", "--config"]).arg(file.path());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
        let begun = Instant::now();
        let health = loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(socket) => break get_health(socket),
                Err(_) => assert!(begun.elapsed() < Duration::from_secs(10), "it never listens"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(health.starts_with("HTTP/1.1 503"), "{health}");
        let killed = Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(killed.expect("kill runs").success());
        let status = child.wait().expect("it ends");
        let mut log = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut log).expect("text");
        assert!(status.success(), "{signal}: {status}: {log}");
        assert!(log.contains("cortex listens") && log.contains("stopped: every request"), "{log}");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = taken.local_addr().expect("bound").to_string();
    let file = file(&GOOD.replacen("127.0.0.1:0", &addr, 1));
    let output = cortex().args(["serve", "--config"]).arg(file.path()).output().expect("it runs");
    assert!(!output.status.success());
    let text = said(&output);
    assert!(text.contains(&format!("cannot listen on {addr}: Address already in use")), "{text}");
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").port()
}

fn get_health(mut socket: TcpStream) -> String {
    let request = b"GET /health HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    socket.write_all(request).expect("open");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("text");
    answer
}
