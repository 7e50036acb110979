//! What HTTP wants of every request's head, whatever its path.

use crate::ErrorBody;

/// Bytes of a request's target, path and query, at most.
const MOST_TARGET_BYTES: usize = 8 << 10;

/// What is judged of a request's head.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// Bytes of its target, path and query.
    pub target_bytes: usize,
    /// How many `host` headers it has.
    pub hosts: usize,
    /// Whether it is one of HTTP/1.1: later versions name the host elsewhere, earlier ones nowhere.
    pub is_http_11: bool,
}

impl Head {
    /// Why the request is refused, if it is: no proxy and no server could agree on what it means.
    ///
    /// # Errors
    ///
    /// 414 where the target is too long; 400 where there is not one `host` (RFC 9112, section 3.2).
    pub fn check(self) -> Result<(), ErrorBody> {
        if self.target_bytes > MOST_TARGET_BYTES {
            let message = format!("the path and query of a request have {MOST_TARGET_BYTES} bytes");
            let mut error = ErrorBody::invalid_request(format!("{message} at most"));
            (error.status, error.code) = (414, Some("uri_too_long"));
            return Err(error);
        }
        if self.hosts > 1 || self.hosts == 0 && self.is_http_11 {
            let message = "a request of HTTP/1.1 has one `host` header: send exactly one";
            let mut error = ErrorBody::invalid_request(message);
            error.code = Some("bad_host");
            return Err(error);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(target_bytes: usize, hosts: usize, is_http_11: bool) -> Option<u16> {
        Head { target_bytes, hosts, is_http_11 }.check().err().map(|error| error.status)
    }

    // robustness 11 and 19
    #[test]
    fn one_host_and_a_target_of_a_sane_length() {
        assert_eq!(status(1, 1, true), None);
        assert_eq!(status(1, 0, true), Some(400));
        assert_eq!(status(1, 2, true), Some(400));
        assert_eq!(status(1, 0, false), None);
        assert_eq!(status(1, 2, false), Some(400));
        assert_eq!(status(8192, 1, true), None);
        assert_eq!(status(8193, 1, true), Some(414));
    }
}
