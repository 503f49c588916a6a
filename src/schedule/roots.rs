//! Which values get memory of their own.
//!
//! Input: a [`Form`]. Output: the element-wise values that are stored although they could be computed where they are
//! read. Sources, reductions, scatters and products lie in memory anyway.
//! Invariant: the choice depends on the form and the target's costs alone.

use std::collections::BTreeSet;

use super::form::{ELEMENT_BYTES, Form, FormOp, Id};
use super::target::Costs;
use crate::graph::{Binary, DType, Unary};

/// Cost from which a chain of element-wise values is cut.
const LONG: u32 = 256;

/// The roots that the form itself asks for; `inline` and `draft` demand more.
pub(super) fn choose(form: &Form) -> BTreeSet<Id> {
    let most = &form.target.costs;
    // Bytes written between two readers of which none finds near what the other left there.
    let far_bytes = 4 * form.target.near_bytes;
    // Where readers are far apart, one function and a few additions take less time than writing and reading an element.
    let revisited_cost = most.function + most.again;
    let (costs, cuts) = costs(form);
    let mut roots: BTreeSet<Id> = BTreeSet::new();
    for (_, id) in &form.outputs {
        if !form.value(*id).op.is_source() {
            roots.insert(*id);
        }
    }
    let mut readers: Vec<BTreeSet<Reader>> = vec![BTreeSet::new(); form.values.len()];
    for (number, (_, id)) in form.updates.iter().enumerate() {
        readers[id.0 as usize].insert(Reader::Update(number));
    }
    let mut repeated = vec![false; form.values.len()];
    let times = times(form);
    for id in form.ids().rev() {
        let value = form.value(id);
        let cost = costs[id.0 as usize];
        let own = std::mem::take(&mut readers[id.0 as usize]);
        let revisited =
            cost <= revisited_cost && are_far_apart(&own, &times, far_bytes) && has_one_leaf(form, id, &cuts);
        let shared = own.len() > 1 && cost > most.again && !revisited;
        let repeats = repeated[id.0 as usize] && cost > most.repeated;
        if is_elementwise(&value.op) && (shared || repeats || cuts[id.0 as usize]) {
            roots.insert(id);
        }
        let makes_kernel = roots.contains(&id) || value.op.is_kernel();
        let passed = if makes_kernel { BTreeSet::from([Reader::Value(id)]) } else { own };
        for &arg in &value.args {
            readers[arg.0 as usize].extend(passed.iter().copied().take(COUNTED));
            let expands = matches!(value.op, FormOp::View(_) | FormOp::Gather(_));
            repeated[arg.0 as usize] |= expands && value.elements() >= 2 * form.value(arg).elements();
        }
    }
    roots
}

/// As many readers of a value are told apart.
const COUNTED: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reader {
    Value(Id),
    Update(usize),
}

/// For each value, the bytes in memory that are written before it in the form's order.
fn times(form: &Form) -> Vec<usize> {
    let mut written = 0;
    let bytes = |id: Id| if form.value(id).op.is_kernel() { ELEMENT_BYTES * form.value(id).elements() } else { 0 };
    let time = |id: Id| {
        let before = written;
        written += bytes(id);
        before
    };
    form.ids().map(time).collect()
}

/// Whether no two readers are near each other.
fn are_far_apart(readers: &BTreeSet<Reader>, times: &[usize], far_bytes: usize) -> bool {
    let values: Option<Vec<usize>> = readers
        .iter()
        .map(|reader| match reader {
            Reader::Value(id) => Some(times[id.0 as usize]),
            Reader::Update(_) => None,
        })
        .collect();
    // More readers than these are not counted.
    values.is_some_and(|values| values.len() < COUNTED && values.windows(2).all(|pair| pair[1] - pair[0] >= far_bytes))
}

/// Whether a value is computed from at most one value in memory of half its size or more; `cuts` lie in memory too.
fn has_one_leaf(form: &Form, id: Id, cuts: &[bool]) -> bool {
    let mut seen = BTreeSet::new();
    let mut leaf = None;
    let mut open = vec![id];
    while let Some(next) = open.pop() {
        super::count_work(1);
        let value = form.value(next);
        let is_leaf = value.op.is_kernel() || value.op.is_source() || cuts[next.0 as usize];
        if !is_leaf || next == id {
            open.extend(value.args.iter().copied().filter(|arg| seen.insert(*arg)));
        } else if 2 * value.elements() >= form.value(id).elements() && leaf.replace(next).is_some() {
            return false;
        }
    }
    true
}

fn is_elementwise(op: &FormOp) -> bool {
    matches!(
        op,
        FormOp::Random { .. }
            | FormOp::Unary(_)
            | FormOp::Binary(_)
            | FormOp::Compare(_)
            | FormOp::Select
            | FormOp::Cast
    )
}

/// The cost of computing one element from memory, and whether a chain is cut at the value.
fn costs(form: &Form) -> (Vec<u32>, Vec<bool>) {
    let target = &form.target.costs;
    let mut cuts = Vec::with_capacity(form.values.len());
    let mut costs: Vec<u32> = Vec::with_capacity(form.values.len());
    for id in form.ids() {
        let value = form.value(id);
        let args: u32 = value.args.iter().fold(0, |sum, arg| sum.saturating_add(costs[arg.0 as usize]));
        let cost = match &value.op {
            FormOp::Source(_) | FormOp::Reduce(_) | FormOp::Scatter { .. } | FormOp::Product(_) => 1,
            FormOp::Const(_) | FormOp::Index { .. } => 0,
            FormOp::Random { .. } => target.random,
            FormOp::Unary(op) => args.saturating_add(unary_cost(*op, target)),
            FormOp::Binary(op) => args.saturating_add(binary_cost(*op, value.dtype, target)),
            FormOp::Compare(_) | FormOp::Select | FormOp::Cast => args.saturating_add(1),
            FormOp::Reshape => args,
            FormOp::View(view) => args.saturating_add(view.guards.len() as u32),
            FormOp::Gather(_) => args.saturating_add(2),
        };
        // A chain that is cut here is loaded by its readers.
        let is_cut = cost >= LONG && is_elementwise(&value.op);
        cuts.push(is_cut);
        costs.push(if is_cut { 1 } else { cost });
    }
    (costs, cuts)
}

fn unary_cost(op: Unary, costs: &Costs) -> u32 {
    match op {
        Unary::Neg | Unary::Abs | Unary::Floor | Unary::Not => 1,
        Unary::Sqrt => costs.root,
        Unary::Exp | Unary::Log | Unary::Sin | Unary::Cos | Unary::Tanh | Unary::Sigmoid | Unary::Erf => costs.function,
    }
}

fn binary_cost(op: Binary, dtype: DType, costs: &Costs) -> u32 {
    match op {
        Binary::Add | Binary::Sub | Binary::Mul | Binary::Max | Binary::Min | Binary::And | Binary::Or => 1,
        Binary::Div | Binary::Rem => match dtype {
            DType::F32 | DType::Bool => costs.division,
            DType::I32 => costs.function,
        },
        Binary::Pow => 2 * costs.function,
    }
}
