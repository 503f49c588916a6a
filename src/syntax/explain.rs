//! Human words for text that the grammar rejects.
//!
//! Input: the rejected statement or item and pest's furthest position. Output: one [`Diagnostic`] at the token where
//! reading stopped. Invariant: no rule name of the grammar reaches the user; a known mistake comes with its mending.

use pest::error::{Error, ErrorVariant, InputLocation};

use super::layout::ITEM_WORDS;
use super::parse::Rule;
use super::token::{Token, TokenKind, tokens};
use crate::diagnostics::{Diagnostic, suggest};
use crate::source::{FileId, Span};

/// What other languages write, what Ansatz writes, and words about it.
const MISTAKES: &[(&str, Option<&str>, &str)] = &[
    (";", Some(""), "a statement ends with its line; leave the `;` out"),
    (":=", Some("="), "a value is bound with `=`"),
    ("=>", Some("->"), "\"flows to\" is written `->`"),
    ("|>", Some("->"), "\"flows to\" is written `->`"),
    ("→", Some("->"), "\"flows to\" is written `->`"),
    ("**", Some("^"), "a power is written `^`"),
    ("&&", Some("and"), "write `and`"),
    ("&", Some("and"), "write `and`"),
    ("||", Some("or"), "write `or`"),
    ("|", Some("or"), "write `or`"),
    ("!", Some("not "), "write `not`"),
    ("//", Some("#"), "a comment begins with `#`; a division is written `/`, which rounds down between sizes"),
    ("+=", None, "write the whole value: `m <- m + …` for a state"),
    ("-=", None, "write the whole value: `m <- m - …` for a state"),
    ("*=", None, "write the whole value: `m <- m * …` for a state"),
    ("/=", None, "write the whole value: `m <- m / …` for a state"),
    ("**=", None, "write the whole value: `m <- m ^ …` for a state"),
    ("@", None, "write a matrix product as an equation: `y[n, o] = sum[k] x[n, k] * w[o, k]`"),
    ("?", None, "a choice is written `a if condition else b`"),
    ("'", None, "texts stand in double quotes"),
    ("`", None, "texts stand in double quotes"),
    ("“", Some("\""), "texts stand in straight double quotes"),
    ("”", Some("\""), "texts stand in straight double quotes"),
    ("×", Some("*"), "a product is written `*`"),
    ("·", Some("*"), "a product is written `*`"),
    ("−", Some("-"), "write the ASCII `-`"),
    ("–", Some("-"), "write the ASCII `-`"),
    ("≤", Some("<="), "write `<=`"),
    ("≥", Some(">="), "write `>=`"),
    ("≠", Some("!="), "write `!=`"),
    ("←", Some("<-"), "write `<-`"),
    ("::", Some("."), "a member is written with `.`"),
    (
        "..",
        None,
        "`..` follows a name that stands for several dims or entries: `[N.., C]`; numbers are written with commas between them",
    ),
    ("...", None, "write the dims one by one"),
];

/// Rules that pest names where it wants an expression.
const EXPRESSION_STARTS: [Rule; 8] = [
    Rule::expression,
    Rule::pipeline,
    Rule::operators,
    Rule::postfix,
    Rule::stage,
    Rule::number,
    Rule::quantity,
    Rule::argument,
];

/// Words that begin a statement.
const STATEMENT_WORDS: &[&str] = &["input", "param", "state", "let", "require", "return", "if"];

/// Words of other languages and the statement that replaces them.
const FOREIGN: &[(&str, &str)] = &[
    ("def", "a function is written `fn name(x) = expression`"),
    ("class", "a layer is written `layer Name(…) { … }`"),
    ("import", "write `use Name from \"file.ansatz\"`"),
    ("from", "write `use Name from \"file.ansatz\"`"),
    ("for", "there are no loops: an index runs over its dim, and `repeat(n) Stage` repeats a stage"),
    ("while", "there are no loops: an index runs over its dim, and `repeat(n) Stage` repeats a stage"),
    ("var", "a value is bound with `name = expression`"),
    ("const", "a static value is bound with `let name = expression`"),
    ("elif", "write `else if`"),
];

/// The rejected text with the place where reading stopped.
struct Failure<'t> {
    file: FileId,
    base: usize,
    text: &'t str,
    tokens: Vec<Token>,
    /// Index of the token at the stop; `tokens.len()` at the end.
    found: usize,
    expected: Vec<Rule>,
}

/// Words for a parsing error in `text`, which begins at byte `base` of the file.
pub(crate) fn explain(file: FileId, base: usize, text: &str, error: &Error<Rule>) -> Diagnostic {
    let at = match error.location {
        InputLocation::Pos(at) => at,
        InputLocation::Span((start, _)) => start,
    };
    let expected = match &error.variant {
        ErrorVariant::ParsingError { positives, .. } => positives.clone(),
        ErrorVariant::CustomError { .. } => {
            let message = "the text nests too deeply to be read";
            return Diagnostic::error("too-deep", Span::new(file, base + at, base + at), message);
        }
    };
    let tokens: Vec<Token> = tokens(text).into_iter().filter(Token::is_significant).collect();
    let found = tokens.iter().position(|token| token.end > at).unwrap_or(tokens.len());
    let failure = Failure { file, base, text, tokens, found, expected };
    failure.known_mistake().or_else(|| failure.misplaced_word()).unwrap_or_else(|| failure.unexpected())
}

impl Failure<'_> {
    fn word(&self, index: usize) -> &str {
        self.tokens.get(index).map_or("", |token| token.text(self.text))
    }

    fn kind(&self, index: usize) -> Option<TokenKind> {
        self.tokens.get(index).map(|token| token.kind)
    }

    fn span(&self, index: usize) -> Span {
        match self.tokens.get(index).or(self.tokens.last()) {
            Some(token) if index < self.tokens.len() => {
                Span::new(self.file, self.base + token.start, self.base + token.end)
            }
            Some(last) => Span::new(self.file, self.base + last.end, self.base + last.end),
            None => Span::new(self.file, self.base, self.base),
        }
    }

    fn error(&self, index: usize, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error("syntax", self.span(index), message)
    }

    /// A symbol of another language at the stop or just before it.
    fn known_mistake(&self) -> Option<Diagnostic> {
        for index in [Some(self.found), self.found.checked_sub(1)].into_iter().flatten() {
            let word = self.word(index);
            if let Some((_, replacement, hint)) = MISTAKES.iter().find(|(mistake, ..)| *mistake == word) {
                let diagnostic = self.error(index, format!("unexpected `{word}`")).hint(*hint);
                return Some(match replacement {
                    Some(replacement) => diagnostic.fix(self.span(index), *replacement),
                    None => diagnostic,
                });
            }
        }
        if self.kind(self.found) == Some(TokenKind::Unknown) {
            let character = self.word(self.found);
            let message = format!("unexpected character `{}`", character.escape_debug());
            let hint = "names are made of ASCII letters, digits and `_`";
            let is_letter = character.chars().all(char::is_alphabetic);
            let diagnostic = self.error(self.found, message);
            return Some(if is_letter { diagnostic.hint(hint) } else { diagnostic });
        }
        None
    }

    /// A misspelled or foreign keyword, or a declaration with a part left out.
    fn misplaced_word(&self) -> Option<Diagnostic> {
        let first = self.word(0);
        let is_item =
            self.expected.iter().any(|rule| matches!(rule, Rule::item | Rule::definition_kind | Rule::kw_use));
        if let Some((_, hint)) = FOREIGN.iter().find(|(word, _)| *word == first) {
            return Some(self.error(0, format!("`{first}` is no word of the language")).hint(*hint));
        }
        if is_item && self.found == 0 && !ITEM_WORDS.contains(&first) {
            return Some(self.no_item());
        }
        let two_words = self.kind(0) == Some(TokenKind::Word) && self.kind(1) == Some(TokenKind::Word);
        let known = STATEMENT_WORDS.contains(&first) || ITEM_WORDS.contains(&first);
        if two_words && !known && self.found <= 1 {
            let near = suggest::nearest(first, STATEMENT_WORDS.iter().chain(ITEM_WORDS).copied())?;
            let message = format!("`{first}` begins no statement");
            let diagnostic = self.error(0, message).hint(format!("did you mean `{near}`?"));
            return Some(diagnostic.fix(self.span(0), near));
        }
        if ITEM_WORDS.contains(&first) && two_words && !is_item && self.found <= 1 {
            let message = format!("`{first}` begins an item, which stands outside of all blocks");
            return Some(self.error(0, message));
        }
        let names = (0..).step_by(2).take_while(|index| self.kind(*index) == Some(TokenKind::Word));
        let names = names.take_while(|index| *index == 0 || self.word(index - 1) == ",").count();
        if names >= 2 && self.word(2 * names - 1) == "=" && self.found < 2 * names {
            let diagnostic = self.error(1, "a statement binds one name");
            return Some(diagnostic.hint(
                "bind all results to one name and read them by theirs: `both = stage(x)`, then `both.first`; \
                 a part of a tensor is an equation: `a[n, c] = x[n, c] : [N, C / 2]`",
            ));
        }
        let declares = STATEMENT_WORDS.contains(&first);
        if self.word(1) == ":" && self.kind(0) == Some(TokenKind::Word) && self.found >= 2 && !declares {
            let diagnostic = self.error(1, format!("`{first}:` is followed by a type such as `[N, C]` or `i32[N]`"));
            return Some(diagnostic.hint("a value is bound with `=`").fix(self.span(1), " ="));
        }
        None
    }

    fn no_item(&self) -> Diagnostic {
        let first = self.word(0);
        let message = "expected an item: `model`, `layer`, `fn`, `loss`, `optimizer`, `schedule`, `metric`, `data`, \
                       `train`, `assert` or `use`";
        if let Some(near) = suggest::nearest(first, ITEM_WORDS.iter().copied()) {
            let diagnostic = self.error(0, format!("`{first}` begins no item"));
            return diagnostic.hint(format!("did you mean `{near}`?")).fix(self.span(0), near);
        }
        let diagnostic = self.error(0, message);
        if STATEMENT_WORDS.contains(&first) || self.word(1) == "=" {
            return diagnostic.hint("statements stand inside the braces of a model or a layer");
        }
        diagnostic
    }

    /// The general case: what was found, what could stand there.
    fn unexpected(&self) -> Diagnostic {
        let before = self.found.checked_sub(1).map(|index| self.word(index));
        let after = before.map(|word| format!(" after `{word}`")).unwrap_or_default();
        let at_end = self.found >= self.tokens.len();
        let what = self.expectation();
        let diagnostic = match what {
            Some(what) if at_end => self.error(self.found, format!("expected {what}{after}")),
            Some(what) => self.error(self.found, format!("expected {what}{after}, found `{}`", self.shown(self.found))),
            None if at_end => self.error(self.found, format!("the statement is not complete{after}")),
            None => self.error(self.found, format!("unexpected `{}`{after}", self.shown(self.found))),
        };
        self.advise(diagnostic)
    }

    fn shown(&self, index: usize) -> String {
        let word = self.word(index);
        if word.chars().count() <= 40 { word.to_string() } else { word.chars().take(39).chain(['…']).collect() }
    }

    /// What could stand at the stop, most general first.
    fn expectation(&self) -> Option<&'static str> {
        let expects = |rules: &[Rule]| self.expected.iter().any(|rule| rules.contains(rule));
        let is_type = expects(&[Rule::tensor_type]);
        let words = match () {
            () if is_type => "a type such as `[N, C]` or `i32[N]`",
            () if expects(&[Rule::stage]) && self.follows("->") => "a stage",
            () if expects(&EXPRESSION_STARTS) => "an expression",
            () if expects(&[Rule::kw_from]) => "`from`",
            () if expects(&[Rule::kw_on]) => "`on` and the name of a data item",
            () if expects(&[Rule::block]) && !expects(&[Rule::parameters]) => "`{`",
            () if expects(&[Rule::ident, Rule::names, Rule::parameter, Rule::state_entry]) => "a name",
            () if self.expected == [Rule::text] => "a text in double quotes",
            () => return None,
        };
        Some(words)
    }

    /// Whether the stop lies behind a `->`, outside of brackets opened since.
    fn in_pipeline(&self) -> bool {
        let mut open = 0;
        for index in (0..self.found).rev() {
            match self.word(index) {
                ")" | "]" | "}" => open += 1,
                "(" | "[" | "{" if open == 0 => return false,
                "(" | "[" | "{" => open -= 1,
                "->" if open == 0 => return true,
                _ => {}
            }
        }
        false
    }

    fn follows(&self, word: &str) -> bool {
        self.found > 0 && self.word(self.found - 1) == word
    }

    /// Hints that depend on the statement's first word.
    fn advise(&self, diagnostic: Diagnostic) -> Diagnostic {
        let found = self.word(self.found);
        let operand = matches!(self.kind(self.found), Some(TokenKind::Word | TokenKind::Number | TokenKind::Text));
        match self.word(0) {
            "input" | "param" if found == "[" => diagnostic.hint("a `:` stands between the name and its shape"),
            "input" | "param" if found == "," => {
                diagnostic.hint("the names of one line share one type; declare another type on a line of its own")
            }
            "state" if self.found >= self.tokens.len() => diagnostic.hint("a state needs a start: `state m = 0`"),
            "metric" if self.follows("lower") || self.follows("higher") => {
                diagnostic.hint(format!("write `: {} is better`", self.word(self.found - 1)))
            }
            _ if found == "<-" => {
                diagnostic.hint("`<-` updates a state; a comparison with a negative number is written `< -1`")
            }
            _ if found == "=" => diagnostic.hint("equality is written `==`"),
            _ if found == "->" => diagnostic.hint("put a pipeline inside of an expression in parentheses"),
            _ if operand && self.expectation().is_none() && self.in_pipeline() => {
                let start = self.span(self.found).start as usize;
                let hint = format!("`->` stands between stages: `{} -> {found}`", self.word(self.found - 1));
                diagnostic.hint(hint).fix(Span::new(self.file, start, start), "-> ")
            }
            _ if operand && self.found > 0 && self.expectation().is_none() => {
                diagnostic.hint("is an operator or a comma missing?")
            }
            _ => diagnostic,
        }
    }
}
