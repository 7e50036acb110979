//! Writing GGUF version 3.

use kernels::quant::WeightType;

use super::value::ValueType;
use super::{DEFAULT_ALIGNMENT, MAGIC};

/// A metadata value to write.
#[derive(Debug, Clone, PartialEq)]
pub enum NewValue {
    /// A 32-bit count.
    U32(u32),
    /// A single-precision number.
    F32(f32),
    /// A truth value.
    Bool(bool),
    /// A text.
    String(String),
    /// A list of texts.
    Strings(Vec<String>),
    /// A list of signed integers.
    I32s(Vec<i32>),
    /// A list of counts.
    U32s(Vec<u32>),
}

impl From<&str> for NewValue {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

/// The part of a file before the tensor data.
///
/// What is put first is written first, so the same calls make the same bytes.
#[derive(Default)]
pub struct Header {
    keys: u64,
    metadata: Vec<u8>,
    tensors: u64,
    records: Vec<u8>,
    /// Where the next tensor's data begins, relative to the data.
    offset: u64,
}

impl Header {
    /// A header with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a metadata entry. A reader refuses a key that is there twice.
    pub fn put(&mut self, key: &str, value: impl Into<NewValue>) {
        self.keys += 1;
        let out = &mut self.metadata;
        string(out, key);
        match value.into() {
            NewValue::U32(x) => scalar(out, ValueType::U32, &x.to_le_bytes()),
            NewValue::F32(x) => scalar(out, ValueType::F32, &x.to_le_bytes()),
            NewValue::Bool(x) => scalar(out, ValueType::Bool, &[x.into()]),
            NewValue::String(x) => {
                number(out, ValueType::String.id());
                string(out, &x);
            }
            NewValue::Strings(items) => {
                array(out, ValueType::String, items.len());
                items.iter().for_each(|x| string(out, x));
            }
            NewValue::I32s(items) => {
                array(out, ValueType::I32, items.len());
                items.iter().for_each(|x| out.extend(x.to_le_bytes()));
            }
            NewValue::U32s(items) => {
                array(out, ValueType::U32, items.len());
                items.iter().for_each(|x| out.extend(x.to_le_bytes()));
            }
        }
    }

    /// Adds a tensor with its shape outermost first. The data must follow in the same order.
    ///
    /// # Panics
    ///
    /// If the elements are not whole blocks.
    pub fn declare(&mut self, name: &str, shape: &[usize], ty: WeightType) {
        let elements: usize = shape.iter().product();
        let size = ty.bytes(elements as u64).expect("a tensor has whole blocks");
        self.tensors += 1;
        let out = &mut self.records;
        string(out, name);
        number(out, shape.len() as u32);
        shape.iter().rev().for_each(|&n| out.extend((n as u64).to_le_bytes()));
        number(out, ty.ggml_id());
        out.extend(self.offset.to_le_bytes());
        self.offset += size.next_multiple_of(DEFAULT_ALIGNMENT);
    }

    /// The bytes of the header, up to where the data begins.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        number(&mut out, 3);
        out.extend(self.tensors.to_le_bytes());
        out.extend(self.keys.to_le_bytes());
        out.extend(&self.metadata);
        out.extend(&self.records);
        pad(&mut out);
        out
    }
}

/// Fills up with zeros to where the next tensor may begin.
pub fn pad(data: &mut Vec<u8>) {
    data.extend(padding(data.len()));
}

/// The zeros that `pad` puts after so many bytes.
pub fn padding(bytes: usize) -> &'static [u8] {
    const ZEROS: [u8; DEFAULT_ALIGNMENT as usize] = [0; DEFAULT_ALIGNMENT as usize];
    &ZEROS[..bytes.next_multiple_of(ZEROS.len()) - bytes]
}

fn number(out: &mut Vec<u8>, x: u32) {
    out.extend(x.to_le_bytes());
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn scalar(out: &mut Vec<u8>, ty: ValueType, bytes: &[u8]) {
    number(out, ty.id());
    out.extend(bytes);
}

fn array(out: &mut Vec<u8>, element: ValueType, length: usize) {
    number(out, ValueType::Array.id());
    number(out, element.id());
    out.extend((length as u64).to_le_bytes());
}
