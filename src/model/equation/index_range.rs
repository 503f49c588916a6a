//! Indices that are values: which values a read admits, and what that asks of the data.
//!
//! Input: the graph so far and an integer tensor that stands as an index. Output: [`Demand`]s on inputs of the graph, under
//! which the index stays in its range; without any where the graph alone keeps it there.
//! Invariant: an index that is neither proved to stay nor traced to inputs is an error, so a read without `else` never
//! leaves its tensor once the data keeps the demands.
//!
//! The range is carried backwards, from the index through whatever made it: `ids[n] + 1` in 0..V asks for `ids` in
//! -1..V - 1. A part with bounds of its own (an index, a remainder, an `argmax`) is bounded forwards, and a condition
//! (`ids[n] if ids[n] >= 0 else 0`) frees what it chooses from the ends that it assures.

use std::collections::HashMap;

use crate::diagnostics::Diagnostic;
use crate::dim::Dim;
use crate::graph::{Binary, Compare, Contract, DType, InputId, Op, Unary, ValueId};
use crate::model::expander::demand::{Demand, Range};
use crate::model::expander::{Expander, Meaning, Outcome};
use crate::source::Span;

/// Values visited for one index; an index with more behind it counts as unproved.
const MAX_VISITS: u32 = 4096;

/// A comparison that holds where the value at hand is used.
type Assumption = (ValueId, Compare, ValueId);

/// The least and the largest value, where known.
type Bounds = (Option<Dim>, Option<Dim>);

/// No demands on inputs keep the index in its range.
struct Unproved;

/// One walk from an index to what made it.
struct Walk<'w, 'p> {
    expander: &'w Expander<'p>,
    bounds: HashMap<ValueId, Bounds>,
    demands: Vec<(InputId, Range)>,
    visits: u32,
}

impl Expander<'_> {
    /// Demands that every element of `index` lie in `0..extent`, which `reader` takes for granted.
    pub(super) fn demand_index(&mut self, index: ValueId, extent: &Dim, reader: ValueId, span: Span) -> Outcome<()> {
        let mut walk = Walk { expander: self, bounds: HashMap::new(), demands: Vec::new(), visits: 0 };
        let outcome = walk.demand(index, Range::of(extent), &[]);
        let demands = walk.demands;
        match outcome {
            Ok(()) => {
                self.demands.extend(demands.into_iter().map(|(input, range)| Demand { input, range, reader }));
                Ok(())
            }
            Err(Unproved) => {
                let message = format!("cannot prove that this index stays within 0..{extent}");
                let diagnostic = Diagnostic::error("index-out-of-range", span, message).at("computed in the model");
                self.fail(
                    diagnostic
                        .hint("guard the read: `(x[…] else 0)`")
                        .hint(format!("or bound the index: `min(max(index, 0), {})`", extent - Dim::constant(1))),
                )
            }
        }
    }

    /// The built-in `within`: integers as they are, held to `0..extent` as an index of so many places is.
    pub(crate) fn hold_within(&mut self, x: ValueId, extent: &Dim, span: Span) -> Outcome<Meaning> {
        if self.graph.value(x).dtype != DType::I32 {
            let message = format!("an index is an integer, found {}", self.describe(&Meaning::Tensor(x)));
            let hint = "a field of integers is declared `i32` or `class[n]`";
            return self.fail(Diagnostic::error("type-mismatch", span, message).hint(hint));
        }
        self.demand_index(x, extent, x, span)?;
        Ok(Meaning::Tensor(x))
    }
}

impl Walk<'_, '_> {
    /// Demands that `value` keep `range` wherever the assumptions hold.
    fn demand(&mut self, value: ValueId, range: Range, assumed: &[Assumption]) -> Result<(), Unproved> {
        self.visits += 1;
        let mut range = range.opened();
        let overflows = |end: &Option<Dim>| end.as_ref().is_some_and(Dim::is_overflow);
        if self.visits > MAX_VISITS || overflows(&range.low) || overflows(&range.high) {
            return Err(Unproved);
        }
        self.free(value, &mut range, assumed);
        let (low, high) = self.bounds(value);
        if let (Some(least), Some(end)) = (&low, &range.low)
            && self.is_ge(least, end)
        {
            range.low = None;
        }
        if let (Some(most), Some(end)) = (&high, &range.high)
            && self.is_ge(end, most)
        {
            range.high = None;
        }
        if range.is_open() {
            return Ok(());
        }
        let node = self.expander.graph.value(value);
        match (&node.op, node.args.as_slice()) {
            (Op::Input(input), _) => {
                self.demands.push((*input, range));
                Ok(())
            }
            (Op::Detach, [x]) => self.demand(*x, range, assumed),
            // From here on, elements stand at other places than those that the assumptions are about.
            (Op::Reshape | Op::ReduceMax { .. }, [x]) => self.demand(*x, range, &[]),
            (Op::Contract(contract), [x]) => {
                if self.fills(contract, *x) {
                    self.admit_zero(&range)?;
                }
                self.demand(*x, range, &[])
            }
            (Op::Gather(_), [data, ..]) => {
                self.admit_zero(&range)?;
                self.demand(*data, range, &[])
            }
            (Op::Unary(Unary::Neg), [x]) => {
                let mut turned = range.closed().through(true, |end| -end, |end| -end);
                turned.except = range.except.iter().map(|value| -value).collect();
                self.demand(*x, turned, assumed)
            }
            (Op::Unary(Unary::Abs), [x]) => {
                let below = Range { low: range.high.as_ref().map(|end| -end), ..range.high_only() };
                if range.low.is_some() { Err(Unproved) } else { self.demand(*x, below, assumed) }
            }
            (Op::Binary(op), [a, b]) => self.demand_binary(*op, *a, *b, &range, assumed),
            (Op::Select, [condition, then, otherwise]) => {
                for (branch, holds) in [(*then, true), (*otherwise, false)] {
                    let mut inside = assumed.to_vec();
                    self.assume(*condition, holds, &mut inside);
                    self.demand(branch, range.clone(), &inside)?;
                }
                Ok(())
            }
            _ => Err(Unproved),
        }
    }

    fn demand_binary(
        &mut self,
        op: Binary,
        a: ValueId,
        b: ValueId,
        range: &Range,
        assumed: &[Assumption],
    ) -> Result<(), Unproved> {
        let (bounds_a, bounds_b) = (self.bounds(a), self.bounds(b));
        match op {
            Binary::Add => {
                let (x, other) = if let (Some(_), Some(_)) = &bounds_b { (a, bounds_b) } else { (b, bounds_a) };
                let (Some(least), Some(most)) = other else { return Err(Unproved) };
                let mut moved = range.closed().through(false, |end| end - &least, |end| end - &most);
                if least == most {
                    moved.except = range.except.iter().map(|value| value - &least).collect();
                }
                self.demand(x, moved, assumed)
            }
            Binary::Sub => match (bounds_a, bounds_b) {
                (_, (Some(least), Some(most))) => {
                    let mut moved = range.closed().through(false, |end| end + &most, |end| end + &least);
                    if least == most {
                        moved.except = range.except.iter().map(|value| value + &least).collect();
                    }
                    self.demand(a, moved, assumed)
                }
                ((Some(least), Some(most)), _) => {
                    self.demand(b, range.closed().through(true, |end| &most - end, |end| &least - end), assumed)
                }
                _ => Err(Unproved),
            },
            Binary::Mul => {
                let (x, factor) = if let Some(factor) = number(&bounds_b) {
                    (a, factor)
                } else {
                    (b, number(&bounds_a).ok_or(Unproved)?)
                };
                if factor < 1 {
                    return Err(Unproved);
                }
                let factor = Dim::constant(factor);
                let up = |end: &Dim| -(-end).floor_div(&factor);
                self.demand(x, range.closed().through(false, up, |end| end.floor_div(&factor)), assumed)
            }
            Binary::Div => {
                let divisor = number(&bounds_b).filter(|divisor| *divisor >= 1).ok_or(Unproved)?;
                let (divisor, rest) = (Dim::constant(divisor), Dim::constant(divisor - 1));
                self.demand(a, range.through(false, |end| end * &divisor, |end| end * &divisor + &rest), assumed)
            }
            Binary::Max | Binary::Min => {
                // The end that one side assures is no demand on the other.
                let assures = |bounds: &Bounds| match (op, &bounds.0, &bounds.1) {
                    (Binary::Max, Some(least), _) => range.low.as_ref().is_none_or(|end| self.is_ge(least, end)),
                    (Binary::Min, _, Some(most)) => range.high.as_ref().is_none_or(|end| self.is_ge(end, most)),
                    _ => false,
                };
                let range = match (assures(&bounds_a) || assures(&bounds_b), op) {
                    (true, Binary::Max) => range.high_only(),
                    (true, _) => range.low_only(),
                    (false, _) => Range { except: Vec::new(), ..range.clone() },
                };
                self.demand(a, range.clone(), assumed)?;
                self.demand(b, range, assumed)
            }
            Binary::Rem | Binary::Pow | Binary::And | Binary::Or => Err(Unproved),
        }
    }

    /// The least and the largest value, as far as the graph alone says.
    fn bounds(&mut self, value: ValueId) -> Bounds {
        if let Some(known) = self.bounds.get(&value) {
            return known.clone();
        }
        self.visits += 1;
        if self.visits > MAX_VISITS {
            return (None, None);
        }
        let found = self.bounds_of(value);
        // Beyond 32 bits the integers wrap around.
        let fits = |end: &Option<Dim>| {
            end.as_ref()
                .is_none_or(|end| !end.is_overflow() && end.as_const().is_none_or(|end| i32::try_from(end).is_ok()))
        };
        let found = if fits(&found.0) && fits(&found.1) { found } else { (None, None) };
        self.bounds.insert(value, found.clone());
        found
    }

    fn bounds_of(&mut self, value: ValueId) -> Bounds {
        let node = self.expander.graph.value(value);
        let below = |extent: Dim| (Some(Dim::constant(0)), Some(extent - Dim::constant(1)));
        match (&node.op, node.args.as_slice()) {
            (Op::Const(number), _) if number.fract() == 0.0 && number.abs() < 9e15 => {
                let number = Dim::constant(*number as i64);
                (Some(number.clone()), Some(number))
            }
            (Op::Size(dim), _) => (Some(dim.clone()), Some(dim.clone())),
            (Op::Index { axis }, _) => below(node.shape[*axis].clone()),
            (Op::ArgMax { axes }, [x]) => {
                let shape = self.expander.graph.shape(*x);
                below(Dim::product(axes.iter().map(|axis| &shape[*axis])))
            }
            (Op::Cast, [x]) if self.expander.graph.value(*x).dtype == DType::Bool => below(Dim::constant(2)),
            (Op::Reshape | Op::Detach | Op::ReduceMax { .. }, [x]) => self.bounds(*x),
            (Op::Contract(contract), [x]) => {
                let (low, high) = self.bounds(*x);
                if self.fills(contract, *x) { with_zero(low, high) } else { (low, high) }
            }
            (Op::Gather(_), [data, ..]) => {
                let (low, high) = self.bounds(*data);
                with_zero(low, high)
            }
            (Op::Unary(Unary::Neg), [x]) => {
                let (low, high) = whole(self.bounds(*x));
                (high.map(|end| -end), low.map(|end| -end))
            }
            (Op::Select, [_, then, otherwise]) => {
                let ((a, b), (c, d)) = (self.bounds(*then), self.bounds(*otherwise));
                (both(a, c, Dim::min), both(b, d, Dim::max))
            }
            (Op::Binary(op), [a, b]) => {
                let (a, b) = (self.bounds(*a), self.bounds(*b));
                self.bounds_binary(*op, a, b)
            }
            _ => (None, None),
        }
    }

    fn bounds_binary(&self, op: Binary, a: Bounds, b: Bounds) -> Bounds {
        match op {
            Binary::Add => whole((both(a.0, b.0, |x, y| x + y), both(a.1, b.1, |x, y| x + y))),
            Binary::Sub => whole((both(a.0, b.1, |x, y| x - y), both(a.1, b.0, |x, y| x - y))),
            Binary::Mul => {
                let (times, factor) = match (number(&a), number(&b)) {
                    (_, Some(factor)) => (a, factor),
                    (Some(factor), None) => (b, factor),
                    (None, None) => return (None, None),
                };
                let scaled = |end: Option<Dim>| end.map(|end| end * Dim::constant(factor));
                let (low, high) = whole((scaled(times.0), scaled(times.1)));
                if factor < 0 { (high, low) } else { (low, high) }
            }
            Binary::Div => match number(&b) {
                Some(divisor @ 1..) => {
                    let part = |end: Option<Dim>| end.map(|end| end.floor_div(&Dim::constant(divisor)));
                    (part(a.0), part(a.1))
                }
                _ => (None, None),
            },
            Binary::Rem => match (&b.0, &b.1) {
                (Some(least), Some(most)) if self.is_ge(least, &Dim::constant(1)) => {
                    (Some(Dim::constant(0)), Some(most - Dim::constant(1)))
                }
                _ => (None, None),
            },
            Binary::Max => {
                let high = both(a.1, b.1, Dim::max);
                (either(a.0, b.0, Dim::max), high)
            }
            Binary::Min => {
                let low = both(a.0, b.0, Dim::min);
                (low, either(a.1, b.1, Dim::min))
            }
            Binary::Pow | Binary::And | Binary::Or => (None, None),
        }
    }

    /// True where the contraction may leave places at 0, or read outside of `x`.
    fn fills(&self, contract: &Contract, x: ValueId) -> bool {
        let domain = &contract.domain;
        let inside = contract.operands[0].iter().zip(self.expander.graph.shape(x));
        let whole = contract.output.iter().enumerate().all(|(axis, place)| place.as_index() == Some(axis));
        !whole || !inside.into_iter().all(|(place, extent)| place.is_within(domain, extent))
    }

    fn admit_zero(&self, range: &Range) -> Result<(), Unproved> {
        let zero = Dim::constant(0);
        let inside = range.low.as_ref().is_none_or(|end| self.is_ge(&zero, end))
            && range.high.as_ref().is_none_or(|end| self.is_ge(end, &zero));
        if inside || range.except.contains(&zero) { Ok(()) } else { Err(Unproved) }
    }

    /// Opens the ends that an assumption about this very value assures, and admits the values that one excludes.
    fn free(&mut self, value: ValueId, range: &mut Range, assumed: &[Assumption]) {
        for (subject, compare, other) in assumed {
            if !self.same(*subject, value, 8) {
                continue;
            }
            let (low, high) = self.bounds(*other);
            let one = Dim::constant(1);
            let (least, most) = match compare {
                Compare::Ge => (low, None),
                Compare::Gt => (low.map(|end| end + &one), None),
                Compare::Le => (None, high),
                Compare::Lt => (None, high.map(|end| end - &one)),
                Compare::Eq => (low, high),
                Compare::Ne => {
                    range.except.extend(low.filter(|value| high.as_ref() == Some(value)));
                    (None, None)
                }
            };
            if least.is_some_and(|least| range.low.as_ref().is_some_and(|end| self.is_ge(&least, end))) {
                range.low = None;
            }
            if most.is_some_and(|most| range.high.as_ref().is_some_and(|end| self.is_ge(end, &most))) {
                range.high = None;
            }
        }
    }

    /// Adds what is known where `condition` has this truth value.
    fn assume(&self, condition: ValueId, holds: bool, out: &mut Vec<Assumption>) {
        let node = self.expander.graph.value(condition);
        match (&node.op, node.args.as_slice(), holds) {
            (Op::Binary(Binary::And), [a, b], true) | (Op::Binary(Binary::Or), [a, b], false) => {
                self.assume(*a, holds, out);
                self.assume(*b, holds, out);
            }
            (Op::Unary(Unary::Not), [x], _) => self.assume(*x, !holds, out),
            (Op::Compare(compare), [a, b], _) => {
                let compare = if holds { *compare } else { compare.opposite() };
                out.push((*a, compare, *b));
                out.push((*b, mirrored(compare), *a));
            }
            _ => {}
        }
    }

    /// True where both values are made alike.
    fn same(&self, a: ValueId, b: ValueId, depth: u32) -> bool {
        let (x, y) = (self.expander.graph.value(a), self.expander.graph.value(b));
        a == b
            || depth > 0
                && x.op == y.op
                && x.shape == y.shape
                && x.args.len() == y.args.len()
                && x.args.iter().zip(&y.args).all(|(a, b)| self.same(*a, *b, depth - 1))
    }

    fn is_ge(&self, a: &Dim, b: &Dim) -> bool {
        self.expander.facts.prove_ge(a, b).is_proved()
    }
}

/// The only value that bounds admit, if it is a number.
fn number(bounds: &Bounds) -> Option<i64> {
    let (low, high) = (bounds.0.as_ref()?, bounds.1.as_ref()?);
    if low == high { low.as_const() } else { None }
}

/// Bounds of what may wrap around: where one end is open, nothing is known of the other.
fn whole(bounds: Bounds) -> Bounds {
    if let (Some(_), Some(_)) = bounds { bounds } else { (None, None) }
}

fn both(a: Option<Dim>, b: Option<Dim>, join: impl Fn(&Dim, &Dim) -> Dim) -> Option<Dim> {
    Some(join(a.as_ref()?, b.as_ref()?))
}

fn either(a: Option<Dim>, b: Option<Dim>, join: impl Fn(&Dim, &Dim) -> Dim) -> Option<Dim> {
    match (a, b) {
        (Some(a), Some(b)) => Some(join(&a, &b)),
        (a, b) => a.or(b),
    }
}

fn with_zero(low: Option<Dim>, high: Option<Dim>) -> Bounds {
    let zero = Dim::constant(0);
    (low.map(|end| end.min(&zero)), high.map(|end| end.max(&zero)))
}

fn mirrored(compare: Compare) -> Compare {
    match compare {
        Compare::Lt => Compare::Gt,
        Compare::Le => Compare::Ge,
        Compare::Gt => Compare::Lt,
        Compare::Ge => Compare::Le,
        Compare::Eq | Compare::Ne => compare,
    }
}
