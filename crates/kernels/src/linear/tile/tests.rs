use super::*;
use crate::check::Noise;
use crate::cpu::pool::Pool;
use crate::cpu::widest::Level;
use crate::linear::round::Rounded;
use crate::linear::tests::any_weight;
use crate::quant::WeightType;

fn portable(packed: &Packed, at: usize, panel: &Panel<'_>, sums: &mut Sums) {
    fn run<F: Format, const N: usize>(tile: &Tile<'_>, panel: &Panel<'_>, sums: &mut Sums) {
        let sums = sums.first_chunk_mut().expect("a panel is not larger");
        portable::multiply::<F, N, true>(tile, panel, sums);
    }
    let tile = packed.tile(at);
    with_format!(packed.ty, F => match panel.rows {
        1 => run::<F, 1>(&tile, panel, sums),
        2 => run::<F, 2>(&tile, panel, sums),
        4 => run::<F, 4>(&tile, panel, sums),
        _ => run::<F, PANEL>(&tile, panel, sums),
    });
}

/// Random and extreme blocks of every format with 8, 4, 2 and 1 input rows: what the registers of
/// this processor make is bit for bit what plain loops make that round as they do.
#[test]
fn every_version_is_bit_equal_to_the_plain_loops() {
    use WeightType::{Q4_0, Q4_K, Q5_K, Q6_K, Q8_0};
    let (rows, cols) = (19, 768);
    let pool = Pool::new(1);
    let fusing = Level::available().filter(|one| *one != Level::Portable || PORTABLE_FMA);
    for (level, ty) in fusing.flat_map(|one| [Q4_0, Q8_0, Q4_K, Q5_K, Q6_K].map(|ty| (one, ty))) {
        let packed = Packed::new(&any_weight(ty, rows, cols), &pool).expect("a packed format");
        let x = Noise::new(15).values(15 * cols, 2.0);
        let mut rounded = Rounded::default();
        rounded.fill(&pool, &x, cols);
        for panel in rounded.panels() {
            for tile in 0..rows.div_ceil(TILE) {
                let mut want = [[f32::NAN; TILE]; PANEL];
                let mut got = want;
                portable(&packed, tile, &panel, &mut want);
                multiply(level, &packed, tile, &panel, &mut got);
                let bits = |sums: &Sums| sums.map(|row| row.map(f32::to_bits));
                assert!(want[0][0].is_finite(), "{ty}: sums that say nothing");
                assert_eq!(bits(&got), bits(&want), "{ty} {level:?}, {} rows", panel.rows);
            }
        }
    }
}
