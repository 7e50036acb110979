use super::Config;

const GOOD: &str = "
[gateway]
listen = \"127.0.0.1:0\"
metrics_listen = \"127.0.0.1:0\"

[[neurons]]
name = \"a\"
endpoint = \"http://127.0.0.1:13131/\"
";

fn refused(text: &str) -> String {
    match Config::from_text(text, "cortex.toml") {
        Ok(config) => panic!("accepted: {config:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_trailing_slash_is_tolerated() {
    let config = Config::from_text(GOOD, "cortex.toml").expect("good");
    assert_eq!(config.neurons[0].endpoint, "http://127.0.0.1:13131");
    assert_eq!(config.gateway.body_limit_bytes(), 32 << 20);
}

// Requirement 115
#[test]
fn an_unknown_key_is_named_with_its_place_and_the_nearest_known_one() {
    let text = GOOD.replace("metrics_listen", "metrics_lisen");
    let wanted = "cortex.toml:4:1: unknown key `metrics_lisen`; did you mean `metrics_listen`?";
    assert_eq!(refused(&text), wanted);
}

#[test]
fn an_unknown_key_inside_a_list_is_found_too() {
    let text = GOOD.replace("endpoint =", "endpont =");
    let wanted = "cortex.toml:8:1: unknown key `endpont`; did you mean `endpoint`?";
    assert_eq!(refused(&text), wanted);
}

#[test]
fn an_unknown_key_like_no_other_lists_what_is_known() {
    let said = refused(&GOOD.replace("[gateway]", "[gateway]\nzzz = 1"));
    assert!(said.starts_with("cortex.toml:3:1: unknown key `zzz`; known here: listen, "), "{said}");
}

#[test]
fn a_wrong_type_and_broken_syntax_are_placed() {
    let said = refused(&GOOD.replace("\"a\"", "7"));
    assert!(said.starts_with("cortex.toml:7:1: neurons.0.name: "), "{said}");
    let said = refused("[gateway]\nlisten = \n");
    assert!(said.starts_with("cortex.toml:2:"), "{said}");
    let said = refused(&GOOD.replace("\"127.0.0.1:0\"", "\"127.0.0.1:70000\""));
    assert!(said.starts_with("cortex.toml:3:1: gateway.listen: "), "{said}");
}

#[test]
fn twins_and_bad_endpoints_are_refused_by_name() {
    let second = |name: &str, endpoint: &str| {
        refused(&format!("{GOOD}[[neurons]]\nname = \"{name}\"\nendpoint = \"{endpoint}\"\n"))
    };
    assert!(second("a", "http://other:1").contains("two neurons are called `a`"));
    let said = second("b", "http://127.0.0.1:13131");
    assert!(said.contains("neurons `a` and `b` are both at http://127.0.0.1:13131"), "{said}");
    for (endpoint, why) in [
        ("ftp://x:1", "its scheme is not http"),
        ("x:1", "its scheme is not http"),
        ("http://u:p@x:1", "user name"),
        ("http://x:1/?q=1", "query"),
        ("http://", "not a URL"),
    ] {
        let said = second("b", endpoint);
        assert!(said.contains(why) && said.contains("neuron `b`"), "{endpoint}: {said}");
    }
    assert!(second("b c", "http://x:1").contains("neurons[1].name is `b c`"));
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    assert!(refused("").contains("no neuron is configured"));
    let said = refused(&GOOD.replace("[gateway]", "[gateway]\npoll_timeout_ms = 0"));
    assert!(said.contains("gateway.poll_timeout_ms is 0"), "{said}");
    let said = refused(&GOOD.replace("[gateway]", "[gateway]\npoll_interval_ms = 9001"));
    assert!(said.contains("are 9001 and 1000; together they may be 10000 at most"), "{said}");
    let looped = GOOD.replacen("127.0.0.1:0", "127.0.0.1:13131", 1);
    assert!(refused(&looped).contains("where cortex itself listens"));
    for (line, why) in [
        ("share = 1.5", "traces.share is 1.5"),
        ("share = nan", "traces.share is NaN"),
        ("endpoint = \"https://h:4318\"", "write http://HOST:PORT"),
    ] {
        let said = refused(&format!("{GOOD}[traces]\n{line}\n"));
        assert!(said.contains(why), "{said}");
    }
    let both = GOOD.replace("127.0.0.1:0", "127.0.0.1:9");
    assert!(refused(&both).contains("are both 127.0.0.1:9"));
}

#[test]
fn an_address_that_others_can_reach_needs_a_word() {
    let open = GOOD.replacen("127.0.0.1:0", "0.0.0.0:0", 1);
    let config = Config::from_text(&open, "cortex.toml").expect("good");
    let said = config.check_exposure().expect_err("refused").to_string();
    assert!(said.contains("gateway.listen") && said.contains("--allow-unauthenticated"), "{said}");
    let open = open.replace("[gateway]", "[gateway]\nallow_unauthenticated = true");
    let config = Config::from_text(&open, "cortex.toml").expect("good");
    config.check_exposure().expect("the operator said so");
}
