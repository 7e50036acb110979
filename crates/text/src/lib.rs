//! Between words and tokens: a conversation becomes a prompt, generated tokens become events.
//!
//! ```text
//! request ─► conversation ─► template ─► tokenizer ─► prompt tokens            (prompt.rs)
//! format, tools ─► grammar of the answer                                      (grammar/)
//! tokens  ─► detokenize ─► reasoning ─► stop ─► tool_call ─► dialog::Event     (stream.rs)
//! ```
//!
//! Nothing here reads a file, a clock or the environment; a daemon passes in what it has read.
#![forbid(unsafe_code)]

mod conversation;
mod detokenize;
mod embedding;
mod error;
mod grammar;
mod guard;
mod model;
mod prompt;
mod python_json;
mod reasoning;
mod stop;
mod stream;
mod template;
mod template_limits;
mod thoughts;
mod tokenizer;
mod tool_call;
mod turns;

pub use detokenize::Detokenizer;
pub use embedding::{EmbeddingForm, EmbeddingPooling};
pub use error::{FormatPart, TextError};
pub use model::{HuggingFaceFiles, TextModel};
pub use prompt::Prepared;
pub use reasoning::{ReasoningMarkers, ReasoningSplitter, Thought};
pub use stop::{StopMatcher, Stopped};
pub use stream::{Scores, StreamOptions, TextStream};
pub use template::{RenderOptions, SpecialTokens, Template};
pub use thoughts::ThoughtLimit;
pub use tokenizer::{Specials, Tokenizer, Vocabulary};
pub use tool_call::{CallForm, Said, ToolCallParser};
pub use turns::{Turn, turn_at};
