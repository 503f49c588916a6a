//! Text to syntax tree and back.
//!
//! Input: a file of a [`crate::source::SourceMap`]. Output: [`ast::File`] and diagnostics, or formatted text.
//! Invariant: every statement that is well formed by itself is in the tree, whatever its neighbours are.

pub mod ast;
mod build;
mod explain;
mod expression;
mod layout;
mod parse;
mod print;
#[cfg(test)]
mod print_tests;
mod spacing;
#[cfg(test)]
mod tests;
mod token;

pub use parse::{parse, parse_expression};
pub use print::format;
pub(crate) use token::on_one_line;
