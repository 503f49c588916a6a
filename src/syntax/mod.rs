//! Text to syntax tree and back.
//!
//! Input: a file of a [`crate::source::SourceMap`]. Output: [`ast::File`] and diagnostics, or formatted text.
//! Invariant: every statement that is well formed by itself is in the tree, whatever its neighbours are.

pub mod ast;
