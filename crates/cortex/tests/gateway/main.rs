//! The gateway against fake neurons, over real sockets on loopback.

mod client;
mod dialects;
mod keys;
mod lists;
mod malformed;
mod refusals;
mod secure;
mod streams;
mod traced;
mod upstreams;
