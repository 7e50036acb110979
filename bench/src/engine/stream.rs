//! The memory's own speed: how fast all threads together can read a buffer that no cache holds.

use std::time::Instant;

/// Bytes of each thread's buffer.
const BUFFER: usize = 512 << 20;

/// The best of five passes, in GB/s.
pub(super) fn read_bandwidth(threads: usize) -> f64 {
    // Not zero: the system gives zeroed memory as one page that is read from a cache.
    let buffers: Vec<Vec<u64>> = (1..=threads).map(|at| vec![at as u64; BUFFER / 8]).collect();
    let pass = || {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for buffer in &buffers {
                scope.spawn(|| std::hint::black_box(sum(buffer)));
            }
        });
        (threads * BUFFER) as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    (0..5).map(|_| pass()).fold(0.0, f64::max)
}

/// Sixteen partial sums keep enough loads in flight.
fn sum(values: &[u64]) -> u64 {
    let mut partial = [0u64; 16];
    for chunk in values.as_chunks::<16>().0 {
        for (sum, value) in partial.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(*value);
        }
    }
    partial.iter().fold(0, |sum, value| sum.wrapping_add(*value))
}
