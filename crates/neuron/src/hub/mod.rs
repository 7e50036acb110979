//! Models from the Hugging Face hub, or from whatever speaks its HTTP interface.
//!
//! ```text
//! command ─► pull ─► client   one look at the repository, then one request a file
//!                ├─► choose   which of its files a load needs; pure
//!                ├─► file     a partial file, its hash, its final name
//!                └─► receipt  what is there already, so that nothing is asked twice
//! ```
//!
//! The protocol is two requests: `GET /api/models/REPO/revision/REV?blobs=true` names the commit
//! and the files with sizes and hashes, `GET /REPO/resolve/COMMIT/FILE` sends one on to where its
//! bytes are. What makes a pull safe lies around them, so this stands on a plain HTTP client,
//! `ureq`, which the program has anyhow for its traces: it blocks, which suits a thread that
//! writes to a disk, has a limit on each read, and leaves redirects to the caller, which has to
//! see the first answer's headers and to decide who is told the token. The crate `hf-hub` keeps a
//! cache of links in a layout of its own, checks no hash and brings a second HTTP client with a
//! cryptography library in C; `reqwest` would be that second client. TLS is rustls with ring and
//! the certificates of the system, so that a company's own authority is trusted where the system
//! trusts it (`SSL_CERT_FILE` is honoured).
//!
//! Everything here blocks. Ending the process at any moment leaves a state from which the next
//! pull goes on: nothing has its final name before it is whole, and that its hash is right.

mod choose;
mod client;
mod command;
mod endpoint;
mod error;
mod file;
mod listing;
mod name;
mod pull;
mod receipt;
mod watch;

pub use client::{Hub, Patience};
pub use command::Pull;
pub use endpoint::{Settings, Token};
pub use error::PullError;
pub use name::RepoName;
pub use pull::{Ask, Pulled, pull};
pub use watch::Event;
