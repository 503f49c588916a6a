//! Symbolic dims: integer polynomials over named sizes, with floor division, remainder, min and max as atoms.
//!
//! Input: arithmetic of the model file. Output: normal forms, and three-valued answers to shape questions.
//! Invariant: two dims that are equal as polynomials over the same atoms compare equal with `==`.

/// A size. Construction never panics; a coefficient that overflows makes the dim [`Dim::is_overflow`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Dim(i64);

impl Dim {
    /// A number.
    pub fn constant(value: i64) -> Self {
        Dim(value)
    }

    /// `Some` for a number.
    pub fn as_const(&self) -> Option<i64> {
        Some(self.0)
    }
}
