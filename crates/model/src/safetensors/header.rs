//! The JSON parts of the format, read so strictly that two readers cannot disagree about them.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Error as _, MapAccess, Visitor};

/// Larger headers are refused before they are parsed; the format's own reader has this limit too.
pub(super) const LARGEST_HEADER: u64 = 100_000_000;

/// What the header says of one tensor.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) dtype: String,
    pub(super) shape: Vec<u64>,
    pub(super) data_offsets: [u64; 2],
}

/// What one name of the header stands for.
pub(super) enum Item {
    Tensor(Entry),
    /// `__metadata__`: free texts, which are not used.
    Metadata,
}

/// A JSON object as a list of pairs, in which a name that is there twice is an error.
pub(super) struct Pairs<T>(pub(super) Vec<(String, T)>);

/// How the value that belongs to `key` is read.
pub(super) trait PairValue: Sized {
    fn read<'de, A: MapAccess<'de>>(key: &str, map: &mut A) -> Result<Self, A::Error>;
}

impl PairValue for String {
    fn read<'de, A: MapAccess<'de>>(_: &str, map: &mut A) -> Result<Self, A::Error> {
        map.next_value()
    }
}

impl PairValue for Item {
    fn read<'de, A: MapAccess<'de>>(key: &str, map: &mut A) -> Result<Self, A::Error> {
        if key == "__metadata__" {
            map.next_value::<Pairs<String>>().map(|_| Self::Metadata)
        } else {
            map.next_value().map(Self::Tensor)
        }
    }
}

impl<'de, T: PairValue> Deserialize<'de> for Pairs<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor(PhantomData))
    }
}

struct PairsVisitor<T>(PhantomData<T>);

impl<'de, T: PairValue> Visitor<'de> for PairsVisitor<T> {
    type Value = Pairs<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut seen = std::collections::HashSet::new();
        let mut pairs = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format_args!("`{key}` is there twice")));
            }
            let value = T::read(&key, &mut map)?;
            pairs.push((key, value));
        }
        Ok(Pairs(pairs))
    }
}

/// `model.safetensors.index.json`: which file holds which tensor.
#[derive(Deserialize)]
pub(super) struct Index {
    pub(super) weight_map: Pairs<String>,
}
