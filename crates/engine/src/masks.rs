//! The masks of a step's rows, made while the step is computed.

use std::collections::HashMap;

use kernels::sample::TokenMask;

use crate::contract::RequestId;
use crate::live::LiveRequest;

/// Threads that make masks at once.
const THREADS: usize = 4;

/// Does `work` and makes the masks of these requests in the meantime; `None` for those without a
/// grammar. The masks are in the requests' order.
pub(crate) fn meanwhile<T>(
    live: &mut HashMap<RequestId, LiveRequest>,
    requests: &[RequestId],
    work: impl FnOnce() -> T,
) -> (T, Vec<Option<TokenMask>>) {
    let mut masks = vec![None; requests.len()];
    let place: HashMap<RequestId, usize> =
        requests.iter().enumerate().map(|(at, id)| (*id, at)).collect();
    let mut wanted: Vec<(usize, &mut LiveRequest)> = live
        .iter_mut()
        .filter(|(_, live)| live.grammar.is_some())
        .filter_map(|(id, live)| Some((*place.get(id)?, live)))
        .collect();
    if wanted.is_empty() {
        return (work(), masks);
    }
    let share = wanted.len().div_ceil(THREADS);
    let (done, made) = std::thread::scope(|scope| {
        let threads: Vec<_> = wanted
            .chunks_mut(share)
            .map(|share| scope.spawn(|| share.iter_mut().map(made).collect::<Vec<_>>()))
            .collect();
        let done = work();
        let joined = |thread: std::thread::ScopedJoinHandle<'_, Vec<(usize, TokenMask)>>| {
            // A mask that panics has left its grammar in no state to go on from.
            thread.join().expect("masks are made without panics")
        };
        (done, threads.into_iter().flat_map(joined).collect::<Vec<_>>())
    });
    for (at, mask) in made {
        masks[at] = Some(mask);
    }
    (done, masks)
}

fn made((at, live): &mut (usize, &mut LiveRequest)) -> (usize, TokenMask) {
    let LiveRequest { sampler, grammar, .. } = &mut **live;
    let grammar = grammar.as_mut().expect("only requests with a grammar are asked");
    (*at, grammar.mask(sampler.stop_tokens()))
}
