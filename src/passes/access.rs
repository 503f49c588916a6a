//! Arithmetic of affine accesses, shared by the passes on contractions.
//!
//! Input: accesses over a domain. Output: substitutions, ranges and the question whether a guard is implied.
//! Invariant: an answer of `true` is a proof; with symbolic sizes fewer things are proved.

use crate::dim::Dim;
use crate::graph::op::sum_of_terms;
use crate::graph::{Access, Affine, Contract, Graph, Op, ValueId};

/// `factor · affine`, for a factor ≠ 0.
pub(super) fn scaled(affine: &Affine, factor: i64) -> Affine {
    let terms = affine.terms.iter().map(|&(index, coefficient)| (index, coefficient * factor)).collect();
    Affine { terms, offset: &affine.offset * &Dim::constant(factor) }
}

/// `a + b`.
pub(super) fn added(a: &Affine, b: &Affine) -> Affine {
    let terms = sum_of_terms(&a.terms, &b.terms);
    Affine { terms, offset: &a.offset + &b.offset }
}

/// The affine function whose index `i` is replaced by `replacements[i]`.
pub(super) fn substituted(affine: &Affine, replacements: &[Affine]) -> Affine {
    let start = Affine { terms: Vec::new(), offset: affine.offset.clone() };
    affine.terms.iter().fold(start, |sum, &(index, factor)| added(&sum, &scaled(&replacements[index], factor)))
}

/// Every entry with its indices replaced.
pub(super) fn substituted_access(access: &Access, replacements: &[Affine]) -> Access {
    access.iter().map(|affine| substituted(affine, replacements)).collect()
}

/// True if the affine function has `index` among its terms.
pub(super) fn mentions(affine: &Affine, index: usize) -> bool {
    affine.terms.iter().any(|term| term.0 == index)
}

/// True if every entry of an access to a tensor of `shape` is in range.
pub(super) fn all_in_range(access: &Access, domain: &[Dim], shape: &[Dim]) -> bool {
    access.iter().zip(shape).all(|(affine, extent)| affine.is_within(domain, extent))
}

/// True if `affine` being a valid index of a dim of size `size` implies `0 ≤ index < extent` for any integer `index`:
/// then the read that it belongs to enforces the range of `index`.
pub(super) fn confines(affine: &Affine, size: &Dim, index: usize, extent: &Dim) -> bool {
    if affine.as_index() == Some(index) && size == extent {
        return true;
    }
    let (Some(size), Some(extent), Some(offset)) = (size.as_const(), extent.as_const(), affine.offset.as_const())
    else {
        return false;
    };
    match affine.terms.as_slice() {
        [(only, 1)] if *only == index => offset <= 0 && size - offset <= extent,
        [(only, -1)] if *only == index => offset - size + 1 >= 0 && offset < extent,
        _ => false,
    }
}

/// True if the access reaches each element of `shape` exactly once per value of the remaining indices: it is made of
/// distinct plain indices that each run over the whole dim, and of index 0 in dims of size 1.
pub(super) fn is_plain(access: &Access, domain: &[Dim], shape: &[Dim]) -> bool {
    let mut seen = vec![false; domain.len()];
    access.iter().zip(shape).all(|(affine, extent)| match affine.as_index() {
        Some(index) => !std::mem::replace(&mut seen[index], true) && domain[index] == *extent,
        None => *affine == Affine::constant(0) && *extent == Dim::constant(1),
    })
}

/// True if the access is plain and no index remains: one point of the domain for each element.
pub(super) fn is_bijective(access: &Access, domain: &[Dim], shape: &[Dim]) -> bool {
    let indices = access.iter().filter(|affine| affine.as_index().is_some()).count();
    indices == domain.len() && is_plain(access, domain, shape)
}

/// A one-operand contraction without a sum: `y[i] = x[read(i)]`, 0 where the read leaves x.
pub(super) struct View {
    /// The read, over the indices of y.
    pub(super) read: Access,
    /// x.
    pub(super) source: ValueId,
}

/// The value as a view, if it is one.
pub(super) fn as_view(graph: &Graph, id: ValueId) -> Option<View> {
    let value = graph.value(id);
    let Op::Contract(Contract { domain, operands, output }) = &value.op else { return None };
    let [read] = operands.as_slice() else { return None };
    if !is_bijective(output, domain, &value.shape) {
        return None;
    }
    let mut place = vec![Affine::constant(0); domain.len()];
    for (axis, affine) in output.iter().enumerate() {
        if let Some(index) = affine.as_index() {
            place[index] = Affine::index(axis);
        }
    }
    Some(View { read: substituted_access(read, &place), source: value.args[0] })
}

/// The product of extents, if all are numbers.
pub(super) fn volume(dims: &[Dim]) -> Option<i64> {
    dims.iter().try_fold(1i64, |product, dim| product.checked_mul(dim.as_const()?))
}
