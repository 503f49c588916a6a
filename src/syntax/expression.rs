//! From pest's pairs to expressions of the tree.
//!
//! Input: pairs of one expression. Output: [`Expr`] with spans of the file. Invariant: no tree is higher than
//! [`MAX_HEIGHT`] operations, so later stages may recurse over it and drop it on a small stack.

use pest::iterators::Pair;

use super::ast::{Argument, BinaryOp, Bound, Expr, ExprKind, Ident, Stage, Suffix, UnaryOp};
use super::build::{Builder, group_members};
use super::parse::{Rule, only};
use crate::diagnostics::Diagnostic;
use crate::source::Span;

/// How many operations may lie on one path from an expression to its leaves.
pub(crate) const MAX_HEIGHT: usize = 256;

/// Binding powers, loosest first. A reduction takes the product that follows it.
const OR: u8 = 1;
const AND: u8 = 2;
const NOT: u8 = 3;
const COMPARE: u8 = 4;
const SUM: u8 = 5;
const REDUCE: u8 = 6;
const PRODUCT: u8 = 7;
const NEGATE: u8 = 8;
const POWER: u8 = 9;

/// A prefix operator.
enum Prefix {
    Unary(UnaryOp, Span),
    Reduce(Ident, Vec<Bound>, Span),
}

/// One piece of a flat `operators` rule.
enum Piece {
    Prefix(Prefix),
    Operand(Expr),
    Infix(BinaryOp, Span),
}

impl Builder {
    /// An `expression`; `depth` counts the operations around it.
    pub(crate) fn expression(&mut self, pair: Pair<'_, Rule>, depth: usize) -> Expr {
        let span = self.span(&pair);
        let parts: Vec<_> =
            pair.into_inner().filter(|part| !matches!(part.as_rule(), Rule::kw_if | Rule::kw_else)).collect();
        let depth = depth + parts.len();
        if depth > MAX_HEIGHT {
            return self.too_high(span);
        }
        // pipeline, then (condition, pipeline) for each `if … else`; the last one is innermost.
        let mut built: Vec<Expr> = Vec::with_capacity(parts.len());
        for part in parts {
            let expression = match part.as_rule() {
                Rule::pipeline => self.pipeline(part, depth),
                _ => self.operators(part, depth),
            };
            built.push(expression);
        }
        let mut result = built.pop().expect("an expression has a pipeline");
        while let (Some(condition), Some(then)) = (built.pop(), built.pop()) {
            let span = then.span.to(result.span);
            let kind = ExprKind::Conditional {
                then: Box::new(then),
                condition: Box::new(condition),
                otherwise: Box::new(result),
            };
            result = Expr { span, kind };
        }
        result
    }

    fn too_high(&mut self, span: Span) -> Expr {
        self.too_deep(span);
        Expr { span, kind: ExprKind::List(Vec::new()) }
    }

    fn pipeline(&mut self, pair: Pair<'_, Rule>, depth: usize) -> Expr {
        let span = self.span(&pair);
        let mut inner = pair.into_inner();
        let mut head = self.operators(inner.next().expect("a pipeline has a head"), depth + 1);
        let mut stages = Vec::new();
        for part in inner {
            match part.as_rule() {
                Rule::guard => {
                    let value = part.into_inner().nth(1).expect("a guard has a value");
                    let otherwise = self.operators(value, depth + 1);
                    head = self.guard(head, otherwise);
                }
                _ => stages.push(self.stage(part, depth + 1)),
            }
        }
        if stages.is_empty() {
            return head;
        }
        Expr { span, kind: ExprKind::Pipeline { head: Some(Box::new(head)), stages } }
    }

    fn guard(&mut self, read: Expr, otherwise: Expr) -> Expr {
        let span = read.span.to(otherwise.span);
        if !matches!(read.kind, ExprKind::Index { .. }) {
            let message = "`else` without `if` gives the value of a read outside a tensor, so it follows `x[…]` alone";
            let diagnostic = Diagnostic::error("syntax", read.span, message)
                .at("this is no read `x[…]`")
                .hint("put the read and its `else` in parentheses: `(x[i - 1] else 0) * w`")
                .hint("or write a choice: `a if condition else b`");
            self.diagnostics.push(diagnostic);
        }
        Expr { span, kind: ExprKind::Guard { read: Box::new(read), otherwise: Box::new(otherwise) } }
    }

    fn stage(&mut self, pair: Pair<'_, Rule>, depth: usize) -> Stage {
        let mut label = None;
        let mut value = None;
        for part in pair.into_inner() {
            match part.as_rule() {
                Rule::stage_label => label = Some(self.ident(&only(part))),
                _ => value = Some(self.postfix(part, depth)),
            }
        }
        Stage { label, value: value.expect("a stage has a value") }
    }

    pub(super) fn operators(&mut self, pair: Pair<'_, Rule>, depth: usize) -> Expr {
        let span = self.span(&pair);
        let parts: Vec<_> = pair.into_inner().collect();
        let depth = depth + parts.len() / 2;
        if depth > MAX_HEIGHT || parts.len() > MAX_HEIGHT {
            return self.too_high(span);
        }
        let mut pieces: Vec<Piece> = Vec::with_capacity(parts.len());
        for part in parts {
            let piece = self.piece(part, depth);
            pieces.push(piece);
        }
        pieces.reverse();
        self.climb(&mut pieces, 0)
    }

    fn piece(&mut self, pair: Pair<'_, Rule>, depth: usize) -> Piece {
        let span = self.span(&pair);
        let operator = match pair.as_rule() {
            Rule::postfix => return Piece::Operand(self.postfix(pair, depth)),
            Rule::neg => return Piece::Prefix(Prefix::Unary(UnaryOp::Neg, span)),
            Rule::not => return Piece::Prefix(Prefix::Unary(UnaryOp::Not, span)),
            Rule::reduction => {
                let mut inner = pair.into_inner();
                let op = self.ident(&inner.next().expect("a reduction has a name"));
                return Piece::Prefix(Prefix::Reduce(op, inner.map(|index| self.bound(index)).collect(), span));
            }
            Rule::add => BinaryOp::Add,
            Rule::sub => BinaryOp::Sub,
            Rule::mul => BinaryOp::Mul,
            Rule::div => BinaryOp::Div,
            Rule::rem => BinaryOp::Rem,
            Rule::pow => BinaryOp::Pow,
            Rule::lt => BinaryOp::Lt,
            Rule::le => BinaryOp::Le,
            Rule::gt => BinaryOp::Gt,
            Rule::ge => BinaryOp::Ge,
            Rule::eq => BinaryOp::Eq,
            Rule::ne => BinaryOp::Ne,
            Rule::and => BinaryOp::And,
            Rule::or => BinaryOp::Or,
            rule => unreachable!("{rule:?} is no operator"),
        };
        Piece::Infix(operator, span)
    }

    /// Precedence climbing over reversed pieces; recursion is bounded by their number.
    fn climb(&mut self, pieces: &mut Vec<Piece>, least: u8) -> Expr {
        let mut left = match pieces.pop().expect("an operand follows each operator") {
            Piece::Operand(operand) => operand,
            Piece::Prefix(Prefix::Unary(op, span)) => {
                let operand = self.climb(pieces, if op == UnaryOp::Not { NOT } else { NEGATE });
                Expr { span: span.to(operand.span), kind: ExprKind::Unary(op, Box::new(operand)) }
            }
            Piece::Prefix(Prefix::Reduce(op, indices, span)) => {
                let body = Box::new(self.climb(pieces, REDUCE));
                Expr { span: span.to(body.span), kind: ExprKind::Reduce { op, indices, body } }
            }
            Piece::Infix(..) => unreachable!("the grammar puts an operand before each operator"),
        };
        let mut compared: Option<Span> = None;
        while let Some(Piece::Infix(op, span)) = pieces.last() {
            let (op, span, power) = (*op, *span, power(*op));
            if power < least {
                break;
            }
            pieces.pop();
            // A power's right side may itself be a power; everything else groups to the left.
            let right = self.climb(pieces, if op == BinaryOp::Pow { POWER } else { power + 1 });
            if power == COMPARE {
                if compared.is_some() {
                    self.report_chained_comparison(span);
                }
                compared = Some(span);
            }
            let whole = left.span.to(right.span);
            left = Expr { span: whole, kind: ExprKind::Binary(op, Box::new(left), Box::new(right)) };
        }
        left
    }

    fn report_chained_comparison(&mut self, span: Span) {
        let diagnostic = Diagnostic::error("syntax", span, "comparisons do not chain")
            .hint("write `a < b and b < c` for `a < b < c`");
        self.diagnostics.push(diagnostic);
    }

    /// A `postfix`: an atom with calls, indices and members.
    pub(crate) fn postfix(&mut self, pair: Pair<'_, Rule>, depth: usize) -> Expr {
        let span = self.span(&pair);
        let mut inner = pair.into_inner();
        let atom = inner.next().expect("a postfix has an atom");
        let rest: Vec<_> = inner.collect();
        let depth = depth + rest.len() + 1;
        if depth > MAX_HEIGHT {
            return self.too_high(span);
        }
        let mut result = self.atom(atom, depth);
        for part in rest {
            let span = Span { start: span.start, ..self.span(&part) };
            let rule = part.as_rule();
            let kind = match rule {
                Rule::call => {
                    let arguments = part.into_inner().map(|argument| self.argument(argument, depth)).collect();
                    ExprKind::Call { callee: Box::new(result), arguments }
                }
                Rule::each => {
                    if let ExprKind::Group(members) = &result.kind
                        && let Some(member) = members.iter().find(|member| matches!(member.kind, ExprKind::Each(_)))
                    {
                        let message =
                            "`(a b)..` is a group for each entry of its packs, whose members are written without `..`";
                        self.diagnostics.push(Diagnostic::error("syntax", member.span, message));
                    }
                    ExprKind::Each(Box::new(result))
                }
                Rule::index => {
                    let indices = part.into_inner().map(|index| self.expression(index, depth)).collect();
                    ExprKind::Index { base: Box::new(result), indices }
                }
                _ => ExprKind::Field { base: Box::new(result), name: self.ident(&only(part)) },
            };
            result = Expr { span, kind };
        }
        result
    }

    fn argument(&mut self, pair: Pair<'_, Rule>, depth: usize) -> Argument {
        let mut name = None;
        let mut label = None;
        let mut value = None;
        for part in pair.into_inner() {
            match part.as_rule() {
                Rule::argument_name => name = Some(self.ident(&only(part))),
                Rule::argument_label => label = Some(self.ident(&only(part))),
                _ => value = Some(self.expression(part, depth)),
            }
        }
        Argument { name, label, value: value.expect("an argument has a value") }
    }

    fn atom(&mut self, pair: Pair<'_, Rule>, depth: usize) -> Expr {
        let span = self.span(&pair);
        let kind = match pair.as_rule() {
            Rule::quantity => self.quantity(pair),
            Rule::text => ExprKind::Text(self.text(&pair)),
            Rule::truth => ExprKind::Bool(pair.as_str() == "true"),
            Rule::ident => ExprKind::Name(pair.as_str().to_string()),
            Rule::list => ExprKind::List(pair.into_inner().map(|entry| self.expression(entry, depth)).collect()),
            Rule::group => ExprKind::Group(self.group(pair)),
            Rule::parenthesis => return Expr { span, ..self.expression(only(pair), depth) },
            Rule::stages => ExprKind::Pipeline { head: None, stages: self.stages(pair, depth) },
            Rule::residual => {
                let stages = pair.into_inner().nth(1).expect("residual has stages");
                ExprKind::Residual(self.stages(stages, depth))
            }
            Rule::repeat => return self.repeat(pair, depth),
            rule => unreachable!("{rule:?} is no atom"),
        };
        Expr { span, kind }
    }

    fn group(&mut self, pair: Pair<'_, Rule>) -> Vec<Expr> {
        let member = |(part, each): (Pair<'_, Rule>, bool)| {
            let span = self.span(&part);
            let text = part.as_str().to_string();
            let kind = match part.as_rule() {
                Rule::ident => ExprKind::Name(text),
                _ => ExprKind::Number { value: text.parse().expect("digits are a number"), suffix: None, text },
            };
            let one = Expr { span, kind };
            if each { Expr { span, kind: ExprKind::Each(Box::new(one)) } } else { one }
        };
        group_members(pair).into_iter().map(member).collect()
    }

    fn stages(&mut self, pair: Pair<'_, Rule>, depth: usize) -> Vec<Stage> {
        pair.into_inner().map(|stage| self.stage(stage, depth)).collect()
    }

    fn repeat(&mut self, pair: Pair<'_, Rule>, depth: usize) -> Expr {
        let span = self.span(&pair);
        let mut parts: Vec<_> = pair.into_inner().collect();
        let depth = depth + parts.len();
        if depth > MAX_HEIGHT {
            return self.too_high(span);
        }
        let mut result = self.postfix(parts.pop().expect("repeat has a body"), depth);
        for head in parts.into_iter().rev() {
            let span = self.span(&head).to(result.span);
            let count = head.into_inner().nth(1).expect("repeat has a count");
            let count = Box::new(self.expression(count, depth));
            result = Expr { span, kind: ExprKind::Repeat { count, body: Box::new(result) } };
        }
        result
    }

    fn quantity(&mut self, pair: Pair<'_, Rule>) -> ExprKind {
        let span = self.span(&pair);
        let mut inner = pair.into_inner();
        let text = inner.next().expect("a quantity has digits").as_str().to_string();
        let suffix = inner.next().map(|suffix| suffix_of(suffix.as_str().trim()));
        let value: f64 = text.replace('_', "").parse().expect("the grammar's numbers are Rust's");
        if !value.is_finite() {
            self.diagnostics.push(Diagnostic::error(
                "number-range",
                span,
                "the number is larger than a double can hold",
            ));
        }
        ExprKind::Number { value, suffix, text }
    }
}

fn power(op: BinaryOp) -> u8 {
    match op {
        BinaryOp::Or => OR,
        BinaryOp::And => AND,
        BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge | BinaryOp::Eq | BinaryOp::Ne => COMPARE,
        BinaryOp::Add | BinaryOp::Sub => SUM,
        BinaryOp::Mul | BinaryOp::Div | BinaryOp::Rem => PRODUCT,
        BinaryOp::Pow => POWER,
    }
}

fn suffix_of(word: &str) -> Suffix {
    match word {
        "k" | "K" => Suffix::Kilo,
        "M" => Suffix::Mega,
        "G" => Suffix::Giga,
        "T" => Suffix::Tera,
        "B" => Suffix::B,
        "kB" | "KB" => Suffix::KB,
        "MB" => Suffix::MB,
        "GB" => Suffix::GB,
        "KiB" => Suffix::KiB,
        "MiB" => Suffix::MiB,
        "GiB" => Suffix::GiB,
        "step" | "steps" => Suffix::Steps,
        "epoch" | "epochs" => Suffix::Epochs,
        "minute" | "minutes" => Suffix::Minutes,
        "deg" => Suffix::Deg,
        _ => Suffix::Percent,
    }
}
