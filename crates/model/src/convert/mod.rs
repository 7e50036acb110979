//! A safetensors checkpoint as a GGUF file, with the conventions of llama.cpp's converter.
//!
//! The same checkpoint always makes the same bytes. The file is written beside its place and
//! renamed when it is whole, so that a conversion that failed leaves nothing that looks like a
//! model.

mod metadata;
mod tokenizer;
mod transform;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;

use kernels::quant::{Encoder, WeightType, encoder};

use crate::gguf::write::{Header, pad};
use crate::{Error, Layout, ModelConfig, Source, TensorName};

/// Writes the checkpoint in the directory `source` to the GGUF file `out`.
///
/// Matrices become `ty`, with the exceptions of `stored_type`; everything else becomes F32. The
/// tokenizer and the chat template are taken along if the directory has them.
///
/// # Errors
///
/// Whatever `Source::open` finds; `Refused` if `source` is a GGUF file, if `ty` can only be read
/// or if the layers do not alternate regularly; `BadFile` for weights that are not finite and for
/// a tokenizer that GGUF cannot express.
pub fn convert(source: &Path, out: &Path, ty: WeightType) -> Result<(), Error> {
    let model = Source::open(source)?;
    if model.gguf().is_some() {
        return Err(Error::refused(source, "is a GGUF file already"));
    }
    if encoder(ty).is_none() {
        let good: Vec<&str> =
            WeightType::all().filter(|&ty| encoder(ty).is_some()).map(WeightType::name).collect();
        let reason = format!("{ty} cannot be written; possible: {}", good.join(", "));
        return Err(Error::refused(out, reason));
    }
    write_model(&model, out, ty, Layout::gguf(model.config().architecture))
}

/// Writes a checkpoint with its matrices cut into the tensors of `layout`.
fn write_model(model: &Source, out: &Path, ty: WeightType, layout: Layout) -> Result<(), Error> {
    let target = &ModelConfig { layout, ..model.config().clone() };
    let mut header = Header::new();
    metadata::put(&mut header, model.path(), target, ty)?;
    tokenizer::put(&mut header, model.path(), target)?;
    let names = TensorName::all(target);
    for &name in &names {
        header.declare(&name.gguf(target), &name.shape(target), stored_type(name, target, ty));
    }
    let part = PathBuf::from(format!("{}.part", out.display()));
    let written = write(&part, &header, model, &names, ty)
        .and_then(|()| fs::rename(&part, out).map_err(|e| Error::io(out, e)));
    if written.is_err() {
        // What is left would only be taken for a model. That it cannot be removed changes nothing.
        let _ = fs::remove_file(&part);
    }
    written
}

/// The format in which a tensor is written when matrices are to be `ty`.
///
/// - What is not a matrix, the convolution and the small gate matrices of a linear layer, and what
///   chooses experts: F32.
/// - The matrix that makes the logits, if `ty` has fewer than 6 bits: `Q6_K`.
/// - A matrix whose rows are not whole blocks: `Q8_0`, and if that does not fit either, F16.
pub fn stored_type(name: TensorName, config: &ModelConfig, ty: WeightType) -> WeightType {
    if !name.is_matrix(config) {
        return WeightType::F32;
    }
    let logits = name == TensorName::Output || (config.tied && name == TensorName::Embedding);
    let wanted = match ty {
        WeightType::Q4_0 | WeightType::Q4_K | WeightType::Q5_K if logits => WeightType::Q6_K,
        ty => ty,
    };
    let row = name.shape(config).last().copied().unwrap_or(1);
    let fits = |ty: &WeightType| row.is_multiple_of(ty.block_elements());
    [wanted, WeightType::Q8_0].into_iter().find(fits).unwrap_or(WeightType::F16)
}

fn write(
    path: &Path,
    header: &Header,
    model: &Source,
    names: &[TensorName],
    ty: WeightType,
) -> Result<(), Error> {
    let io = |e| Error::io(path, e);
    let mut out = BufWriter::new(File::create(path).map_err(io)?);
    out.write_all(&header.bytes()).map_err(io)?;
    for &name in names {
        let values = transform::values(model, name)?;
        let mut data = encode(&values, stored_type(name, model.config(), ty));
        pad(&mut data);
        out.write_all(&data).map_err(io)?;
    }
    let file = out.into_inner().map_err(|e| Error::io(path, e.into_error()))?;
    file.sync_all().map_err(io)
}

/// All blocks of `values`, made on every core: the search for good scales takes its time.
fn encode(values: &[f32], ty: WeightType) -> Vec<u8> {
    // Both were checked before the first tensor was declared.
    let encode: Encoder = encoder(ty).expect("a type that can be written");
    let blocks = values.len() / ty.block_elements();
    let mut data = vec![0; blocks * ty.block_bytes()];
    let workers = thread::available_parallelism().map_or(1, NonZero::get);
    let share = blocks.div_ceil(workers).max(1);
    thread::scope(|scope| {
        let parts = values.chunks(share * ty.block_elements());
        for (values, data) in parts.zip(data.chunks_mut(share * ty.block_bytes())) {
            scope.spawn(move || encode(values, data));
        }
    });
    data
}

#[cfg(test)]
mod tests;
