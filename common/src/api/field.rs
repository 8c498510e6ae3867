//! A field of a `PATCH`: left out, `null`, or a value.

use serde::Deserialize;

/// A field of a `PATCH`: left out, `null`, or a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Field<T> {
    /// Left out: stays as it is.
    #[default]
    Keep,
    /// `null`: goes back to what is inherited, or to nothing.
    Unset,
    /// A value.
    Set(T),
}

impl<T> Field<T> {
    /// The value after the change of one that was `kept`.
    pub fn over(self, kept: Option<T>) -> Option<T> {
        match self {
            Self::Keep => kept,
            Self::Unset => None,
            Self::Set(value) => Some(value),
        }
    }

    /// Whether it was left out.
    #[must_use]
    pub const fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }

    /// The value, if there is one.
    pub const fn value(&self) -> Option<&T> {
        match self {
            Self::Set(value) => Some(value),
            Self::Keep | Self::Unset => None,
        }
    }
}

/// A value that may be left out of a body that is taken as a whole.
impl<T> From<Option<T>> for Field<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Keep, Self::Set)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Unset, Self::Set))
    }
}
