//! How a row is written: the version of its layout in its first byte, then postcard.

use picket_common::wire::Generation;
use picket_common::wire::assign::HostAssignment;
use picket_common::wire::ha::{HostHa, Surroundings};
use picket_common::wire::report::Report;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::rack::brakes::BrakesRow;
use crate::rack::change::PasswordChange;
use crate::rack::facts::FactsRow;
use crate::rack::host::HostRow;
use crate::rack::operation::Operation;
use crate::rack::watch::{HaRow, Rules};

/// A row and the version of its layout, which is its first byte.
pub(super) trait Row: Serialize + DeserializeOwned {
    const VERSION: u8;
}

macro_rules! versions {
    ($($row:ty: $version:literal,)*) => {
        $(impl Row for $row {
            const VERSION: u8 = $version;
        })*
    };
}

versions! {
    (Option<Generation>, u64): 1,
    HostAssignment: 1,
    HostRow: 2,
    Operation: 2,
    Report: 1,
    FactsRow: 1,
    PasswordChange: 1,
    Rules: 1,
    Surroundings: 1,
    HostHa: 1,
    HaRow: 1,
    BrakesRow: 1,
}

pub(super) fn encode<T: Row>(row: &T) -> Result<Vec<u8>, redb::Error> {
    // postcard fails only on types that these rows do not contain; told as corruption rather than hidden.
    postcard::to_extend(row, vec![T::VERSION]).map_err(|error| redb::Error::Corrupted(format!("row does not encode: {error}")))
}

pub(super) fn decode<T: Row>(bytes: &[u8]) -> Option<T> {
    let (version, row) = bytes.split_first()?;
    let (value, rest) = postcard::take_from_bytes(row).ok()?;
    (*version == T::VERSION && rest.is_empty()).then_some(value)
}
