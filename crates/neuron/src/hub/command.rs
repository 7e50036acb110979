//! `neuron pull`.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;

use super::choose::in_words;
use super::{Ask, Event, Hub, Patience, Pulled, RepoName, Settings, pull};
use crate::config::Config;

/// From one line of progress to the next.
const ON_A_TERMINAL: Duration = Duration::from_millis(200);
const IN_A_LOG: Duration = Duration::from_secs(15);

/// Fetch a model of the Hugging Face hub into a models directory.
///
/// Of a repository with safetensors: the weights, config.json, and the files of tokenizer and chat
/// template. Of one with GGUF files: the one that --quant or --file names, with all of its parts.
/// Every file is checked against the hub's size and hash before it gets its name. A pull that was
/// cut off goes on where it ended, and one of a model that is there only looks whether the hub has
/// a newer one.
///
/// The environment variables of the hub's other tools count: HF_TOKEN, HF_TOKEN_PATH and HF_HOME
/// for models that are gated or private, HF_ENDPOINT for another hub, HF_HUB_OFFLINE, and
/// HTTPS_PROXY.
#[derive(Args)]
#[command(after_help = "Examples:
  neuron pull Qwen/Qwen3-8B
  neuron pull Qwen/Qwen3-8B-GGUF --quant Q4_K_M --into /srv/models
  neuron pull ORG/NAME@v1.0 --file '*Q6_K*.gguf'")]
pub struct Pull {
    /// The repository, ORG/NAME, and after an @ a branch, a tag or a commit of it.
    #[arg(value_name = "REPO[@REVISION]")]
    repo: String,
    /// A file of the repository, or a pattern such as '*Q4_K_M*.gguf'.
    #[arg(long, value_name = "NAME_OR_GLOB")]
    file: Option<String>,
    /// The weights' format, for example Q4_K_M: which of several GGUF files, or what the load shall
    /// make of float weights.
    #[arg(long)]
    quant: Option<String>,
    /// The models directory, below which the model lies in REPO; the first of `model_dirs` by
    /// default.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Ask nothing of the network, only say whether the model is there.
    #[arg(long)]
    offline: bool,
    /// The configuration file; /etc/neuron/neuron.toml by default, if it is there.
    #[arg(long, short)]
    config: Option<PathBuf>,
}

impl Pull {
    /// Fetches, tells of it on standard error, and ends with the path on standard output.
    ///
    /// # Errors
    ///
    /// In words for whoever typed the command.
    pub fn run(self) -> anyhow::Result<()> {
        let name: RepoName = self.repo.parse()?;
        let dir = match &self.into {
            Some(dir) => dir.clone(),
            None => {
                let config = Config::load(self.config.as_deref())?;
                let first = config.model_dirs.into_iter().next();
                first.context(
                    "the configuration names no `model_dirs`: name a directory with --into, for \
                     example --into /srv/models",
                )?
            }
        };
        let mut settings = Settings::from_environment()?;
        settings.offline |= self.offline;
        let hub = Hub::new(settings, Patience::default())?;
        let ask = Ask { name, file: self.file, quant: self.quant };
        let dir = dir.join(&ask.name.repo);
        let mut told = Told::new();
        let pulled = pull(&hub, &ask, &dir, &mut |event| told.tell(event));
        told.end_line();
        let pulled = pulled?;
        if pulled.fetched == 0 {
            told.line(&format!("all of it was there; commit {}", pulled.commit));
        }
        write!(io::stdout(), "{}", in_the_end(&pulled, ask.quant.as_deref()))?;
        Ok(())
    }
}

/// The path alone on its line, then what to do with it.
fn in_the_end(pulled: &Pulled, quant: Option<&str>) -> String {
    let Some(source) = &pulled.source else { return format!("{}\n", pulled.dir.display()) };
    let quant = quant.filter(|_| pulled.is_float);
    let quant = quant.map_or_else(String::new, |quant| format!(" --quant {quant}"));
    let source = source.display();
    format!("{source}\ntry next: neuron plan {source}{quant}\n")
}

/// One line that is written over on a terminal, a line now and then elsewhere.
struct Told {
    is_terminal: bool,
    file: String,
    /// Bytes of the file: on the disk, and all of them.
    done: u64,
    size: u64,
    /// Of the connection that is open.
    since: Instant,
    came: u64,
    last: Instant,
    is_open: bool,
}

impl Told {
    fn new() -> Self {
        let (is_terminal, now) = (io::stderr().is_terminal(), Instant::now());
        let file = String::new();
        Self { is_terminal, file, done: 0, size: 0, since: now, came: 0, last: now, is_open: false }
    }

    fn tell(&mut self, event: Event<'_>) {
        match event {
            Event::Planned { files, bytes } => {
                let word = if files == 1 { "file" } else { "files" };
                self.line(&format!("{files} {word} to fetch, {}", in_words(bytes)));
            }
            Event::Started { path, size, from } => {
                (self.file, self.done, self.size) = (path.to_owned(), from, size);
                (self.since, self.came) = (Instant::now(), 0);
                if from > 0 {
                    self.line(&format!(
                        "{path}: goes on at {} of {}",
                        in_words(from),
                        in_words(size)
                    ));
                }
            }
            Event::Advanced(bytes) => {
                self.done += bytes;
                self.came += bytes;
                let pace = if self.is_terminal { ON_A_TERMINAL } else { IN_A_LOG };
                if self.last.elapsed() >= pace {
                    self.last = Instant::now();
                    self.progress();
                }
            }
            Event::Finished { path } => {
                self.line(&format!("{path}: {}, hash as announced", in_words(self.size)));
            }
            Event::Waiting { why, delay } => {
                self.line(&format!("{why}; again in {:.1} s", delay.as_secs_f64()));
            }
            Event::Note(text) => self.line(text),
        }
    }

    fn progress(&mut self) {
        let rate = self.came as f64 / self.since.elapsed().as_secs_f64().max(0.001);
        let left = (self.size.saturating_sub(self.done)) as f64 / rate.max(1.0);
        let share = self.done as f64 * 100.0 / self.size.max(1) as f64;
        let text = format!(
            "{}: {share:.0} % of {}, {}/s, {} left",
            self.file,
            in_words(self.size),
            in_words(rate as u64),
            minutes(left as u64),
        );
        if self.is_terminal {
            // Clears what a longer line left.
            let _ = write!(io::stderr(), "\r{text}\x1b[K");
            self.is_open = true;
        } else {
            self.line(&text);
        }
    }

    fn line(&mut self, text: &str) {
        let clear = if self.is_open { "\r\x1b[K" } else { "" };
        let _ = writeln!(io::stderr(), "{clear}{text}");
        self.is_open = false;
    }

    fn end_line(&mut self) {
        if self.is_open {
            let _ = writeln!(io::stderr());
            self.is_open = false;
        }
    }
}

fn minutes(seconds: u64) -> String {
    match seconds {
        0..100 => format!("{seconds} s"),
        100..6_000 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}
