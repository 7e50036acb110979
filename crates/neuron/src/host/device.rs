//! What a model is to run on.

use std::collections::HashMap;

use engine::Device;

use crate::child::link::{LoadCode, LoadFailure};
use crate::config::DevicePolicy;
use crate::host::cards;

/// Tokens of a step where the configuration does not say: a card needs many rows at once to be
/// busy.
const BUDGET_OF_CPU: u32 = 512;
const BUDGET_OF_CARD: u32 = 2048;

/// The device of a load that asks for these cards (none means that it does not care), with what is
/// `promised` of each card to models on their way there.
pub(crate) fn choose(
    policy: DevicePolicy,
    asked: &[u32],
    ranks: u32,
    promised: &HashMap<u32, u64>,
) -> Result<Device, LoadFailure> {
    let refuse = |code, message: String| Err(LoadFailure::new(code, message));
    if let (DevicePolicy::Auto, [], 1, Some(reason)) = (policy, asked, ranks, cards::are_broken()) {
        let message = format!("{reason}; mend it, or set `device = \"cpu\"`");
        return refuse(LoadCode::CudaUnavailable, message);
    }
    match asked {
        [] if policy == DevicePolicy::Cpu || ranks > 1 => Ok(Device::Cpu),
        [] => Ok(cards::best(promised).map_or(Device::Cpu, Device::Cuda)),
        _ if !cards::are_driven() => {
            let reason = cards::look().unused_because;
            refuse(LoadCode::CudaUnavailable, reason.unwrap_or_else(|| "no card".to_owned()))
        }
        [card] if ranks == 1 && cards::free_bytes(*card).is_some() => Ok(Device::Cuda(*card)),
        [card] if ranks == 1 => {
            refuse(LoadCode::CudaUnavailable, format!("this host has no card {card}"))
        }
        _ => {
            let message = "a model on several cards is not built yet: name one, and no ranks";
            refuse(LoadCode::BadRequest, message.to_owned())
        }
    }
}

/// Tokens of a step.
pub(crate) fn token_budget(device: Device, configured: Option<u32>) -> u32 {
    configured.unwrap_or(match device {
        Device::Cpu => BUDGET_OF_CPU,
        Device::Cuda(_) => BUDGET_OF_CARD,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_can_be_insisted_on() {
        assert_eq!(choose(DevicePolicy::Cpu, &[], 1, &HashMap::new()).unwrap(), Device::Cpu);
        assert_eq!(choose(DevicePolicy::Auto, &[], 2, &HashMap::new()).unwrap(), Device::Cpu);
        assert_eq!(token_budget(Device::Cpu, None), 512);
        assert_eq!(token_budget(Device::Cuda(0), Some(64)), 64);
    }

    #[test]
    fn a_card_that_is_not_there_is_refused_in_words() {
        let failure = choose(DevicePolicy::Cpu, &[77], 1, &HashMap::new()).unwrap_err();
        assert_eq!(failure.code, LoadCode::CudaUnavailable);
        assert!(!failure.message.is_empty());
    }
}
