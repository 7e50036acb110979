//! `cortex top`: the fleet on a terminal, live.

mod draw;

use std::path::Path;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use crate::Error;
use crate::config::Gateway;
use crate::forward::Client;
use crate::view::FleetView;

/// From one look to the next.
const PACE: Duration = Duration::from_secs(1);

/// What is known of the fleet, and what went wrong last.
enum Seen {
    Fleet(Box<FleetView>),
    Nothing(String),
}

/// Shows the cortex whose metrics listener is at `url` until `q` is pressed. `key_file` holds a key
/// with the scope `admin`, where one is asked for.
///
/// # Errors
/// [`Error::Print`] when this is no terminal, [`Error::Config`] when the key cannot be read.
pub async fn show_top(url: &str, key_file: Option<&Path>) -> Result<(), Error> {
    let url = format!("{}/admin/fleet", url.trim_end_matches('/'));
    let mut client = Client::new(&Gateway::default());
    if let Some(path) = key_file {
        client = client.with_key(&url, path)?;
    }
    let mut terminal = ratatui::try_init()?;
    let shown = run(&mut terminal, &client, &url).await;
    ratatui::restore();
    shown
}

async fn run(
    terminal: &mut ratatui::DefaultTerminal,
    client: &Client,
    url: &str,
) -> Result<(), Error> {
    loop {
        let seen = look(client, url).await;
        terminal.draw(|frame| draw::draw(frame, &seen, url))?;
        // Keys are waited for on a thread of their own: that wait blocks.
        let asked = tokio::task::spawn_blocking(wants_to_leave).await;
        if asked.map_err(std::io::Error::other)?? {
            return Ok(());
        }
    }
}

async fn look(client: &Client, url: &str) -> Seen {
    match client.get(url).await {
        Ok((200, body)) => match serde_json::from_slice(&body) {
            Ok(fleet) => Seen::Fleet(Box::new(fleet)),
            Err(error) => Seen::Nothing(format!("{url} answered something else: {error}")),
        },
        Ok((401 | 403, _)) => {
            Seen::Nothing("a key with the scope admin is needed: --key-file".to_owned())
        }
        Ok((status, _)) => Seen::Nothing(format!("{url} answered {status}")),
        Err(problem) => Seen::Nothing(format!("no answer: {problem}")),
    }
}

/// Waits for a key, no longer than the pace.
fn wants_to_leave() -> std::io::Result<bool> {
    if !event::poll(PACE)? {
        return Ok(false);
    }
    let Event::Key(key) = event::read()? else { return Ok(false) };
    let is_break = key.code == KeyCode::Char('c') && key.modifiers == KeyModifiers::CONTROL;
    let leaves = matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) || is_break;
    Ok(leaves && key.kind == KeyEventKind::Press)
}
