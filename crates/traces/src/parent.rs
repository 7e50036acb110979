//! The `traceparent` header.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};

/// Its name.
pub const HEADER: &str = "traceparent";

/// The span that a request belongs to elsewhere.
#[derive(Clone, Debug)]
pub struct Parent(SpanContext);

impl Parent {
    /// Reads the header; `None` when it says nothing that can be used.
    #[must_use]
    pub fn read(header: &str) -> Option<Parent> {
        let mut parts = header.trim().split('-');
        let (version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
        let flags = parts.next()?;
        let is_hex = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        // Later versions may have more behind these four, the first has not.
        let is_known = version == "00" && parts.next().is_none();
        let is_later = is_hex(version, 2) && version != "00" && version != "ff";
        if !(is_known || is_later) || !is_hex(trace, 32) || !is_hex(span, 16) || !is_hex(flags, 2) {
            return None;
        }
        let flags = u8::from_str_radix(flags, 16).ok()?;
        let context = SpanContext::new(
            TraceId::from_hex(trace).ok()?,
            SpanId::from_hex(span).ok()?,
            TraceFlags::new(flags) & TraceFlags::SAMPLED,
            true,
            TraceState::default(),
        );
        context.is_valid().then_some(Parent(context))
    }

    pub(crate) fn context(&self) -> Context {
        Context::new().with_remote_span_context(self.0.clone())
    }
}

pub(crate) fn write(context: &SpanContext) -> String {
    let flags = u8::from(context.is_sampled());
    format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_header_is_read_and_written() {
        let parent = Parent::read(GOOD).expect("good");
        assert_eq!(write(&parent.0), GOOD);
        let later = GOOD.replacen("00", "cc", 1) + "-what-comes";
        assert_eq!(write(&Parent::read(&later).expect("good").0), GOOD);
    }

    #[test]
    fn what_is_no_header_of_the_standard_is_ignored() {
        for bad in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        ] {
            assert!(Parent::read(bad).is_none(), "{bad}");
        }
    }
}
