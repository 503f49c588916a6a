//! One kernel for every root and for every update and output that needs one, before anything is merged.
//!
//! Input: a [`Form`] and its roots. Output: [`Item`]s, each with what it reads. Invariant: an item's values are all
//! in memory before it runs; values that nobody reads have no item.

use std::collections::BTreeSet;

use super::code::{At, Code, CodeOp, CodePhase, CodeReduction, CodeStore, Coord, Dest, Draft};
use super::form::{Form, FormOp, GatherIndex, Id, Piece, ProductForm};
use super::inline::{Inliner, flatten, in_memory, unflatten};
use crate::graph::{Binary, Compare, DType};
use crate::kernel::linear::row_major;
use crate::kernel::{Linear, NodeId, ReductionKind};
use crate::source::Span;

/// A kernel to be.
#[derive(Clone, Debug)]
pub(super) enum Item {
    Nest(Draft),
    Product(ProductItem),
}

/// A product with its operands traced to memory. Addresses are over the output's dims, then the summed indices.
#[derive(Clone, Debug)]
pub(super) struct ProductItem {
    pub id: Id,
    pub extents: Vec<usize>,
    pub a: (Id, Linear),
    pub b: (Id, Linear),
    pub pieces: Vec<Piece>,
    pub span: Span,
}

impl Item {
    /// The values in memory that it reads.
    pub fn reads(&self) -> BTreeSet<Id> {
        match self {
            Item::Nest(draft) => draft.loads().map(|element| element.value).collect(),
            Item::Product(product) => BTreeSet::from([product.a.0, product.b.0]),
        }
    }

    /// What it writes.
    pub fn writes(&self) -> BTreeSet<Dest> {
        match self {
            Item::Nest(draft) => draft.stores().map(|store| store.dest).collect(),
            Item::Product(product) => BTreeSet::from([Dest::Value(product.id)]),
        }
    }
}

/// Which output each value lives in, and which outputs need a copy.
pub(super) fn output_places(form: &Form) -> (Vec<(Id, usize)>, Vec<usize>) {
    let (mut places, mut copies): (Vec<(Id, usize)>, Vec<usize>) = (Vec::new(), Vec::new());
    let mut placed: BTreeSet<Id> = BTreeSet::new();
    for (number, (_, id)) in form.outputs.iter().enumerate() {
        let is_source = form.value(*id).op.is_source();
        if is_source || !placed.insert(*id) {
            copies.push(number);
        } else {
            places.push((*id, number));
        }
    }
    (places, copies)
}

/// All items; sinks last, values in the order of the form. `roots` grows by what turns out to be needed.
pub(super) fn items(form: &Form, roots: &mut BTreeSet<Id>) -> Vec<Item> {
    let (places, copies) = output_places(form);
    let mut sinks = Vec::new();
    for number in copies {
        sinks.push(elementwise(form, roots, form.outputs[number].1, Dest::Output(number)));
    }
    for number in 0..form.updates.len() {
        sinks.push(elementwise(form, roots, form.updates[number].1, Dest::Update(number)));
    }
    let sinks: Vec<Item> = sinks.into_iter().filter(|draft| draft.stores().next().is_some()).map(Item::Nest).collect();
    let mut needed: BTreeSet<Id> = sinks.iter().flat_map(Item::reads).collect();
    needed.extend(places.iter().map(|(id, _)| *id));
    let mut items = Vec::new();
    for id in form.ids().rev() {
        let empty = form.value(id).elements() == 0;
        if empty || !needed.contains(&id) || form.value(id).op.is_source() {
            continue;
        }
        let item = item(form, roots, id);
        needed.extend(item.reads());
        items.push(item);
    }
    items.reverse();
    items.extend(sinks);
    items
}

fn item(form: &Form, roots: &mut BTreeSet<Id>, id: Id) -> Item {
    match &form.value(id).op {
        FormOp::Reduce(_) => Item::Nest(reduction(form, roots, id)),
        FormOp::Scatter { .. } => Item::Nest(scatter(form, roots, id)),
        FormOp::Product(product) => Item::Product(product_item(form, roots, id, product)),
        _ => Item::Nest(elementwise(form, roots, id, Dest::Value(id))),
    }
}

/// Loops over dims divided like this, numbered from `first`: their extents, and one coordinate per dim.
fn loops(factors: &[Vec<usize>], first: usize) -> (Vec<usize>, Vec<Coord>) {
    let mut extents = Vec::new();
    let mut coords = Vec::new();
    for dim in factors {
        let start = first + extents.len();
        let terms = row_major(dim).into_iter().enumerate().map(|(place, stride)| (start + place, stride));
        coords.push(Coord::Linear(Linear { terms: terms.collect(), offset: 0 }));
        extents.extend(dim);
    }
    (extents, coords)
}

fn elementwise(form: &Form, roots: &mut BTreeSet<Id>, id: Id, dest: Dest) -> Draft {
    let value = form.value(id);
    let (outer, coords) = loops(&form.factors[id.0 as usize], 0);
    let at = At::Dims(coords);
    let mut phase = CodePhase::default();
    if value.elements() > 0 {
        let mut inliner = Inliner::new(form, roots, outer.clone());
        let node = match dest {
            Dest::Value(_) if !value.op.is_source() => inliner.compute(id, &at, &[]),
            Dest::Value(_) | Dest::Update(_) | Dest::Output(_) => inliner.element(id, &at, &[]),
        };
        phase.code = inliner.code;
        phase.stores.push(CodeStore { dest, at, guards: Vec::new(), value: node, accumulate: false });
    }
    let title = match dest {
        Dest::Update(_) => "update",
        Dest::Value(_) | Dest::Output(_) => title(&value.op),
    };
    let parallel = outer.len();
    Draft { outer, parallel, phases: vec![phase], zero: None, scatter: None, title, span: value.span }
}

/// A short name for dumps and profiles.
fn title(op: &FormOp) -> &'static str {
    match op {
        FormOp::Source(_) => "copy",
        FormOp::Const(_) | FormOp::Index { .. } => "fill",
        FormOp::Random { .. } => "random",
        FormOp::Unary(_) | FormOp::Binary(_) | FormOp::Compare(_) | FormOp::Select | FormOp::Cast => "map",
        FormOp::Reshape | FormOp::View(_) => "view",
        FormOp::Gather(_) => "gather",
        FormOp::Reduce(kind) => match kind {
            ReductionKind::Sum => "sum",
            ReductionKind::Max => "max",
            ReductionKind::ArgMax => "argmax",
        },
        FormOp::Scatter { .. } => "scatter",
        FormOp::Product(_) => "product",
    }
}

fn reduction(form: &Form, roots: &mut BTreeSet<Id>, id: Id) -> Draft {
    let value = form.value(id);
    let FormOp::Reduce(kind) = value.op else { unreachable!("called for reductions") };
    let arg = value.args[0];
    let rank = value.sizes.len();
    let (outer, coords) = loops(&form.factors[arg.0 as usize][..rank], 0);
    let (inner, inner_coords) = loops(&form.factors[arg.0 as usize][rank..], outer.len());
    let mut inliner = Inliner::new(form, roots, [&outer[..], &inner[..]].concat());
    let node = inliner.element(arg, &At::Dims([&coords[..], &inner_coords[..]].concat()), &[]);
    let points: usize = inner.iter().product();
    let mut phases = Vec::new();
    let mut write = CodePhase::default();
    let unrolled = &form.target.unrolled;
    let most = if reads_rows(&inliner.code, &outer, &inner) { unrolled.row } else { unrolled.points };
    let nodes = if points <= unrolled.row { unrolled.row_nodes } else { unrolled.nodes };
    let node = if points <= most && points * inliner.code.nodes.len() <= nodes {
        let mut inliner = Inliner::new(form, roots, outer.clone());
        let node = straight_line(&mut inliner, kind, arg, &coords);
        write.code = inliner.code;
        node
    } else {
        let reductions = vec![CodeReduction { kind, node, value: id }];
        phases.push(CodePhase { inner, code: inliner.code, reductions, stores: Vec::new() });
        write.code.push(CodeOp::Reduced(id), value.dtype)
    };
    let at = At::Dims(coords);
    write.stores.push(CodeStore { dest: Dest::Value(id), at, guards: Vec::new(), value: node, accumulate: false });
    phases.push(write);
    let parallel = outer.len();
    Draft { outer, parallel, phases, zero: None, scatter: None, title: title(&value.op), span: value.span }
}

/// True if something is read row by row: rows stay loops, so that what else happens to a row can join.
fn reads_rows(code: &Code, outer: &[usize], inner: &[usize]) -> bool {
    let (Some(last), [row]) = (outer.len().checked_sub(1), inner) else { return false };
    let is_row = |linear: &Linear| linear.coefficient(last) == *row as i64 && linear.coefficient(outer.len()) == 1;
    code.loads().any(|element| match &element.at {
        At::Flat(flat) => is_row(flat),
        At::Dims(coords) => match &coords[..] {
            [.., Coord::Linear(before), Coord::Linear(at)] => {
                before.coefficient(last) == 1 && at.as_index() == Some(outer.len())
            }
            _ => false,
        },
    })
}

/// A reduction of few points without loops, in row-major order.
fn straight_line(inliner: &mut Inliner<'_>, kind: ReductionKind, arg: Id, outer: &[Coord]) -> NodeId {
    let sizes = &inliner.form.sizes(arg)[outer.len()..];
    let dtype = inliner.form.value(arg).dtype;
    let first = |kind: ReductionKind| if kind == ReductionKind::Sum { 0.0f64 } else { f64::NEG_INFINITY };
    let mut folded = inliner.code.push(CodeOp::Const(first(kind).to_bits()), dtype);
    let mut place = inliner.code.push(CodeOp::Const(0f64.to_bits()), DType::I32);
    let strides = row_major(sizes);
    for number in 0..sizes.iter().product::<usize>() {
        let index = |(&size, &stride): (&usize, &i64)| (number as i64 / stride) % size as i64;
        let inner = sizes.iter().zip(&strides).map(|pair| Coord::Linear(Linear::constant(index(pair))));
        let at = At::Dims(outer.iter().cloned().chain(inner).collect());
        let element = inliner.element(arg, &at, &[]);
        if number == 0 {
            folded = element;
            continue;
        }
        match kind {
            ReductionKind::Sum => folded = inliner.code.push(CodeOp::Binary(Binary::Add, folded, element), dtype),
            ReductionKind::Max => folded = inliner.code.push(CodeOp::Binary(Binary::Max, folded, element), dtype),
            ReductionKind::ArgMax => {
                let here = inliner.code.push(CodeOp::Const((number as f64).to_bits()), DType::I32);
                place = later_maximum(inliner, (folded, place), (element, here), dtype);
                folded = inliner.code.push(CodeOp::Binary(Binary::Max, folded, element), dtype);
            }
        }
    }
    if kind == ReductionKind::ArgMax { place } else { folded }
}

/// The place of the maximum of those seen, at `first`, and a later element, at `later`. What is not a number exceeds every
/// number; selections by one comparison each are cheaper than the logic of two.
fn later_maximum(inliner: &mut Inliner<'_>, first: (NodeId, NodeId), later: (NodeId, NodeId), dtype: DType) -> NodeId {
    let mut choose = |compare, a, b, yes, no| {
        let condition = inliner.code.push(CodeOp::Compare(compare, a, b), DType::Bool);
        inliner.code.push(CodeOp::Select(condition, yes, no), DType::I32)
    };
    let above = if dtype == DType::F32 { choose(Compare::Eq, first.0, first.0, later.1, first.1) } else { later.1 };
    choose(Compare::Le, later.0, first.0, first.1, above)
}

/// How the loops of a scatter are ordered: loops over dims that lead to different elements come first and may run in
/// parallel; the one that is contiguous in the output is divided, and its inner part runs in lockstep.
struct ScatterLoops {
    extents: Vec<usize>,
    parallel: usize,
    coords: Vec<Linear>,
    /// Points of the last loop never meet.
    last_is_separate: bool,
}

fn scatter_loops(domain: &[usize], index: &[GatherIndex], injective: bool, width: usize) -> ScatterLoops {
    let plain_dim = |entry: &GatherIndex| entry.linear().and_then(Linear::as_index);
    let plain = |dim: usize| index.iter().any(|entry| plain_dim(entry) == Some(dim));
    let last = index.last().and_then(plain_dim).filter(|&dim| domain[dim] > 1 && !injective);
    let part = last.map(|dim| {
        // A few vectors.
        let mut parts = (1..=(4 * width).min(domain[dim])).rev().filter(|part| domain[dim].is_multiple_of(*part));
        parts.find(|part| part.is_multiple_of(width)).unwrap_or(domain[dim])
    });
    let mut loops = ScatterLoops {
        extents: Vec::new(),
        parallel: 0,
        coords: vec![Linear::constant(0); domain.len()],
        last_is_separate: injective,
    };
    let parallel = |dim: &usize| injective || plain(*dim);
    let usual = |dim: &usize| domain[*dim] > 1 && last != Some(*dim);
    for dim in (0..domain.len()).filter(|dim| usual(dim) && parallel(dim)) {
        loops.coords[dim] = Linear::index(loops.extents.len());
        loops.extents.push(domain[dim]);
    }
    if let (Some(dim), Some(part)) = (last, part)
        && domain[dim] > part
    {
        loops.coords[dim] = Linear::index(loops.extents.len()).scaled(part as i64);
        loops.extents.push(domain[dim] / part);
    }
    loops.parallel = loops.extents.len();
    for dim in (0..domain.len()).filter(|dim| usual(dim) && !parallel(dim)) {
        loops.coords[dim] = Linear::index(loops.extents.len());
        loops.extents.push(domain[dim]);
    }
    if let (Some(dim), Some(part)) = (last, part) {
        loops.coords[dim] = loops.coords[dim].plus(&Linear::index(loops.extents.len()));
        loops.extents.push(part);
        loops.last_is_separate = true;
    }
    loops
}

fn scatter(form: &Form, roots: &mut BTreeSet<Id>, id: Id) -> Draft {
    let value = form.value(id);
    let FormOp::Scatter { index, injective } = &value.op else { unreachable!("called for scatters") };
    let source = value.args[0];
    let loops = scatter_loops(form.sizes(source), index, *injective, form.target.width);
    let here = At::Dims(loops.coords.iter().cloned().map(Coord::Linear).collect());
    let mut inliner = Inliner::new(form, roots, loops.extents.clone());
    let node = inliner.element(source, &here, &[]);
    let mut guards = Vec::new();
    let mut at = Vec::new();
    for (entry, &size) in index.iter().zip(&value.sizes) {
        at.push(match entry {
            GatherIndex::Linear(linear) => {
                let place = linear.compose(|dim| loops.coords[dim].clone());
                if !place.is_within(&loops.extents, size as i64) {
                    guards.push((place.clone(), size as i64));
                }
                Coord::Linear(place)
            }
            GatherIndex::Tensor(arg) => Coord::Node(inliner.element(value.args[*arg], &here, &[])),
        });
    }
    let covers = *injective && guards.is_empty() && form.value(source).elements() == value.elements();
    let store = CodeStore { dest: Dest::Value(id), at: At::Dims(at), guards, value: node, accumulate: !injective };
    let phase = CodePhase { inner: Vec::new(), code: inliner.code, reductions: Vec::new(), stores: vec![store] };
    Draft {
        outer: loops.extents,
        parallel: loops.parallel,
        phases: vec![phase],
        zero: (!covers).then_some(id),
        scatter: Some(loops.last_is_separate),
        title: "scatter",
        span: value.span,
    }
}

fn product_item(form: &Form, roots: &mut BTreeSet<Id>, id: Id, product: &ProductForm) -> ProductItem {
    let value = form.value(id);
    debug_assert_eq!(value.dtype, DType::F32);
    let extents = [&value.sizes[..], &product.summed[..]].concat();
    let a = operand(form, roots, value.args[0], product.a.clone(), &extents);
    let b = operand(form, roots, value.args[1], product.b.clone(), &extents);
    ProductItem { id, extents, a, b, pieces: product.pieces.clone(), span: value.span }
}

/// Follows views without guards and reshapes down to memory; what is computed on the way becomes a root.
fn operand(form: &Form, roots: &mut BTreeSet<Id>, id: Id, access: Vec<Linear>, extents: &[usize]) -> (Id, Linear) {
    let (mut id, mut access) = (id, access);
    loop {
        let value = form.value(id);
        let flat = flatten(&access, &value.sizes);
        if in_memory(form, roots, id) {
            return (id, flat);
        }
        if let FormOp::View(view) = &value.op
            && view.guards.is_empty()
        {
            access = view.access.iter().map(|linear| linear.compose(|dim| access[dim].clone())).collect();
            id = value.args[0];
        } else if value.op == FormOp::Reshape {
            id = value.args[0];
            let Some(coords) = unflatten(&flat, form.sizes(id), extents) else {
                if !in_memory(form, roots, id) {
                    roots.insert(id);
                }
                return (id, flat);
            };
            access = coords;
        } else {
            roots.insert(id);
            return (id, flat);
        }
    }
}
