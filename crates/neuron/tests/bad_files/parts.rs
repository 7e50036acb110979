//! A GGUF file taken apart, so that each part can be wrong.

/// A metadata entry: its key, the number of its type, its value's bytes.
#[derive(Clone)]
pub struct Key {
    pub name: Vec<u8>,
    pub ty: u32,
    pub value: Vec<u8>,
}

#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    /// Innermost first, as in the file.
    pub dimensions: Vec<u64>,
    pub ty: u32,
    pub offset: u64,
}

#[derive(Clone)]
pub struct Parts {
    pub version: u32,
    pub keys: Vec<Key>,
    pub tensors: Vec<Tensor>,
    pub data: Vec<u8>,
}

pub const U32: u32 = 4;
pub const I32: u32 = 5;
pub const F32: u32 = 6;
pub const STRING: u32 = 8;
pub const ARRAY: u32 = 9;

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }
    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }
    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().unwrap())
    }
    fn string(&mut self) -> &'a [u8] {
        let length = self.u64() as usize;
        self.take(length)
    }
    fn value(&mut self, ty: u32) {
        match ty {
            STRING => _ = self.string(),
            ARRAY => {
                let (ty, length) = (self.u32(), self.u64());
                (0..length).for_each(|_| self.value(ty));
            }
            0 | 1 | 7 => _ = self.take(1),
            2 | 3 => _ = self.take(2),
            10..=12 => _ = self.take(8),
            _ => _ = self.take(4),
        }
    }
}

impl Parts {
    pub fn read(bytes: &[u8]) -> Self {
        let mut reader = Reader(&bytes[4..]);
        let (version, tensors, keys) = (reader.u32(), reader.u64(), reader.u64());
        let keys = (0..keys).map(|_| {
            let (name, ty) = (reader.string().to_vec(), reader.u32());
            let rest = reader.0;
            reader.value(ty);
            Key { name, ty, value: rest[..rest.len() - reader.0.len()].to_vec() }
        });
        let keys = keys.collect();
        let tensors = (0..tensors).map(|_| {
            let name = String::from_utf8(reader.string().to_vec()).unwrap();
            let count = reader.u32();
            let dimensions = (0..count).map(|_| reader.u64()).collect();
            Tensor { name, dimensions, ty: reader.u32(), offset: reader.u64() }
        });
        let tensors = tensors.collect();
        let data = (bytes.len() - reader.0.len()).next_multiple_of(32);
        Self { version, keys, tensors, data: bytes[data..].to_vec() }
    }

    pub fn header(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.keys.len() as u64).to_le_bytes());
        for key in &self.keys {
            out.extend((key.name.len() as u64).to_le_bytes());
            out.extend(&key.name);
            out.extend(key.ty.to_le_bytes());
            out.extend(&key.value);
        }
        for tensor in &self.tensors {
            out.extend((tensor.name.len() as u64).to_le_bytes());
            out.extend(tensor.name.as_bytes());
            out.extend((tensor.dimensions.len() as u32).to_le_bytes());
            tensor.dimensions.iter().for_each(|size| out.extend(size.to_le_bytes()));
            out.extend(tensor.ty.to_le_bytes());
            out.extend(tensor.offset.to_le_bytes());
        }
        out
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.header();
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(&self.data);
        out
    }

    pub fn key(&mut self, name: &str) -> &mut Key {
        let found = self.keys.iter_mut().find(|key| key.name == name.as_bytes());
        found.unwrap_or_else(|| panic!("no key {name}"))
    }

    pub fn set(&mut self, name: &str, ty: u32, value: impl Into<Vec<u8>>) {
        let key = Key { name: name.as_bytes().to_vec(), ty, value: value.into() };
        match self.keys.iter_mut().find(|known| known.name == key.name) {
            Some(known) => *known = key,
            None => self.keys.push(key),
        }
    }

    pub fn set_u32(&mut self, name: &str, value: u32) {
        self.set(name, U32, value.to_le_bytes());
    }

    pub fn without(&mut self, name: &str) {
        self.keys.retain(|key| key.name != name.as_bytes());
    }

    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
    }

    /// The texts of a list.
    pub fn texts(&mut self, name: &str) -> Vec<String> {
        let mut reader = Reader(&self.key(name).value);
        assert_eq!(reader.u32(), STRING);
        let count = reader.u64();
        (0..count).map(|_| String::from_utf8(reader.string().to_vec()).unwrap()).collect()
    }

    pub fn set_texts(&mut self, name: &str, texts: &[String]) {
        let mut value = STRING.to_le_bytes().to_vec();
        value.extend((texts.len() as u64).to_le_bytes());
        for text in texts {
            value.extend(string(text));
        }
        self.set(name, ARRAY, value);
    }
}

/// A text with its length.
pub fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// A list of so many zeros of four bytes.
pub fn zeros(ty: u32, count: u64) -> Vec<u8> {
    let mut value = ty.to_le_bytes().to_vec();
    value.extend(count.to_le_bytes());
    value.resize(value.len() + 4 * count as usize, 0);
    value
}
