//! From pest's pairs to items and statements of the tree; expressions are built in `expression`.
//!
//! Input: pairs of one item. Output: [`ast`] nodes with spans of the file. Invariant: the grammar's rules fix which
//! inner pairs exist and in what order, so a missing one is a compiler bug.

use std::ops::Range;

use pest::iterators::Pair;

use super::ast::{
    Assert, Better, Bound, Data, Definition, DefinitionKind, Expr, ExprKind, Ident, ItemKind, Parameter, Place,
    StateEntry, Statement, StatementKind, TensorType, Train, Use,
};
use super::parse::{Rule, only};
use crate::diagnostics::Diagnostic;
use crate::settings::Direction;
use crate::source::{FileId, Span};

/// Builds the tree of one item.
pub(crate) struct Builder {
    file: FileId,
    /// Where the parsed text begins in the file.
    base: usize,
    /// Where the item ends in the file; appended closing braces lie beyond.
    end: usize,
    /// Statements that the grammar could not read, as ranges of the parsed text.
    pub bad_statements: Vec<Range<usize>>,
    /// Findings in text that the grammar accepts.
    pub diagnostics: Vec<Diagnostic>,
}

impl Builder {
    /// A builder for text that begins at `base` and ends at `end` of the file.
    pub(crate) fn new(file: FileId, base: usize, end: usize) -> Self {
        Self { file, base, end, bad_statements: Vec::new(), diagnostics: Vec::new() }
    }

    /// The place of a pair without trailing blanks.
    pub(crate) fn span(&self, pair: &Pair<'_, Rule>) -> Span {
        let span = pair.as_span();
        let end = span.start() + span.as_str().trim_end().len();
        Span::new(self.file, (self.base + span.start()).min(self.end), (self.base + end).min(self.end))
    }

    pub(crate) fn ident(&self, pair: &Pair<'_, Rule>) -> Ident {
        Ident { name: pair.as_str().to_string(), span: self.span(pair) }
    }

    /// The item under `item`.
    pub(crate) fn item(&mut self, pair: Pair<'_, Rule>) -> ItemKind {
        match pair.as_rule() {
            Rule::use_item => ItemKind::Use(self.use_item(pair)),
            Rule::definition => ItemKind::Definition(self.definition(pair)),
            Rule::data => {
                let mut inner = pair.into_inner().skip(1);
                let name = self.ident(&inner.next().expect("data has a name"));
                let body = self.block(inner.next().expect("data has a block"), 0);
                ItemKind::Data(Data { name, body })
            }
            Rule::train => {
                let mut inner =
                    pair.into_inner().filter(|inner| !matches!(inner.as_rule(), Rule::kw_train | Rule::kw_on));
                let model = self.postfix(inner.next().expect("train has a model"), 0);
                let data = self.ident(&inner.next().expect("train has data"));
                let body = self.block(inner.next().expect("train has a block"), 0);
                ItemKind::Train(Train { model, data, body })
            }
            Rule::assert => {
                let mut inner = pair.into_inner().skip(1);
                let model = self.postfix(inner.next().expect("assert has a model"), 0);
                let body = self.block(inner.next().expect("assert has a block"), 0);
                ItemKind::Assert(Assert { model, body })
            }
            rule => unreachable!("{rule:?} is no item"),
        }
    }

    fn use_item(&mut self, pair: Pair<'_, Rule>) -> Use {
        let mut names = Vec::new();
        let mut path = String::new();
        let mut path_span = self.span(&pair);
        for inner in pair.into_inner() {
            match inner.as_rule() {
                Rule::ident => names.push(self.ident(&inner)),
                Rule::text => {
                    path_span = self.span(&inner);
                    path = self.text(&inner);
                }
                _ => {}
            }
        }
        Use { names, path, path_span }
    }

    fn definition(&mut self, pair: Pair<'_, Rule>) -> Definition {
        let mut inner = pair.into_inner();
        let kind = match inner.next().expect("a definition has a keyword").as_str() {
            "fn" => DefinitionKind::Fn,
            "layer" => DefinitionKind::Layer,
            "model" => DefinitionKind::Model,
            "loss" => DefinitionKind::Loss,
            "optimizer" => DefinitionKind::Optimizer,
            "schedule" => DefinitionKind::Schedule,
            _ => DefinitionKind::Metric,
        };
        let name = self.ident(&inner.next().expect("a definition has a name"));
        let mut parameters = Vec::new();
        let mut better = None;
        let mut body = Vec::new();
        let mut short = false;
        let mut predicts = None;
        for part in inner {
            match part.as_rule() {
                Rule::parameters => parameters = part.into_inner().map(|inner| self.parameter(inner)).collect(),
                Rule::reading => predicts = Some(self.reading(kind, part)),
                Rule::better => better = Some(self.better(part)),
                Rule::short_body => {
                    short = true;
                    let value = self.expression(only(part), 0);
                    let kind = StatementKind::Return { values: vec![value.clone()], shape: None };
                    body.push(Statement { span: value.span, kind });
                }
                _ => body = self.block(part, 0),
            }
        }
        Definition { kind, name, parameters, predicts, better, body, short }
    }

    fn reading(&mut self, kind: DefinitionKind, pair: Pair<'_, Rule>) -> Ident {
        let span = self.span(&pair);
        if kind != DefinitionKind::Loss {
            let message = "only a loss says how its model's output is read";
            self.diagnostics.push(Diagnostic::error("misplaced-reading", span, message));
        }
        let name = pair.into_inner().last().expect("a reading names a function");
        self.ident(&name)
    }

    fn better(&self, pair: Pair<'_, Rule>) -> Better {
        let span = self.span(&pair);
        let is_lower = pair.into_inner().any(|part| part.as_str() == "lower");
        Better { direction: if is_lower { Direction::Lower } else { Direction::Higher }, span }
    }

    fn parameter(&mut self, pair: Pair<'_, Rule>) -> Parameter {
        let mut inner = pair.into_inner();
        let name = self.ident(&inner.next().expect("a parameter has a name"));
        let mut parameter = Parameter { name, each: false, ty: None, default: None };
        for part in inner {
            match part.as_rule() {
                Rule::each => parameter.each = true,
                Rule::tensor_type => parameter.ty = Some(self.tensor_type(part)),
                _ => parameter.default = Some(self.expression(part, 0)),
            }
        }
        parameter
    }

    fn tensor_type(&mut self, pair: Pair<'_, Rule>) -> TensorType {
        let mut ty = TensorType { element: None, dims: Vec::new(), span: self.span(&pair) };
        for part in pair.into_inner() {
            match part.as_rule() {
                Rule::ident => ty.element = Some(self.ident(&part)),
                _ => ty.dims = part.into_inner().map(|dim| self.expression(dim, 0)).collect(),
            }
        }
        ty
    }

    fn block(&mut self, pair: Pair<'_, Rule>, depth: usize) -> Vec<Statement> {
        let mut statements = Vec::new();
        for line in pair.into_inner() {
            match line.as_rule() {
                Rule::bad_statement => {
                    let span = line.as_span();
                    let end = span.start() + span.as_str().trim_end().len();
                    self.bad_statements.push(span.start()..end);
                }
                _ => statements.push(self.statement(line, depth)),
            }
        }
        statements
    }

    fn statement(&mut self, pair: Pair<'_, Rule>, depth: usize) -> Statement {
        let span = self.span(&pair);
        let kind = match pair.as_rule() {
            Rule::input => {
                let end = span.end as usize;
                let mut inner = pair.into_inner().skip(1);
                let names = self.idents(inner.next().expect("an input has names"));
                let ty = match inner.next() {
                    Some(ty) => self.tensor_type(ty),
                    None => TensorType { element: None, dims: Vec::new(), span: Span::new(span.file, end, end) },
                };
                StatementKind::Input { names, ty }
            }
            Rule::param => {
                let (names, ty, init) = self.declaration(pair);
                if init.is_none() {
                    let message = "a parameter needs an initialiser";
                    let hint = "add one: `~ normal(0, 0.02)`, `~ kaiming`, `~ zeros`, …";
                    self.diagnostics.push(Diagnostic::error("missing-init", span, message).hint(hint));
                }
                StatementKind::Param { names, ty, init }
            }
            Rule::state => {
                StatementKind::State(pair.into_inner().skip(1).map(|entry| self.state_entry(entry)).collect())
            }
            Rule::let_line => {
                let mut inner = pair.into_inner().skip(1);
                let name = self.ident(&inner.next().expect("let has a name"));
                StatementKind::Let { name, value: self.expression(inner.next().expect("let has a value"), 0) }
            }
            Rule::require => {
                let (condition, message) = self.expression_and_message(pair);
                StatementKind::Require { condition, message }
            }
            Rule::return_line => {
                let (values, shape) = self.values_and_shape(pair);
                StatementKind::Return { values, shape }
            }
            Rule::if_line => self.if_line(pair, depth),
            Rule::update => self.update(pair),
            Rule::equation => {
                let mut inner = pair.into_inner();
                let name = self.ident(&inner.next().expect("an equation has a name"));
                let places = self.places(inner.next().expect("an equation has indices"));
                let value = self.expression(inner.next().expect("an equation has a value"), 0);
                let shape = inner.next().map(|ty| self.tensor_type(ty));
                StatementKind::Equation { name, places, value, shape }
            }
            Rule::unpack => {
                let mut parts: Vec<_> = pair.into_inner().collect();
                let value = self.expression(parts.pop().expect("several names have a value"), 0);
                StatementKind::Unpack { names: parts.iter().map(|name| self.ident(name)).collect(), value }
            }
            Rule::bind => self.bind(pair),
            Rule::field => {
                let mut inner = pair.into_inner();
                let name = self.ident(&inner.next().expect("a field has a name"));
                let ty = self.tensor_type(inner.next().expect("a field has a type"));
                let value = inner.next().map(|value| self.expression(value, 0));
                StatementKind::Field { name, ty, value }
            }
            Rule::expression_line => {
                let (value, message) = self.expression_and_message(pair);
                StatementKind::Expression { value, message }
            }
            rule => unreachable!("{rule:?} is no statement"),
        };
        Statement { span, kind }
    }

    fn declaration(&mut self, pair: Pair<'_, Rule>) -> (Vec<Ident>, TensorType, Option<Expr>) {
        let mut inner = pair.into_inner().skip(1);
        let names = self.idents(inner.next().expect("a declaration has names"));
        let ty = self.tensor_type(inner.next().expect("a declaration has a type"));
        let init = inner.next().map(|value| self.expression(value, 0));
        (names, ty, init)
    }

    fn idents(&self, pair: Pair<'_, Rule>) -> Vec<Ident> {
        pair.into_inner().map(|ident| self.ident(&ident)).collect()
    }

    fn places(&mut self, pair: Pair<'_, Rule>) -> Vec<Place> {
        pair.into_inner().map(|place| self.place(place)).collect()
    }

    fn place(&mut self, pair: Pair<'_, Rule>) -> Place {
        let expr = self.operators(only(pair), 0);
        let (inner, each) = match expr.kind {
            ExprKind::Each(ref inner) => (&**inner, true),
            _ => (&expr, false),
        };
        match &inner.kind {
            ExprKind::Name(name) => Place::Index(Bound { name: Ident { name: name.clone(), span: inner.span }, each }),
            ExprKind::Group(members) => {
                let span = inner.span;
                let mut bound = Vec::with_capacity(members.len());
                for member in members {
                    let (name, each) = match &member.kind {
                        ExprKind::Each(name) => (&**name, true),
                        _ => (member, false),
                    };
                    if let Some(text) = name.as_name() {
                        bound.push(Bound { name: Ident { name: text.to_owned(), span: name.span }, each });
                    } else {
                        let message = "a dim on the left is made of indices, and this is a number";
                        self.diagnostics.push(Diagnostic::error("syntax", name.span, message));
                    }
                }
                Place::Group { members: bound, each, span }
            }
            _ => Place::Affine(expr),
        }
    }

    /// `n` or `n..` of a reduction.
    pub(crate) fn bound(&self, pair: Pair<'_, Rule>) -> Bound {
        let mut inner = pair.into_inner();
        let name = self.ident(&inner.next().expect("a bound index has a name"));
        Bound { name, each: inner.next().is_some() }
    }

    fn state_entry(&mut self, pair: Pair<'_, Rule>) -> StateEntry {
        let mut inner = pair.into_inner();
        let name = self.ident(&inner.next().expect("a state has a name"));
        let mut next = inner.next().expect("a state has a value");
        let mut ty = None;
        if next.as_rule() == Rule::tensor_type {
            ty = Some(self.tensor_type(next));
            next = inner.next().expect("a state has a value");
        }
        StateEntry { name, ty, value: self.expression(next, 0) }
    }

    fn expression_and_message(&mut self, pair: Pair<'_, Rule>) -> (Expr, Option<String>) {
        let mut inner = pair.into_inner().filter(|part| part.as_rule() != Rule::kw_require);
        let value = self.expression(inner.next().expect("the line has an expression"), 0);
        (value, inner.next().map(|text| self.text(&text)))
    }

    fn values_and_shape(&mut self, pair: Pair<'_, Rule>) -> (Vec<Expr>, Option<TensorType>) {
        let mut values = Vec::new();
        let mut shape = None;
        for part in pair.into_inner().skip(1) {
            match part.as_rule() {
                Rule::tensor_type => shape = Some(self.tensor_type(part)),
                _ => values.push(self.expression(part, 0)),
            }
        }
        (values, shape)
    }

    fn update(&mut self, pair: Pair<'_, Rule>) -> StatementKind {
        let mut inner = pair.into_inner();
        let name = self.ident(&inner.next().expect("an update has a name"));
        let mut next = inner.next().expect("an update has a value");
        let mut places = Vec::new();
        if next.as_rule() == Rule::left_indices {
            places = self.places(next);
            next = inner.next().expect("an update has a value");
        }
        StatementKind::Update { name, places, value: self.expression(next, 0) }
    }

    /// Several values separated by commas are one [`super::ast::ExprKind::List`].
    fn bind(&mut self, pair: Pair<'_, Rule>) -> StatementKind {
        let mut inner = pair.into_inner();
        let target = self.idents(inner.next().expect("a binding has a target"));
        let mut values: Vec<Expr> = inner.map(|value| self.expression(value, 0)).collect();
        let first = values[0].span;
        let value = match values.len() {
            1 => values.remove(0),
            count => Expr { span: first.to(values[count - 1].span), kind: super::ast::ExprKind::List(values) },
        };
        StatementKind::Bind { target, value }
    }

    fn if_line(&mut self, pair: Pair<'_, Rule>, depth: usize) -> StatementKind {
        let mut arms: Vec<(Span, Expr, Vec<Statement>)> = Vec::new();
        let mut otherwise = Vec::new();
        let end = self.span(&pair);
        let mut inner = pair.into_inner().skip(1);
        let condition = self.expression(inner.next().expect("if has a condition"), 0);
        let then = self.block(inner.next().expect("if has a block"), depth);
        arms.push((end, condition, then));
        for part in inner {
            match part.as_rule() {
                Rule::else_if => {
                    let span = self.span(&part).to(end);
                    let mut arm = part.into_inner().skip(2);
                    let condition = self.expression(arm.next().expect("if has a condition"), 0);
                    let then = self.block(arm.next().expect("if has a block"), depth);
                    arms.push((Span { end: end.end, ..span }, condition, then));
                }
                Rule::block => otherwise = self.block(part, depth),
                _ => {}
            }
        }
        if arms.len() > super::expression::MAX_HEIGHT {
            self.too_deep(end);
            arms.truncate(1);
        }
        let mut kind = None;
        while let Some((span, condition, then)) = arms.pop() {
            let rest = match kind.take() {
                None => std::mem::take(&mut otherwise),
                Some((span, kind)) => vec![Statement { span, kind }],
            };
            kind = Some((span, StatementKind::If { condition, then, otherwise: rest }));
        }
        kind.expect("an if has an arm").1
    }

    /// Reports a statement whose tree would be too high to walk.
    pub(crate) fn too_deep(&mut self, span: Span) {
        let limit = super::expression::MAX_HEIGHT;
        let message = format!("the expression nests more than {limit} operations");
        let hint = "give an inner part a name of its own";
        self.diagnostics.push(Diagnostic::error("too-deep", span, message).hint(hint));
    }

    /// The characters of a quoted text.
    pub(crate) fn text(&mut self, pair: &Pair<'_, Rule>) -> String {
        let quoted = pair.as_str();
        let mut plain = String::new();
        let mut characters = quoted[1..quoted.len() - 1].chars();
        while let Some(character) = characters.next() {
            let escaped = match character {
                '\\' => characters.next(),
                other => {
                    plain.push(other);
                    continue;
                }
            };
            match escaped {
                Some('n') => plain.push('\n'),
                Some('t') => plain.push('\t'),
                Some(same @ ('"' | '\\')) => plain.push(same),
                _ => {
                    let message = "unknown escape in a text";
                    let hint = "the escapes are `\\\"`, `\\\\`, `\\n` and `\\t`";
                    self.diagnostics.push(Diagnostic::error("bad-escape", self.span(pair), message).hint(hint));
                }
            }
        }
        plain
    }
}

/// The members of a `group`: a name or digits, and whether `..` follows.
pub(super) fn group_members<'p>(pair: Pair<'p, Rule>) -> Vec<(Pair<'p, Rule>, bool)> {
    let mut members: Vec<(Pair<'p, Rule>, bool)> = Vec::new();
    // `(s..)` alone has its parts without a pair around them.
    let parts = pair.into_inner().flat_map(|part| match part.as_rule() {
        Rule::member_of_group => part.into_inner().collect(),
        _ => vec![part],
    });
    for part in parts {
        match (part.as_rule(), members.last_mut()) {
            (Rule::each, Some(last)) => last.1 = true,
            _ => members.push((part, false)),
        }
    }
    members
}
