//! Which memory a node has, what a model takes of it, and which devices it is given.

use control::LoadPlan;

use crate::{Node, Profile};

/// The memory of one GPU; on a host without GPUs, its main memory.
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
        if report.health.devices.is_empty() {
            let host = report.health.host_memory.iter();
            let pool = |host: &control::HostMemory| Pool {
                device: None,
                total_mb: host.total_mb,
                free_mb: host.free_mb,
            };
            return host.map(pool).collect();
        }
        let pool = |device: &control::DeviceHealth| Pool {
            device: Some(device.index),
            total_mb: device.vram_used_mb.saturating_add(device.vram_free_mb),
            free_mb: device.vram_free_mb,
        };
        report.health.devices.iter().map(pool).collect()
    }
}

/// MiB of each rank: by the node's own plan, else by the catalogue's word, else unknown
/// (requirement 76).
pub(crate) fn needs(profile: &Profile, plan: Option<&LoadPlan>) -> Option<Vec<u64>> {
    if let Some(plan) = plan {
        let bytes = plan.ranks.iter().map(|rank| {
            [rank.kv_bytes, rank.state_bytes, rank.workspace_bytes, rank.graph_bytes]
                .into_iter()
                .fold(rank.weight_bytes, u64::saturating_add)
        });
        return Some(bytes.map(|bytes| bytes.div_ceil(1 << 20)).collect());
    }
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
    use control::RankPlan;

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

    // Requirement 76
    #[test]
    fn a_plan_beats_the_catalogue_and_nothing_is_unknown() {
        let profile = Profile { world_size: Some(2), ..Profile::sized("m", 101) };
        assert_eq!(needs(&profile, None), Some(vec![51, 51]));
        let rank = RankPlan { weight_bytes: 1 << 20, kv_bytes: 1, ..RankPlan::default() };
        let plan = LoadPlan { ranks: vec![rank], ..LoadPlan::default() };
        assert_eq!(needs(&profile, Some(&plan)), Some(vec![2]));
        assert_eq!(needs(&Profile { vram_mb: None, ..profile }, None), None);
    }
}
