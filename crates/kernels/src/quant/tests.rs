//! Every format against the blocks and values in `fixtures/`, which `fixtures/make.py` makes.

use super::{WeightType, dequantize, encoder};

/// `(type, blocks, values)` of one fixture.
macro_rules! fixture {
    ($ty:ident, $name:literal) => {
        (
            WeightType::$ty,
            include_bytes!(concat!("fixtures/", $name, ".blocks")).as_slice(),
            include_bytes!(concat!("fixtures/", $name, ".f32")).as_slice(),
        )
    };
}

const FIXTURES: [(WeightType, &[u8], &[u8]); 16] = [
    fixture!(F32, "f32"),
    fixture!(F16, "f16"),
    fixture!(BF16, "bf16"),
    fixture!(Q4_0, "q4_0"),
    fixture!(Q4_1, "q4_1"),
    fixture!(Q5_0, "q5_0"),
    fixture!(Q5_1, "q5_1"),
    fixture!(Q8_0, "q8_0"),
    fixture!(Q2_K, "q2_k"),
    fixture!(Q3_K, "q3_k"),
    fixture!(Q4_K, "q4_k"),
    fixture!(Q5_K, "q5_k"),
    fixture!(Q6_K, "q6_k"),
    fixture!(IQ4_NL, "iq4_nl"),
    fixture!(IQ4_XS, "iq4_xs"),
    fixture!(MXFP4, "mxfp4"),
];

fn floats(bytes: &[u8]) -> Vec<f32> {
    let (chunks, []) = bytes.as_chunks::<4>() else { panic!("not whole floats") };
    chunks.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
}

/// Smooth values of both signs whose groups have different sizes, as trained weights have.
fn wave(count: usize) -> Vec<f32> {
    (0..count)
        .map(|i| {
            let t = i as f32;
            (t * 0.7).sin() * (1.5 + (t * 0.013).cos()) * 0.02 + 0.004 * (t * 2.9).cos()
        })
        .collect()
}

fn round_trip(ty: WeightType, values: &[f32]) -> Vec<f32> {
    let mut blocks = vec![0xAA; ty.bytes(values.len() as u64).unwrap() as usize];
    encoder(ty).unwrap()(values, &mut blocks);
    let mut back = vec![f32::NAN; values.len()];
    dequantize(ty, &blocks, &mut back);
    back
}

fn relative_error(values: &[f32], back: &[f32]) -> f32 {
    let error: f32 = values.iter().zip(back).map(|(x, y)| (x - y) * (x - y)).sum();
    (error / values.iter().map(|x| x * x).sum::<f32>()).sqrt()
}

#[test]
fn every_format_reads_bit_for_bit_as_the_reference() {
    for (ty, blocks, expected) in FIXTURES {
        let expected = floats(expected);
        let mut found = vec![f32::NAN; expected.len()];
        dequantize(ty, blocks, &mut found);
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found.to_bits(), expected.to_bits(), "{ty}[{i}]: {found} for {expected}");
        }
    }
}

#[test]
fn the_table_is_in_the_order_of_the_enum() {
    for (i, ty) in WeightType::all().enumerate() {
        assert_eq!(ty as usize, i);
        assert_eq!(format!("{ty:?}"), ty.name());
        assert_eq!(WeightType::from_ggml_id(ty.ggml_id()), Some(ty));
        assert_eq!(WeightType::from_name(&ty.name().to_lowercase()), Some(ty));
    }
    assert_eq!(FIXTURES.map(|(ty, ..)| ty).to_vec(), WeightType::all().collect::<Vec<_>>());
}

#[test]
fn removed_and_unknown_types_have_no_layout() {
    // 4 and 5 were removed from the format; 9 and 15 are for activations only.
    for id in [4, 5, 9, 15, 200, u32::MAX] {
        assert_eq!(WeightType::from_ggml_id(id), None);
    }
}

#[test]
fn sizes_are_whole_blocks_and_never_wrap() {
    assert_eq!(WeightType::Q4_K.bytes(512), Some(288));
    assert_eq!(WeightType::Q4_K.bytes(500), None);
    assert_eq!(WeightType::F32.bytes(u64::MAX), None);
    assert_eq!(WeightType::Q8_0.bytes(u64::MAX - 31), None);
    assert_eq!(WeightType::MXFP4.bytes(0), Some(0));
}

#[test]
fn the_simple_encoders_write_the_bytes_of_the_reference() {
    let values = floats(include_bytes!("fixtures/values.f32"));
    let cases: [(WeightType, &[u8]); 2] = [
        (WeightType::Q8_0, include_bytes!("fixtures/q8_0.encoded")),
        (WeightType::Q4_0, include_bytes!("fixtures/q4_0.encoded")),
    ];
    for (ty, expected) in cases {
        let mut blocks = vec![0; expected.len()];
        encoder(ty).unwrap()(&values, &mut blocks);
        assert_eq!(blocks, expected, "{ty}");
    }
}

#[test]
fn encoders_lose_no_more_than_their_bits_allow() {
    // Bounds a little above what was measured; an encoder that only rounds exceeds those of the
    // K formats.
    let cases = [
        (WeightType::F32, 0.0),
        (WeightType::F16, 2.2e-4),
        (WeightType::BF16, 1.8e-3),
        (WeightType::Q8_0, 0.0037),
        (WeightType::Q6_K, 0.0125),
        (WeightType::Q5_K, 0.027),
        (WeightType::Q4_K, 0.0535),
        (WeightType::Q4_0, 0.062),
    ];
    let values = wave(4096);
    for (ty, bound) in cases {
        let error = relative_error(&values, &round_trip(ty, &values));
        assert!(error <= bound, "{ty} loses {error}, more than {bound}");
    }
}

#[test]
fn encoders_keep_blocks_of_one_value_finite() {
    for ty in WeightType::all() {
        if encoder(ty).is_none() {
            continue;
        }
        for value in [0.0, 0.25, -0.25, 1e-30, -1e-30] {
            for back in round_trip(ty, &[value; 512]) {
                // The smallest values are below what an f16 scale can hold.
                let bound = f32::max(value.abs() * 0.02, 2e-7);
                assert!((back - value).abs() <= bound, "{ty}: {value} became {back}");
            }
        }
    }
}
