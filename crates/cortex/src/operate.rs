//! The commands that act on a running cortex, as an operator uses them.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt, Limited};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use wire::models::Model;

use crate::Error;
use crate::config::Gateway;
use crate::forward::{Client, chained};
use crate::status::{print_fleet, print_models, table};
use crate::view::FleetView;

/// The largest answer that is read.
const ANSWER_LIMIT_BYTES: usize = 8 << 20;
/// How often a command that waits looks at what it waits for.
const LOOK: Duration = Duration::from_millis(500);

/// A running cortex, asked by its operator.
pub struct Operator {
    url: String,
    headers: HeaderMap,
    client: Client,
    /// Print what cortex answers instead of words for people.
    json: bool,
}

impl Operator {
    /// The cortex at `url`, with a key where it asks for one.
    ///
    /// # Errors
    /// [`Error::Config`] when the key cannot be sent.
    pub fn new(url: &str, key: Option<&str>, json: bool) -> Result<Operator, Error> {
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            let value = format!("Bearer {}", key.trim()).parse::<HeaderValue>();
            let mut value = value.map_err(|_| Error::Config {
                place: "key".to_owned(),
                problem: "it holds characters that no header can".to_owned(),
            })?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let url = url.trim_end_matches('/').to_owned();
        Ok(Operator { url, headers, client: Client::new(&Gateway::default()), json })
    }

    /// Loads a model, anywhere or on one node. With `wait` the progress is shown until it is ready;
    /// else the load goes on by itself.
    ///
    /// # Errors
    /// [`Error::Refused`] with each node's reason when no node can have it.
    pub async fn load(
        &self,
        model: &str,
        node: Option<&str>,
        wait: bool,
        out: &mut dyn Write,
    ) -> Result<(), Error> {
        let order = json!({ "model": model, "node": node, "wait": wait });
        let mut asked = std::pin::pin!(self.post("/admin/models/load", &order));
        let mut shown = String::new();
        let done = loop {
            match tokio::time::timeout(LOOK, &mut asked).await {
                Ok(done) => break done?,
                Err(_) if self.json => {}
                Err(_) => {
                    let stands = self.stands(model).await;
                    if stands != shown {
                        writeln!(out, "{stands}")?;
                        shown = stands;
                    }
                }
            }
        };
        let nodes = |done: &Value| {
            let names = done["nodes"].as_array().cloned().unwrap_or_default();
            names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        };
        self.say(&done, out, |done| match done["load_ms"].as_u64() {
            Some(ms) => format!("{model} is ready on {} after {ms} ms", nodes(done)),
            None => format!("{model} is being loaded"),
        })
    }

    /// Unloads a model, everywhere or on one node, and waits until it is gone.
    ///
    /// # Errors
    /// [`Error::Refused`] when it is not loaded there.
    pub async fn unload(
        &self,
        model: &str,
        node: Option<&str>,
        out: &mut dyn Write,
    ) -> Result<(), Error> {
        let order = json!({ "model": model, "node": node });
        let done = self.post("/admin/models/unload", &order).await?;
        self.say(&done, out, |done| format!("{model} has left {}", list(&done["nodes"])))
    }

    /// Loads a model on one node and unloads it from another one then.
    ///
    /// # Errors
    /// As [`Operator::load`].
    pub async fn move_model(
        &self,
        model: &str,
        from: &str,
        to: &str,
        out: &mut dyn Write,
    ) -> Result<(), Error> {
        let order = json!({ "model": model, "from": from, "to": to });
        let done = self.post("/admin/models/move", &order).await?;
        self.say(&done, out, |_| format!("{model} has moved from {from} to {to}"))
    }

    /// Takes a node out of service, or gives it back. With `wait` it returns once no request is
    /// open there.
    ///
    /// # Errors
    /// [`Error::Refused`] when no node has that name.
    pub async fn drain(
        &self,
        node: &str,
        is_drained: bool,
        wait: bool,
        out: &mut dyn Write,
    ) -> Result<(), Error> {
        let what = if is_drained { "drain" } else { "resume" };
        let done = self.post(&format!("/admin/nodes/{node}/{what}"), &json!({})).await?;
        while wait && self.in_flight(node).await? > 0 {
            tokio::time::sleep(LOOK).await;
        }
        self.say(&done, out, |done| match (is_drained, wait) {
            (true, true) => format!("{node} is drained: no request is open there"),
            (true, false) => format!("{node} gets nothing new; open: {}", done["in_flight"]),
            (false, _) => format!("{node} is in service"),
        })
    }

    /// Has both files read anew.
    ///
    /// # Errors
    /// [`Error::Refused`] with what is wrong with a file; nothing has changed then.
    pub async fn reload(&self, out: &mut dyn Write) -> Result<(), Error> {
        let done = self.post("/admin/reload", &json!({})).await?;
        self.say(&done, out, |done| match list(&done["need_restart"]).as_str() {
            "" => "both files were read anew".to_owned(),
            keys => format!("both files were read anew; these keys need a restart: {keys}"),
        })
    }

    /// Prints nodes, devices, models and queues.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when nothing answers there, [`Error::Print`] when `out` fails.
    pub async fn status(&self, out: &mut dyn Write) -> Result<(), Error> {
        let fleet: Value = self.get("/admin/fleet").await?;
        if self.json {
            return Ok(writeln!(out, "{fleet}")?);
        }
        print_fleet(&self.understood(fleet)?, out)
    }

    fn understood<T: DeserializeOwned>(&self, said: Value) -> Result<T, Error> {
        let unreachable = |problem| Error::Unreachable { url: self.url.clone(), problem };
        serde_json::from_value(said).map_err(|error| unreachable(error.to_string()))
    }

    /// Prints the models that clients are offered; of this the address is the clients' own.
    ///
    /// # Errors
    /// As [`Operator::status`].
    pub async fn models(&self, out: &mut dyn Write) -> Result<(), Error> {
        #[derive(serde::Deserialize)]
        struct List {
            data: Vec<Model>,
        }
        let list: Value = self.get("/v1/models").await?;
        if self.json {
            return Ok(writeln!(out, "{list}")?);
        }
        let list: List = self.understood(list)?;
        print_models(&list.data, out)
    }

    /// Why a model is where it is, and nowhere else.
    ///
    /// # Errors
    /// As [`Operator::status`].
    pub async fn explain(&self, model: &str, out: &mut dyn Write) -> Result<(), Error> {
        let said: Value = self.get(&format!("/admin/explain/{model}")).await?;
        if self.json {
            return Ok(writeln!(out, "{said}")?);
        }
        let known = if said["is_in_catalogue"] == true { "" } else { ", not in the catalogue" };
        writeln!(out, "{}{known}; requests waiting: {}", word(&said["model"]), said["waiting"])?;
        let rows = |list: &Value, row: &dyn Fn(&Value) -> Vec<String>| -> Vec<Vec<String>> {
            list.as_array().map_or(&[][..], Vec::as_slice).iter().map(row).collect()
        };
        let replicas = rows(&said["replicas"], &|it| {
            let score = |part: &str| thousandths(&it["score"][part]);
            let suspect = if it["is_suspect"] == true { "failed of late" } else { "" };
            let total = thousandths(&it["total"]);
            let (load, pressure) = (score("load"), score("pressure"));
            let (slowness, affinity) = (score("slowness"), score("affinity"));
            vec![word(&it["node"]), total, load, pressure, slowness, affinity, suspect.to_owned()]
        });
        let head = ["REPLICA", "SCORE", "LOAD", "PRESSURE", "SLOWNESS", "AFFINITY", "NOTE"];
        table(&head, replicas, out)?;
        let verdicts = rows(&said["nodes"], &|it| {
            let (what, why) = tagged(&it["verdict"]);
            vec![word(&it["node"]), what, why]
        });
        table(&["NODE", "VERDICT", "WHY"], verdicts, out)?;
        let arrivals = rows(&said["arrivals"], &|it| {
            let (stage, why) = tagged(&it["stage"]);
            vec![word(&it["node"]), stage, why]
        });
        table(&["ON ITS WAY TO", "STAGE", ""], arrivals, out)?;
        let decisions = rows(&said["decisions"], &|it| {
            let ago = format!("{:.1} s ago", it["ms_ago"].as_f64().unwrap_or(0.0) / 1e3);
            let (cause, why) = tagged(&it["cause"]);
            let what = format!("{} {}", word(&it["do"]), word(&it["model"]));
            vec![ago, word(&it["node"]), what, format!("{cause} {why}")]
        });
        table(&["DECIDED", "NODE", "WHAT", "WHY"], decisions, out)
    }

    /// How far a model is, in a line.
    async fn stands(&self, model: &str) -> String {
        let Ok(fleet) = self.get::<FleetView>("/admin/fleet").await else {
            return format!("{model}: cortex does not say how far it is");
        };
        let of = |node: &crate::view::NodeView| {
            let it = node.models.iter().find(|it| it.id == model)?;
            let progress = it.progress.map(|progress| {
                let percent = progress.done_bytes * 100 / progress.total_bytes.max(1);
                format!(", {percent} % of {} MiB", progress.total_bytes >> 20)
            });
            Some(format!("{} on {}{}", it.status, node.name, progress.unwrap_or_default()))
        };
        let places: Vec<String> = fleet.nodes.iter().filter_map(of).collect();
        match places.is_empty() {
            true => format!("{model}: waits for a place"),
            false => format!("{model}: {}", places.join("; ")),
        }
    }

    async fn in_flight(&self, node: &str) -> Result<u32, Error> {
        let fleet: FleetView = self.get("/admin/fleet").await?;
        let found = fleet.nodes.iter().find(|it| it.name == node);
        Ok(found.map_or(0, |it| it.in_flight))
    }

    fn say(
        &self,
        done: &Value,
        out: &mut dyn Write,
        words: impl Fn(&Value) -> String,
    ) -> Result<(), Error> {
        match self.json {
            true => writeln!(out, "{done}")?,
            false => writeln!(out, "{}", words(done))?,
        }
        Ok(())
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let url = format!("{}{path}", self.url);
        let unreachable = |problem: String| Error::Unreachable { url: url.clone(), problem };
        let answer = self.client.get_with(&url, self.headers.clone()).await;
        let (status, body) = answer.map_err(unreachable)?;
        if status != 200 {
            return Err(refused(status, &body));
        }
        serde_json::from_slice(&body).map_err(|error| unreachable(error.to_string()))
    }

    async fn post(&self, path: &str, order: &Value) -> Result<Value, Error> {
        let url = format!("{}{path}", self.url);
        let unreachable = |problem: String| Error::Unreachable { url: url.clone(), problem };
        let body = Bytes::from(order.to_string());
        let answer = self.client.post(&url, self.headers.clone(), body).await;
        let answer = answer.map_err(|fault| unreachable(chained(&fault)))?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER_LIMIT_BYTES).collect().await;
        let body = body.map_err(|error| unreachable(chained(&*error)))?.to_bytes();
        match status {
            200..=299 => {
                serde_json::from_slice(&body).map_err(|error| unreachable(error.to_string()))
            }
            status => Err(refused(status, &body)),
        }
    }
}

/// What cortex says against an order, with each node's reason where it gives them.
fn refused(status: u16, body: &[u8]) -> Error {
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    let message = said["error"]["message"].as_str();
    let mut problem = message.map_or_else(|| format!("it answered {status}"), str::to_owned);
    for node in said["error"]["nodes"].as_array().map_or(&[][..], Vec::as_slice) {
        let (what, why) = tagged(&node["verdict"]);
        problem += &format!("\n  {}: {what} {why}", word(&node["node"]));
    }
    Error::Refused(problem)
}

/// A variant's name and what it holds, in words for people.
fn tagged(value: &Value) -> (String, String) {
    let Some((name, inner)) = value.as_object().and_then(|map| map.iter().next()) else {
        return (word(value).replace('_', " "), String::new());
    };
    let inner = match inner {
        Value::Object(parts) => {
            let part = |(name, value): (&String, &Value)| format!("{name}={}", word(value));
            parts.iter().map(part).collect::<Vec<_>>().join(" ")
        }
        other => word(other),
    };
    (name.replace('_', " "), inner)
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn list(value: &Value) -> String {
    let items = value.as_array().map_or(&[][..], Vec::as_slice);
    items.iter().map(word).collect::<Vec<_>>().join(", ")
}

fn thousandths(value: &Value) -> String {
    format!("{:.2}", value.as_f64().unwrap_or(0.0) / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_words() {
        let room = json!({"no_room": {"needs_mb": 33, "free_mb": 2, "evictable_mb": 0}});
        let said = ("no room".to_owned(), "needs_mb=33 free_mb=2 evictable_mb=0".to_owned());
        assert_eq!(tagged(&room), said);
        assert_eq!(tagged(&json!("not_allowed")), ("not allowed".to_owned(), String::new()));
        assert_eq!(tagged(&json!({"present": "ready"})), ("present".to_owned(), "ready".into()));
        let body = json!({"error": {"message": "no node can", "nodes": [
            {"node": "a", "verdict": "drained"}
        ]}});
        let said = refused(422, body.to_string().as_bytes()).to_string();
        assert_eq!(said, "no node can\n  a: drained ");
    }
}
