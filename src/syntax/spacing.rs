//! Blanks between neighbouring tokens of one line in formatted text.
//!
//! Input: the significant tokens of a file that parses. Output: for each token whether a blank stands before it, and
//! which tokens are infix operators. Invariant: blanks carry no meaning, so no answer here can change a tree.

use super::token::{Token, TokenKind};

/// Words that are followed by a blank even before a bracket.
const KEYWORDS: &[&str] = &["if", "else", "and", "or", "not", "return", "require", "let", "on", "from"];

/// Names of reductions; `sum[k] (…)` has a blank where `x[k](…)` has none.
const REDUCTIONS: &[&str] =
    &["sum", "mean", "max", "min", "prod", "argmax", "argmin", "softmax", "log_softmax", "logsumexp"];

/// What the formatter knows of each significant token.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spacing {
    /// A blank stands before it unless a line begins with it.
    pub space: bool,
    /// An infix operator, `->`, `and`, `or`, or `else`: a line may begin with it.
    pub infix: bool,
    /// Brackets open before it.
    pub depth: usize,
}

/// Spacing of all significant tokens; `starts[i]` tells that token `i` begins a statement.
pub(super) fn spacing(source: &str, tokens: &[Token], starts: &[bool]) -> Vec<Spacing> {
    let mut view = View { source, tokens, starts, open: Vec::new(), spacings: Vec::with_capacity(tokens.len()) };
    for index in 0..tokens.len() {
        let spacing = view.one(index);
        view.spacings.push(spacing);
        match view.text(index) {
            "(" | "[" | "{" => view.open.push(index),
            ")" | "]" | "}" => {
                view.open.pop();
            }
            _ => {}
        }
    }
    view.spacings
}

struct View<'s> {
    source: &'s str,
    tokens: &'s [Token],
    starts: &'s [bool],
    open: Vec<usize>,
    spacings: Vec<Spacing>,
}

impl View<'_> {
    fn text(&self, index: usize) -> &str {
        self.tokens.get(index).map_or("", |token| token.text(self.source))
    }

    fn before(&self, index: usize) -> &str {
        index.checked_sub(1).map_or("", |before| self.text(before))
    }

    fn kind(&self, index: usize) -> Option<TokenKind> {
        self.tokens.get(index).map(|token| token.kind)
    }

    fn one(&self, index: usize) -> Spacing {
        let text = self.text(index);
        let depth = self.open.len();
        let infix = self.is_infix(index);
        if index == 0 {
            return Spacing { space: false, infix, depth };
        }
        let previous = self.text(index - 1);
        let space = match text {
            ")" | "]" | "," | "." | ".." => false,
            "}" => previous != "{",
            "(" | "[" => !self.is_postfix_bracket(index),
            "{" => !matches!(previous, "(" | "["),
            ":" => !self.is_tight_colon(index),
            "^" => false,
            "*" | "/" => !self.is_tight_product(index),
            _ => true,
        };
        let after_tight = match previous {
            "(" | "[" | "." | "^" => true,
            "*" | "/" => self.is_tight_product(index - 1),
            "-" => !self.spacings[index - 1].infix,
            _ => false,
        };
        Spacing { space: space && !after_tight, infix, depth }
    }

    fn is_infix(&self, index: usize) -> bool {
        match self.text(index) {
            "->" | "and" | "or" | "else" => true,
            "+" | "*" | "/" | "^" | "<" | "<=" | ">" | ">=" | "==" | "!=" => true,
            "-" => index > 0 && !self.starts[index] && self.ends_operand(index - 1),
            "%" => self.begins_operand(index + 1),
            _ => false,
        }
    }

    /// A `%` before anything else means hundredths.
    fn begins_operand(&self, index: usize) -> bool {
        let begins = match self.kind(index) {
            Some(TokenKind::Word) => !KEYWORDS.contains(&self.text(index)) || self.text(index) == "not",
            Some(TokenKind::Number | TokenKind::Text) => true,
            _ => matches!(self.text(index), "(" | "[" | "{" | "-"),
        };
        begins && !self.starts[index]
    }

    fn ends_operand(&self, index: usize) -> bool {
        match self.kind(index) {
            Some(TokenKind::Word) => !KEYWORDS.contains(&self.text(index)),
            Some(TokenKind::Number | TokenKind::Text) => true,
            _ => matches!(self.text(index), ")" | "]" | "}" | "%" | ".."),
        }
    }

    /// True for the bracket of a call, an index or a type.
    fn is_postfix_bracket(&self, index: usize) -> bool {
        let previous = self.before(index);
        match self.kind(index - 1) {
            Some(TokenKind::Word) => !KEYWORDS.contains(&previous),
            _ if previous == "]" => !self.closes_reduction(index - 1),
            _ => previous == ")",
        }
    }

    fn closes_reduction(&self, closer: usize) -> bool {
        let mut depth = 0;
        for index in (0..=closer).rev() {
            match self.text(index) {
                "]" | ")" | "}" => depth += 1,
                "[" | "(" | "{" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return REDUCTIONS.contains(&self.before(index));
            }
        }
        false
    }

    /// `x: [N]`, `conv1: Conv(…)`, `metric mae(a, b): lower is better`, but `return y : [N]`.
    fn is_tight_colon(&self, index: usize) -> bool {
        if self.before(index) == ")" {
            return self.open.is_empty() && self.statement(index) == "metric";
        }
        let Some(word) = index.checked_sub(1).filter(|word| self.kind(*word) == Some(TokenKind::Word)) else {
            return false;
        };
        match self.before(word) {
            "->" | "(" | "{" | "[" | "input" | "param" | "state" => true,
            "," => self.open.last().is_some_and(|open| self.text(*open) != "{") || self.statement(word) != "return",
            _ => self.starts[word],
        }
    }

    /// The first word of the statement that a token belongs to.
    fn statement(&self, index: usize) -> &str {
        let first = (0..=index).rev().find(|index| self.starts[*index]);
        first.map_or("", |first| self.text(first))
    }

    /// In square brackets a product of plain operands inside of a sum stands tight: `x[S*i + u - P]`.
    fn is_tight_product(&self, index: usize) -> bool {
        if !matches!(self.text(index), "*" | "/") || !self.open.iter().any(|open| self.text(*open) == "[") {
            return false;
        }
        let plain = |index: usize| matches!(self.kind(index), Some(TokenKind::Word | TokenKind::Number));
        let before = index - usize::from(self.before(index) == "..");
        let left = before > 1 && plain(before - 1) && self.text(before - 2) != ".";
        let right = plain(index + 1) && !matches!(self.text(index + 2), "(" | "[" | ".");
        left && right && (self.sum_follows(index) || self.sum_precedes(index))
    }

    fn sum_follows(&self, index: usize) -> bool {
        let mut depth = 0;
        for at in index + 1..self.tokens.len() {
            match self.text(at) {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" if depth == 0 => return false,
                ")" | "]" | "}" => depth -= 1,
                "," if depth == 0 => return false,
                "+" | "-" if depth == 0 && self.ends_operand(at - 1) => return true,
                _ => {}
            }
        }
        false
    }

    fn sum_precedes(&self, index: usize) -> bool {
        let mut depth = 0;
        for at in (1..index).rev() {
            match self.text(at) {
                ")" | "]" | "}" => depth += 1,
                "(" | "[" | "{" if depth == 0 => return false,
                "(" | "[" | "{" => depth -= 1,
                "," if depth == 0 => return false,
                "+" | "-" if depth == 0 && self.ends_operand(at - 1) => return true,
                _ => {}
            }
        }
        false
    }
}
