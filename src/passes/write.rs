//! Contractions that write at an affine index, rewritten to write at plain ones.
//!
//! Input and output: a graph. The gradient of a windowed read writes: `dx[S·i + u − P] += dy[i] · w[u]`.
//! 1. *Change of variable.* With a coefficient ±1 the written index itself becomes the loop:
//!    `dx[i'] += dy[i' − u + P] · w[u]`. The range of the replaced index is kept by a read that it indexes.
//! 2. *Residues.* With a stride, `u = S·a + b` and `q = i + a` give a plain result of one more dim:
//!    `t[q, b] += dy[q − a] · w[S·a + b]`; then `dx[x] = flat(t)[x + P]`. Where it needs no more work, q and b count from
//!    the first element of dx instead (`u = S·(a − c) + b + P`, `q = i + a − c`), and `dx = flat(t)`. Where windows do not
//!    overlap (extent of u ≤ S) nothing is replaced: `t[i, u] += dy[i] · w[u]`, padded to S.
//!
//! A contraction that fits neither stays as it is.
//! Invariant: the work at most doubles, and never exceeds it for case 2 by more than the padding of u to a multiple of S.

use super::access::{confines, mentions, substituted_access, volume};
use crate::dim::Dim;
use crate::graph::build::identity_access;
use crate::graph::{Access, Affine, Contract, Graph, Op, ValueId};
use crate::source::Span;

/// Runs the changes of variable.
pub fn variables(graph: &mut Graph) {
    run(graph, &[Write::drop_axis, Write::change_variable]);
}

/// Runs the changes of variable and the residues.
pub fn residues(graph: &mut Graph) {
    run(graph, &[Write::drop_axis, Write::change_variable, Write::split_residues]);
}

/// Lowers the write at an axis, if it can.
type Step = fn(&Write, &mut Graph, usize) -> Option<ValueId>;

fn run(graph: &mut Graph, steps: &'static [Step]) {
    super::rewrite(graph, |new, _, value| {
        let Op::Contract(contract) = value.op.clone() else { return new.push(value) };
        let write = Write { contract, args: value.args.clone(), shape: value.shape.clone(), span: value.span, steps };
        write.lower(new).unwrap_or_else(|| new.push(value))
    });
}

/// A contraction with what surrounds it.
#[derive(Clone)]
struct Write {
    steps: &'static [Step],
    contract: Contract,
    args: Vec<ValueId>,
    shape: Vec<Dim>,
    span: Span,
}

impl Write {
    /// The same result with plain writes; none where nothing can be improved.
    fn lower(self, graph: &mut Graph) -> Option<ValueId> {
        let mut axes = (0..self.shape.len()).filter(|&axis| !self.is_plain_at(axis));
        axes.find_map(|axis| self.steps.iter().find_map(|step| step(&self, graph, axis)))
    }

    /// The result, its remaining affine writes lowered as far as possible.
    fn build(self, graph: &mut Graph) -> ValueId {
        let rest = self.clone().lower(graph);
        rest.unwrap_or_else(|| graph.contract(self.contract, &self.args, &self.shape, self.span))
    }

    fn is_plain_at(&self, axis: usize) -> bool {
        let Contract { domain, output, .. } = &self.contract;
        if output[axis] == Affine::constant(0) {
            return self.shape[axis] == Dim::constant(1);
        }
        output[axis].as_index().is_some_and(|index| {
            domain[index] == self.shape[axis]
                && output.iter().enumerate().all(|(other, affine)| other == axis || !mentions(affine, index))
        })
    }

    /// A write at a constant place of an axis: the axis is added afterwards by a view.
    fn drop_axis(&self, graph: &mut Graph, axis: usize) -> Option<ValueId> {
        let place = &self.contract.output[axis];
        place.terms.is_empty().then_some(())?;
        let mut inner = self.clone();
        inner.contract.output.remove(axis);
        inner.shape.remove(axis);
        let mut shape = inner.shape.clone();
        let narrow = inner.build(graph);
        shape.insert(axis, Dim::constant(1));
        let one = graph.reshape(narrow, &shape, self.span);
        // y[…, x, …] = one[…, x − place, …]
        let mut read = identity_access(self.shape.len());
        read[axis].offset = -place.offset.clone();
        Some(self.view(graph, one, read, self.shape.clone()))
    }

    /// `source` read at `read` over the indices of `shape`.
    fn view(&self, graph: &mut Graph, source: ValueId, read: Access, shape: Vec<Dim>) -> ValueId {
        let output = identity_access(shape.len());
        let contract = Contract { domain: shape.clone(), operands: vec![read], output };
        graph.contract(contract, &[source], &shape, self.span)
    }

    /// Case 1, on the index that adds the least work.
    fn change_variable(&self, graph: &mut Graph, axis: usize) -> Option<ValueId> {
        let Contract { domain, output, .. } = &self.contract;
        let written = &output[axis];
        let candidates = written.terms.iter().filter(|term| term.1.abs() == 1 && self.is_enforced(graph, term.0));
        let elsewhere = |index| output.iter().enumerate().any(|(other, a)| other != axis && mentions(a, index));
        let fitting = candidates.filter(|term| !elsewhere(term.0));
        let &(index, sign) = fitting.max_by_key(|term| domain[term.0].as_const())?;

        let old = volume(domain)?.max(volume(&self.shape)?);
        let extent = domain[index].as_const().filter(|extent| *extent > 0)?;
        let new = (volume(domain)? / extent).checked_mul(self.shape[axis].as_const()?)?;
        (new <= old.saturating_mul(2)).then_some(())?;

        // index = sign · (written' − offset − other terms)
        let mut terms: Vec<(usize, i64)> =
            written.terms.iter().filter(|term| term.0 != index).map(|&(other, c)| (other, -sign * c)).collect();
        terms.push((index, sign));
        terms.sort_unstable();
        let offset = &written.offset * &Dim::constant(-sign);
        let mut replacement: Vec<Affine> = (0..domain.len()).map(Affine::index).collect();
        replacement[index] = Affine { terms, offset };

        let mut changed = self.clone();
        changed.contract.domain[index] = self.shape[axis].clone();
        for operand in &mut changed.contract.operands {
            *operand = substituted_access(operand, &replacement);
        }
        changed.contract.output[axis] = Affine::index(index);
        Some(changed.build(graph))
    }

    /// True if a read gives 0 whenever `index` leaves its extent.
    fn is_enforced(&self, graph: &Graph, index: usize) -> bool {
        let Contract { domain, operands, .. } = &self.contract;
        operands.iter().zip(&self.args).any(|(operand, &arg)| {
            operand.iter().zip(graph.shape(arg)).any(|(affine, size)| confines(affine, size, index, &domain[index]))
        })
    }

    /// Case 2: `S·i + u + offset` or `S·i + offset`, S > 1.
    fn split_residues(&self, graph: &mut Graph, axis: usize) -> Option<ValueId> {
        let written = &self.contract.output[axis];
        let (row, stride, column) = match *written.terms.as_slice() {
            [(row, stride)] if stride > 1 => (row, stride, None),
            [(row, stride), (column, 1)] | [(column, 1), (row, stride)] if stride > 1 => (row, stride, Some(column)),
            _ => return None,
        };
        let output = &self.contract.output;
        let elsewhere = |index| output.iter().enumerate().any(|(other, a)| other != axis && mentions(a, index));
        if elsewhere(row) || column.is_some_and(elsewhere) {
            return None;
        }
        let rows = self.contract.domain[row].as_const()?;
        let window = column.map_or(Some(1), |column| self.contract.domain[column].as_const())?;
        let mut inner = self.clone();
        let column = column.unwrap_or_else(|| {
            inner.contract.domain.push(Dim::constant(1));
            inner.contract.domain.len() - 1
        });
        let mut start = written.offset.clone();
        let (rows, columns) = if window <= stride {
            (rows, window)
        } else {
            let enforced = self.is_enforced(graph, row) && self.is_enforced(graph, column);
            enforced.then_some(())?;
            let mut split = Split { parts: (window + stride - 1) / stride, ..Split::default() };
            split.count = rows + split.parts - 1;
            if let Some(aligned) = Split::aligned(&start, self.shape[axis].as_const(), stride, window)
                && aligned.parts <= split.parts
                && aligned.count <= split.count
            {
                (split, start) = (aligned, Dim::constant(0));
            }
            inner.overlap(row, column, stride, &split);
            (split.count, stride)
        };
        let residue = if window <= stride { column } else { inner.contract.domain.len() - 1 };
        inner.contract.output.splice(axis..=axis, [Affine::index(row), Affine::index(residue)]);
        inner.shape.splice(axis..=axis, [Dim::constant(rows), Dim::constant(columns)]);
        let shape = inner.shape.clone();
        let split = inner.build(graph);
        Some(self.assemble(graph, axis, split, shape, stride, &start))
    }

    /// Replaces `row` by `q − a + c` and `column` by `S·a + b + first`: q in place of `row`, a in place of `column`, b at
    /// the end.
    fn overlap(&mut self, row: usize, column: usize, stride: i64, split: &Split) {
        let domain = &mut self.contract.domain;
        let residue = domain.len();
        let mut replacement: Vec<Affine> = (0..domain.len()).map(Affine::index).collect();
        let sorted = |mut terms: Vec<(usize, i64)>, offset: i64| {
            terms.sort_unstable();
            Affine { terms, offset: Dim::constant(offset) }
        };
        replacement[row] = sorted(vec![(row, 1), (column, -1)], split.shift);
        replacement[column] = sorted(vec![(column, stride), (residue, 1)], split.first);
        domain[row] = Dim::constant(split.count);
        domain[column] = Dim::constant(split.parts);
        domain.push(Dim::constant(stride));
        for operand in &mut self.contract.operands {
            *operand = substituted_access(operand, &replacement);
        }
    }

    /// From `split[…, q, b, …]` to `y[…, x, …] = flat[…, x − start, …]` with `flat` of stride · rows elements.
    fn assemble(
        &self,
        graph: &mut Graph,
        axis: usize,
        split: ValueId,
        shape: Vec<Dim>,
        stride: i64,
        start: &Dim,
    ) -> ValueId {
        let mut padded = shape.clone();
        padded[axis + 1] = Dim::constant(stride);
        let mut split = split;
        if padded != shape {
            split = self.view(graph, split, identity_access(shape.len()), padded.clone());
        }
        let mut flat = padded;
        let columns = flat.remove(axis + 1);
        flat[axis] = &flat[axis] * &columns;
        let flat = graph.reshape(split, &flat, self.span);
        let mut read = identity_access(self.shape.len());
        read[axis].offset = -start.clone();
        if read[axis].as_index().is_some() && graph.shape(flat) == self.shape {
            return flat;
        }
        self.view(graph, flat, read, self.shape.clone())
    }
}

/// How the rows and columns of overlapping windows become q, a and b: `row = q − a + shift`, `column = S·a + b + first`.
#[derive(Default)]
struct Split {
    /// Extent of q.
    count: i64,
    /// Extent of a.
    parts: i64,
    shift: i64,
    first: i64,
}

impl Split {
    /// The split with `S·q + b` the written place itself: `S·row + column + start`, in `0..size`.
    fn aligned(start: &Dim, size: Option<i64>, stride: i64, window: i64) -> Option<Split> {
        let (pad, size) = (-start.as_const()?, size?);
        // Over all b in 0..S, a − shift reaches from −⌊(S − 1 + pad) / S⌋ to ⌊(window − 1 − pad) / S⌋.
        let shift = (stride - 1 + pad).div_euclid(stride);
        let parts = shift + (window - 1 - pad).div_euclid(stride) + 1;
        let split = Split { count: (size + stride - 1) / stride, parts, shift, first: pad - stride * shift };
        (parts > 0 && split.count > 0).then_some(split)
    }
}
