//! Which cores there are, and binding a thread to one.

/// The processors that this process may use, one of each physical core, in order, and not more than
/// a quota of processor time is worth: two threads of one core share its units, so a kernel gains
/// nothing from the second.
pub fn physical() -> Vec<usize> {
    let quota = std::thread::available_parallelism().map_or(1, usize::from);
    let mut cores = one_of_each(&allowed(quota), siblings);
    cores.truncate(quota);
    cores
}

/// Of `allowed` those whose core has no earlier one. `siblings` gives all of a processor's core.
fn one_of_each(allowed: &[usize], siblings: impl Fn(usize) -> Vec<usize>) -> Vec<usize> {
    let mut cores: Vec<usize> = Vec::new();
    for &processor in allowed {
        if !siblings(processor).iter().any(|sibling| cores.contains(sibling)) {
            cores.push(processor);
        }
    }
    cores
}

/// The processors of a core as the system lists them; without a list the core has one.
fn siblings(processor: usize) -> Vec<usize> {
    let path = format!("/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list");
    let list = std::fs::read_to_string(path).ok();
    let list = list.and_then(|list| parse_list(list.trim()));
    list.unwrap_or_else(|| vec![processor])
}

/// Numbers and ranges, `0,4` or `0-1,8`.
fn parse_list(list: &str) -> Option<Vec<usize>> {
    let mut all = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        all.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(all)
}

#[cfg(target_os = "linux")]
fn allowed(count: usize) -> Vec<usize> {
    use rustix::thread::{CpuSet, sched_getaffinity};
    let set = sched_getaffinity(None);
    let listed = |set: CpuSet| (0..CpuSet::MAX_CPU).filter(|at| set.is_set(*at)).collect();
    set.map_or_else(|_| (0..count).collect(), listed)
}

#[cfg(not(target_os = "linux"))]
fn allowed(count: usize) -> Vec<usize> {
    (0..count).collect()
}

/// Binds the calling thread. Where that fails, the thread goes where the system puts it.
pub(super) fn bind(core: usize) {
    #[cfg(target_os = "linux")]
    {
        let mut set = rustix::thread::CpuSet::new();
        set.set(core);
        let _ = rustix::thread::sched_setaffinity(None, &set);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = core;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_numbers_and_ranges() {
        assert_eq!(parse_list("3"), Some(vec![3]));
        assert_eq!(parse_list("0,4"), Some(vec![0, 4]));
        assert_eq!(parse_list("0-2,9-9"), Some(vec![0, 1, 2, 9]));
        assert_eq!(parse_list("0-"), None);
        assert_eq!(parse_list(""), None);
    }

    /// Two threads a core, numbered both ways that systems number them, and a mask that leaves out
    /// the first thread of a core.
    #[test]
    fn a_core_counts_once() {
        let apart = |at: usize| vec![at % 4, at % 4 + 4];
        let beside = |at: usize| vec![at / 2 * 2, at / 2 * 2 + 1];
        let all: Vec<usize> = (0..8).collect();
        assert_eq!(one_of_each(&all, apart), [0, 1, 2, 3]);
        assert_eq!(one_of_each(&all, beside), [0, 2, 4, 6]);
        assert_eq!(one_of_each(&[1, 5, 6], apart), [1, 6]);
    }

    #[test]
    fn a_bound_thread_stays_on_its_core() {
        let cores = physical();
        assert!(!cores.is_empty());
        let last = cores[cores.len() - 1];
        let there = std::thread::spawn(move || {
            bind(last);
            physical()
        });
        assert_eq!(there.join().expect("the thread ends"), [last]);
    }
}
