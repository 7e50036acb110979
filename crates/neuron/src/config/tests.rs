use super::keys::{KEYS, generic, tables_of};
use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, "neuron.toml")
}

fn refusal(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

const FULL: &str = r#"
listen = "127.0.0.1:1"
api_key_file = "/k"
advertise_url = "http://h:1"
allow_open_listen = true
model_dirs = ["/m"]
body_limit_mb = 8

[traces]
endpoint = "http://c:1"
share = 0.5

[[default_models]]
model_id = "a"
harness = "native"
quant = "Q8_0"
tensor_parallel = 1
devices = [0]
context = 10
max_running = 2
source = "/s"

[harness.native]
max_running = 3
token_budget = 64
stall_ms = 100
threads = 2
device = "cpu"
prefix_cache = false
memory_mb = 4096
host_cache_mb = 64
cache_isolation = "caller"
step_timeout_secs = 9
engine_command = ["/e", "engine"]
"#;

#[test]
fn a_full_file_is_read() {
    let config = parse(FULL).unwrap();
    assert_eq!(config.default_models[0].context, Some(10));
    assert_eq!(config.harness.native.threads, Some(2));
    assert_eq!(config.harness.native.stall_ms, 100);
    assert_eq!(parse("").unwrap(), Config::default());
}

#[test]
fn the_older_name_of_the_harness_is_understood() {
    let config = parse("[harness.candle]\nmax_running = 7\n").unwrap();
    assert_eq!(config.harness.native.max_running, 7);
}

#[test]
fn every_known_key_is_in_the_full_file_and_the_other_way_round() {
    let mut used = Vec::new();
    collect(DeTable::parse(FULL).unwrap().get_ref(), "", &mut used);
    used.sort();
    let mut known: Vec<String> = KEYS.iter().map(|key| (*key).to_owned()).collect();
    known.retain(|key| key != "harness.candle");
    known.sort();
    assert_eq!(used, known);
    // And the file names every field: a new setting must get its key.
    let config: toml::Table = toml::Table::try_from(parse(FULL).unwrap()).unwrap();
    let native = config["harness"]["native"].as_table().unwrap();
    let model = config["default_models"][0].as_table().unwrap();
    let traces = config["traces"].as_table().unwrap();
    assert_eq!(config.len() + native.len() + model.len() + traces.len() + 1, known.len());
}

fn collect(table: &DeTable<'_>, prefix: &str, used: &mut Vec<String>) {
    for (name, value) in table {
        let key = format!("{prefix}{}", name.get_ref());
        used.push(generic(&key));
        for table in tables_of(value) {
            collect(table, &format!("{key}."), used);
        }
    }
}

#[test]
fn an_unknown_key_is_placed_and_the_nearest_is_named() {
    // Requirement 115.
    assert_eq!(
        refusal("body_limit_mb = 1\n  lisen = \"x\"\n"),
        "neuron.toml:2:3: unknown key `lisen`, did you mean `listen`?"
    );
    assert_eq!(
        refusal("[harness.native]\nmax_runing = 1\n"),
        "neuron.toml:2:1: unknown key `harness.native.max_runing`, \
         did you mean `harness.native.max_running`?"
    );
    assert_eq!(
        refusal("[[default_models]]\nmodel_id = \"a\"\nquantum = 1\n"),
        "neuron.toml:3:1: unknown key `default_models.quantum`, \
         did you mean `default_models.quant`?"
    );
    assert_eq!(refusal("zzzzzzzzzz = 1"), "neuron.toml:1:1: unknown key `zzzzzzzzzz`");
}

#[test]
fn wrong_types_and_broken_files_name_their_line() {
    for text in ["\nlisten = 7\n", "\nlisten = \n"] {
        let message = refusal(text);
        assert!(message.starts_with("neuron.toml: TOML parse error at line 2"), "{message}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(Some(Path::new("/nowhere/neuron.toml"))).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/neuron.toml: "), "{error}");
}

#[test]
fn values_out_of_range_are_refused() {
    for (text, key) in [
        ("body_limit_mb = 0", "body_limit_mb = 0"),
        ("harness.native.max_running = 0", "harness.native.max_running = 0"),
        ("harness.native.threads = 0", "harness.native.threads = 0"),
        ("harness.native.stall_ms = 0", "harness.native.stall_ms = 0"),
        ("harness.native.engine_command = []", "harness.native.engine_command = []"),
        (
            "default_models = [{ model_id = \"a\" }, { model_id = \"a\" }]",
            "default_models.model_id = a: named twice",
        ),
        ("[[default_models]]\nmodel_id = \"../x\"", "default_models.model_id = ../x"),
        (
            "[[default_models]]\nmodel_id = \"a\"\ncontext = 0",
            "default_models.model_id = a: context must be at least 1, got 0",
        ),
        (
            "[[default_models]]\nmodel_id = \"a\"\nharness = \"x\"",
            "default_models.model_id = a: harness is `x`, this node has: native",
        ),
        ("body_limit_mb = 2000", "body_limit_mb = 2000: must be from 1 to 1024"),
        ("traces.share = 1.5", "traces.share = 1.5: must be from 0 to 1"),
        ("traces.share = nan", "traces.share = NaN"),
        ("traces.endpoint = \"collector\"", "traces.endpoint = collector: must be a URL"),
        ("advertise_url = \"10.0.0.5:13131\"", "advertise_url = 10.0.0.5:13131"),
    ] {
        let message = refusal(text);
        assert!(message.starts_with(key), "{message}");
    }
}

#[test]
fn an_open_address_needs_a_key_or_a_word() {
    let open = "listen = \"0.0.0.0:13131\"\n";
    assert!(refusal(open).contains("api_key_file"));
    assert!(parse(&format!("{open}api_key_file = \"/k\"")).is_ok());
    assert!(parse(&format!("{open}allow_open_listen = true")).is_ok());
}
