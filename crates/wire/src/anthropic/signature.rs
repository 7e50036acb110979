//! Signatures of thinking blocks.

/// Says which model a thinking block came from, so that another model is not made to believe that
/// it had those thoughts. It proves nothing and guards nothing.
pub(super) fn of_model(model: &str) -> String {
    // FNV-1a, 64 bits: stable over builds and machines.
    let hash = model.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("neuron-{hash:016x}")
}
