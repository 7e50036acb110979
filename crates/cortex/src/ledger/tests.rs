use std::sync::Arc;

use fleet::Tick;
use fleet::budget::{Budget, Claims, Denied};

use super::*;
use crate::config::Ledger as Settings;

const BUDGET: Budget = Budget { tokens: 6_000, window_ms: None };

struct Place {
    _dir: tempfile::TempDir,
    url: String,
}

fn place() -> Place {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let url = format!("sqlite://{}?mode=rwc", dir.path().join("ledger.sqlite").display());
    Place { _dir: dir, url }
}

async fn open(url: &str) -> Ledger {
    let settings = Settings { url: Some(url.to_owned()), keep_days: 0, ..Settings::default() };
    Ledger::open(&settings).await.expect("it opens")
}

fn entry(key: &str, tokens: u32, ended: u64) -> Entry {
    Entry {
        id: uuid::Uuid::new_v4().to_string(),
        ended: Tick(ended),
        request_id: Arc::from("id"),
        key: key.to_owned(),
        model: "m".to_owned(),
        node: "n".to_owned(),
        route: "/v1/chat/completions",
        status: 200,
        end: "complete",
        usage: Usage { prompt_tokens: 100, completion_tokens: tokens - 100, ..Usage::default() },
        is_estimate: false,
        took_ms: 5,
        budget: Some((BUDGET, None)),
    }
}

fn all() -> Query {
    Query::read("").expect("good")
}

#[tokio::test]
async fn what_was_spent_is_known_after_a_restart() {
    let place = place();
    let ledger = open(&place.url).await;
    for at in 0..3 {
        ledger.write(|| entry("ann", 1_000, at));
    }
    ledger.write(|| entry("bob", 500, 9));
    ledger.flush().await;
    drop(ledger);
    let ledger = open(&place.url).await;
    let spent = ledger.spent("ann", BUDGET, Tick(10)).await.expect("readable");
    assert_eq!(spent.within(None, Tick(10)), 3_000);
    let rows = ledger.rows(&all()).await.expect("a ledger").expect("readable");
    assert_eq!(rows.len(), 4);
    assert_eq!((&*rows[3].key, rows[3].completion_tokens), ("bob", 400));
    let one = Query::read("key=ann&since_ms=1&until_ms=2").expect("good");
    let rows = ledger.rows(&one).await.expect("a ledger").expect("readable");
    assert_eq!(rows.iter().map(|row| row.ended_ms).collect::<Vec<_>>(), [1]);
    assert!(
        csv(&rows)
            .ends_with("1,id,ann,m,n,/v1/chat/completions,200,complete,100,0,900,0,false,5\n")
    );
}

#[tokio::test]
async fn an_entry_that_is_written_twice_counts_once() {
    let place = place();
    let store = Store::open(&place.url).await.expect("it opens");
    let twice = entry("ann", 1_000, 1);
    for _ in 0..2 {
        store.write(std::slice::from_ref(&twice)).await.expect("written");
    }
    let spent = store.spent("ann", BUDGET, Tick(1)).await.expect("readable");
    assert_eq!(spent.within(None, Tick(1)), 1_000);
}

/// Two stores on one database are two gateways.
#[tokio::test]
async fn gateways_that_share_a_budget_see_each_others_holds() {
    let place = place();
    let one = Store::open(&place.url).await.expect("it opens");
    let other = Store::open(&place.url).await.expect("it opens");
    let now = Tick(1_000_000);
    let first = one.hold("ann", BUDGET, 4_000, now).await.expect("asked").expect("free");
    assert_eq!((first.tokens, first.is_clipped), (4_000, false));
    let second = other.hold("ann", BUDGET, 4_000, now).await.expect("asked").expect("some");
    assert_eq!((second.tokens, second.is_clipped), (2_000, true));
    let third = one.hold("ann", BUDGET, 1, now).await.expect("asked");
    assert_eq!(third, Err(Denied::Held));
    // The first used a thousand of its four.
    let mut ended = entry("ann", 1_000, now.0);
    ended.budget = Some((BUDGET, Some(first)));
    one.write(&[ended]).await.expect("written");
    let third = other.hold("ann", BUDGET, 3_000, now).await.expect("asked").expect("free again");
    assert_eq!((third.tokens, third.is_clipped), (3_000, false));
    other.release("ann", second).await.expect("given back");
    other.release("ann", third).await.expect("given back");
    // What a gateway that died held lapses.
    let _lost = one.hold("ann", BUDGET, 5_000, now).await.expect("asked").expect("free");
    let later = Tick(now.0 + 61_000);
    let all = other.hold("ann", BUDGET, 5_000, later).await.expect("asked").expect("lapsed");
    assert_eq!(all.tokens, 5_000);
    let claims = Claims { spent: 1_000, held: 5_000, has_clipped: false };
    assert_eq!(other.claims("ann", BUDGET, later).await.expect("readable"), claims);
}

#[tokio::test]
async fn many_at_once_never_hold_more_than_there_is() {
    let place = place();
    let stores = [
        Store::open(&place.url).await.expect("it opens"),
        Store::open(&place.url).await.expect("it opens"),
    ];
    let mut asks = tokio::task::JoinSet::new();
    for n in 0..24 {
        let store = stores[n % 2].clone();
        asks.spawn(async move { store.hold("ann", BUDGET, 1_000, Tick(5)).await });
    }
    let held = asks.join_all().await;
    let granted = held.into_iter().filter_map(|held| held.expect("asked").ok());
    assert_eq!(granted.map(|grant| grant.tokens).sum::<u64>(), 6_000);
}

#[tokio::test]
async fn old_entries_are_let_go() {
    let place = place();
    let store = Store::open(&place.url).await.expect("it opens");
    let day = 24 * 3_600_000;
    store.write(&[entry("ann", 100, 1), entry("ann", 100, 9 * day)]).await.expect("written");
    store.tidy(Tick(10 * day), 5).await.expect("tidied");
    assert_eq!(store.rows(&all()).await.expect("readable").len(), 1);
    let spent = store.spent("ann", BUDGET, Tick(10 * day)).await.expect("readable");
    assert_eq!(spent.within(None, Tick(0)), 200, "a balance is not an entry");
}

#[tokio::test]
async fn an_url_of_no_database_is_refused_without_its_password() {
    let settings = Settings { url: Some("mysql://me:secret@h/d".into()), ..Settings::default() };
    let error = Ledger::open(&settings).await.err().expect("refused").to_string();
    assert!(error.contains("postgres") && !error.contains("secret"), "{error}");
}
