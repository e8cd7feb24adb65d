//! A single value or a list of values. The response has the same form as the request.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer, StrDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::ApiError;

/// A single text or object, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

/// The text or texts of a request.
pub type Texts = OneOrMany<String>;

impl<T> OneOrMany<T> {
    /// The value or values as a slice.
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    /// The value or values as a list.
    pub fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }

    /// Gives answers the form of the request.
    pub fn like<A>(&self, mut answers: Vec<A>) -> OneOrMany<A> {
        match self {
            Self::One(_) if answers.len() == 1 => OneOrMany::One(answers.remove(0)),
            _ => OneOrMany::Many(answers),
        }
    }
}

impl Texts {
    /// Checks that no text of the field `name` is empty.
    ///
    /// # Errors
    /// 422 if one is empty.
    pub fn check(&self, name: &str) -> Result<(), ApiError> {
        self.as_slice().iter().try_for_each(|text| check_text(text, name))
    }
}

/// Checks that a text of the field `name` is not empty.
///
/// # Errors
/// 422 if it is empty.
pub fn check_text(text: &str, name: &str) -> Result<(), ApiError> {
    match text.is_empty() {
        true => Err(ApiError::invalid(format!("`{name}`: found an empty text, expected at least one character"))),
        false => Ok(()),
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("one, or a list")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                T::deserialize(StrDeserializer::new(text)).map(OneOrMany::One)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(OneOrMany::One)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(OneOrMany::Many)
            }
        }

        deserializer.deserialize_any(Either(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::OneOrMany::{Many, One};
    use super::*;

    #[test]
    fn texts_come_alone_or_in_lists_which_may_be_nested() {
        let parse = |json: &str| serde_json::from_str::<OneOrMany<Texts>>(json);
        assert_eq!(parse(r#""a""#).unwrap(), One(One("a".into())));
        assert_eq!(parse(r#"["a"]"#).unwrap(), Many(vec![One("a".into())]));
        assert_eq!(parse(r#"[["a", "b"]]"#).unwrap(), Many(vec![Many(vec!["a".into(), "b".into()])]));
        for wrong in ["1", "null", "[1]", r#"{"a": "b"}"#, r#"["a", null]"#] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert!(Texts::Many(vec!["a".into(), String::new()]).check("inputs").is_err());
    }
}
