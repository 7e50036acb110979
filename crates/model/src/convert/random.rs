//! Models of random weights, for measuring where there are no others.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use kernels::check::Noise;
use kernels::quant::{WeightType, encoder};

use super::write_file;
use crate::config::from_hf;
use crate::load::read_json;
use crate::{Error, Layout, ModelConfig, Recipe, Role, TensorName};

/// Elements that are drawn for each format; matrices are made of pieces of them.
const DRAWN: usize = 1 << 20;
/// Elements that are encoded together.
const ROW: usize = 4096;
/// The largest weight: the deviation of the values is 0.02, as it is in fresh models.
const LARGEST: f32 = 0.035;

/// Writes to the GGUF file `out` a model with the sizes of `config.json` in the directory `shape`,
/// with the tokenizer and the template beside it if there are some, and with random weights.
///
/// All values are finite and of the usual sizes, and the same seed always makes the same bytes.
/// Matrices repeat after 2^20 elements, so that a file is made as fast as the disk takes it: what
/// an engine reads and how fast does not depend on values.
///
/// # Errors
///
/// What a load of the model would say of `config.json`; `Refused` for a format that is only read;
/// `Io` for what the disk does not take.
pub fn write_random(
    shape: &Path,
    out: &Path,
    recipe: impl Into<Recipe>,
    seed: u64,
) -> Result<(), Error> {
    let path = shape.join("config.json");
    let config = from_hf(&path, &read_json(&path)?)?;
    let target = ModelConfig { layout: Layout::gguf(config.architecture), ..config };
    let (mut noise, mut pools) = (Noise::new(seed), Vec::new());
    write_file(out, shape, &target, recipe.into(), |name, ty, data| {
        let elements = name.shape(&target).iter().product();
        let put = match name {
            name if name.is_matrix(&target) => {
                Pool::of(&mut pools, ty, &mut noise).put(elements, &mut noise, data)
            }
            name => put_small(name, elements, &mut noise, data),
        };
        put.map_err(|e| Error::io(out, e))
    })
}

/// Encoded values of a format.
struct Pool {
    ty: WeightType,
    bytes: Vec<u8>,
}

impl Pool {
    fn of<'a>(pools: &'a mut Vec<Pool>, ty: WeightType, noise: &mut Noise) -> &'a Pool {
        let place = pools.iter().position(|pool| pool.ty == ty).unwrap_or_else(|| {
            pools.push(Pool::new(ty, noise));
            pools.len() - 1
        });
        &pools[place]
    }

    fn new(ty: WeightType, noise: &mut Noise) -> Pool {
        let encode = encoder(ty).expect("a recipe that can be followed has such formats only");
        let row_bytes = ROW / ty.block_elements() * ty.block_bytes();
        let mut bytes = vec![0; DRAWN / ROW * row_bytes];
        for row in bytes.chunks_exact_mut(row_bytes) {
            encode(&noise.values(ROW, LARGEST), row);
        }
        Pool { ty, bytes }
    }

    /// Writes a matrix that begins somewhere in the pool.
    fn put(
        &self,
        elements: usize,
        noise: &mut Noise,
        data: &mut impl Write,
    ) -> std::io::Result<()> {
        let block = self.ty.block_bytes();
        let mut left = elements / self.ty.block_elements() * block;
        let mut at = noise.below(self.bytes.len() / block) * block;
        while left > 0 {
            let piece = left.min(self.bytes.len() - at);
            data.write_all(&self.bytes[at..at + piece])?;
            (left, at) = (left - piece, 0);
        }
        Ok(())
    }
}

/// Writes what is no matrix, as single-precision numbers.
fn put_small(
    name: TensorName,
    elements: usize,
    noise: &mut Noise,
    data: &mut BufWriter<File>,
) -> std::io::Result<()> {
    for _ in 0..elements {
        data.write_all(&small(name, noise.value()).to_le_bytes())?;
    }
    Ok(())
}

/// An element of such a tensor, of a number in [-1, 1).
fn small(name: TensorName, drawn: f32) -> f32 {
    let (TensorName::Layer(_, role) | TensorName::MtpLayer(role)) = name else { return 1.0 };
    match role {
        // -exp(A_log), with rates from 0.5 to 8.
        Role::DeltaA => -4.25 - 3.75 * drawn,
        Role::DeltaDtBias => 2.5 * drawn - 1.5,
        Role::DeltaConv => drawn / 2.0,
        Role::DeltaBeta | Role::DeltaAlpha | Role::DeltaBa | Role::Router | Role::SharedMix => {
            LARGEST * drawn
        }
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::Source;

    /// Every architecture's fixture gives a file that opens with its sizes, twice the same.
    #[test]
    fn a_random_model_opens_with_the_shape_of_its_configuration() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let dir = tempfile::tempdir().unwrap();
        for model in ["qwen3", "qwen3_5", "qwen3_moe", "qwen3_5_moe", "qwen3_next"] {
            for recipe in [Recipe::Q4_K_M, WeightType::BF16.into()] {
                let (first, second) = (dir.path().join("a.gguf"), dir.path().join("b.gguf"));
                write_random(&fixtures.join(model), &first, recipe, 7).unwrap();
                write_random(&fixtures.join(model), &second, recipe, 7).unwrap();
                assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap(), "{model}");
                write_random(&fixtures.join(model), &second, recipe, 8).unwrap();
                assert!(fs::read(&first).unwrap() != fs::read(&second).unwrap(), "{model}");
                let real = Source::open(&fixtures.join(model)).unwrap();
                let random = Source::open(&first).unwrap();
                let sizes = |config: &ModelConfig| {
                    (config.architecture, config.layers.clone(), config.hidden, config.vocab_size)
                };
                assert_eq!(sizes(random.config()), sizes(real.config()), "{model}");
                for name in TensorName::all(random.config()) {
                    let values = random.matrix(name).unwrap();
                    let mut row = vec![0.0; values.cols];
                    for at in 0..values.rows {
                        kernels::quant::dequantize(values.ty, values.row(at), &mut row);
                        let largest = row.iter().fold(0.0f32, |most, x| most.max(x.abs()));
                        assert!(largest > 0.0 && largest <= 8.0, "{model}: {name}: {largest}");
                    }
                }
            }
        }
    }
}
