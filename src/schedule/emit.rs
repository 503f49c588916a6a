//! Drafts to kernels: values become buffers, coordinates become addresses, loops that run through memory as one are
//! joined, and the loop that runs in lockstep is chosen.
//!
//! Input: ordered items and the buffer of each value. Output: [`Kernel`]s. Invariant: see [`crate::kernel`].

use std::collections::BTreeMap;

use super::code::{At, Code, CodeOp, CodePhase, CodeStore, Coord, Dest, Draft};
use super::draft::ProductItem;
use super::form::Piece;
use super::form::{Form, Id};
use super::target::Unrolled;
use crate::graph::Binary;
use crate::kernel::linear::row_major;
use crate::kernel::{
    BufferId, IndirectTerm, Kernel, KernelKind, Lanes, Linear, Location, Nest, Node, NodeId, NodeOp, Phase, Product,
    ProductLoop, Reduction, ReductionKind, Store,
};

/// Where things lie.
pub(super) struct Places<'a> {
    pub form: &'a Form,
    pub values: &'a BTreeMap<Id, BufferId>,
    pub dests: &'a BTreeMap<Dest, BufferId>,
}

impl Places<'_> {
    fn value(&self, id: Id) -> BufferId {
        *self.values.get(&id).expect("every value in memory has a buffer")
    }

    fn dest(&self, dest: Dest) -> BufferId {
        match dest {
            Dest::Value(id) => self.value(id),
            Dest::Update(_) | Dest::Output(_) => *self.dests.get(&dest).expect("every sink has a buffer"),
        }
    }

    fn dest_sizes(&self, dest: Dest) -> &[usize] {
        self.form.sizes(match dest {
            Dest::Value(id) => id,
            Dest::Update(update) => self.form.updates[update].1,
            Dest::Output(output) => self.form.outputs[output].1,
        })
    }
}

/// The kernels of a nest: zeros first where it accumulates.
pub(super) fn nest(places: &Places<'_>, draft: &Draft) -> Vec<Kernel> {
    let mut kernels = Vec::new();
    if let Some(id) = draft.zero {
        let kind = KernelKind::Zero(places.value(id));
        kernels.push(Kernel { kind, name: "zero".to_string(), span: draft.span });
    }
    let mut reduced: BTreeMap<Id, (usize, usize)> = BTreeMap::new();
    for (number, phase) in draft.phases.iter().enumerate() {
        for (index, reduction) in phase.reductions.iter().enumerate() {
            reduced.insert(reduction.value, (number, index));
        }
    }
    let phases = draft.phases.iter().map(|phase| emitted(places, phase, &reduced)).collect();
    let mut nest = Nest { outer: draft.outer.clone(), parallel: draft.parallel, lanes: Lanes::None, phases };
    nest.join_loops();
    if draft.scatter != Some(false) {
        unroll_short_rows(&mut nest, &places.form.target.unrolled);
    }
    nest.lanes = match draft.scatter {
        Some(true) if !nest.outer.is_empty() => Lanes::Outer,
        Some(_) => Lanes::None,
        None => choose_lanes(&nest, places.form.target.width),
    };
    kernels.push(Kernel { kind: KernelKind::Nest(nest), name: draft.title.to_string(), span: draft.span });
    kernels
}

fn emitted(places: &Places<'_>, phase: &CodePhase, reduced: &BTreeMap<Id, (usize, usize)>) -> Phase {
    let used = used_nodes(phase);
    let mut names: Vec<Option<NodeId>> = vec![None; phase.code.nodes.len()];
    let mut nodes = Vec::new();
    for (number, (op, dtype)) in phase.code.nodes.iter().enumerate() {
        if used[number] {
            let name = |node: NodeId| names[node.0 as usize].expect("operands precede their users");
            nodes.push(Node { op: node_op(places, op, reduced, &name), dtype: *dtype });
            names[number] = Some(NodeId(nodes.len() as u32 - 1));
        }
    }
    let name = |node: NodeId| names[node.0 as usize].expect("used nodes are emitted");
    let reductions = phase.reductions.iter().map(|each| Reduction { kind: each.kind, node: name(each.node) }).collect();
    let store = |store: &CodeStore| Store {
        location: Location {
            guards: store.guards.clone(),
            ..location(places.dest(store.dest), places.dest_sizes(store.dest), &store.at, &name)
        },
        value: name(store.value),
        accumulate: store.accumulate,
    };
    Phase { inner: phase.inner.clone(), nodes, reductions, stores: phase.stores.iter().map(store).collect() }
}

/// Which nodes reductions and stores need.
fn used_nodes(phase: &CodePhase) -> Vec<bool> {
    let Code { nodes, .. } = &phase.code;
    let mut used = vec![false; nodes.len()];
    phase.reductions.iter().for_each(|reduction| used[reduction.node.0 as usize] = true);
    for store in &phase.stores {
        used[store.value.0 as usize] = true;
        store.at.nodes().iter().for_each(|node| used[node.0 as usize] = true);
    }
    for number in (0..nodes.len()).rev() {
        if used[number] {
            nodes[number].0.operands().iter().for_each(|node| used[node.0 as usize] = true);
        }
    }
    used
}

fn node_op(
    places: &Places<'_>,
    op: &CodeOp,
    reduced: &BTreeMap<Id, (usize, usize)>,
    name: &impl Fn(NodeId) -> NodeId,
) -> NodeOp {
    match op {
        CodeOp::Const(bits) => NodeOp::Const(f64::from_bits(*bits)),
        CodeOp::Index(linear) => NodeOp::Index(linear.clone()),
        CodeOp::Load(element) => NodeOp::Load(Location {
            guards: element.guards.clone(),
            ..location(places.value(element.value), places.form.sizes(element.value), &element.at, name)
        }),
        CodeOp::Random { stream, element } => NodeOp::Random { stream: *stream, element: element.clone() },
        CodeOp::Reduced(id) => {
            let (phase, index) = reduced[id];
            NodeOp::Reduced { phase, index }
        }
        CodeOp::Unary(op, x) => NodeOp::Unary(*op, name(*x)),
        CodeOp::Binary(op, a, b) => NodeOp::Binary(*op, name(*a), name(*b)),
        CodeOp::Compare(op, a, b) => NodeOp::Compare(*op, name(*a), name(*b)),
        CodeOp::Select(condition, then, otherwise) => NodeOp::Select(name(*condition), name(*then), name(*otherwise)),
        CodeOp::Cast(x) => NodeOp::Cast(name(*x)),
    }
}

fn location(buffer: BufferId, sizes: &[usize], at: &At, name: &impl Fn(NodeId) -> NodeId) -> Location {
    let mut location = Location { buffer, index: Linear::default(), guards: Vec::new(), indirect: Vec::new() };
    match at {
        At::Flat(flat) => location.index = flat.clone(),
        At::Dims(coords) => {
            for ((coord, stride), &size) in coords.iter().zip(row_major(sizes)).zip(sizes) {
                match coord {
                    Coord::Linear(linear) => location.index = location.index.plus(&linear.scaled(stride)),
                    Coord::Node(node) => {
                        location.indirect.push(IndirectTerm { node: name(*node), stride, extent: size as i64 });
                    }
                }
            }
        }
    }
    location
}

/// Where the last loop is too short for vectors and the loop before it is not, the last one becomes straight-line code:
/// the last inner loop of each phase, and the last outer loop where there are no inner ones.
fn unroll_short_rows(nest: &mut Nest, most: &Unrolled) {
    let outer = nest.outer.len();
    for phase in &mut nest.phases {
        if let [.., before, last] = phase.inner[..]
            && let Some(unrolled) = unrolled(phase, outer + phase.inner.len() - 1, [before, last], most)
        {
            let inner = phase.inner[..phase.inner.len() - 1].to_vec();
            *phase = Phase { inner, ..unrolled };
        }
    }
    let [phase] = &mut nest.phases[..] else { return };
    let is_map = phase.inner.is_empty() && phase.reductions.is_empty() && nest.parallel == outer;
    if let [.., before, last] = nest.outer[..]
        && is_map
        && let Some(unrolled) = unrolled(phase, outer - 1, [before, last], most)
    {
        *phase = unrolled;
        nest.outer.pop();
        nest.parallel -= 1;
    }
}

/// A phase without its last loop, the points of that loop written out; none where that does not pay or, for an
/// arg-maximum, would change the numbers of points.
fn unrolled(phase: &Phase, index: usize, [before, last]: [usize; 2], most: &Unrolled) -> Option<Phase> {
    let accumulates = phase.stores.iter().any(|store| store.accumulate);
    let counts = phase.reductions.iter().any(|reduction| reduction.kind == ReductionKind::ArgMax);
    let long = last > most.row || before < most.row || phase.nodes.len() * last > most.phase_nodes;
    if accumulates || counts || long {
        return None;
    }
    let mut unrolled = Phase { inner: Vec::new(), nodes: Vec::new(), reductions: Vec::new(), stores: Vec::new() };
    for point in 0..last {
        let mut copy = phase.clone();
        copy.linears_mut().for_each(|linear| linear.fix(index, point));
        append(&mut unrolled, copy);
    }
    Some(unrolled)
}

/// Adds the nodes and stores of a phase to another; equal nodes exist once; reductions take both phases' nodes.
fn append(target: &mut Phase, phase: Phase) {
    let mut names: Vec<NodeId> = Vec::with_capacity(phase.nodes.len());
    for mut node in phase.nodes {
        node.op.operands_mut().into_iter().for_each(|id| *id = names[id.0 as usize]);
        let known = target.nodes.iter().position(|other| *other == node);
        names.push(NodeId(known.unwrap_or_else(|| {
            target.nodes.push(node);
            target.nodes.len() - 1
        }) as u32));
    }
    for (place, reduction) in phase.reductions.into_iter().enumerate() {
        let node = names[reduction.node.0 as usize];
        let Some(before) = target.reductions.get_mut(place) else {
            target.reductions.push(Reduction { node, ..reduction });
            continue;
        };
        let op = match reduction.kind {
            ReductionKind::Sum => Binary::Add,
            ReductionKind::Max => Binary::Max,
            ReductionKind::ArgMax => unreachable!("an arg-maximum is not unrolled"),
        };
        let dtype = target.nodes[node.0 as usize].dtype;
        target.nodes.push(Node { op: NodeOp::Binary(op, before.node, node), dtype });
        before.node = NodeId(target.nodes.len() as u32 - 1);
    }
    for mut store in phase.stores {
        store.operands_mut().for_each(|id| *id = names[id.0 as usize]);
        target.stores.push(store);
    }
}

/// The loop along which accesses are contiguous and whose extent fills the machine's width.
fn choose_lanes(nest: &Nest, width: usize) -> Lanes {
    let Some(&last_outer) = nest.outer.last() else {
        return if nest.phases.iter().any(|phase| !phase.inner.is_empty()) { Lanes::Inner } else { Lanes::None };
    };
    if nest.phases.iter().all(|phase| phase.inner.is_empty()) {
        return Lanes::Outer;
    }
    let outer_loop = nest.outer.len() - 1;
    let (mut inner_score, mut outer_score) = (0.0, 0.0);
    for phase in nest.phases.iter().filter(|phase| !phase.inner.is_empty()) {
        let inner_loop = nest.outer.len() + phase.inner.len() - 1;
        let last_inner = *phase.inner.last().expect("the phase has inner loops");
        for location in phase.locations() {
            inner_score += contiguity(location, inner_loop) * filling(last_inner, width);
            outer_score += contiguity(location, outer_loop) * filling(last_outer, width);
        }
    }
    if are_short_rows(nest, outer_loop, width) {
        return Lanes::Outer;
    }
    if outer_score > inner_score { Lanes::Outer } else { Lanes::Inner }
}

/// Whether each phase has one loop shorter than a vector, over rows so near each other that what a vector of rows reads is
/// still near at the next column: then vectors along the rows would mostly be empty, and each row would end with a sum over
/// one.
fn are_short_rows(nest: &Nest, outer_loop: usize, width: usize) -> bool {
    let near = |location: &Location| {
        location.indirect.is_empty() && location.index.coefficient(outer_loop).unsigned_abs() < width as u64
    };
    let short = |phase: &Phase| {
        phase.inner.len() <= 1 && phase.inner.iter().all(|extent| *extent < width) && phase.locations().all(near)
    };
    nest.outer[outer_loop] >= width && nest.phases.iter().all(short)
}

/// 1 where neighbours lie side by side, 0.5 where all read one element, 0 otherwise.
fn contiguity(location: &Location, index: usize) -> f64 {
    match location.index.coefficient(index) {
        _ if !location.indirect.is_empty() => 0.0,
        1 => 1.0,
        0 => 0.5,
        _ => 0.0,
    }
}

/// How much of its vectors a loop of this extent fills.
fn filling(extent: usize, width: usize) -> f64 {
    extent as f64 / extent.next_multiple_of(width) as f64
}

/// The kernels of a product, one for each piece.
pub(super) fn product(places: &Places<'_>, item: &ProductItem) -> Vec<Kernel> {
    let piece = |piece| {
        let kind = KernelKind::Product(product_piece(places, item, piece));
        Kernel { kind, name: "product".to_string(), span: item.span }
    };
    item.pieces.iter().map(piece).collect()
}

/// One piece: each index falls to the batch, the rows, the columns or the sum.
/// The operand that shares the output's last dim is the right one, so that the columns are contiguous in the result.
fn product_piece(places: &Places<'_>, item: &ProductItem, piece: &Piece) -> Product {
    let rank = places.form.value(item.id).sizes.len();
    let strides = row_major(&item.extents[..rank]);
    let (mut a, mut b) = (item.a.clone(), item.b.clone());
    let last = (0..rank).rev().find(|&index| item.extents[index] > 1 && is_side(&a.1, &b.1, index));
    if last.is_some_and(|index| a.1.coefficient(index) != 0) {
        std::mem::swap(&mut a, &mut b);
    }
    let first: Vec<usize> = piece.iter().map(|range| range.start).collect();
    let mut product = Product {
        batch: Vec::new(),
        m: Vec::new(),
        n: Vec::new(),
        k: Vec::new(),
        a: (places.value(a.0), a.1.at(&first)),
        b: (places.value(b.0), b.1.at(&first)),
        c: (places.value(item.id), strides.iter().zip(&first).map(|(stride, &start)| stride * start as i64).sum()),
        accumulate: false,
        bands: Vec::new(),
    };
    for (index, extent) in piece.iter().map(ExactSizeIterator::len).enumerate().filter(|(_, extent)| *extent > 1) {
        let c = if index < rank { strides[index] } else { 0 };
        let each = ProductLoop { extent, a: a.1.coefficient(index), b: b.1.coefficient(index), c };
        let kind = match (each.a != 0, each.b != 0, index < rank) {
            (_, _, false) => &mut product.k,
            (true, false, true) => &mut product.m,
            (false, true, true) => &mut product.n,
            (true, true, true) | (false, false, true) => &mut product.batch,
        };
        kind.push(each);
    }
    for loops in [&mut product.batch, &mut product.m, &mut product.n, &mut product.k] {
        join_product_loops(loops);
    }
    product
}

/// True if exactly one operand depends on the index.
fn is_side(a: &Linear, b: &Linear, index: usize) -> bool {
    (a.coefficient(index) != 0) != (b.coefficient(index) != 0)
}

fn join_product_loops(loops: &mut Vec<ProductLoop>) {
    for index in (0..loops.len().saturating_sub(1)).rev() {
        let (outer, inner) = (loops[index], loops[index + 1]);
        let spans = |outer: i64, inner: i64| outer == inner * loops[index + 1].extent as i64;
        if spans(outer.a, inner.a) && spans(outer.b, inner.b) && spans(outer.c, inner.c) {
            loops[index + 1].extent *= outer.extent;
            loops.remove(index);
        }
    }
}
