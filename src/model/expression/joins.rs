//! Joins and parts of tensors along an axis: `concat`, `split`, `slice`.
//!
//! Input: evaluated arguments. Output: tensors, each one contraction of its source at an offset.
//! Invariant: a part is proved to lie inside of its tensor, and parts of given sizes to make up the whole.

use crate::diagnostics::Diagnostic;
use crate::dim::{Dim, Verdict};
use crate::graph::{Affine, Binary, Contract, DType, ValueId};
use crate::model::expander::{Expander, Given, Meaning, Outcome};
use crate::source::Span;

/// How many parts `split` may give.
const MAX_PARTS: i64 = 1000;

impl Expander<'_> {
    pub(super) fn concat(&mut self, given: Vec<Given>, span: Span) -> Outcome<Meaning> {
        let (named, parts): (Vec<Given>, Vec<Given>) = given.into_iter().partition(|argument| argument.name.is_some());
        let mut ids = Vec::new();
        for part in &parts {
            ids.push((self.expect_tensor(part)?, part.span));
        }
        let Some(&(first, first_span)) = ids.first() else {
            return self.refuse("bad-argument", span, "`concat` needs at least one tensor");
        };
        if self.graph.value(first).dtype == DType::Bool {
            let diagnostic = Diagnostic::error("type-mismatch", first_span, "truth values cannot be joined");
            return self.fail(diagnostic.hint("make numbers of them: `f32(x)`"));
        }
        let model = self.graph.shape(first).to_vec();
        let axis = match named.as_slice() {
            [] => 1,
            [argument] if argument.name.as_ref().is_some_and(|name| name.name == "axis") => {
                self.axis_of(argument, model.len())?
            }
            [argument, ..] => {
                return self.refuse("bad-argument", argument.span, "`concat` takes tensors and `axis`");
            }
        };
        let mut total = Dim::constant(0);
        for &(id, place) in &ids {
            let shape = self.graph.shape(id).to_vec();
            let fits = shape.len() == model.len()
                && axis < shape.len()
                && self.graph.value(id).dtype == self.graph.value(first).dtype
                && (0..shape.len()).all(|d| d == axis || self.facts.prove_eq(&shape[d], &model[d]).is_proved());
            if !fits {
                let (found, expected) = (self.describe(&Meaning::Tensor(id)), self.describe(&Meaning::Tensor(first)));
                let message = format!("{found} cannot be joined to {expected} along axis {axis}");
                return self
                    .fail(Diagnostic::error("shape-mismatch", place, message).label(first_span, "the first part"));
            }
            total = total + &shape[axis];
        }
        let mut shape = model;
        shape[axis] = total;
        let mut offset = Dim::constant(0);
        let mut joined: Option<ValueId> = None;
        for (id, _) in ids {
            let mut domain = shape.clone();
            domain[axis] = self.graph.shape(id)[axis].clone();
            let operand = (0..shape.len()).map(Affine::index).collect();
            let mut output: Vec<Affine> = (0..shape.len()).map(Affine::index).collect();
            output[axis].offset = offset.clone();
            offset = offset + &domain[axis];
            let placed = self.graph.contract(Contract { domain, operands: vec![operand], output }, &[id], &shape, span);
            joined = Some(match joined {
                Some(sum) => self.graph.binary(Binary::Add, sum, placed, span),
                None => placed,
            });
        }
        Ok(Meaning::Tensor(joined.expect("there is at least one part")))
    }

    /// `split(x, 3, axis = 1)` or `split(x, [12, 4], axis = 1)`.
    pub(super) fn split(&mut self, given: Vec<Given>, span: Span) -> Outcome<Meaning> {
        let (rest, named) = self.axis_apart("split", given)?;
        let [x, parts] = rest.as_slice() else {
            return self.refuse(
                "bad-argument",
                span,
                "`split` takes a tensor, how many parts or their sizes, and `axis`",
            );
        };
        let tensor = self.expect_tensor(x)?;
        let axis = self.axis_or_one(named.as_ref(), tensor)?;
        let whole = self.graph.shape(tensor)[axis].clone();
        let sizes = match &parts.value {
            Meaning::List(items) => {
                let mut sizes = Vec::with_capacity(items.len());
                for value in items.clone() {
                    sizes.push(self.size_of(&Given { name: None, value, span: parts.span })?);
                }
                sizes
            }
            _ => {
                let count = self.size_of(parts)?;
                let Some(count) = count.as_const().filter(|count| (1..=MAX_PARTS).contains(count)) else {
                    let message = format!("`split` gives 1 to {MAX_PARTS} parts, not {count}");
                    return self.refuse("bad-argument", parts.span, message);
                };
                vec![whole.floor_div(&Dim::constant(count)); count as usize]
            }
        };
        let total = sizes.iter().fold(Dim::constant(0), |sum, size| sum + size);
        let verdict = self.facts.prove_eq(&total, &whole);
        if !verdict.is_proved() {
            return self.does_not_fit(
                &verdict,
                format!("these parts have {total} places, and axis {axis} has {whole}"),
                span,
            );
        }
        let mut start = Dim::constant(0);
        let mut results = Vec::with_capacity(sizes.len());
        for (place, size) in sizes.into_iter().enumerate() {
            self.hold(&size, &Dim::constant(1), parts.span, "a part has at least one place")?;
            let end = &start + &size;
            results.push((place.to_string(), self.cut(tensor, axis, &start, size, span)));
            start = end;
        }
        Ok(Meaning::Tuple(results))
    }

    /// `slice(x, from, to, axis = 1)`.
    pub(super) fn slice(&mut self, given: Vec<Given>, span: Span) -> Outcome<Meaning> {
        let (rest, named) = self.axis_apart("slice", given)?;
        let [x, from, to] = rest.as_slice() else {
            return self.refuse(
                "bad-argument",
                span,
                "`slice` takes a tensor, its first place, the one behind its last, and `axis`",
            );
        };
        let tensor = self.expect_tensor(x)?;
        let axis = self.axis_or_one(named.as_ref(), tensor)?;
        let whole = self.graph.shape(tensor)[axis].clone();
        let (start, end) = (self.size_of(from)?, self.size_of(to)?);
        self.hold(&start, &Dim::constant(0), from.span, "a slice begins at place 0 or later")?;
        self.hold(&end, &(&start + Dim::constant(1)), to.span, "a slice has at least one place")?;
        self.hold(&whole, &end, to.span, &format!("a slice ends at the {whole} places of the axis at the latest"))?;
        let size = &end - &start;
        Ok(Meaning::Tensor(self.cut(tensor, axis, &start, size, span)))
    }

    /// The argument `axis` apart from the others.
    fn axis_apart(&mut self, name: &str, given: Vec<Given>) -> Outcome<(Vec<Given>, Option<Given>)> {
        let (named, rest): (Vec<Given>, Vec<Given>) = given.into_iter().partition(|argument| argument.name.is_some());
        let other = named.iter().find(|argument| argument.name.as_ref().is_some_and(|name| name.name != "axis"));
        if let Some(other) = other.or(named.get(1)) {
            return self.refuse("bad-argument", other.span, format!("`{name}` takes `axis`, once, by name"));
        }
        Ok((rest, named.into_iter().next()))
    }

    fn axis_or_one(&mut self, axis: Option<&Given>, tensor: ValueId) -> Outcome<usize> {
        let rank = self.graph.shape(tensor).len();
        let span = self.graph.value(tensor).span;
        let one = Given { name: None, value: Meaning::Size(Dim::constant(1)), span };
        self.axis_of(axis.unwrap_or(&one), rank)
    }

    /// Proves that a size is at least another.
    fn hold(&mut self, size: &Dim, least: &Dim, span: Span, why: &str) -> Outcome<()> {
        let verdict = self.facts.prove_ge(size, least);
        if verdict.is_proved() { Ok(()) } else { self.does_not_fit(&verdict, why.to_owned(), span) }
    }

    fn does_not_fit<T>(&mut self, verdict: &Verdict, message: String, span: Span) -> Outcome<T> {
        let code = if *verdict == Verdict::Undecided { "undecided" } else { "shape-mismatch" };
        let diagnostic = Diagnostic::error(code, span, message);
        self.fail(match verdict.counterexample() {
            Some(example) => diagnostic.hint(format!("it fails at {example}")),
            None => diagnostic,
        })
    }

    /// `size` places of an axis from `start` on, which lie inside of it.
    fn cut(&mut self, tensor: ValueId, axis: usize, start: &Dim, size: Dim, span: Span) -> ValueId {
        let mut shape = self.graph.shape(tensor).to_vec();
        shape[axis] = size;
        let mut operand: Vec<Affine> = (0..shape.len()).map(Affine::index).collect();
        operand[axis].offset = start.clone();
        let output = (0..shape.len()).map(Affine::index).collect();
        self.graph.contract(
            Contract { domain: shape.clone(), operands: vec![operand], output },
            &[tensor],
            &shape,
            span,
        )
    }
}
