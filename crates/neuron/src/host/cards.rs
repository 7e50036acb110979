//! The NVIDIA cards of this host, as NVIDIA's management library tells of them.
//!
//! The library is opened at run time; a host without it has no cards, and that is no error. Asking
//! it opens no device, so the daemon never holds a card.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::LazyLock;

use control::{Device, DeviceHealth};
use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;

/// The library's name where no development package is installed.
const LIBRARY: &str = "libnvidia-ml.so.1";

static NVML: LazyLock<Result<Nvml, NvmlError>> =
    LazyLock::new(|| Nvml::builder().lib_path(OsStr::new(LIBRARY)).init());

/// What the driver and the cards say of themselves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cards {
    /// The highest CUDA version that the driver supports.
    pub cuda_version: Option<String>,
    /// The driver's version.
    pub driver_version: Option<String>,
    /// The cards.
    pub devices: Vec<Device>,
    /// Why this program uses none of them, in words.
    pub unused_because: Option<String>,
}

/// Looks at the cards. Nothing here can fail: what is not known is left empty.
pub fn look() -> Cards {
    let nvml = match &*NVML {
        Ok(nvml) => nvml,
        Err(error) => {
            let reason = format!("the NVIDIA management library cannot be used: {error}");
            return Cards { unused_because: Some(reason), ..Cards::default() };
        }
    };
    let version = |version: i32| format!("{}.{}", version / 1000, version % 1000 / 10);
    let devices: Vec<Device> = indices(nvml).filter_map(|index| device(nvml, index).ok()).collect();
    let unused_because = match devices.is_empty() {
        true => Some("the driver knows no card".to_owned()),
        false if kernels::cuda::BUILT_IN => None,
        false => Some("this build of neuron has no CUDA support".to_owned()),
    };
    Cards {
        cuda_version: nvml.sys_cuda_driver_version().ok().map(version),
        driver_version: nvml.sys_driver_version().ok(),
        devices,
        unused_because,
    }
}

/// The cards' gauges. The driver is asked, which may take its time or never answer: not for a
/// thread that others wait for.
pub(crate) fn health() -> Vec<DeviceHealth> {
    let Ok(nvml) = &*NVML else { return Vec::new() };
    indices(nvml).filter_map(|index| gauges(nvml, index).ok()).collect()
}

/// Bytes of a card's memory that nobody holds, if the card is there.
pub fn free_bytes(index: u32) -> Option<u64> {
    let device = NVML.as_ref().ok()?.device_by_index(index).ok()?;
    Some(device.memory_info().ok()?.free)
}

/// Whether models can run on a card of this host at all; asked of the driver once.
pub fn are_driven() -> bool {
    static DRIVEN: LazyLock<bool> = LazyLock::new(|| {
        kernels::cuda::BUILT_IN && NVML.as_ref().is_ok_and(|nvml| !indices(nvml).is_empty())
    });
    *DRIVEN
}

/// Why the cards of this host cannot be used though it has some: a driver of another version than
/// its library, for example (requirement 89). A model must not end on the CPU unnoticed.
pub fn are_broken() -> Option<String> {
    let error = NVML.as_ref().err().filter(|_| kernels::cuda::BUILT_IN)?;
    is_breakage(error).then(|| format!("the NVIDIA driver cannot be used: {error}"))
}

/// Whether an error is more than the absence of cards, or of their driver.
fn is_breakage(error: &NvmlError) -> bool {
    use NvmlError as E;
    !matches!(error, E::LibloadingError(_) | E::FailedToLoadSymbol(_) | E::DriverNotLoaded)
}

/// The card with most free memory that this program can use. What is `promised` of a card to
/// models on their way there is not free any more, though the driver does not know of it yet.
pub fn best(promised: &HashMap<u32, u64>) -> Option<u32> {
    if !are_driven() {
        return None;
    }
    let nvml = NVML.as_ref().ok()?;
    roomiest(indices(nvml).filter_map(|card| Some((card, free_bytes(card)?))), promised)
}

/// Of cards with their free bytes the one with most room, and of equals the first.
fn roomiest(cards: impl Iterator<Item = (u32, u64)>, promised: &HashMap<u32, u64>) -> Option<u32> {
    let room = |(card, free): (u32, u64)| {
        let left = free.saturating_sub(promised.get(&card).copied().unwrap_or(0));
        (left, std::cmp::Reverse(card))
    };
    cards.map(room).max().map(|(_, std::cmp::Reverse(card))| card)
}

fn indices(nvml: &Nvml) -> std::ops::Range<u32> {
    0..nvml.device_count().unwrap_or(0)
}

fn device(nvml: &Nvml, index: u32) -> Result<Device, NvmlError> {
    let device = nvml.device_by_index(index)?;
    let capability = device.cuda_compute_capability()?;
    Ok(Device {
        index,
        name: device.name()?,
        uuid: device.uuid()?,
        vram_total_mb: device.memory_info()?.total >> 20,
        compute_capability: format!("{}.{}", capability.major, capability.minor),
        numa: device.numa_node_id().ok(),
        peers: Vec::new(),
    })
}

fn gauges(nvml: &Nvml, index: u32) -> Result<DeviceHealth, NvmlError> {
    let device = nvml.device_by_index(index)?;
    let memory = device.memory_info()?;
    // Some cards tell no load, temperature or power, which is no reason to hide their memory.
    Ok(DeviceHealth {
        index,
        vram_used_mb: memory.used >> 20,
        vram_free_mb: memory.free >> 20,
        utilization_pct: device.utilization_rates().map_or(0, |rates| rates.gpu),
        temp_c: device.temperature(TemperatureSensor::Gpu).unwrap_or(0),
        power_w: device.power_usage().unwrap_or(0) / 1000,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_card_with_most_room_is_taken_and_the_first_of_equals() {
        let cards = || [(0, 5), (1, 9), (2, 9)].into_iter();
        assert_eq!(roomiest(cards(), &HashMap::new()), Some(1));
        // Two models that are loaded at once must not both find the same room.
        assert_eq!(roomiest(cards(), &HashMap::from([(1, 7)])), Some(2));
        assert_eq!(roomiest(cards(), &HashMap::from([(1, 7), (2, 20)])), Some(0));
        assert_eq!(roomiest([].into_iter(), &HashMap::new()), None);
    }

    #[test]
    fn a_driver_that_does_not_fit_is_no_host_without_cards() {
        assert!(is_breakage(&NvmlError::LibRmVersionMismatch));
        assert!(is_breakage(&NvmlError::GpuLost));
        assert!(!is_breakage(&NvmlError::DriverNotLoaded));
    }

    #[test]
    fn cards_that_are_not_used_have_a_reason() {
        let cards = look();
        assert_eq!(cards.unused_because.is_some(), best(&HashMap::new()).is_none());
        assert_eq!(cards.unused_because.is_none(), are_driven());
    }
}
