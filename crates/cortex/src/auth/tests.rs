use fleet::budget::Claims;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::*;
use crate::config::Config;

fn auth(keys: &str) -> Auth {
    let text = format!(
        "[[neurons]]\nname = \"n\"\nendpoint = \"http://127.0.0.1:1\"\n\
         [ledger]\nurl = \"sqlite::memory:\"\n{keys}"
    );
    Config::from_text(&text, "test").expect("a good configuration").auth
}

fn key(name: &str, secret: &str, more: &str) -> String {
    let sha256 = hash_key(secret.as_bytes());
    format!("[[auth.keys]]\nname = \"{name}\"\nsha256 = \"{sha256}\"\n{more}\n")
}

async fn open(auth: &Auth) -> Doorkeeper {
    Doorkeeper::open(auth, Ledger::default()).await.expect("no ledger")
}

fn with(name: &'static str, value: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))])
}

#[tokio::test]
async fn nobody_is_asked_where_there_are_no_keys() {
    let door = open(&Auth::default()).await;
    // Requirement 28: SDKs send placeholders.
    let admitted = door.admit(&with("authorization", "Bearer placeholder"), Scope::Admin);
    assert!(admitted.expect("open").is_none());
}

#[tokio::test]
async fn a_key_opens_by_either_header_and_nothing_else_does() {
    let door = open(&auth(&key("ann", "s3cret", ""))).await;
    let admit = |headers: &HeaderMap| door.admit(headers, Scope::Inference);
    for good in [
        with("authorization", "Bearer s3cret"),
        with("authorization", "bearer s3cret"),
        with("x-api-key", "s3cret"),
    ] {
        let caller = admit(&good).expect("known").expect("somebody");
        assert_eq!(caller.name(), "ann");
    }
    for wrong in [
        HeaderMap::new(),
        with("authorization", "s3cret"),
        with("authorization", "Basic s3cret"),
        with("authorization", "Bearer "),
        with("authorization", "Bearer s3cre"),
        with("x-api-key", "s3crets"),
        with("cookie", "s3cret"),
    ] {
        assert_eq!(admit(&wrong).err().expect("refused").status, 401, "{wrong:?}");
    }
}

#[tokio::test]
async fn a_scope_opens_its_own_doors() {
    let keys = [
        key("user", "u", ""),
        key("scraper", "m", "scope = \"metrics\""),
        key("both", "b", "scope = [\"metrics\", \"inference\"]"),
        key("root", "r", "scope = \"admin\""),
    ];
    let door = open(&auth(&keys.concat())).await;
    let opens = |key: &'static str| {
        [Scope::Inference, Scope::Metrics, Scope::Admin].map(|scope| {
            let admitted = door.admit(&with("x-api-key", key), scope);
            admitted.map_err(|error| assert_eq!(error.status, 403)).is_ok()
        })
    };
    assert_eq!(opens("u"), [true, false, false]);
    assert_eq!(opens("m"), [false, true, false]);
    assert_eq!(opens("b"), [true, true, false]);
    assert_eq!(opens("r"), [true, true, true]);
}

#[tokio::test]
async fn keys_change_without_a_restart_and_keep_what_they_used() {
    let limited = |tokens: u64, more: &str| {
        key("ann", "one", &format!("rpm = 10\nbudget = {{ tokens = {tokens} }}")) + more
    };
    let door = open(&auth(&limited(100, ""))).await;
    let caller = |secret| door.admit(&with("x-api-key", secret), Scope::Inference);
    let ann = caller("one").expect("known").expect("somebody");
    let seat = ann.reserve(30, 30).await.expect("fits");
    door.replace(&auth(&limited(50, &key("bob", "two", "")))).await.expect("no ledger");
    assert!(caller("two").is_ok());
    seat.settle(30);
    let ann = caller("one").expect("known").expect("somebody");
    assert_eq!(ann.standing(), (Claims { spent: 30, held: 0, has_clipped: false }, 0));
    door.replace(&auth(&key("bob", "two", ""))).await.expect("no ledger");
    assert!(caller("one").is_err(), "a key that is taken out opens nothing");
}

#[tokio::test]
async fn refusals_say_what_and_until_when() {
    let more = "concurrency = 1\nbudget = { tokens = 10 }";
    let door = open(&auth(&key("ann", "k", more))).await;
    let ann = door.admit(&with("x-api-key", "k"), Scope::Inference).expect("known");
    let ann = ann.expect("somebody");
    let first = ann.reserve(5, 5).await.expect("fits");
    let refused = ann.reserve(5, 5).await.err().expect("refused");
    assert_eq!((refused.status, refused.retry_after_secs()), (429, Some(1)));
    first.settle(10);
    let refused = ann.reserve(5, 5).await.err().expect("refused");
    assert_eq!((refused.status, refused.code), (429, Some("insufficient_quota")));
    assert_eq!(refused.retry_after_secs(), None, "a balance does not come back");
}
