//! Which memory a node has, what a model takes of it, and which devices it is given.

use control::LoadPlan;

use crate::{Node, Profile};

/// The memory of one GPU; on a host whose models run on the CPU, its main memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// None for main memory.
    pub device: Option<u32>,
    /// All of it.
    pub total_mb: u64,
    /// What nobody has.
    pub free_mb: u64,
}

impl Node {
    /// Memory that models can be given, as last reported.
    #[must_use]
    pub fn pools(&self) -> Vec<Pool> {
        let Some(report) = &self.report else { return Vec::new() };
        if let Some(host) = &report.health.host_memory {
            return vec![Pool { device: None, total_mb: host.total_mb, free_mb: host.free_mb }];
        }
        let pool = |device: &control::DeviceHealth| Pool {
            device: Some(device.index),
            total_mb: device.vram_used_mb.saturating_add(device.vram_free_mb),
            free_mb: device.vram_free_mb,
        };
        report.health.devices.iter().map(pool).collect()
    }
}

/// MiB of each rank by a node's plan.
pub(crate) fn planned(plan: &LoadPlan) -> Vec<u64> {
    let bytes = plan.ranks.iter().map(|rank| {
        [rank.kv_bytes, rank.state_bytes, rank.workspace_bytes, rank.graph_bytes]
            .into_iter()
            .fold(rank.weight_bytes, u64::saturating_add)
    });
    let mut mb: Vec<u64> = bytes.map(|bytes| bytes.div_ceil(1 << 20)).collect();
    // On the CPU the prefix cache's host tier fills the same memory as the rest.
    if let (true, Some(first)) = (plan.is_on_host, mb.first_mut()) {
        *first = first.saturating_add(plan.host_cache_bytes.div_ceil(1 << 20));
    }
    mb
}

/// MiB of each rank by the catalogue's word.
pub(crate) fn declared(profile: &Profile) -> Option<Vec<u64>> {
    let ranks = profile.ranks();
    profile.vram_mb.map(|all| vec![all.div_ceil(ranks as u64); ranks])
}

/// The pools that take the ranks, by their places; none when they do not fit.
///
/// The largest rank chooses first, and takes the fullest pool that still has room for it, so that
/// large gaps stay whole.
pub(crate) fn assign(pools: &[Pool], needs: &[u64]) -> Option<Vec<usize>> {
    let mut ranks: Vec<usize> = (0..needs.len()).collect();
    ranks.sort_by_key(|rank| std::cmp::Reverse(needs[*rank]));
    let mut taken = vec![None; needs.len()];
    for rank in ranks {
        let fits =
            |place: &usize| pools[*place].free_mb >= needs[rank] && !taken.contains(&Some(*place));
        taken[rank] = (0..pools.len()).filter(fits).min_by_key(|place| pools[*place].free_mb);
        taken[rank]?;
    }
    taken.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools(free: &[u64]) -> Vec<Pool> {
        let device = |(index, free_mb): (usize, &u64)| Pool {
            device: Some(index as u32),
            total_mb: 100,
            free_mb: *free_mb,
        };
        free.iter().enumerate().map(device).collect()
    }

    #[test]
    fn ranks_take_the_tightest_devices_that_hold_them() {
        assert_eq!(assign(&pools(&[50, 20, 30]), &[25]), Some(vec![2]));
        assert_eq!(assign(&pools(&[50, 20, 30]), &[10, 40]), Some(vec![1, 0]));
        assert_eq!(assign(&pools(&[50, 20, 30]), &[25, 25]), Some(vec![2, 0]));
        assert_eq!(assign(&pools(&[50]), &[25, 25]), None, "one device is one rank's");
        assert_eq!(assign(&pools(&[50, 20]), &[25, 25]), None);
    }
}
