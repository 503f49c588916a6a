//! Layout: which newlines end a statement, where items begin and end, and whether brackets match.
//!
//! Input: a file's text. Output: its items as [`Chunk`]s, ready for the grammar: comments, and newlines that continue
//! a statement, are blanked without moving any other byte. Invariant: brackets in a chunk nest at most [`MAX_NESTING`]
//! deep, and its braces match once `missing_braces` closing ones are appended, so the grammar's recursion is bounded.

use super::token::{Token, TokenKind, tokens};
use crate::diagnostics::Diagnostic;
use crate::source::{FileId, Span};

/// How deep brackets may nest.
pub(crate) const MAX_NESTING: usize = 96;

/// Words that begin an item.
pub(crate) const ITEM_WORDS: &[&str] =
    &["use", "fn", "layer", "model", "loss", "optimizer", "schedule", "metric", "data", "train", "assert"];

/// Words that begin a statement and cannot be mistaken for a name there.
const STATEMENT_WORDS: &[&str] = &["input", "param", "state", "let", "require", "return"];

/// Words that stand between two operands.
const INFIX_WORDS: &[&str] = &["if", "else", "and", "or"];

/// Symbols that begin no statement: a line that begins with one continues the statement before it.
const LEADING_SYMBOLS: &[&str] =
    &["->", "<-", "+", "-", "*", "/", "%", "^", "<", "<=", ">", ">=", "==", "!=", "=", "~", ",", ":", "{", "."];

/// One top-level item of a file.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    /// First byte in the file.
    pub start: usize,
    /// The blanked text.
    pub text: String,
    /// How many `}` the item lacks; they are not part of `text`.
    pub missing_braces: usize,
    /// `##` lines directly above.
    pub docs: Vec<String>,
}

/// A file split into items.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    /// The items in order.
    pub chunks: Vec<Chunk>,
    /// `##` lines at the head, apart from those of the first item.
    pub docs: Vec<String>,
    /// The whole text with comments and continuing newlines blanked.
    pub blanked: String,
    /// Bracket, quote and nesting errors.
    pub diagnostics: Vec<Diagnostic>,
}

/// Splits a file into items.
pub(crate) fn layout(file: FileId, source: &str) -> Layout {
    let mut scan = Scan::new(file, source);
    let mut index = 0;
    while index < scan.tokens.len() && !scan.stopped {
        scan.step(index);
        index += 1;
    }
    scan.finish();
    scan.layout.blanked = String::from_utf8(scan.blanked).expect("whole tokens are blanked");
    scan.layout
}

/// Blanks a lone expression, as on a command line: every newline continues it.
pub(crate) fn layout_expression(file: FileId, source: &str) -> Result<String, Vec<Diagnostic>> {
    let mut scan = Scan::new(file, source);
    for index in 0..scan.tokens.len() {
        if scan.tokens[index].kind == TokenKind::Newline {
            scan.blank(scan.tokens[index]);
        } else if !scan.stopped {
            scan.step(index);
        }
    }
    scan.report_open_brackets(None);
    let text = String::from_utf8(scan.blanked).expect("whole tokens are blanked");
    if scan.layout.diagnostics.is_empty() { Ok(text) } else { Err(scan.layout.diagnostics) }
}

struct Scan<'s> {
    file: FileId,
    source: &'s str,
    tokens: Vec<Token>,
    /// For each token, the first later one that is neither newline nor comment.
    next_significant: Vec<Option<usize>>,
    blanked: Vec<u8>,
    /// Indices of tokens that are open brackets.
    open: Vec<usize>,
    /// The last significant token.
    previous: Option<usize>,
    /// The first significant token of the item that is being read.
    item_start: Option<usize>,
    /// Index of the token after the last finished item.
    after_item: usize,
    layout: Layout,
    stopped: bool,
}

impl<'s> Scan<'s> {
    fn new(file: FileId, source: &'s str) -> Self {
        let tokens = tokens(source);
        let mut next_significant = vec![None; tokens.len()];
        let mut next = None;
        for index in (0..tokens.len()).rev() {
            next_significant[index] = next;
            next = if tokens[index].is_significant() { Some(index) } else { next };
        }
        Self {
            file,
            source,
            tokens,
            next_significant,
            blanked: source.as_bytes().to_vec(),
            open: Vec::new(),
            previous: None,
            item_start: None,
            after_item: 0,
            layout: Layout::default(),
            stopped: false,
        }
    }

    fn step(&mut self, index: usize) {
        let token = self.tokens[index];
        match token.kind {
            TokenKind::Newline => return self.newline(index),
            TokenKind::Comment | TokenKind::Doc => return self.blank(token),
            TokenKind::OpenText => {
                let message = "this text has no closing quote on its line";
                self.report(
                    Diagnostic::error("unclosed", self.span(token), message).hint("texts end on the line they begin"),
                );
            }
            TokenKind::Symbol => match token.text(self.source) {
                "(" | "[" | "{" => self.open_bracket(index),
                ")" | "]" | "}" => self.close_bracket(index),
                _ => {}
            },
            TokenKind::Word | TokenKind::Number | TokenKind::Text | TokenKind::Unknown => {}
        }
        if self.item_start.is_none() {
            self.item_start = Some(index);
        }
        self.previous = Some(index);
    }

    fn open_bracket(&mut self, index: usize) {
        self.open.push(index);
        if self.open.len() > MAX_NESTING {
            let message = format!("brackets nest more than {MAX_NESTING} deep");
            let hint = "give an inner part a name of its own";
            self.report(Diagnostic::error("too-deep", self.span(self.tokens[index]), message).hint(hint));
            self.stopped = true;
        }
    }

    fn close_bracket(&mut self, index: usize) {
        let token = self.tokens[index];
        let closer = token.text(self.source);
        let opener = opener_of(closer);
        if closer == "}" && self.open.iter().any(|open| self.text_of(*open) == "{") {
            while let Some(top) = self.open.pop() {
                if self.text_of(top) == "{" {
                    return;
                }
                self.report_unclosed(top, Some((token, "the block ends here")));
            }
        }
        match self.open.last().copied() {
            Some(top) if self.text_of(top) == opener => {
                self.open.pop();
            }
            Some(top) if self.text_of(top) != "{" => {
                let wanted = closer_of(self.text_of(top));
                let message = format!("`{}` is closed by `{closer}`", self.text_of(top));
                let diagnostic = Diagnostic::error("unmatched", self.span(token), message)
                    .at(format!("expected `{wanted}`"))
                    .label(self.span(self.tokens[top]), "opened here")
                    .fix(self.span(token), wanted);
                self.report(diagnostic);
                self.open.pop();
            }
            Some(_) | None => {
                let message = format!("`{closer}` closes nothing");
                let diagnostic = Diagnostic::error("unmatched", self.span(token), message)
                    .at(format!("there is no open `{opener}`"))
                    .fix(self.span(token), "");
                self.report(diagnostic);
                self.blank(token);
            }
        }
    }

    fn newline(&mut self, index: usize) {
        let Some(next) = self.next_significant[index] else { return };
        if self.open.first().is_some_and(|open| self.indent(next) <= self.indent(*open)) && self.starts_item(next) {
            let missing = self.open.iter().filter(|open| self.text_of(**open) == "{").count();
            self.report_open_brackets(Some((self.tokens[next], "a new item begins here")));
            return self.end_item(index, missing);
        }
        let in_brackets = self.open.last().is_some_and(|top| self.text_of(*top) != "{");
        if in_brackets {
            if !self.starts_statement(next) {
                return self.blank(self.tokens[index]);
            }
            while let Some(top) = self.open.pop_if(|top| self.source.as_bytes()[self.tokens[*top].start] != b'{') {
                self.report_unclosed(top, None);
            }
        } else if self.item_start.is_some() && self.continues(next) {
            return self.blank(self.tokens[index]);
        }
        if self.open.is_empty() {
            self.end_item(index, 0);
        }
    }

    /// True when the line that begins with token `next` belongs to the statement before it.
    fn continues(&self, next: usize) -> bool {
        let leads = self.leads(next) || self.text_of(next) == "if" && self.is_infix_if(next);
        leads
            || (self.previous.is_some_and(|previous| self.expects_more(previous)) && !self.starts_statement_like(next))
    }

    /// True for a token that begins no statement.
    fn leads(&self, index: usize) -> bool {
        let token = self.tokens[index];
        let text = token.text(self.source);
        match token.kind {
            TokenKind::Word => matches!(text, "and" | "or" | "else"),
            TokenKind::Symbol => LEADING_SYMBOLS.contains(&text),
            _ => false,
        }
    }

    /// A leading `if` continues an expression unless it opens a block before any `else`.
    fn is_infix_if(&self, at: usize) -> bool {
        for index in at..self.tokens.len() {
            match self.text_of(index) {
                "{" => return false,
                "else" => return true,
                "\n" if !self.next_significant[index].is_some_and(|next| self.leads(next)) => return true,
                _ => {}
            }
        }
        true
    }

    /// True after a token that cannot end a statement.
    fn expects_more(&self, index: usize) -> bool {
        let token = self.tokens[index];
        let text = token.text(self.source);
        match token.kind {
            TokenKind::Word => INFIX_WORDS.contains(&text) || text == "not",
            TokenKind::Symbol => !matches!(text, ")" | "]" | "}" | "{" | "%" | ";"),
            _ => false,
        }
    }

    /// True when a line that begins here is a statement of its own even after an unfinished one.
    fn starts_statement_like(&self, at: usize) -> bool {
        let after_comma = self.previous.is_some_and(|previous| self.text_of(previous) == ",");
        let binds = matches!(self.significant_after(at), Some(next) if matches!(self.text_of(next), "=" | "<-"));
        self.text_of(at) == "}" || self.starts_statement(at) || self.starts_item(at) || (binds && !after_comma)
    }

    /// Blanks at the head of a token's line.
    fn indent(&self, index: usize) -> usize {
        let before = &self.source[..self.tokens[index].start];
        let line = &before[before.rfind('\n').map_or(0, |newline| newline + 1)..];
        line.len() - line.trim_start().len()
    }

    fn starts_item(&self, at: usize) -> bool {
        ITEM_WORDS.contains(&self.text_of(at)) && self.begins_with_two_words(at)
    }

    fn starts_statement(&self, at: usize) -> bool {
        let text = self.text_of(at);
        STATEMENT_WORDS.contains(&text) && (text == "return" || self.begins_with_two_words(at))
    }

    fn begins_with_two_words(&self, at: usize) -> bool {
        let Some(next) = self.tokens.get(at + 1) else { return false };
        next.kind == TokenKind::Word && !INFIX_WORDS.contains(&next.text(self.source))
    }

    fn significant_after(&self, at: usize) -> Option<usize> {
        self.tokens.get(at + 1).filter(|token| token.is_significant()).map(|_| at + 1)
    }

    /// Ends the item that is being read before token `index`.
    fn end_item(&mut self, index: usize, missing_braces: usize) {
        if let Some(first) = self.item_start.take() {
            let start = self.tokens[first].start;
            let end = self.previous.map_or(start, |last| self.tokens[last].end);
            let text = String::from_utf8(self.blanked[start..end].to_vec()).expect("whole tokens are blanked");
            let docs = self.docs_above(first);
            self.layout.chunks.push(Chunk { start, text, missing_braces, docs });
            self.after_item = index;
        }
        self.previous = None;
    }

    /// The `##` lines that end on the line above token `first`; those at the head of the file with a blank line after
    /// them document the file.
    fn docs_above(&mut self, first: usize) -> Vec<String> {
        let mut runs: Vec<Vec<String>> = vec![Vec::new()];
        let mut newlines = 0;
        for token in &self.tokens[self.after_item..first] {
            match token.kind {
                TokenKind::Newline => newlines += 1,
                TokenKind::Doc => {
                    if newlines > 1 {
                        runs.push(Vec::new());
                    }
                    newlines = 0;
                    let line = token.text(self.source).trim_start_matches('#');
                    let run = runs.last_mut().expect("never empty");
                    run.push(line.strip_prefix(' ').unwrap_or(line).trim_end().to_string());
                }
                _ => newlines = 0,
            }
        }
        let own = if newlines <= 1 { runs.pop().unwrap_or_default() } else { Vec::new() };
        if self.layout.chunks.is_empty() {
            self.layout.docs = runs.concat();
        }
        own
    }

    fn finish(&mut self) {
        if self.stopped {
            return;
        }
        let missing = self.open.iter().filter(|open| self.text_of(**open) == "{").count();
        self.report_open_brackets(None);
        if self.item_start.is_none() && self.layout.chunks.is_empty() {
            self.layout.docs = self.docs_above(self.tokens.len());
        }
        self.end_item(self.tokens.len(), missing);
    }

    /// At the end of an item: the innermost open `(` or `[`, else the outermost `{`.
    fn report_open_brackets(&mut self, end: Option<(Token, &str)>) {
        if self.stopped {
            return;
        }
        let inner = self.open.last().copied().filter(|top| self.text_of(*top) != "{");
        if let Some(index) = inner.or(self.open.first().copied()) {
            self.report_unclosed(index, end);
        }
        self.open.clear();
    }

    fn report_unclosed(&mut self, index: usize, end: Option<(Token, &str)>) {
        let opener = self.text_of(index);
        let message = format!("unclosed `{opener}`");
        let place = format!("this `{opener}` has no `{}`", closer_of(opener));
        let mut diagnostic = Diagnostic::error("unclosed", self.span(self.tokens[index]), message).at(place);
        if let Some((token, words)) = end {
            diagnostic = diagnostic.label(self.span(token), words);
        }
        self.report(diagnostic);
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        self.layout.diagnostics.push(diagnostic);
    }

    fn blank(&mut self, token: Token) {
        self.blanked[token.start..token.end].fill(b' ');
    }

    fn text_of(&self, index: usize) -> &'s str {
        self.tokens[index].text(self.source)
    }

    fn span(&self, token: Token) -> Span {
        Span::new(self.file, token.start, token.end)
    }
}

fn opener_of(closer: &str) -> &'static str {
    match closer {
        ")" => "(",
        "]" => "[",
        _ => "{",
    }
}

fn closer_of(opener: &str) -> &'static str {
    match opener {
        "(" => ")",
        "[" => "]",
        _ => "}",
    }
}
