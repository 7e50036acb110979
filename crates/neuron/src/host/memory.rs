//! Main memory that a new engine could have: what the host has free, and what the control groups
//! of this process leave.

use std::fs;
use std::path::{Path, PathBuf};

use crate::host::discover;

/// Where control groups are mounted.
const GROUPS: &str = "/sys/fs/cgroup";

/// Bytes that a process beside this one could take before something is swapped out or killed.
pub(crate) fn available_bytes() -> Option<u64> {
    let of_groups = fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|membership| left_by_groups(&membership, Path::new(GROUPS)));
    discover::available_memory_bytes().into_iter().chain(of_groups).min()
}

/// The files of one version of control groups.
struct Version {
    directory: &'static str,
    limit: &'static str,
    usage: &'static str,
    /// Lines of `memory.stat`: file pages, which the kernel takes back when it needs them.
    file_pages: [&'static str; 2],
}

const V1: Version = Version {
    directory: "memory",
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    file_pages: ["total_inactive_file", "total_active_file"],
};

const V2: Version = Version {
    directory: "",
    limit: "memory.max",
    usage: "memory.current",
    file_pages: ["inactive_file", "active_file"],
};

/// The least that any group leaves in which this process is; none if no group has a limit.
fn left_by_groups(membership: &str, root: &Path) -> Option<u64> {
    let lines = membership.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let version = match controllers {
            "" => V2,
            list if list.split(',').any(|controller| controller == "memory") => V1,
            _ => return None,
        };
        Some((version, path))
    });
    let left = lines.flat_map(|(version, path)| {
        let top = root.join(version.directory);
        // In a container the path may be that of the host, of which nothing is seen here but the
        // top: groups that are not there are skipped.
        let group = top.join(path.trim_start_matches('/'));
        let groups: Vec<PathBuf> =
            group.ancestors().take_while(|group| group.starts_with(&top)).map(Into::into).collect();
        groups.into_iter().filter_map(move |group| left_by(&version, &group))
    });
    left.min()
}

fn left_by(version: &Version, group: &Path) -> Option<u64> {
    let read = |file| fs::read_to_string(group.join(file)).ok();
    let number = |file| read(file)?.trim().parse::<u64>().ok();
    // `max`, which is no number, means no limit.
    let limit = number(version.limit)?;
    let stat = read("memory.stat").unwrap_or_default();
    let file_pages: u64 = stat
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| version.file_pages.contains(name))
        .filter_map(|(_, value)| value.trim().parse::<u64>().ok())
        .sum();
    let taken = number(version.usage).unwrap_or(0).saturating_sub(file_pages);
    Some(limit.saturating_sub(taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(root: &Path, path: &str, files: &[(&str, &str)]) {
        let directory = root.join(path);
        fs::create_dir_all(&directory).unwrap();
        for (name, text) in files {
            fs::write(directory.join(name), text).unwrap();
        }
    }

    #[test]
    fn the_tightest_group_counts_and_file_pages_are_free() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let stat = "anon 1\ninactive_file 200\nactive_file 30\nshmem 9\n";
        group(root, "a", &[("memory.max", "1000\n"), ("memory.current", "900\n")]);
        group(root, "a/b", &[("memory.max", "max\n"), ("memory.current", "5\n")]);
        assert_eq!(left_by_groups("0::/a/b\n", root), Some(100));
        group(root, "a", &[("memory.stat", stat)]);
        assert_eq!(left_by_groups("0::/a/b\n", root), Some(330));
        group(root, "a/b", &[("memory.max", "20\n")]);
        assert_eq!(left_by_groups("0::/a/b\n", root), Some(15));
        assert_eq!(left_by_groups("0::/\n", root), None);
        // A path that only the host can see.
        group(root, "", &[("memory.max", "70\n")]);
        assert_eq!(left_by_groups("0::/../elsewhere\n", root), Some(70));
    }

    #[test]
    fn the_older_version_is_read_too() {
        let root = tempfile::tempdir().unwrap();
        let files = [
            ("memory.limit_in_bytes", "500"),
            ("memory.usage_in_bytes", "450"),
            ("memory.stat", "inactive_file 1\ntotal_inactive_file 20\ntotal_active_file 5\n"),
        ];
        group(root.path(), "memory/x", &files);
        let membership = "5:cpu,cpuacct:/x\n4:hugetlb,memory:/x\n1:name=systemd:/x\n";
        assert_eq!(left_by_groups(membership, root.path()), Some(75));
        // Over its limit: nothing is left, rather than an overflow.
        group(root.path(), "memory/x", &[("memory.usage_in_bytes", "9999")]);
        assert_eq!(left_by_groups(membership, root.path()), Some(0));
    }

    #[test]
    fn this_host_has_some_memory_left() {
        let left = available_bytes().expect("Linux tells");
        assert!(left > 0 && left <= discover::available_memory_bytes().unwrap() * 2);
    }
}
