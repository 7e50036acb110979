//! What keys have used, for operators: `GET /admin/usage` and `GET /admin/keys`.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use wire::{Dialect, ErrorBody};

use crate::app::App;
use crate::ledger::{Query, csv};
use crate::reply::{Reply, bytes_reply, error_reply, json_reply};

const DIALECT: Dialect = Dialect::OpenaiChat;

/// One key as it stands now.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KeyView {
    pub name: String,
    /// Requests that are open.
    pub open: u32,
    /// Tokens of its budget that are spent.
    pub spent: u64,
    /// Tokens of its budget that open requests hold.
    pub held: u64,
    /// The tokens of its budget.
    pub budget: Option<u64>,
}

/// `GET /admin/keys`: every key, never a hash.
pub(crate) fn keys(app: &App) -> Reply {
    let settings = app.settings.load();
    let configured = &settings.config.auth.keys;
    let view = |caller: crate::auth::Caller| {
        let (claims, open) = caller.standing();
        let key = configured.iter().find(|key| key.name == caller.name());
        KeyView {
            name: caller.name().to_owned(),
            open,
            spent: claims.spent,
            held: claims.held,
            budget: key.and_then(|key| key.budget).map(|budget| budget.tokens),
        }
    };
    let views: Vec<KeyView> = app.door.callers().into_iter().map(view).collect();
    json_reply(StatusCode::OK, &views)
}

/// `GET /admin/usage`: entries of the ledger, as JSON or with `format=csv` as CSV.
pub(crate) async fn usage(app: &App, query: &str) -> Reply {
    let asked = match Query::read(query) {
        Ok(asked) => asked,
        Err(problem) => return error_reply(DIALECT, "", &ErrorBody::invalid_request(problem)),
    };
    // What has just ended belongs to the answer.
    app.door.ledger().flush().await;
    let rows = match app.door.ledger().rows(&asked).await {
        Some(Ok(rows)) => rows,
        Some(Err(error)) => {
            tracing::warn!(%error, "the ledger cannot be read");
            let error = ErrorBody::overloaded("the ledger cannot be read now; ask again", 5);
            return error_reply(DIALECT, "", &error);
        }
        None => {
            let mut error = ErrorBody::route_not_found("/admin/usage");
            error.message = "no ledger is configured: set ledger.url".to_owned();
            return error_reply(DIALECT, "", &error);
        }
    };
    match query.split('&').any(|pair| pair == "format=csv") {
        true => bytes_reply(StatusCode::OK, "text/csv; charset=utf-8", csv(&rows).into()),
        false => json_reply(StatusCode::OK, &rows),
    }
}
