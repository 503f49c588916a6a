//! The normal form of contractions, and constants moved out of them.
//!
//! Input and output: a graph. For each contraction:
//! indices of extent 1 vanish; an index that nothing reads or writes becomes a factor; a constant operand and a
//! constant factor of an operand become a factor of the result; a factor that is independent of what is summed leaves
//! the sum; a product without a sum is elementwise; a contraction that changes nothing is its operand;
//! indices are numbered in the order of the output, then of the operands.
//! Invariant: no element is multiplied or added more often than before.

use super::access::{all_in_range, as_view, is_bijective, is_plain, mentions, substituted_access, volume};
use crate::dim::Dim;
use crate::graph::build::identity_access;
use crate::graph::{Access, Affine, Binary, Contract, DType, Graph, Op, Unary, Value, ValueId};

/// Runs the pass.
pub fn run(graph: &mut Graph) {
    let uses = super::uses(graph);
    super::rewrite(graph, |new, (_, old), value| {
        let Op::Contract(contract) = value.op.clone() else { return new.push(value) };
        let single = old.args.iter().map(|arg| uses[arg.0 as usize] == 1).collect();
        let mut form = Form { contract, args: value.args.clone(), single, factor: 1.0 };
        form.drop_unit_indices();
        if value.dtype == DType::F32 {
            form.pull_factors(new, &value.shape);
        }
        form.drop_constants(new);
        form.drop_free_indices();
        form.order_indices();
        form.emit(new, value)
    });
}

/// A contraction under simplification: `factor · contract(args)`.
struct Form {
    contract: Contract,
    args: Vec<ValueId>,
    /// Whether the contraction is the only reader, by argument.
    single: Vec<bool>,
    factor: f64,
}

impl Form {
    /// An index of extent 1 is always 0.
    fn drop_unit_indices(&mut self) {
        let unit = Dim::constant(1);
        let kept: Vec<usize> = (0..self.contract.domain.len()).filter(|&i| self.contract.domain[i] != unit).collect();
        self.keep(&kept);
    }

    /// Renumbers so that index `i` is the former `order[i]`; what is absent is read as 0.
    fn keep(&mut self, order: &[usize]) {
        let mut place = vec![Affine::constant(0); self.contract.domain.len()];
        for (new, &old) in order.iter().enumerate() {
            place[old] = Affine::index(new);
        }
        let Contract { domain, operands, output } = &mut self.contract;
        *domain = order.iter().map(|&old| domain[old].clone()).collect();
        operands.iter_mut().for_each(|operand| *operand = substituted_access(operand, &place));
        *output = substituted_access(output, &place);
    }

    /// `c · x`, `x / c` and `−x` become `x` where nobody else reads them and the result is not the larger tensor.
    fn pull_factors(&mut self, graph: &Graph, shape: &[Dim]) {
        for position in 0..self.args.len() {
            let Some((source, factor)) = factor_of(graph, self.args[position]) else { continue };
            let shrinks = match (volume(shape), volume(graph.shape(source))) {
                (Some(result), Some(operand)) => result <= operand,
                (None, _) | (_, None) => shape.len() <= graph.shape(source).len(),
            };
            if self.single[position] && (shrinks || self.args.len() > 1) {
                self.args[position] = source;
                self.factor *= factor;
            }
        }
    }

    /// A constant operand that is never left is a factor; a lone one is read at one place.
    fn drop_constants(&mut self, graph: &Graph) {
        for position in (0..self.args.len()).rev() {
            let value = graph.value(self.args[position]);
            let Op::Const(number) = value.op else { continue };
            let Contract { domain, operands, .. } = &mut self.contract;
            if !all_in_range(&operands[position], domain, &value.shape) {
                continue;
            }
            if self.args.len() == 2 {
                operands.remove(position);
                self.args.remove(position);
                self.single.remove(position);
                self.factor *= number;
            } else {
                operands[0].iter_mut().for_each(|affine| *affine = Affine::constant(0));
            }
        }
    }

    /// An index that no operand and no output mentions repeats the sum.
    fn drop_free_indices(&mut self) {
        let Contract { domain, operands, output } = &self.contract;
        let used = |index: usize| operands.iter().flatten().chain(output).any(|affine| mentions(affine, index));
        let (kept, free): (Vec<usize>, Vec<usize>) = (0..domain.len()).partition(|&index| used(index));
        let Some(times) = free.iter().try_fold(1.0, |times, &index| Some(times * domain[index].as_const()? as f64))
        else {
            return;
        };
        self.factor *= times;
        self.keep(&kept);
    }

    /// Numbers the indices in the order in which the output, then the operands mention them.
    fn order_indices(&mut self) {
        let mut order: Vec<usize> = Vec::new();
        let Contract { domain, operands, output } = &self.contract;
        for affine in output.iter().chain(operands.iter().flatten()) {
            for &(index, _) in &affine.terms {
                if !order.contains(&index) {
                    order.push(index);
                }
            }
        }
        order.extend((0..domain.len()).filter(|index| !order.contains(index)).collect::<Vec<_>>());
        self.keep(&order);
    }

    fn emit(mut self, graph: &mut Graph, value: Value) -> ValueId {
        let repeated = self.pull_repeated(graph, &value);
        let result = self.without_factors(graph, &value);
        repeated.into_iter().fold(result, |result, factor| graph.binary(Binary::Mul, result, factor, value.span))
    }

    /// `Σ a · r` with r independent of the summed indices is `r · Σ a`: replaces the operand by a and gives r,
    /// repeated over the result.
    fn pull_repeated(&mut self, graph: &mut Graph, value: &Value) -> Option<ValueId> {
        let Contract { domain, operands, output } = &self.contract;
        let ([read], [arg]) = (operands.as_slice(), self.args.as_slice()) else { return None };
        let product = graph.value(*arg);
        let sums = is_plain(output, domain, &value.shape) && !is_bijective(output, domain, &value.shape);
        let simple = self.single[0] && product.op == Op::Binary(Binary::Mul) && value.dtype == DType::F32;
        if !sums || !simple || !is_plain(read, domain, &product.shape) {
            return None;
        }
        let place = |axis: &Affine| {
            let index = read[axis.as_index()?].as_index()?;
            output.iter().position(|affine| affine.as_index() == Some(index)).map(Affine::index)
        };
        let [a, b] = product.args[..] else { return None };
        let (kept, source, access) = [(a, b), (b, a)].into_iter().find_map(|(kept, factor)| {
            let view = as_view(graph, factor)?;
            let whole = is_plain(&view.read, &product.shape, graph.shape(view.source));
            let access: Option<Access> = view.read.iter().map(place).collect();
            access.filter(|_| whole).map(|access| (kept, view.source, access))
        })?;
        self.args[0] = kept;
        Some(read_as(graph, source, access, value))
    }

    /// `factor · contract(args)`.
    fn without_factors(self, graph: &mut Graph, value: &Value) -> ValueId {
        let Self { contract, args, factor, .. } = self;
        let moves = args.len() == 1 && is_bijective(&contract.output, &contract.domain, &value.shape);
        let source = graph.value(args[0]);
        if let Op::Const(number) = source.op
            && moves
            && contract.operands[0].iter().all(|affine| *affine == Affine::constant(0))
        {
            return graph.constant(number * factor, &value.shape, value.dtype, value.span);
        }
        let same = moves && contract.operands[0] == contract.output && source.shape == value.shape;
        let result = if same {
            args[0]
        } else if args.len() == 2 && is_bijective(&contract.output, &contract.domain, &value.shape) {
            multiplied(graph, contract, &args, value)
        } else {
            graph.push(Value { op: Op::Contract(contract), args, ..value.clone() })
        };
        if factor == 1.0 {
            return result;
        }
        let factor = graph.constant(factor, &value.shape, DType::F32, value.span);
        graph.binary(Binary::Mul, result, factor, value.span)
    }
}

/// A product without a sum is elementwise: `x[read] · y[read]`.
fn multiplied(graph: &mut Graph, contract: Contract, args: &[ValueId], value: &Value) -> ValueId {
    let mut place = vec![Affine::constant(0); contract.domain.len()];
    for (axis, affine) in contract.output.iter().enumerate() {
        if let Some(index) = affine.as_index() {
            place[index] = Affine::index(axis);
        }
    }
    let mut reads = contract.operands.iter().zip(args).map(|(operand, &arg)| {
        let read = substituted_access(operand, &place);
        read_as(graph, arg, read, value)
    });
    let (a, b) = (reads.next().expect("two operands"), reads.next().expect("two operands"));
    drop(reads);
    graph.binary(Binary::Mul, a, b, value.span)
}

/// `source[read]` over the shape of `like`; itself where that changes nothing.
fn read_as(graph: &mut Graph, source: ValueId, read: Access, like: &Value) -> ValueId {
    let output = identity_access(like.shape.len());
    if read == output && graph.shape(source) == like.shape {
        return source;
    }
    let contract = Contract { domain: like.shape.clone(), operands: vec![read], output };
    graph.contract(contract, &[source], &like.shape, like.span)
}

/// `(x, c)` for a value that is `c · x`.
fn factor_of(graph: &Graph, id: ValueId) -> Option<(ValueId, f64)> {
    let value = graph.value(id);
    let constant = |position: usize| {
        let Op::Const(number) = graph.value(value.args[position]).op else { return None };
        number.is_finite().then_some(number)
    };
    if value.op == Op::Unary(Unary::Neg) {
        return Some((value.args[0], -1.0));
    }
    if value.op == Op::Binary(Binary::Mul) {
        let right = constant(1).map(|number| (value.args[0], number));
        return right.or_else(|| constant(0).map(|number| (value.args[1], number)));
    }
    if value.op == Op::Binary(Binary::Div) {
        return constant(1).filter(|number| *number != 0.0).map(|number| (value.args[0], 1.0 / number));
    }
    None
}
