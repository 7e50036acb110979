//! Whether a node that has fallen silent still lives: one look at a time for each node, whoever
//! wants to know.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::app::App;

/// An answer is good for all who ask so shortly after.
const FRESH: Duration = Duration::from_millis(300);

/// The last look at each node, by its place.
#[derive(Default)]
pub(crate) struct Probes {
    nodes: Mutex<HashMap<usize, Arc<Last>>>,
}

#[derive(Default)]
struct Last(tokio::sync::Mutex<Option<(Instant, bool)>>);

impl App {
    /// Whether the node answers within the time that the configuration gives it.
    pub(crate) async fn is_alive(&self, place: usize) -> bool {
        let last = {
            let mut nodes = self.probes.nodes.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(nodes.entry(place).or_default())
        };
        let mut last = last.0.lock().await;
        if let Some((at, is_alive)) = *last
            && at.elapsed() < FRESH
        {
            return is_alive;
        }
        let endpoint = self.fleet.load().nodes.get(place).map(|node| node.endpoint.clone());
        let Some(endpoint) = endpoint else { return false };
        let limit = Duration::from_millis(self.settings.load().config.gateway.probe_timeout_ms);
        let answer = timeout(limit, self.client.get(&format!("{endpoint}/health"))).await;
        // A node that shuts down answers 503 and lives.
        let is_alive = matches!(answer, Ok(Ok((200 | 503, _))));
        *last = Some((Instant::now(), is_alive));
        is_alive
    }
}
