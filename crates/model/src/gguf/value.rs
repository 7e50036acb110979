//! Metadata values, read from the file each time they are asked for.

use super::cursor::Cursor;

/// Arrays of arrays are allowed by the format and used by nobody; this deep is generous.
const DEEPEST: usize = 4;

/// The type numbers of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    /// Unsigned byte.
    U8,
    /// Signed byte.
    I8,
    /// Unsigned 16-bit integer.
    U16,
    /// Signed 16-bit integer.
    I16,
    /// Unsigned 32-bit integer.
    U32,
    /// Signed 32-bit integer.
    I32,
    /// Single precision.
    F32,
    /// One byte, 0 or 1.
    Bool,
    /// Length and UTF-8 bytes.
    String,
    /// Element type, length and elements.
    Array,
    /// Unsigned 64-bit integer.
    U64,
    /// Signed 64-bit integer.
    I64,
    /// Double precision.
    F64,
}

impl ValueType {
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::String,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    pub(super) fn from_id(id: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(id).ok()?).copied()
    }

    /// The number of this type in a file.
    pub(crate) fn id(self) -> u32 {
        self as u32
    }

    /// Bytes of a value of this type, or the fewest it can have.
    fn least_bytes(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::String => 8,
            Self::Array => 12,
        }
    }
}

/// One metadata value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Any unsigned integer.
    Unsigned(u64),
    /// Any signed integer.
    Signed(i64),
    /// Either float.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A text, which may not be UTF-8 in a damaged file.
    String(&'a [u8]),
    /// A list, decoded as it is iterated.
    Array(Array<'a>),
}

/// A list of values of one type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Array<'a> {
    element: ValueType,
    length: u64,
    /// From the first element on; what follows the last one is not looked at.
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// The number of elements.
    pub fn len(&self) -> usize {
        // The reader has checked that the file holds as many elements, so the number fits.
        usize::try_from(self.length).unwrap_or(usize::MAX)
    }

    /// Whether the list has no element.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The type of the elements.
    pub fn element_type(&self) -> ValueType {
        self.element
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let (element, mut cursor) = (self.element, Cursor::new(self.bytes, 0));
        (0..self.length).map_while(move |_| read(&mut cursor, element, 0).ok())
    }
}

/// Why a value cannot be read.
pub(super) enum Fault {
    CutShort,
    TooDeep,
    UnknownType(u32),
    NotBool(u8),
}

impl Fault {
    pub(super) fn reason(&self) -> String {
        match self {
            Self::CutShort => "the file ends inside this value".into(),
            Self::TooDeep => format!("arrays are nested more than {DEEPEST} deep"),
            Self::UnknownType(id) => format!("value type {id} is unknown"),
            Self::NotBool(byte) => format!("a truth value must be 0 or 1, found {byte}"),
        }
    }
}

/// Reads one value and moves `cursor` past it; checks everything inside arrays too.
pub(super) fn read<'a>(
    cursor: &mut Cursor<'a>,
    ty: ValueType,
    depth: usize,
) -> Result<Value<'a>, Fault> {
    let signed = |x: Option<i64>| x.map(Value::Signed);
    let unsigned = |x: Option<u64>| x.map(Value::Unsigned);
    let value = match ty {
        ValueType::U8 => unsigned(cursor.array().map(|b| u8::from_le_bytes(b).into())),
        ValueType::U16 => unsigned(cursor.array().map(|b| u16::from_le_bytes(b).into())),
        ValueType::U32 => unsigned(cursor.u32().map(Into::into)),
        ValueType::U64 => unsigned(cursor.u64()),
        ValueType::I8 => signed(cursor.array().map(|b| i8::from_le_bytes(b).into())),
        ValueType::I16 => signed(cursor.array().map(|b| i16::from_le_bytes(b).into())),
        ValueType::I32 => signed(cursor.array().map(|b| i32::from_le_bytes(b).into())),
        ValueType::I64 => signed(cursor.array().map(i64::from_le_bytes)),
        ValueType::F32 => cursor.array().map(|b| Value::Float(f32::from_le_bytes(b).into())),
        ValueType::F64 => cursor.array().map(|b| Value::Float(f64::from_le_bytes(b))),
        ValueType::String => cursor.string().map(Value::String),
        ValueType::Bool => match cursor.array().ok_or(Fault::CutShort)? {
            [byte @ (0 | 1)] => Some(Value::Bool(byte == 1)),
            [byte] => return Err(Fault::NotBool(byte)),
        },
        ValueType::Array => Some(Value::Array(read_array(cursor, depth)?)),
    };
    value.ok_or(Fault::CutShort)
}

fn read_array<'a>(cursor: &mut Cursor<'a>, depth: usize) -> Result<Array<'a>, Fault> {
    if depth == DEEPEST {
        return Err(Fault::TooDeep);
    }
    let id = cursor.u32().ok_or(Fault::CutShort)?;
    let element = ValueType::from_id(id).ok_or(Fault::UnknownType(id))?;
    let length = cursor.u64().ok_or(Fault::CutShort)?;
    // Before a loop over them is begun: the elements must be able to exist.
    if length > cursor.remaining() / element.least_bytes() {
        return Err(Fault::CutShort);
    }
    let mut start = *cursor;
    match element {
        ValueType::Bool | ValueType::String | ValueType::Array => {
            for _ in 0..length {
                read(cursor, element, depth + 1)?;
            }
        }
        fixed => {
            cursor.take(length * fixed.least_bytes()).ok_or(Fault::CutShort)?;
        }
    }
    let bytes = start.take((cursor.at() - start.at()) as u64).ok_or(Fault::CutShort)?;
    Ok(Array { element, length, bytes })
}
