//! The verifier: every rule that a graph obeys, in one place.
//!
//! Input: a graph. Output: nothing, or a sentence that names the value and the broken rule.
//! Invariant: a graph that passes can be differentiated, simplified, scheduled and evaluated without a panic.

use super::op::{NUMBERS, TRUTH};
use super::{Access, Contract, DType, Graph, Indirect, IndirectIndex, Op, Value, Variable};
use crate::dim::Dim;

/// What a check finds.
pub(crate) type Checked = Result<(), String>;

/// Checks the whole graph.
///
/// # Errors
/// A sentence that names the first value, output or update that breaks a rule.
pub fn verify(graph: &Graph) -> Checked {
    for (id, value) in graph.values() {
        if let Some(arg) = value.args.iter().find(|arg| arg.0 >= id.0) {
            return Err(format!("%{} uses %{}, which does not precede it", id.0, arg.0));
        }
        check(graph, value).map_err(|message| format!("%{}: {message}", id.0))?;
    }
    for output in &graph.outputs {
        ensure((output.value.0 as usize) < graph.len(), || format!("output `{}` names no value", output.name))?;
    }
    let mut targets = std::collections::HashSet::new();
    for update in &graph.updates {
        let (name, shape, dtype) = match update.target {
            Variable::Param(id) => {
                let param = graph.params.get(id.0 as usize).ok_or("an update names no parameter")?;
                (&param.name, &param.shape, DType::F32)
            }
            Variable::State(id) => {
                let state = graph.states.get(id.0 as usize).ok_or("an update names no state")?;
                (&state.name, &state.shape, state.dtype)
            }
        };
        ensure((update.value.0 as usize) < graph.len(), || format!("the update of `{name}` names no value"))?;
        ensure(targets.insert(update.target), || format!("`{name}` is updated twice"))?;
        let value = graph.value(update.value);
        ensure(value.shape == *shape && value.dtype == dtype, || {
            format!("the update of `{name}` by %{} differs in shape or type", update.value.0)
        })?;
    }
    Ok(())
}

/// Checks one value against its arguments, which are in `graph`.
pub(super) fn check(graph: &Graph, value: &Value) -> Checked {
    let args: Vec<&Value> = value.args.iter().map(|&arg| graph.value(arg)).collect();
    match &value.op {
        Op::Input(id) => {
            let entry = graph.inputs.get(id.0 as usize).ok_or("names no input")?;
            leaf(value, &args, &entry.shape, entry.dtype)
        }
        Op::Param(id) => {
            let entry = graph.params.get(id.0 as usize).ok_or("names no parameter")?;
            leaf(value, &args, &entry.shape, DType::F32)
        }
        Op::State(id) => {
            let entry = graph.states.get(id.0 as usize).ok_or("names no state")?;
            leaf(value, &args, &entry.shape, entry.dtype)
        }
        Op::Scalar(id) => {
            ensure((id.0 as usize) < graph.scalars.len(), || "names no scalar".into())?;
            leaf(value, &args, &[], DType::F32)
        }
        Op::Const(_) => arity(&args, 0),
        Op::Size(_) => {
            arity(&args, 0)?;
            ensure(value.dtype != DType::Bool, || "a size is a number".into())
        }
        Op::Index { axis } => {
            ensure(*axis < value.shape.len(), || format!("axis {axis} of {}", shape(value)))?;
            leaf(value, &args, &value.shape, DType::I32)
        }
        Op::Random { .. } => leaf(value, &args, &value.shape, DType::F32),
        Op::Unary(op) => {
            arity(&args, 1)?;
            elementwise(value, &args)?;
            typed(value, op.dtypes())?;
            typed(args[0], op.dtypes())
        }
        Op::Binary(op) => {
            arity(&args, 2)?;
            elementwise(value, &args)?;
            typed(value, op.dtypes())?;
            ensure(args.iter().all(|arg| arg.dtype == value.dtype), || "operand types differ".into())
        }
        Op::Compare(_) => {
            arity(&args, 2)?;
            elementwise(value, &args)?;
            typed(value, TRUTH)?;
            ensure(args[0].dtype == args[1].dtype, || "operand types differ".into())
        }
        Op::Select => {
            arity(&args, 3)?;
            elementwise(value, &args)?;
            typed(args[0], TRUTH)?;
            ensure(args[1..].iter().all(|arg| arg.dtype == value.dtype), || "branch types differ".into())
        }
        Op::Cast => {
            arity(&args, 1)?;
            elementwise(value, &args)
        }
        Op::Detach => {
            arity(&args, 1)?;
            elementwise(value, &args)?;
            ensure(args[0].dtype == value.dtype, || "operand types differ".into())
        }
        Op::Reshape => {
            arity(&args, 1)?;
            ensure(args[0].dtype == value.dtype, || "operand types differ".into())?;
            let equal = match (count(&args[0].shape), count(&value.shape)) {
                (Some(from), Some(to)) => from == to,
                // Symbolic element counts were proved equal by `model`.
                (None, _) | (_, None) => true,
            };
            ensure(equal, || format!("{} has another element count than {}", shape(args[0]), shape(value)))
        }
        Op::Contract(contract) => check_contract(contract, value, &args),
        Op::ReduceMax { axes } => {
            reduced(value, &args, axes)?;
            typed(value, NUMBERS)?;
            ensure(args[0].dtype == value.dtype, || "operand types differ".into())
        }
        Op::ArgMax { axes } => {
            reduced(value, &args, axes)?;
            typed(args[0], NUMBERS)?;
            ensure(value.dtype == DType::I32, || "an index is I32".into())
        }
        Op::Gather(indirect) => {
            ensure(!args.is_empty(), || "needs data".into())?;
            ensure(value.shape == indirect.domain, || "the shape is not the domain".into())?;
            check_indirect(indirect, value, &args, args[0].shape.len())
        }
        Op::Scatter(indirect) => {
            ensure(!args.is_empty(), || "needs a source".into())?;
            ensure(args[0].shape == indirect.domain, || "the source's shape is not the domain".into())?;
            typed(value, NUMBERS)?;
            check_indirect(indirect, value, &args, value.shape.len())
        }
    }
}

pub(crate) fn ensure(condition: bool, message: impl FnOnce() -> String) -> Checked {
    if condition { Ok(()) } else { Err(message()) }
}

fn shape(value: &Value) -> String {
    super::print::shape_text(&value.shape)
}

fn count(shape: &[Dim]) -> Option<i64> {
    shape.iter().try_fold(1i64, |product, dim| product.checked_mul(dim.as_const()?))
}

fn arity(args: &[&Value], expected: usize) -> Checked {
    ensure(args.len() == expected, || format!("has {} arguments instead of {expected}", args.len()))
}

fn leaf(value: &Value, args: &[&Value], expected: &[Dim], dtype: DType) -> Checked {
    arity(args, 0)?;
    ensure(value.shape == expected && value.dtype == dtype, || "differs from its entry in shape or type".into())
}

fn elementwise(value: &Value, args: &[&Value]) -> Checked {
    match args.iter().find(|arg| arg.shape != value.shape) {
        Some(arg) => Err(format!("an operand is {}, the result {}", shape(arg), shape(value))),
        None => Ok(()),
    }
}

fn typed(value: &Value, dtypes: &[DType]) -> Checked {
    ensure(dtypes.contains(&value.dtype), || format!("is defined on {dtypes:?}, not {:?}", value.dtype))
}

fn reduced(value: &Value, args: &[&Value], axes: &[usize]) -> Checked {
    arity(args, 1)?;
    ensure(axes.is_sorted_by(|a, b| a < b), || "axes are not sorted".into())?;
    ensure(axes.iter().all(|&axis| axis < args[0].shape.len()), || format!("an axis of {}", shape(args[0])))?;
    let dims = args[0].shape.iter().enumerate();
    let kept: Vec<&Dim> = dims.filter(|(axis, _)| !axes.contains(axis)).map(|(_, dim)| dim).collect();
    ensure(kept == value.shape.iter().collect::<Vec<_>>(), || format!("gives {} from {}", shape(value), shape(args[0])))
}

fn check_contract(contract: &Contract, value: &Value, args: &[&Value]) -> Checked {
    ensure(matches!(args.len(), 1 | 2), || format!("has {} arguments instead of one or two", args.len()))?;
    ensure(contract.operands.len() == args.len(), || "has not one access per argument".into())?;
    for (access, arg) in contract.operands.iter().zip(args) {
        check_access(access, arg.shape.len(), contract.domain.len())?;
    }
    check_access(&contract.output, value.shape.len(), contract.domain.len())?;
    ensure(args.iter().all(|arg| arg.dtype == value.dtype), || "operand types differ".into())?;
    if value.dtype == DType::F32 {
        return Ok(());
    }
    let written = |index: usize| contract.output.iter().any(|affine| affine.terms.iter().any(|term| term.0 == index));
    let single = contract.domain.iter().enumerate().all(|(index, dim)| *dim == Dim::constant(1) || written(index));
    ensure(args.len() == 1 && single, || format!("{:?} can be moved, not summed or multiplied", value.dtype))
}

fn check_access(access: &Access, rank: usize, domain: usize) -> Checked {
    ensure(access.len() == rank, || format!("an access of {} dims to a tensor of {rank}", access.len()))?;
    for affine in access {
        ensure(affine.terms.iter().all(|term| term.0 < domain && term.1 != 0), || {
            "an access leaves the domain".into()
        })?;
        ensure(affine.terms.is_sorted_by(|a, b| a.0 < b.0), || "the terms of an access are not sorted".into())?;
    }
    Ok(())
}

fn check_indirect(indirect: &Indirect, value: &Value, args: &[&Value], addressed: usize) -> Checked {
    ensure(args[0].dtype == value.dtype, || "operand types differ".into())?;
    ensure(args[1..].iter().all(|arg| arg.dtype == DType::I32), || "an index tensor is not I32".into())?;
    ensure(indirect.index.len() == addressed, || format!("addresses {} of {addressed} dims", indirect.index.len()))?;
    let domain = indirect.domain.len();
    for index in &indirect.index {
        match index {
            IndirectIndex::Affine(affine) => check_access(&vec![affine.clone()], 1, domain)?,
            IndirectIndex::Tensor { arg, access } => {
                ensure((1..args.len()).contains(arg), || format!("names index tensor {arg} of {}", args.len() - 1))?;
                check_access(access, args[*arg].shape.len(), domain)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Affine, Binary, ValueId};
    use crate::source::{FileId, Span};

    fn value(op: Op, args: &[u32], sizes: &[i64], dtype: DType) -> Value {
        let args = args.iter().map(|&arg| ValueId(arg)).collect();
        let shape = sizes.iter().map(|&size| Dim::constant(size)).collect();
        Value { op, args, shape, dtype, span: Span::new(FileId(0), 0, 0) }
    }

    fn message(values: Vec<Value>) -> String {
        let mut graph = Graph::default();
        for value in values {
            graph.push(value);
        }
        verify(&graph).expect_err("the graph breaks a rule")
    }

    #[test]
    fn unequal_shapes_are_named() {
        let text = message(vec![
            value(Op::Const(1.0), &[], &[2], DType::F32),
            value(Op::Const(1.0), &[], &[3], DType::F32),
            value(Op::Binary(Binary::Add), &[0, 1], &[2], DType::F32),
        ]);
        assert_eq!(text, "%2: an operand is [3], the result [2]");
    }

    #[test]
    fn a_sum_of_integers_by_contraction_is_refused() {
        let contract =
            Contract { domain: vec![Dim::constant(2)], operands: vec![vec![Affine::index(0)]], output: Vec::new() };
        let text = message(vec![
            value(Op::Const(1.0), &[], &[2], DType::I32),
            value(Op::Contract(contract), &[0], &[], DType::I32),
        ]);
        assert_eq!(text, "%1: I32 can be moved, not summed or multiplied");
    }

    #[test]
    fn a_reshape_keeps_the_element_count() {
        let text =
            message(vec![value(Op::Const(1.0), &[], &[2, 3], DType::F32), value(Op::Reshape, &[0], &[5], DType::F32)]);
        assert_eq!(text, "%1: [2, 3] has another element count than [5]");
    }
}
