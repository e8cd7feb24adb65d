//! Converts the cells of a `.parquet` file to JSON.

use parquet::record::{Field, Row};
use serde_json::{Map, Number, Value};

/// Replaces the numbers in a list by the names that they stand for.
pub fn named(value: &Value, names: &[String]) -> Value {
    match value {
        Value::Array(values) => values.iter().map(|value| named(value, names)).collect(),
        Value::Number(number) => {
            let name = number.as_u64().and_then(|index| names.get(usize::try_from(index).ok()?));
            name.map_or_else(|| value.clone(), |name| Value::from(name.as_str()))
        }
        other => other.clone(),
    }
}

/// Converts a cell to JSON.
pub fn value(field: &Field) -> Result<Value, String> {
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(value) => (*value).into(),
        Field::Byte(value) => (*value).into(),
        Field::Short(value) => (*value).into(),
        Field::Int(value) => (*value).into(),
        Field::Long(value) => (*value).into(),
        Field::UByte(value) => (*value).into(),
        Field::UShort(value) => (*value).into(),
        Field::UInt(value) => (*value).into(),
        Field::ULong(value) => (*value).into(),
        Field::Float16(value) => float(value.to_f32()),
        Field::Float(value) => float(*value),
        Field::Double(value) => Number::from_f64(*value).map_or_else(|| value.to_string().into(), Value::Number),
        Field::Str(text) => text.as_str().into(),
        // Binary data that is not text, such as a picture, is of no use here.
        Field::Bytes(bytes) => std::str::from_utf8(bytes.data()).map_or(Value::Null, Value::from),
        Field::Group(row) => object(row)?,
        Field::ListInternal(list) => Value::Array(list.elements().iter().map(value).collect::<Result<_, _>>()?),
        Field::MapInternal(map) => {
            let pair = |(key, entry): &(Field, Field)| Ok(Value::Array(vec![value(key)?, value(entry)?]));
            Value::Array(map.entries().iter().map(pair).collect::<Result<_, String>>()?)
        }
        // Decimals, dates and times are formatted as text.
        other => other.to_string().into(),
    })
}

fn object(row: &Row) -> Result<Value, String> {
    let mut object = Map::new();
    for (name, field) in row.get_column_iter() {
        object.insert(name.clone(), value(field)?);
    }
    Ok(object.into())
}

/// Converts an `f32` with its own shortest digits (0.1), not those of the nearest `f64` (0.10000000149).
fn float(value: f32) -> Value {
    let number = value.to_string().parse().ok().and_then(Number::from_f64);
    number.map_or_else(|| value.to_string().into(), Value::Number)
}
