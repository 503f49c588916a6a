//! The parser: layout, then the pest grammar item by item, then `build`.
//!
//! Input: a file's text. Output: its [`ast::File`] and everything that is wrong with it, in order of position.
//! Invariant: never panics and takes linear time; each broken statement costs one diagnostic and hides no other.

use pest::Parser as _;
use pest::iterators::Pair;

use super::ast;
use super::build::Builder;
use super::explain::explain;
use super::layout::{Chunk, layout, layout_expression};
use crate::diagnostics::Diagnostic;
use crate::source::{FileId, Span};

/// The generated parser.
#[derive(pest_derive::Parser)]
#[grammar = "../grammar/ansatz.pest"]
pub(crate) struct Grammar;

/// Findings beyond this many in one file are not reported.
const MAX_DIAGNOSTICS: usize = 50;

/// Parses a file. What is well formed is in the tree even where its neighbours are not.
pub fn parse(file: FileId, text: &str) -> (ast::File, Vec<Diagnostic>) {
    let layout = layout(file, text);
    let mut diagnostics = layout.diagnostics;
    let mut tree = ast::File { docs: layout.docs, items: Vec::new() };
    for chunk in layout.chunks {
        let known: Vec<u32> = diagnostics.iter().map(|diagnostic| diagnostic.span().start).collect();
        let covered = |span: Span| known.iter().any(|at| span.start <= *at && *at < span.end);
        if let Some(item) = parse_chunk(file, chunk, &covered, &mut diagnostics) {
            tree.items.push(item);
        }
        if diagnostics.len() > MAX_DIAGNOSTICS {
            break;
        }
    }
    diagnostics.sort_by_key(|diagnostic| diagnostic.span().start);
    if diagnostics.len() > MAX_DIAGNOSTICS {
        diagnostics.truncate(MAX_DIAGNOSTICS);
        let last = diagnostics[MAX_DIAGNOSTICS - 1].span();
        diagnostics.push(Diagnostic::error("too-many", last, "further mistakes in this file are not shown"));
    }
    (tree, diagnostics)
}

/// Parses a lone expression, such as a value given on the command line.
pub fn parse_expression(file: FileId, text: &str) -> Result<ast::Expr, Vec<Diagnostic>> {
    let blanked = layout_expression(file, text)?;
    let mut builder = Builder::new(file, 0, text.len());
    match Grammar::parse(Rule::lone_expression, &blanked) {
        Ok(mut pairs) => {
            let pair = pairs.next().and_then(|pair| pair.into_inner().next()).expect("a lone expression holds one");
            let expression = builder.expression(pair, 0);
            if builder.diagnostics.is_empty() { Ok(expression) } else { Err(builder.diagnostics) }
        }
        Err(error) => Err(vec![explain(file, 0, &blanked, &error)]),
    }
}

/// Parses one item; `covered` tells whether a place already has a diagnostic.
fn parse_chunk(
    file: FileId,
    chunk: Chunk,
    covered: &dyn Fn(Span) -> bool,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<ast::Item> {
    let length = chunk.text.len();
    let text = chunk.text + &"}".repeat(chunk.missing_braces);
    let span = Span::new(file, chunk.start, chunk.start + length);
    let mut builder = Builder::new(file, chunk.start, chunk.start + length);
    let kind = match Grammar::parse(Rule::item, &text) {
        Ok(mut pairs) => {
            let pair = pairs.next().and_then(|pair| pair.into_inner().next()).expect("an item holds one kind");
            Some(builder.item(pair))
        }
        Err(error) => {
            let diagnostic = explain(file, chunk.start, &text, &error);
            // What is wrong behind the written text is the missing brace, which has its diagnostic.
            let is_behind = chunk.missing_braces > 0 && diagnostic.span().end > span.end;
            if !is_behind && !covered(diagnostic.span()) && !covered(header_span(span, &text)) {
                diagnostics.push(diagnostic);
            }
            None
        }
    };
    for bad in builder.bad_statements.drain(..) {
        let bad_span = Span::new(file, chunk.start + bad.start, chunk.start + bad.end);
        if covered(bad_span) {
            continue;
        }
        let statement = &text[bad.clone()];
        if let Err(error) = Grammar::parse(Rule::lone_statement, statement) {
            let diagnostic = explain(file, bad_span.start as usize, statement, &error);
            if chunk.missing_braces == 0 || diagnostic.span().end <= span.end {
                diagnostics.push(diagnostic);
            }
        }
        if diagnostics.len() > MAX_DIAGNOSTICS {
            break;
        }
    }
    diagnostics.append(&mut builder.diagnostics);
    kind.map(|kind| ast::Item { docs: chunk.docs, span, kind })
}

/// The item's text up to its first `{`.
fn header_span(item: Span, text: &str) -> Span {
    let header = text.find('{').unwrap_or(text.len()) as u32;
    Span { end: (item.start + header).min(item.end), ..item }
}

/// The only inner pair.
pub(crate) fn only(pair: Pair<'_, Rule>) -> Pair<'_, Rule> {
    pair.into_inner().next().expect("the rule has an inner rule")
}
