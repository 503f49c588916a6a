//! Declared fields.
//!
//! Input: made by `settings`. Output: read by sources and stages. Invariant: a class has no sizes of its own.

use crate::settings::Literal;
use crate::source::Span;

/// The declared type of a field's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// 32-bit floats.
    F32,
    /// Bytes in memory, floats for the model.
    U8,
    /// 32-bit integers.
    I32,
    /// Labels 0 to n − 1.
    Class(usize),
}

/// A declared field.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub name: String,
    /// The type of its elements.
    pub element: Element,
    /// Sizes per record; empty for classes and scalars.
    pub sizes: Vec<usize>,
    /// `= columns(0, 63)`.
    pub value: Option<Literal>,
    /// Where it is declared.
    pub span: Span,
}

impl Field {
    /// Values per record.
    pub(super) fn elements(&self) -> usize {
        self.sizes.iter().product()
    }

    /// Bytes of a record in memory.
    pub(super) fn bytes(&self) -> u64 {
        let element = if self.element == Element::U8 { 1 } else { 4 };
        element * self.elements() as u64
    }

    /// True for `class[n]`.
    pub(super) fn is_class(&self) -> bool {
        matches!(self.element, Element::Class(_))
    }
}
