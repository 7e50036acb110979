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
        store.write(std::slice::from_ref(&twice), &[]).await.expect("written");
    }
    let spent = store.spent("ann", BUDGET, Tick(1)).await.expect("readable");
    assert_eq!(spent.within(None, Tick(1)), 1_000);
}

/// Asks for a part of ann's budget.
async fn hold(store: &Store, want: u64, now: Tick) -> Result<Share, Denied> {
    let id = uuid::Uuid::new_v4().to_string();
    store.hold(&id, "ann", BUDGET, want, now).await.expect("the database answers")
}

/// Two stores on one database are two gateways.
#[tokio::test]
async fn gateways_that_share_a_budget_see_each_others_holds() {
    let place = place();
    let one = Store::open(&place.url).await.expect("it opens");
    let other = Store::open(&place.url).await.expect("it opens");
    let now = Tick(1_000_000);
    let first = hold(&one, 4_000, now).await.expect("free");
    assert_eq!((first.grant.tokens, first.grant.is_clipped), (4_000, false));
    let second = hold(&other, 4_000, now).await.expect("some");
    assert_eq!((second.grant.tokens, second.grant.is_clipped), (2_000, true));
    assert_eq!(hold(&one, 1, now).await, Err(Denied::Held));
    // The first used a thousand of its four.
    let mut ended = entry("ann", 1_000, now.0);
    ended.budget = Some((BUDGET, Some(first)));
    one.write(&[ended], &[]).await.expect("written");
    let third = hold(&other, 3_000, now).await.expect("free again");
    assert_eq!((third.grant.tokens, third.grant.is_clipped), (3_000, false));
    other.write(&[], &[second.id, third.id]).await.expect("given back");
    let nothing = Claims { spent: 1_000, held: 0, has_clipped: false };
    assert_eq!(one.claims("ann", BUDGET, now).await.expect("readable"), nothing);
}

#[tokio::test]
async fn a_gateway_that_was_away_for_long_gives_back_no_more_than_it_holds() {
    let place = place();
    let one = Store::open(&place.url).await.expect("it opens");
    let other = Store::open(&place.url).await.expect("it opens");
    let now = Tick(1_000_000);
    let lost = hold(&one, 5_000, now).await.expect("free");
    // It lapses, is forgotten, and comes back all the same.
    let later = Tick(now.0 + 200_000);
    let taken = hold(&other, 5_000, later).await.expect("lapsed");
    assert_eq!(taken.grant.tokens, 5_000);
    sqlx::query("DELETE FROM budget_shares WHERE id = $1")
        .bind(lost.id.clone())
        .execute(&one.pool)
        .await
        .expect("as the other's tidying does");
    let mut ended = entry("ann", 700, later.0);
    ended.budget = Some((BUDGET, Some(lost.clone())));
    one.write(&[ended], &[lost.id]).await.expect("written");
    let claims = Claims { spent: 700, held: 5_000, has_clipped: false };
    assert_eq!(other.claims("ann", BUDGET, later).await.expect("readable"), claims);
    let rest = hold(&one, 1_000, later).await.expect("some are left");
    assert_eq!(rest.grant.tokens, 300);
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
        asks.spawn(async move { hold(&store, 1_000, Tick(5)).await });
    }
    let granted = asks.join_all().await.into_iter().flatten();
    assert_eq!(granted.map(|share| share.grant.tokens).sum::<u64>(), 6_000);
}

/// There are fewer connections than askers, and none may wait for a second one.
#[tokio::test]
async fn a_spent_budget_is_refused_to_many_at_once() {
    let place = place();
    let store = Store::open(&place.url).await.expect("it opens");
    store.write(&[entry("ann", 6_000, 1)], &[]).await.expect("written");
    let mut asks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let store = store.clone();
        asks.spawn(async move { hold(&store, 10, Tick(5)).await });
    }
    let asked = timeout(Duration::from_secs(10), asks.join_all()).await;
    let spent = Err(Denied::Spent { after_ms: None });
    assert!(asked.expect("nobody waits for ever").into_iter().all(|held| held == spent));
}

#[tokio::test]
async fn old_entries_are_let_go() {
    let place = place();
    let store = Store::open(&place.url).await.expect("it opens");
    let day = 24 * 3_600_000;
    let hourly = Budget { tokens: 6_000, window_ms: Some(3_600_000) };
    let mut windowed = entry("ann", 100, 1);
    windowed.budget = Some((hourly, None));
    let batch = [entry("ann", 100, 1), entry("ann", 100, 9 * day), windowed];
    store.write(&batch, &[]).await.expect("written");
    store.tidy(Tick(10 * day), 5).await.expect("tidied");
    assert_eq!(store.rows(&all()).await.expect("readable").len(), 1);
    let slices = sqlx::query("SELECT slice FROM budget_spent WHERE window_ms > 0");
    let slices = slices.fetch_all(&store.pool).await.expect("readable");
    assert!(slices.is_empty(), "what no window holds any more is forgotten");
    let spent = store.spent("ann", BUDGET, Tick(10 * day)).await.expect("readable");
    assert_eq!(spent.within(None, Tick(0)), 200, "a balance is not an entry");
}

#[tokio::test]
async fn an_url_of_no_database_is_refused_without_its_password() {
    let settings = Settings { url: Some("mysql://me:secret@h/d".into()), ..Settings::default() };
    let error = Ledger::open(&settings).await.err().expect("refused").to_string();
    assert!(error.contains("postgres") && !error.contains("secret"), "{error}");
}
