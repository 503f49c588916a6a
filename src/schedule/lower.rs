//! Graph with bound sizes to [`Form`].
//!
//! Input: a verified graph. Output: a form of equal meaning in which every contraction is a view, a reduction over
//! trailing axes, a scatter or a product. Invariant: each graph value has one form value of the same sizes and type.

use std::collections::HashMap;

use super::contract;
use super::form::{Form, FormOp, GatherIndex, Id, Source, View, linear};
use super::target::Target;
use crate::graph::{Compare, DType, Graph, Indirect, IndirectIndex, Op, Value, ValueId};
use crate::kernel::{Linear, ReductionKind};
use crate::source::Span;

/// Lowers what outputs and updates need.
pub(super) fn lower(graph: &Graph, target: &Target) -> Form {
    let mut form = Form::new(target);
    let mut ids: HashMap<ValueId, Id> = HashMap::new();
    let live = graph.alive(graph.roots());
    for (value_id, value) in graph.values() {
        if !live[value_id.0 as usize] {
            continue;
        }
        let args: Vec<Id> = value.args.iter().map(|arg| ids[arg]).collect();
        let sizes = graph.sizes(value_id);
        let id = lower_value(&mut form, value, &sizes, &args);
        debug_assert_eq!(form.sizes(id), sizes, "sizes of %{} {:?}", value_id.0, value.op);
        ids.insert(value_id, id);
    }
    form.outputs = graph.outputs.iter().map(|output| (output.name.clone(), ids[&output.value])).collect();
    form.updates = graph.updates.iter().map(|update| (update.target, ids[&update.value])).collect();
    form
}

fn lower_value(form: &mut Form, value: &Value, sizes: &[usize], args: &[Id]) -> Id {
    let (dtype, span) = (value.dtype, value.span);
    if sizes.contains(&0) {
        return form.constant(0.0, sizes, dtype, span);
    }
    match &value.op {
        Op::Input(id) => form.push(FormOp::Source(Source::Input(*id)), &[], sizes, dtype, span),
        Op::Param(id) => form.push(FormOp::Source(Source::Param(*id)), &[], sizes, dtype, span),
        Op::State(id) => form.push(FormOp::Source(Source::State(*id)), &[], sizes, dtype, span),
        Op::Scalar(id) => form.push(FormOp::Source(Source::Scalar(*id)), &[], sizes, dtype, span),
        Op::Const(number) => form.constant(*number, sizes, dtype, span),
        Op::Size(dim) => {
            let size = dim.as_const().expect("sizes are bound before scheduling");
            form.constant(size as f64, sizes, dtype, span)
        }
        Op::Index { axis } => form.push(FormOp::Index { axis: *axis }, args, sizes, dtype, span),
        Op::Random { stream } => form.push(FormOp::Random { stream: *stream }, args, sizes, dtype, span),
        Op::Unary(op) => form.push(FormOp::Unary(*op), args, sizes, dtype, span),
        Op::Binary(op) => form.push(FormOp::Binary(*op), args, sizes, dtype, span),
        Op::Compare(op) => form.push(FormOp::Compare(*op), args, sizes, dtype, span),
        Op::Select => form.push(FormOp::Select, args, sizes, dtype, span),
        Op::Cast => form.push(FormOp::Cast, args, sizes, dtype, span),
        Op::Detach => args[0],
        Op::Reshape if form.sizes(args[0]) == sizes => args[0],
        Op::Reshape => form.push(FormOp::Reshape, args, sizes, dtype, span),
        Op::Contract(contract) => contract::lower(form, contract, sizes, args, span),
        Op::ReduceMax { axes } => trailing(form, ReductionKind::Max, args[0], axes, span),
        Op::ArgMax { axes } => trailing(form, ReductionKind::ArgMax, args[0], axes, span),
        Op::Gather(indirect) => gather(form, indirect, sizes, args, span),
        Op::Scatter(indirect) => scatter(form, indirect, sizes, args, span),
    }
}

/// Reduction over any axes: a view puts them last.
fn trailing(form: &mut Form, kind: ReductionKind, arg: Id, axes: &[usize], span: Span) -> Id {
    let sizes = form.sizes(arg).to_vec();
    let kept = (0..sizes.len()).filter(|axis| !axes.contains(axis));
    let order: Vec<usize> = kept.chain(axes.iter().copied()).collect();
    let moved: Vec<usize> = order.iter().map(|&axis| sizes[axis]).collect();
    let place = |axis: usize| order.iter().position(|&each| each == axis).expect("every axis has a place");
    let access = (0..sizes.len()).map(|axis| Linear::index(place(axis))).collect();
    let view = form.view(arg, &moved, access, &[], span);
    form.reduce(kind, view, axes.len(), span)
}

/// The addresses with each index tensor brought to the domain's shape; the tensors follow `first` as arguments.
fn addresses(form: &mut Form, indirect: &Indirect, domain: &[usize], args: &[Id]) -> (Vec<GatherIndex>, Vec<Id>) {
    let mut operands = vec![args[0]];
    let mut index = Vec::new();
    for entry in &indirect.index {
        index.push(match entry {
            IndirectIndex::Affine(affine) => GatherIndex::Linear(linear(affine)),
            IndirectIndex::Tensor { arg, access } => {
                let span = form.value(args[*arg]).span;
                let access = access.iter().map(linear).collect();
                let tensor = form.view(args[*arg], domain, access, &[], span);
                match counted(form, tensor) {
                    Some(linear) => GatherIndex::Linear(linear),
                    None => {
                        operands.push(tensor);
                        GatherIndex::Tensor(operands.len() - 1)
                    }
                }
            }
        });
    }
    (index, operands)
}

/// The value as a linear function of its place, if it is one: `range(S)` as an index tensor.
fn counted(form: &Form, id: Id) -> Option<Linear> {
    let value = form.value(id);
    if let FormOp::Index { axis } = value.op {
        return Some(Linear::index(axis));
    }
    let FormOp::View(View { access, guards }) = &value.op else { return None };
    let linear = counted(form, value.args[0]).filter(|_| guards.is_empty())?;
    Some(linear.compose(|dim| access[dim].clone()))
}

fn gather(form: &mut Form, indirect: &Indirect, sizes: &[usize], args: &[Id], span: Span) -> Id {
    let (index, operands) = addresses(form, indirect, sizes, args);
    match affine(&index) {
        Some(access) => form.view(args[0], sizes, access, &[], span),
        None if form.sizes(args[0]).contains(&0) => form.constant(0.0, sizes, form.value(args[0]).dtype, span),
        None => {
            let dtype = form.value(args[0]).dtype;
            form.push(FormOp::Gather(index), &operands, sizes, dtype, span)
        }
    }
}

fn scatter(form: &mut Form, indirect: &Indirect, sizes: &[usize], args: &[Id], span: Span) -> Id {
    let domain = form.sizes(args[0]).to_vec();
    let dtype = form.value(args[0]).dtype;
    if domain.contains(&0) {
        return form.constant(0.0, sizes, dtype, span);
    }
    let (index, operands) = addresses(form, indirect, &domain, args);
    if let Some(value) = scatter_as_select(form, &index, &operands, sizes, span) {
        return value;
    }
    match affine(&index) {
        Some(output) => {
            let identity = (0..domain.len()).map(Linear::index).collect();
            contract::written(form, &domain, vec![identity], output, sizes, &operands, span)
        }
        None => form.push(FormOp::Scatter { index, injective: false }, &operands, sizes, dtype, span),
    }
}

/// The address, if no part of it depends on data.
fn affine(index: &[GatherIndex]) -> Option<Vec<Linear>> {
    index.iter().map(|entry| entry.linear().cloned()).collect()
}

/// Where the output's affine dims give back every domain index, an element has one possible source:
/// `out[y] = y_t == index[d(y)] ? source[d(y)] : 0`.
fn scatter_as_select(
    form: &mut Form,
    index: &[GatherIndex],
    operands: &[Id],
    sizes: &[usize],
    span: Span,
) -> Option<Id> {
    let domain = form.sizes(operands[0]).to_vec();
    let output: Vec<Option<Linear>> = index.iter().map(|entry| entry.linear().cloned()).collect();
    let inverse = contract::invert(&domain, &output, sizes)?;
    if !inverse.summed.is_empty() {
        return None;
    }
    let access = inverse.indices;
    let mut chosen = form.view(operands[0], sizes, access.clone(), &inverse.guards, span);
    let zero = form.constant(0.0, sizes, form.value(operands[0]).dtype, span);
    for (axis, entry) in index.iter().enumerate() {
        let GatherIndex::Tensor(arg) = entry else { continue };
        let place = form.push(FormOp::Index { axis }, &[], sizes, DType::I32, span);
        let wanted = form.view(operands[*arg], sizes, access.clone(), &[], span);
        let hit = form.push(FormOp::Compare(Compare::Eq), &[place, wanted], sizes, DType::Bool, span);
        let dtype = form.value(chosen).dtype;
        chosen = form.push(FormOp::Select, &[hit, chosen, zero], sizes, dtype, span);
    }
    Some(chosen)
}
