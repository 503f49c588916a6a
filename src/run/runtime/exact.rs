//! Numbers in files of a run that come back to the bit.
//!
//! Input: a number. Output: its text. Invariant: what is read back has the bits of what was written; NaN stays one.

use serde::{Deserialize, Serialize};

/// A number that a file gives back to the bit; JSON has none for what is not finite. Written as the shortest decimal
/// text that reads as this number, or `NaN`, `inf`, `-inf`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Exact(pub f64);

impl Serialize for Exact {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|_| serde::de::Error::custom(format!("`{text}` is not a number")))
    }
}
