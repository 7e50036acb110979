//! The statements, the same for both databases.

use std::collections::BTreeMap;

use fleet::Tick;
use fleet::budget::{Budget, Claims, Denied, Spent, grant, slice_of};
use sqlx::any::AnyPoolOptions;
use sqlx::{AnyConnection, AnyPool, Connection, Executor, Row as _};

use super::export::{Query, Row};
use super::{Entry, Share};

/// A gateway that has not renewed what it holds for this long is taken for dead.
const LAPSE_MS: u64 = 60_000;

/// Of SQLite. A batch that a crash of the host takes away is a second of usage, no more.
const PRAGMAS: [&str; 3] =
    ["PRAGMA busy_timeout = 5000", "PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL"];

const SCHEMA: [&str; 6] = [
    "CREATE TABLE IF NOT EXISTS usage_entries (
        id TEXT PRIMARY KEY, ended_ms BIGINT NOT NULL, request_id TEXT NOT NULL,
        key_name TEXT NOT NULL, model TEXT NOT NULL, node TEXT NOT NULL, route TEXT NOT NULL,
        status BIGINT NOT NULL, outcome TEXT NOT NULL, prompt_tokens BIGINT NOT NULL,
        cached_tokens BIGINT NOT NULL, completion_tokens BIGINT NOT NULL,
        reasoning_tokens BIGINT NOT NULL, is_estimate BIGINT NOT NULL, took_ms BIGINT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS usage_by_time ON usage_entries (ended_ms)",
    "CREATE TABLE IF NOT EXISTS budget_spent (
        key_name TEXT NOT NULL, window_ms BIGINT NOT NULL, slice BIGINT NOT NULL,
        tokens BIGINT NOT NULL, PRIMARY KEY (key_name, window_ms, slice))",
    // A row for each request that runs, so that giving back twice gives back once.
    "CREATE TABLE IF NOT EXISTS budget_shares (
        id TEXT PRIMARY KEY, key_name TEXT NOT NULL, replica TEXT NOT NULL,
        tokens BIGINT NOT NULL, clipped BIGINT NOT NULL, renewed_ms BIGINT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS shares_by_key ON budget_shares (key_name)",
    // A row to lock: who has it may look at a key's budget and change it.
    "CREATE TABLE IF NOT EXISTS budget_locks (key_name TEXT PRIMARY KEY, turns BIGINT NOT NULL)",
];

/// The database.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) pool: AnyPool,
    is_shared: bool,
    /// This process among those that share the database.
    replica: String,
}

impl Store {
    pub(super) async fn open(url: &str) -> Result<Store, sqlx::Error> {
        sqlx::any::install_default_drivers();
        let is_shared = !url.starts_with("sqlite:");
        let connections = if is_shared { 8 } else { 2 };
        let options = AnyPoolOptions::new().max_connections(connections);
        let options = options.after_connect(move |conn, _| {
            Box::pin(async move {
                for pragma in PRAGMAS.iter().filter(|_| !is_shared) {
                    conn.execute(*pragma).await?;
                }
                Ok(())
            })
        });
        let pool = options.connect(url).await?;
        let store = Store { pool, is_shared, replica: uuid::Uuid::new_v4().to_string() };
        // Two that make the same table at once can get in each other's way, once.
        if store.make_tables().await.is_err() {
            store.make_tables().await?;
        }
        Ok(store)
    }

    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }

    async fn make_tables(&self) -> Result<(), sqlx::Error> {
        for statement in SCHEMA {
            sqlx::query(statement).execute(&self.pool).await?;
        }
        Ok(())
    }

    pub(super) async fn spent(
        &self,
        key: &str,
        budget: Budget,
        now: Tick,
    ) -> Result<Spent, sqlx::Error> {
        spent(&mut *self.pool.acquire().await?, key, budget, now).await
    }

    /// Reserves tokens of a shared budget, under a name by which they are given back.
    pub(super) async fn hold(
        &self,
        id: &str,
        key: &str,
        budget: Budget,
        want: u64,
        now: Tick,
    ) -> Result<Result<Share, Denied>, sqlx::Error> {
        let mut conn = self.pool.acquire().await?;
        let mut step = conn.begin().await?;
        lock(&mut step, key).await?;
        let claims = claims(&mut step, key, budget, now).await?;
        match grant(budget.tokens, claims, want) {
            Ok(grant) => {
                let share = Share { id: id.to_owned(), grant };
                self.insert_share(&mut step, key, &share, now).await?;
                step.commit().await?;
                Ok(Ok(share))
            }
            Err(Denied::Spent { .. }) => {
                let spent = spent(&mut step, key, budget, now).await?;
                step.rollback().await?;
                let after_ms = spent.frees_after_ms(budget.window_ms, now);
                Ok(Err(Denied::Spent { after_ms }))
            }
            Err(other) => {
                step.rollback().await?;
                Ok(Err(other))
            }
        }
    }

    #[cfg(test)]
    pub(super) async fn claims(
        &self,
        key: &str,
        budget: Budget,
        now: Tick,
    ) -> Result<Claims, sqlx::Error> {
        claims(&mut *self.pool.acquire().await?, key, budget, now).await
    }

    /// Writes a batch and gives back shares, all of it or nothing. An entry that is there already
    /// changes nothing.
    pub(super) async fn write(
        &self,
        batch: &[Entry],
        given_back: &[String],
    ) -> Result<(), sqlx::Error> {
        let mut conn = self.pool.acquire().await?;
        let mut step = conn.begin().await?;
        // In one order, so that two batches never wait for each other.
        let mut paying: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
        for entry in batch.iter().filter(|entry| entry.budget.is_some()) {
            paying.entry(&entry.key).or_default().push(entry);
        }
        if self.is_shared {
            for key in paying.keys() {
                lock(&mut step, key).await?;
            }
        }
        for entry in batch {
            if insert(&mut step, entry).await? {
                settle(&mut step, entry).await?;
            }
        }
        for id in given_back {
            delete_share(&mut step, id).await?;
        }
        step.commit().await
    }

    async fn insert_share(
        &self,
        conn: &mut AnyConnection,
        key: &str,
        share: &Share,
        now: Tick,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO budget_shares (id, key_name, replica, tokens, clipped, renewed_ms)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(share.id.clone())
        .bind(key.to_owned())
        .bind(self.replica.clone())
        .bind(signed(share.grant.tokens))
        .bind(i64::from(share.grant.is_clipped))
        .bind(signed(now.0))
        .execute(conn)
        .await?;
        Ok(())
    }

    /// Says that this process lives, forgets those that do not, and what nobody needs any more.
    pub(super) async fn tidy(&self, now: Tick, keep_days: u32) -> Result<(), sqlx::Error> {
        if self.is_shared {
            sqlx::query("UPDATE budget_shares SET renewed_ms = $1 WHERE replica = $2")
                .bind(signed(now.0))
                .bind(self.replica.clone())
                .execute(&self.pool)
                .await?;
            sqlx::query("DELETE FROM budget_shares WHERE renewed_ms < $1")
                .bind(signed(now.0.saturating_sub(2 * LAPSE_MS)))
                .execute(&self.pool)
                .await?;
        }
        // What has left its window twice over; a balance stays.
        sqlx::query(
            "DELETE FROM budget_spent WHERE window_ms > 0
             AND slice < $1 / ((window_ms + 59) / 60) - 120",
        )
        .bind(signed(now.0))
        .execute(&self.pool)
        .await?;
        if keep_days > 0 {
            let kept_ms = u64::from(keep_days) * 24 * 3_600_000;
            sqlx::query("DELETE FROM usage_entries WHERE ended_ms < $1")
                .bind(signed(now.0.saturating_sub(kept_ms)))
                .execute(&self.pool)
                .await?;
        }
        Ok(())
    }

    pub(super) async fn rows(&self, query: &Query) -> Result<Vec<Row>, sqlx::Error> {
        let rows = sqlx::query(
            "SELECT ended_ms, request_id, key_name, model, node, route, status, outcome,
                    prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens,
                    is_estimate, took_ms
             FROM usage_entries
             WHERE ended_ms >= $1 AND ended_ms < $2 AND ($3 = '' OR key_name = $3)
             ORDER BY ended_ms, id LIMIT $4",
        )
        .bind(signed(query.since_ms))
        .bind(signed(query.until_ms))
        .bind(query.key.clone())
        .bind(i64::from(query.limit))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read_row).collect()
    }
}

async fn settle(conn: &mut AnyConnection, entry: &Entry) -> Result<(), sqlx::Error> {
    let Some((budget, share)) = &entry.budget else { return Ok(()) };
    sqlx::query(
        "INSERT INTO budget_spent (key_name, window_ms, slice, tokens) VALUES ($1, $2, $3, $4)
         ON CONFLICT (key_name, window_ms, slice)
         DO UPDATE SET tokens = budget_spent.tokens + excluded.tokens",
    )
    .bind(entry.key.clone())
    .bind(window(*budget))
    .bind(signed(slice_of(budget.window_ms, entry.ended)))
    .bind(signed(entry.tokens()))
    .execute(&mut *conn)
    .await?;
    match share {
        Some(share) => delete_share(conn, &share.id).await,
        None => Ok(()),
    }
}

async fn delete_share(conn: &mut AnyConnection, id: &str) -> Result<(), sqlx::Error> {
    let delete = sqlx::query("DELETE FROM budget_shares WHERE id = $1").bind(id.to_owned());
    delete.execute(conn).await?;
    Ok(())
}

async fn spent(
    conn: &mut AnyConnection,
    key: &str,
    budget: Budget,
    now: Tick,
) -> Result<Spent, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT slice, tokens FROM budget_spent
         WHERE key_name = $1 AND window_ms = $2 AND slice >= $3",
    )
    .bind(key.to_owned())
    .bind(window(budget))
    .bind(signed(Spent::oldest(budget.window_ms, now)))
    .fetch_all(conn)
    .await?;
    let slice = |row: &sqlx::any::AnyRow| {
        Ok::<_, sqlx::Error>((unsigned(row.try_get(0)?), unsigned(row.try_get(1)?)))
    };
    Ok(Spent::from_slices(rows.iter().map(slice).collect::<Result<Vec<_>, _>>()?))
}

/// Waits for the turn to look at a key's budget; it ends with the transaction.
async fn lock(conn: &mut AnyConnection, key: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO budget_locks (key_name, turns) VALUES ($1, 1)
         ON CONFLICT (key_name) DO UPDATE SET turns = budget_locks.turns + 1",
    )
    .bind(key.to_owned())
    .execute(conn)
    .await?;
    Ok(())
}

async fn claims(
    conn: &mut AnyConnection,
    key: &str,
    budget: Budget,
    now: Tick,
) -> Result<Claims, sqlx::Error> {
    let row = sqlx::query(
        "SELECT
           (SELECT CAST(COALESCE(SUM(tokens), 0) AS BIGINT) FROM budget_spent
            WHERE key_name = $1 AND window_ms = $2 AND slice >= $3),
           (SELECT CAST(COALESCE(SUM(tokens), 0) AS BIGINT) FROM budget_shares
            WHERE key_name = $1 AND renewed_ms >= $4),
           (SELECT CAST(COALESCE(SUM(clipped), 0) AS BIGINT) FROM budget_shares
            WHERE key_name = $1 AND renewed_ms >= $4)",
    )
    .bind(key.to_owned())
    .bind(window(budget))
    .bind(signed(Spent::oldest(budget.window_ms, now)))
    .bind(signed(now.0.saturating_sub(LAPSE_MS)))
    .fetch_one(conn)
    .await?;
    let clipped: i64 = row.try_get(2)?;
    Ok(Claims {
        spent: unsigned(row.try_get(0)?),
        held: unsigned(row.try_get(1)?),
        has_clipped: clipped > 0,
    })
}

/// Whether the entry is new.
async fn insert(conn: &mut AnyConnection, entry: &Entry) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "INSERT INTO usage_entries (id, ended_ms, request_id, key_name, model, node, route, status,
             outcome, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens,
             is_estimate, took_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(entry.id.clone())
    .bind(signed(entry.ended.0))
    .bind(entry.request_id.to_string())
    .bind(entry.key.clone())
    .bind(entry.model.clone())
    .bind(entry.node.clone())
    .bind(entry.route.to_owned())
    .bind(i64::from(entry.status))
    .bind(entry.end.to_owned())
    .bind(i64::from(entry.usage.prompt_tokens))
    .bind(i64::from(entry.usage.cached_tokens))
    .bind(i64::from(entry.usage.completion_tokens))
    .bind(i64::from(entry.usage.reasoning_tokens))
    .bind(i64::from(entry.is_estimate))
    .bind(signed(entry.took_ms))
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

fn read_row(row: &sqlx::any::AnyRow) -> Result<Row, sqlx::Error> {
    let count = |place: usize| row.try_get::<i64, _>(place).map(unsigned);
    Ok(Row {
        ended_ms: count(0)?,
        request_id: row.try_get(1)?,
        key: row.try_get(2)?,
        model: row.try_get(3)?,
        node: row.try_get(4)?,
        route: row.try_get(5)?,
        status: count(6)?,
        end: row.try_get(7)?,
        prompt_tokens: count(8)?,
        cached_tokens: count(9)?,
        completion_tokens: count(10)?,
        reasoning_tokens: count(11)?,
        is_estimate: count(12)? != 0,
        took_ms: count(13)?,
    })
}

fn window(budget: Budget) -> i64 {
    signed(budget.window_ms.unwrap_or(0))
}

/// Databases count with a sign. No count of tokens or milliseconds reaches it.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}
