//! A safetensors checkpoint as a GGUF file, with the conventions of llama.cpp's converter.
//!
//! The same checkpoint always makes the same bytes. The file is written beside its place and
//! renamed when it is whole, so that a conversion that failed leaves nothing that looks like a
//! model.

mod metadata;
mod random;
mod tokenizer;
mod transform;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;

pub(crate) use metadata::config_of_file;
pub use random::write_random;
pub(crate) use transform::encoded;

use kernels::quant::WeightType;

use crate::gguf::write::{Header, padding};
use crate::{Error, Layout, ModelConfig, Recipe, Source, TensorName};

/// Writes the checkpoint in the directory `source` to the GGUF file `out`.
///
/// Each tensor gets the format that `recipe` has for it. The tokenizer and the chat template are
/// taken along if the directory has them.
///
/// # Errors
///
/// Whatever `Source::open` finds; `Refused` if `source` is a GGUF file, if the format can only be
/// read or if the layers do not alternate regularly; `BadFile` for weights that are not finite and
/// for a tokenizer that GGUF cannot express.
pub fn convert(source: &Path, out: &Path, recipe: impl Into<Recipe>) -> Result<(), Error> {
    let (model, recipe) = (Source::open(source)?, recipe.into());
    if model.gguf().is_some() {
        return Err(Error::refused(source, "is a GGUF file already"));
    }
    write_model(&model, out, recipe, Layout::gguf(model.config().architecture))
}

/// Writes a checkpoint with its matrices cut into the tensors of `layout`.
fn write_model(model: &Source, out: &Path, recipe: Recipe, layout: Layout) -> Result<(), Error> {
    let target = &ModelConfig { layout, ..model.config().clone() };
    // The search for good scales takes its time.
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    write_file(out, model.path(), target, recipe, |name, ty, data| {
        let bytes = encoded(model, name, ty, threads)?.bytes;
        data.write_all(&bytes).map_err(|e| Error::io(out, e))
    })
}

/// Writes a file whose tensors' data come from `put`; what else it says is in `source`.
fn write_file(
    out: &Path,
    source: &Path,
    target: &ModelConfig,
    recipe: Recipe,
    put: impl FnMut(TensorName, WeightType, &mut BufWriter<File>) -> Result<(), Error>,
) -> Result<(), Error> {
    if !recipe.is_possible() {
        let good: Vec<&str> = Recipe::all().map(Recipe::name).collect();
        let reason = format!("{recipe} cannot be written; possible: {}", good.join(", "));
        return Err(Error::refused(out, reason));
    }
    let mut header = Header::new();
    metadata::put(&mut header, source, target, recipe)?;
    tokenizer::put(&mut header, source, target)?;
    let mut tensors = Vec::new();
    for name in TensorName::all(target) {
        let (shape, ty) = (name.shape(target), recipe.format_of(name, target));
        let blocks = shape.iter().product::<usize>() / ty.block_elements();
        header.declare(&name.gguf(target), &shape, ty);
        tensors.push((name, ty, blocks * ty.block_bytes()));
    }
    let part = PathBuf::from(format!("{}.part", out.display()));
    let written = write(&part, &header, &tensors, put)
        .and_then(|()| fs::rename(&part, out).map_err(|e| Error::io(out, e)));
    if written.is_err() {
        // What is left would only be taken for a model. That it cannot be removed changes nothing.
        let _ = fs::remove_file(&part);
    }
    written
}

fn write(
    path: &Path,
    header: &Header,
    tensors: &[(TensorName, WeightType, usize)],
    mut put: impl FnMut(TensorName, WeightType, &mut BufWriter<File>) -> Result<(), Error>,
) -> Result<(), Error> {
    let io = |e| Error::io(path, e);
    let mut out = BufWriter::new(File::create(path).map_err(io)?);
    out.write_all(&header.bytes()).map_err(io)?;
    for &(name, ty, bytes) in tensors {
        put(name, ty, &mut out)?;
        out.write_all(padding(bytes)).map_err(io)?;
    }
    let file = out.into_inner().map_err(|e| Error::io(path, e.into_error()))?;
    file.sync_all().map_err(io)
}

#[cfg(test)]
mod tests;
