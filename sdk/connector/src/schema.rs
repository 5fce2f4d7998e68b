use std::sync::Arc;

use bytes::Bytes;

/// A value together with the schema that describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Structured {
    /// Shared by all records of one shape.
    pub schema: Arc<Schema>,
    /// The value, of the schema's type.
    pub value: Datum,
}

impl Structured {
    /// Bytes this counts for in a memory budget; the shared schema counts for nothing.
    pub fn weight(&self) -> usize {
        self.value.weight()
    }
}

/// Describes a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Schema {
    /// Full name, for example `shop.Order`. Empty for anonymous schemas.
    pub name: String,
    /// Version in the source's own counting; 0 when it has none.
    pub version: u32,
    /// Type of the value.
    pub kind: SchemaType,
    /// Whether `Datum::Null` is allowed.
    pub optional: bool,
}

/// Type of a value. Logical types are named after what they mean, with their unit.
#[derive(Clone, Debug, PartialEq)]
pub enum SchemaType {
    /// Truth value.
    Bool,
    /// Signed integer of up to 64 bits.
    Int64,
    /// Unsigned integer of up to 64 bits.
    Uint64,
    /// IEEE double.
    Float64,
    /// Text.
    String,
    /// Bytes.
    Bytes,
    /// Exact decimal: unscaled integer as text digits with this scale.
    Decimal {
        /// Digits after the point.
        scale: u32,
    },
    /// Microseconds since 1970 UTC.
    TimestampMicros,
    /// Days since 1970.
    Date,
    /// Values of one type.
    Array(Arc<Schema>),
    /// Text keys, values of one type.
    Map(Arc<Schema>),
    /// Named fields in order.
    Struct(Vec<Field>),
}

/// A field of a struct.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Name.
    pub name: String,
    /// Schema.
    pub schema: Arc<Schema>,
}

/// A structured value.
#[derive(Clone, Debug, PartialEq)]
pub enum Datum {
    /// Absent.
    Null,
    /// Truth value.
    Bool(bool),
    /// Int64, TimestampMicros, Date.
    Int(i64),
    /// Uint64.
    Uint(u64),
    /// Float64.
    Float(f64),
    /// String, Decimal.
    Str(Arc<str>),
    /// Bytes.
    Bytes(Bytes),
    /// Array.
    Array(Vec<Datum>),
    /// Map, in order of insertion.
    Map(Vec<(Arc<str>, Datum)>),
    /// Struct: one value per field of the schema, in its order.
    Struct(Vec<Datum>),
}

impl Datum {
    fn weight(&self) -> usize {
        16 + match self {
            Self::Str(s) => s.len(),
            Self::Bytes(b) => b.len(),
            Self::Array(v) | Self::Struct(v) => v.iter().map(Self::weight).sum(),
            Self::Map(v) => v.iter().map(|(k, d)| k.len() + d.weight()).sum(),
            _ => 0,
        }
    }
}
