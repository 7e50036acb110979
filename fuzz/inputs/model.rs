//! Bytes as model files. The fuzz targets and the loops of `crates/model/tests/hostile.rs` share
//! these functions: whatever the bytes are, none of them panics or takes much memory.

use std::path::Path;

use kernels::cpu::Cpu;
use model::gguf::{Gguf, Value};
use model::safetensors::SafeTensors;
use model::{Shard, Source, TensorName, TensorView, held_bytes};

/// Reads a GGUF file, looks at all that is in it, and takes it for a model.
pub fn gguf(bytes: &[u8]) {
    let Ok(file) = Gguf::read(Path::new("hostile.gguf"), bytes.to_vec().into()) else { return };
    let metadata = file.metadata();
    for key in metadata.keys() {
        walk(metadata.value(key).expect("a key of the file has a value"));
        let _ = metadata.get::<&str>(key).is_ok() || metadata.get::<Vec<&str>>(key).is_ok();
    }
    file.tensors().for_each(|tensor| look_at(&tensor));
    let Ok(source) = Source::of_gguf(file) else { return };
    for name in TensorName::all(source.config()) {
        let weight = source.matrix(name).expect("an open model has its tensors");
        assert_eq!(source.format(name).expect("it was just read"), weight.ty);
    }
    held_bytes::<Cpu>(&source, &Shard::SOLO).expect("one rank can hold any model");
}

/// Reads a safetensors file and looks at all that is in it.
pub fn safetensors(bytes: &[u8]) {
    let Ok(file) = SafeTensors::read(Path::new("hostile.safetensors"), bytes.to_vec().into())
    else {
        return;
    };
    for name in file.names() {
        if let Ok(tensor) = file.tensor(name) {
            look_at(&tensor.expect("a name of the file has a tensor"));
        }
    }
}

fn walk(value: Value<'_>) {
    if let Value::Array(array) = value {
        assert_eq!(array.iter().count(), array.len(), "elements were lost");
        array.iter().for_each(walk);
    }
}

fn look_at(tensor: &TensorView<'_>) {
    assert_eq!(tensor.rows() * tensor.row_bytes(), tensor.bytes.len());
    assert_eq!(tensor.row(tensor.rows() - 1).len(), tensor.row_bytes());
    assert_eq!(tensor.weight().rows, tensor.rows());
    assert_eq!(tensor.to_f32().len(), tensor.elements());
}
