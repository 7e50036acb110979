//! Norms on a card are parts of other kernels: linear layers norm what they multiply, and the
//! rotation its heads.

/// Threads of a block that norms so many columns: a whole number of warps, at most a block.
pub(crate) fn threads(cols: usize) -> u32 {
    (cols.next_multiple_of(32) as u32).min(1024)
}

#[cfg(test)]
mod tests {
    use super::threads;

    #[test]
    fn threads_are_whole_warps() {
        assert_eq!([1, 33, 5120].map(threads), [32, 64, 1024]);
    }
}
