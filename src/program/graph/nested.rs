//! Reading values that hold values of their own kind.
//!
//! Input: a deserializer, for a field of a recursive type. Output: the field. Invariant: what is read back is nested no deeper
//! than [`DEEPEST`], so that neither reading it nor walking over it or freeing it overflows a thread's stack.

use std::cell::Cell;

use serde::de::{Deserialize, Deserializer, Error};

/// Values within values: far more than a model file's nesting allows.
pub const DEEPEST: usize = 1024;

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// One level, which ends where it goes out of scope.
struct Level;

impl Drop for Level {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// Reads a field one level deeper (`#[serde(deserialize_with = …)]`).
///
/// # Errors
/// Those of the field, and more than [`DEEPEST`] levels.
pub fn nested<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    DEPTH.set(DEPTH.get() + 1);
    let level = Level;
    if DEPTH.get() > DEEPEST {
        return Err(D::Error::custom(format_args!("values are nested deeper than {DEEPEST}")));
    }
    let value = T::deserialize(from);
    drop(level);
    value
}
