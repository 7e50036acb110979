//! Names of tensor types that GGUF knows and this engine does not read, for error messages.

use kernels::quant::WeightType;

/// A sentence part that says what tensor type `id` is and which types are read.
pub(crate) fn describe_unsupported(id: u32) -> String {
    let what = match id {
        4 | 5 | 31..=33 | 36..=38 => "a type that was removed from the format",
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        21 => "IQ3_S",
        22 => "IQ2_S",
        24..=27 => "an integer type",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        _ => "unknown",
    };
    let known: Vec<&str> = WeightType::all().map(WeightType::name).collect();
    format!("type {id} ({what}) is not supported; supported: {}", known.join(", "))
}
