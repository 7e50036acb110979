//! Who gets how many tokens, blocks and state slots in this step.
#![forbid(unsafe_code)]

/// Names a request for as long as it lives; chosen by whoever submits it.
pub type RequestId = u64;
