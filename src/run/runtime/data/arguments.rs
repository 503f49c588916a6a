//! Typed reading of the literals of a `data` item.
//!
//! Input: a [`Literal`]. Output: numbers, texts, names, paths; findings are pushed to one list.
//! Invariant: an argument that nobody asked for is reported with the nearest name that somebody asked for.

use crate::diagnostics::Diagnostic;
use crate::diagnostics::suggest::nearest;
use crate::settings::{Literal, LiteralKind};
use crate::source::Span;

/// One call (`random_crop(32, pad = 4)`) or bare name (`drop_missing`) while its arguments are taken.
pub(super) struct Arguments<'a, 'p> {
    /// The called name.
    pub name: &'a str,
    /// Where it stands.
    pub span: Span,
    given: Vec<(Option<&'a str>, &'a Literal, bool)>,
    asked: Vec<String>,
    /// The list of findings.
    pub problems: &'p mut Vec<Diagnostic>,
}

impl<'a, 'p> Arguments<'a, 'p> {
    /// Starts reading a call or a bare name; anything else is reported as not being `what`.
    pub(super) fn of(literal: &'a Literal, what: &str, problems: &'p mut Vec<Diagnostic>) -> Option<Self> {
        let (name, arguments): (&str, &[(Option<String>, Literal)]) = match &literal.kind {
            LiteralKind::Call { name, arguments } => (name, arguments),
            LiteralKind::Name(name) => (name, &[]),
            _ => {
                problems.push(Diagnostic::error(
                    "data-value",
                    literal.span,
                    format!("{} is not {what}", kind(literal)),
                ));
                return None;
            }
        };
        let given = arguments.iter().map(|(name, value)| (name.as_deref(), value, false)).collect();
        Some(Self { name, span: literal.span, given, asked: Vec::new(), problems })
    }

    /// The argument of this name, or the unnamed one at this position (counted among the unnamed).
    pub(super) fn take(&mut self, name: &'a str, position: Option<usize>) -> Option<&'a Literal> {
        self.asked.push(name.to_string());
        let named = self.given.iter_mut().find(|(given, _, used)| *given == Some(name) && !used);
        let found = match (named, position) {
            (Some(found), _) => Some(found),
            (None, Some(position)) => {
                self.given.iter_mut().filter(|(given, ..)| given.is_none()).nth(position).filter(|(.., used)| !used)
            }
            (None, None) => None,
        }?;
        found.2 = true;
        Some(found.1)
    }

    /// All unnamed arguments.
    pub(super) fn take_unnamed(&mut self) -> Vec<&'a Literal> {
        let unnamed = self.given.iter_mut().filter(|(given, ..)| given.is_none());
        unnamed
            .map(|entry| {
                entry.2 = true;
                entry.1
            })
            .collect()
    }

    pub(super) fn number(&mut self, name: &'a str, position: Option<usize>) -> Option<f64> {
        let literal = self.take(name, position)?;
        number(literal, self.problems)
    }

    /// A whole number of at least 0.
    pub(super) fn count(&mut self, name: &'a str, position: Option<usize>) -> Option<usize> {
        let literal = self.take(name, position)?;
        count(literal, self.problems)
    }

    pub(super) fn text(&mut self, name: &'a str, position: Option<usize>) -> Option<&'a str> {
        let literal = self.take(name, position)?;
        text(literal, self.problems)
    }

    /// A text under the name of a field.
    pub(super) fn text_of_field(&mut self, field: &str) -> Option<String> {
        self.asked.push(field.to_string());
        let entry = self.given.iter_mut().find(|(name, _, used)| *name == Some(field) && !used)?;
        entry.2 = true;
        let literal = entry.1;
        text(literal, self.problems).map(str::to_string)
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, name: &'a str) -> Option<bool> {
        let literal = self.take(name, None)?;
        match literal.kind {
            LiteralKind::Bool(value) => Some(value),
            _ => refused(literal, "`true` or `false`", self.problems),
        }
    }

    /// One of these bare names.
    pub(super) fn choice(
        &mut self,
        name: &'a str,
        position: Option<usize>,
        options: &[&'static str],
    ) -> Option<&'static str> {
        let literal = self.take(name, position)?;
        choice(literal, options, self.problems)
    }

    /// Reports a missing argument.
    pub(super) fn require<T>(&mut self, value: Option<T>, name: &str, example: &str) -> Option<T> {
        let given = self.given.iter().any(|(given, ..)| *given == Some(name));
        if value.is_none() && !given && !self.problems.iter().any(|problem| self.holds(problem.span())) {
            let message = format!("`{}` needs `{name}`", self.name);
            self.problems
                .push(Diagnostic::error("data-argument", self.span, message).hint(format!("write `{example}`")));
        }
        value
    }

    /// Reports an error about the whole call.
    pub(super) fn fail(&mut self, message: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(Diagnostic::error("data-argument", self.span, message).hint(hint));
    }

    /// Nothing, with an error about the whole call.
    pub(super) fn refuse<T>(&mut self, message: impl Into<String>, hint: impl Into<String>) -> Option<T> {
        self.fail(message, hint);
        None
    }

    /// Reports what nobody asked for.
    pub(super) fn finish(self) {
        let asked: Vec<&str> = self.asked.iter().map(String::as_str).collect();
        for (name, literal, used) in &self.given {
            if *used {
                continue;
            }
            let diagnostic = match name {
                Some(name) if asked.contains(name) => {
                    Diagnostic::error("data-argument", literal.span, format!("`{name}` is given twice"))
                }
                Some(name) => {
                    let message = format!("`{}` has no argument `{name}`", self.name);
                    suggest(Diagnostic::error("data-argument", literal.span, message), name, &asked)
                }
                None => {
                    let message = format!("`{}` takes no further argument", self.name);
                    Diagnostic::error("data-argument", literal.span, message)
                }
            };
            self.problems.push(diagnostic);
        }
    }

    fn holds(&self, span: Span) -> bool {
        span.file == self.span.file && self.span.start <= span.start && span.end <= self.span.end
    }
}

pub(super) fn number(literal: &Literal, problems: &mut Vec<Diagnostic>) -> Option<f64> {
    match literal.kind {
        LiteralKind::Number(value) if value.is_finite() => Some(value),
        _ => refused(literal, "a number", problems),
    }
}

/// A whole number from 0 to 2³² − 1.
pub(super) fn count(literal: &Literal, problems: &mut Vec<Diagnostic>) -> Option<usize> {
    match literal.kind {
        LiteralKind::Number(value) if value >= 0.0 && value.fract() == 0.0 && value <= f64::from(u32::MAX) => {
            Some(value as usize)
        }
        _ => refused(literal, "a whole number of at least 0", problems),
    }
}

pub(super) fn text<'a>(literal: &'a Literal, problems: &mut Vec<Diagnostic>) -> Option<&'a str> {
    match &literal.kind {
        LiteralKind::Text(value) => Some(value),
        _ => refused(literal, "a text in quotes", problems),
    }
}

/// One of these bare names.
pub(super) fn choice(
    literal: &Literal,
    options: &[&'static str],
    problems: &mut Vec<Diagnostic>,
) -> Option<&'static str> {
    let list = options.iter().map(|option| format!("`{option}`")).collect::<Vec<_>>().join(", ");
    let LiteralKind::Name(name) = &literal.kind else {
        return refused(literal, &format!("one of {list}"), problems);
    };
    let found = options.iter().find(|option| *option == name);
    if found.is_none() {
        let message = format!("`{name}` is not one of {list}");
        problems.push(suggest(Diagnostic::error("data-value", literal.span, message), name, options));
    }
    found.copied()
}

/// One number, or a list of numbers.
pub(super) fn numbers(literal: &Literal, problems: &mut Vec<Diagnostic>) -> Option<Vec<f64>> {
    match &literal.kind {
        LiteralKind::List(items) => items.iter().map(|item| number(item, problems)).collect(),
        _ => Some(vec![number(literal, problems)?]),
    }
}

/// Stages of `a -> b`, or the one stage.
pub(super) fn stages(literal: &Literal) -> &[Literal] {
    match &literal.kind {
        LiteralKind::Pipeline(stages) => stages,
        _ => std::slice::from_ref(literal),
    }
}

/// A finding that a literal is of the wrong kind.
pub(super) fn wrong(literal: &Literal, wanted: &str) -> Diagnostic {
    Diagnostic::error("data-value", literal.span, format!("expected {wanted}, found {}", kind(literal)))
}

/// Nothing, with that finding.
pub(super) fn refused<T>(literal: &Literal, wanted: &str, problems: &mut Vec<Diagnostic>) -> Option<T> {
    problems.push(wrong(literal, wanted));
    None
}

/// What a literal is, in words.
pub(super) fn kind(literal: &Literal) -> String {
    match &literal.kind {
        LiteralKind::Number(value) => format!("the number {value}"),
        LiteralKind::Text(value) => format!("the text \"{value}\""),
        LiteralKind::Bool(value) => format!("`{value}`"),
        LiteralKind::Name(name) => format!("`{name}`"),
        LiteralKind::List(_) => "a list".to_string(),
        LiteralKind::Call { name, .. } => format!("`{name}(…)`"),
        LiteralKind::Pipeline(_) => "a pipeline".to_string(),
    }
}

/// Adds the nearest of `options` as a hint and a fix-free suggestion; all of them where none is near.
pub(super) fn suggest(diagnostic: Diagnostic, name: &str, options: &[&str]) -> Diagnostic {
    match nearest(name, options.iter().copied()) {
        Some(near) => diagnostic.hint(format!("did you mean `{near}`?")),
        None if options.is_empty() => diagnostic,
        None => diagnostic.hint(format!("there are: {}", options.join(", "))),
    }
}
