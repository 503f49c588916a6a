//! Sums in a product of two tensors that concern one of them alone are done first.
//!
//! Input and output: a graph. In `out[o(d)] += a[…] · b[…]`
//! 1. an index that is summed and that only a mentions is summed in a alone: `Σ_k,i a[k, i] · b[k, j]` is
//!    `Σ_k (Σ_i a[k, i]) · b[k, j]`;
//! 2. an index that no operand mentions repeats the sum over k: the sum is made once and then written at all its places.
//!    The repeated index stays named by an operand of ones, which says where it ends.
//!
//! So the gradient of a layer whose results are added up over some dims, which is the same all over them, is a product of
//! what varies. Invariant: no element is multiplied or added more often than before.

use super::access::{mentions, substituted_access};
use crate::dim::Dim;
use crate::graph::build::identity_access;
use crate::graph::{Access, Affine, Contract, DType, Graph, Op, ValueId};
use crate::source::Span;

/// Runs the pass.
pub fn run(graph: &mut Graph) {
    super::rewrite(graph, |new, _, value| {
        let Op::Contract(contract) = &value.op else { return new.push(value) };
        let [a, b] = value.args[..] else { return new.push(value) };
        let mut product = Product { contract: contract.clone(), args: [a, b], span: value.span };
        let sums = [product.sum_alone(new, 0), product.sum_alone(new, 1)].contains(&true);
        if let Some(repeated) = product.repeat_result(new, &value.shape) {
            return repeated;
        }
        if sums { new.contract(product.contract, &product.args, &value.shape, value.span) } else { new.push(value) }
    });
}

/// A contraction of two operands.
struct Product {
    contract: Contract,
    args: [ValueId; 2],
    span: Span,
}

impl Product {
    /// Indices of more than one place for which the predicate holds.
    fn indices(&self, wanted: impl Fn(usize) -> bool) -> Vec<usize> {
        let domain = &self.contract.domain;
        (0..domain.len()).filter(|&index| domain[index] != Dim::constant(1) && wanted(index)).collect()
    }

    fn is_read(&self, operand: usize, index: usize) -> bool {
        self.contract.operands[operand].iter().any(|affine| mentions(affine, index))
    }

    fn is_written(&self, index: usize) -> bool {
        self.contract.output.iter().any(|affine| mentions(affine, index))
    }

    /// Sums an operand over the indices that it alone mentions, where that happens again and again; true if it did.
    fn sum_alone(&mut self, graph: &mut Graph, operand: usize) -> bool {
        let own = |index| self.is_read(operand, index) && !self.is_read(1 - operand, index) && !self.is_written(index);
        let alone = self.indices(own);
        if alone.is_empty() || self.indices(|index| !self.is_read(operand, index)).is_empty() {
            return false;
        }
        let kept = self.indices(|index| self.is_read(operand, index) && !alone.contains(&index));
        let order = [&kept[..], &alone[..]].concat();
        let domain = self.extents(&order);
        let read = substituted_access(&self.contract.operands[operand], &self.places(&order));
        let shape = self.extents(&kept);
        let inner = Contract { domain, operands: vec![read], output: identity_access(kept.len()) };
        self.args[operand] = graph.contract(inner, &[self.args[operand]], &shape, self.span);
        self.contract.operands[operand] = kept.into_iter().map(Affine::index).collect();
        let rest: Vec<usize> = (0..self.contract.domain.len()).filter(|index| !alone.contains(index)).collect();
        self.contract = self.over(&rest);
        true
    }

    /// The result written at all places of the indices that no operand mentions, where each is a sum.
    fn repeat_result(&self, graph: &mut Graph, shape: &[Dim]) -> Option<ValueId> {
        let is_operand = |index| self.is_read(0, index) || self.is_read(1, index);
        let repeated = self.indices(|index| !is_operand(index) && self.is_written(index));
        let summed = self.indices(|index| is_operand(index) && !self.is_written(index));
        let unnamed = self.indices(|index| !is_operand(index) && !self.is_written(index));
        if repeated.is_empty() || summed.is_empty() || !unnamed.is_empty() {
            return None;
        }
        let kept = self.indices(|index| is_operand(index) && self.is_written(index));
        let inner = Contract { output: identity_access(kept.len()), ..self.over(&[&kept[..], &summed[..]].concat()) };
        let once = graph.contract(inner, &self.args, &self.extents(&kept), self.span);
        let ones = graph.constant(1.0, &self.extents(&repeated), DType::F32, self.span);
        let places = |from: usize, count: usize| -> Access { (from..from + count).map(Affine::index).collect() };
        let outer = Contract {
            operands: vec![places(0, kept.len()), places(kept.len(), repeated.len())],
            ..self.over(&[&kept[..], &repeated[..]].concat())
        };
        Some(graph.contract(outer, &[once, ones], shape, self.span))
    }

    fn extents(&self, indices: &[usize]) -> Vec<Dim> {
        indices.iter().map(|&index| self.contract.domain[index].clone()).collect()
    }

    /// For each index its place in this order; what is absent has extent 1 or is not mentioned, and is read as 0.
    fn places(&self, order: &[usize]) -> Vec<Affine> {
        let mut places = vec![Affine::constant(0); self.contract.domain.len()];
        order.iter().enumerate().for_each(|(new, &old)| places[old] = Affine::index(new));
        places
    }

    /// The contraction over these indices alone.
    fn over(&self, order: &[usize]) -> Contract {
        let places = self.places(order);
        Contract {
            domain: self.extents(order),
            operands: self.contract.operands.iter().map(|operand| substituted_access(operand, &places)).collect(),
            output: substituted_access(&self.contract.output, &places),
        }
    }
}
