//! The normal form of contractions, and constants moved out of them.
//!
//! Input and output: a graph. For each contraction:
//! indices of extent 1 vanish; an index that nothing reads or writes becomes a factor; a constant operand and a
//! constant factor of an operand become a factor of the result; a contraction that changes nothing is its operand;
//! indices are numbered in the order of the output, then of the operands.
//! Invariant: no element is multiplied or added more often than before.

use super::access::{all_in_range, is_bijective, mentions, substituted_access, volume};
use crate::dim::Dim;
use crate::graph::{Affine, Binary, Contract, DType, Graph, Op, Unary, Value, ValueId};

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

    fn emit(self, graph: &mut Graph, value: Value) -> ValueId {
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
        let result = match same {
            true => args[0],
            false => graph.push(Value { op: Op::Contract(contract), args, ..value.clone() }),
        };
        if factor == 1.0 {
            return result;
        }
        let factor = graph.constant(factor, &value.shape, DType::F32, value.span);
        graph.binary(Binary::Mul, result, factor, value.span)
    }
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
