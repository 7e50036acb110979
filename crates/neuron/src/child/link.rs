//! Frames between the daemon and an engine child.
//!
//! A frame is a `u32` length, little-endian, and that many bytes of postcard. Both ends run the
//! same binary, so the encoding needs no version. The limit keeps a broken peer from making the
//! other end allocate without bound; the largest honest frame is a prompt, at most five bytes a
//! token.

use std::io::{self, Read, Write};

use engine::{
    EngineInfo, EngineSpec, Gauges, Refusal, RequestId, StepReport, TokenRequest, Vocabulary,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};

pub use crate::child::load_failure::{LoadCode, LoadDetails, LoadFailure};

/// Bytes that the body of a frame may have.
pub const MAX_FRAME_BYTES: usize = 32 << 20;

/// What the daemon tells an engine child.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToChild {
    /// Sent once, before anything else.
    Load(EngineSpec),
    /// Sent once, right behind it: what the model's tokens spell.
    Vocabulary(Vocabulary),
    /// One generation to begin.
    Submit(TokenRequest),
    /// A generation that nobody waits for any more.
    Abort(RequestId),
    /// End now.
    Shutdown,
}

/// What an engine child tells the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromChild {
    /// How far the load has come.
    Progress {
        /// Bytes of weights in place.
        done_bytes: u64,
        /// Bytes of weights in all.
        total_bytes: u64,
    },
    /// The load is done.
    Ready(EngineInfo),
    /// The load is given up; trying again would fail the same way.
    LoadFailed(LoadFailure),
    /// The request stands in the engine's line, and no check can refuse it any more.
    Accepted(RequestId),
    /// The request was not taken.
    Refused {
        /// The request.
        id: RequestId,
        /// Why.
        refusal: Refusal,
    },
    /// One step, for everybody who took part.
    Step(StepReport),
    /// The gauges once an abort has left nothing to do; no step follows that would carry them.
    Idle(Gauges),
    /// The engine cannot go on; the child ends after this frame.
    Fault {
        /// For the daemon's log.
        message: String,
    },
}

/// Why the link cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The peer is gone or the socket failed.
    #[error("engine link: {0}")]
    Io(#[from] io::Error),
    /// The peer does not speak this protocol.
    #[error("engine link: {0}")]
    Corrupt(#[from] postcard::Error),
    /// A frame is over [`MAX_FRAME_BYTES`].
    #[error("engine link: frame of {bytes} bytes, the limit is {MAX_FRAME_BYTES}")]
    TooLarge {
        /// The frame's length.
        bytes: usize,
    },
}

/// One frame, ready for the socket.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, LinkError> {
    let mut frame = postcard::to_extend(message, vec![0; 4])?;
    let bytes = frame.len() - 4;
    if bytes > MAX_FRAME_BYTES {
        return Err(LinkError::TooLarge { bytes });
    }
    frame[..4].copy_from_slice(&(bytes as u32).to_le_bytes());
    Ok(frame)
}

/// Writes one frame; the child's side.
pub fn write_frame<T: Serialize>(to: &mut impl Write, message: &T) -> Result<(), LinkError> {
    Ok(to.write_all(&encode(message)?)?)
}

/// Reads one frame; `None` when the peer is gone. The child's side.
pub fn read_frame<T: DeserializeOwned>(from: &mut impl Read) -> Result<Option<T>, LinkError> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let mut body = vec![0; checked_length(length)?];
    from.read_exact(&mut body)?;
    Ok(Some(postcard::from_bytes(&body)?))
}

/// Reads one frame; `None` when the child is gone. The daemon's side.
///
/// Not cancel-safe: a dropped call may have taken half a frame with it.
pub async fn read_frame_async<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
) -> Result<Option<T>, LinkError> {
    let mut length = [0; 4];
    match from.read_exact(&mut length).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let mut body = vec![0; checked_length(length)?];
    from.read_exact(&mut body).await?;
    Ok(Some(postcard::from_bytes(&body)?))
}

fn checked_length(length: [u8; 4]) -> Result<usize, LinkError> {
    let bytes = u32::from_le_bytes(length) as usize;
    if bytes > MAX_FRAME_BYTES { Err(LinkError::TooLarge { bytes }) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use engine::{End, Sampling, Settled, Started, TokenLogprobs, TokenUpdate};
    use proptest::prelude::*;

    use super::*;

    fn request() -> impl Strategy<Value = TokenRequest> {
        let biases = prop::collection::vec((any::<u32>(), -100f32..100.0), 0..4);
        let lists = (prop::collection::vec(any::<u32>(), 1..200), biases);
        (any::<u64>(), lists, 0f32..2.0, any::<u64>(), any::<u32>()).prop_map(
            |(id, (prompt, logit_bias), temperature, seed, max_tokens)| TokenRequest {
                id,
                prompt,
                answered: vec![3, 4],
                sampling: Sampling { temperature, seed, logit_bias, ..Sampling::greedy() },
                max_tokens,
                min_tokens: 0,
                stop_tokens: vec![2, 7],
                boundaries: vec![1, 9],
                isolation: seed,
                top_logprobs: Some(id as u8),
                grammar: Some(engine::Grammar("start: \"é\"".into())),
                part_limit: Some(engine::PartLimit {
                    open: None,
                    close: 3,
                    most: max_tokens,
                    ending: vec![3],
                }),
                pooling: Some(engine::Pooling::Mean),
            },
        )
    }

    fn to_child() -> impl Strategy<Value = ToChild> {
        prop_oneof![
            "[a-z/é]{0,20}".prop_map(|source| ToChild::Load(EngineSpec::new(source))),
            request().prop_map(ToChild::Submit),
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 0..9)
                .prop_map(|bytes| ToChild::Vocabulary(Vocabulary { bytes, specials: vec![1, 5] })),
            any::<u64>().prop_map(ToChild::Abort),
            Just(ToChild::Shutdown),
        ]
    }

    fn step() -> impl Strategy<Value = StepReport> {
        let end = prop_oneof![
            Just(None),
            Just(Some(End::Stop)),
            Just(Some(End::Length)),
            Just(Some(End::NotFinite)),
            Just(Some(End::Grammar)),
        ];
        let update = (any::<u64>(), prop::collection::vec(any::<u32>(), 0..5), end).prop_map(
            |(id, tokens, end)| {
                let logprobs = vec![TokenLogprobs { chosen: -1.5, top: vec![(7, -0.5)] }];
                TokenUpdate { id, tokens, logprobs, end }
            },
        );
        (prop::collection::vec(update, 0..20), any::<u32>(), any::<u64>()).prop_map(
            |(updates, running, step_micros)| StepReport {
                settled: vec![Settled { id: step_micros, refusal: None }],
                started: updates
                    .iter()
                    .map(|update| Started { id: update.id, cached_tokens: 5, diverged_at: Some(7) })
                    .collect(),
                updates,
                embeddings: vec![engine::Embedding { id: 3, values: vec![0.5, -1.0] }],
                step_micros,
                gauges: Gauges { running, ..Gauges::default() },
                ..StepReport::default()
            },
        )
    }

    proptest! {
        #[test]
        fn frames_to_the_child_come_out_as_they_went_in(
            messages in prop::collection::vec(to_child(), 0..10)
        ) {
            let mut bytes = Vec::new();
            for message in &messages {
                write_frame(&mut bytes, message).unwrap();
            }
            let mut from = Cursor::new(bytes);
            for message in &messages {
                prop_assert_eq!(&read_frame::<ToChild>(&mut from).unwrap().unwrap(), message);
            }
            prop_assert!(read_frame::<ToChild>(&mut from).unwrap().is_none());
        }

        #[test]
        fn steps_survive_any_split_of_the_stream(report in step(), chunk in 1usize..9) {
            let frame = encode(&FromChild::Step(report.clone())).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (mut near, mut far) = tokio::io::duplex(chunk);
            let read = runtime.block_on(async {
                let writer = async {
                    tokio::io::AsyncWriteExt::write_all(&mut near, &frame).await.unwrap();
                };
                let (_, read) = tokio::join!(writer, read_frame_async::<FromChild>(&mut far));
                read.unwrap().unwrap()
            });
            prop_assert_eq!(read, FromChild::Step(report));
        }

        #[test]
        fn noise_is_an_error_or_a_message_but_never_a_panic(
            noise in prop::collection::vec(any::<u8>(), 0..64)
        ) {
            let mut bytes = (noise.len() as u32).to_le_bytes().to_vec();
            bytes.extend(noise);
            let _ = read_frame::<ToChild>(&mut Cursor::new(&bytes));
            let _ = read_frame::<FromChild>(&mut Cursor::new(&bytes));
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_memory_is_taken() {
        let error = read_frame::<ToChild>(&mut Cursor::new(u32::MAX.to_le_bytes())).unwrap_err();
        assert!(matches!(error, LinkError::TooLarge { bytes } if bytes == u32::MAX as usize));
    }

    #[test]
    fn a_frame_cut_short_is_an_error_not_an_end() {
        let mut frame = encode(&ToChild::Abort(7)).unwrap();
        frame.pop();
        assert!(matches!(read_frame::<ToChild>(&mut Cursor::new(frame)), Err(LinkError::Io(_))));
    }
}
