//! A slow, simple interpreter of a [`Program`], for tests: the meaning of the loop IR.
//!
//! Input: a program and an arena. Output: the arena after the step. Every access is checked against its buffer:
//! the invariant of [`super`]. Numbers are f64 whatever the element type, so results compare closely with the
//! graph's evaluator; an arena has one f64 slot per byte offset, and bytes never written read as NaN.

use super::{
    Buffer, BufferId, KernelKind, Linear, Location, Nest, Node, NodeId, NodeOp, Phase, Product, ProductLoop, Program,
    Reduction, ReductionKind, Store, Winograd,
};
use crate::graph::scalar::{binary, binary_integer, compare, exceeds, truth, unary};
use crate::graph::{DType, philox};

/// The memory of a step: one f64 at the byte offset of each element.
#[derive(Clone, Debug)]
pub struct Arena {
    slots: Vec<f64>,
}

/// Bytes of one element in memory.
pub fn element_bytes(dtype: DType) -> usize {
    match dtype {
        DType::F32 | DType::I32 => 4,
        DType::Bool => 1,
    }
}

impl Arena {
    /// An arena of this many bytes in which nothing is written.
    pub fn new(bytes: usize) -> Self {
        Self { slots: vec![f64::NAN; bytes] }
    }

    /// Writes a whole buffer.
    ///
    /// # Panics
    /// When the count of elements is not that of the buffer.
    pub fn write(&mut self, buffer: &Buffer, data: &[f64]) {
        assert_eq!(buffer.elements(), data.len(), "elements of {}", buffer.role);
        for (position, &element) in data.iter().enumerate() {
            self.slots[buffer.offset + position * element_bytes(buffer.dtype)] = element;
        }
    }

    /// Reads a whole buffer.
    pub fn read(&self, buffer: &Buffer) -> Vec<f64> {
        let width = element_bytes(buffer.dtype);
        (0..buffer.elements()).map(|position| self.slots[buffer.offset + position * width]).collect()
    }
}

/// Runs a step. `seed` and `step` key the draws of [`NodeOp::Random`].
///
/// # Panics
/// When an access leaves its buffer: a bug of `schedule`.
pub fn interpret(program: &Program, arena: &mut Arena, seed: u64, step: u64) {
    let mut position = 0;
    while position < program.kernels.len() {
        let group = program.group_of(position);
        let kernels = group.map_or(position..position + 1, |group| group.kernels.clone());
        let slices = group.map_or(1, |group| group.slices);
        for slice in 0..slices {
            let mut local = vec![f64::NAN; program.local_bytes];
            for kernel in &program.kernels[kernels.clone()] {
                let local = &mut local;
                let mut machine = Machine { program, arena, local, kernel: &kernel.name, seed, step };
                machine.slice(&kernel.kind, slice, slices);
            }
        }
        position = kernels.end;
    }
}

/// Slice `slice` of `slices` equal ones.
fn part(points: &[Vec<usize>], slice: usize, slices: usize) -> &[Vec<usize>] {
    assert!(points.len().is_multiple_of(slices), "{} points in {slices} slices", points.len());
    let length = points.len() / slices;
    &points[slice * length..(slice + 1) * length]
}

/// All points of a box, in row-major order.
fn points(extents: &[usize]) -> Vec<Vec<usize>> {
    let mut points = vec![Vec::new()];
    for &extent in extents {
        points = points.iter().flat_map(|point| (0..extent).map(|index| [&point[..], &[index]].concat())).collect();
    }
    points
}

struct Machine<'a> {
    program: &'a Program,
    arena: &'a mut Arena,
    /// The memory of a thread, like an arena's.
    local: &'a mut [f64],
    kernel: &'a str,
    seed: u64,
    step: u64,
}

impl Machine<'_> {
    fn slot(&self, buffer: BufferId, position: i64) -> usize {
        let buffer = self.program.buffer(buffer);
        let inside = position >= 0 && (position as usize) < buffer.elements();
        assert!(inside, "kernel {}: element {position} of {} {:?}", self.kernel, buffer.role, buffer.sizes);
        buffer.offset + position as usize * element_bytes(buffer.dtype)
    }

    fn load(&self, buffer: BufferId, position: i64) -> f64 {
        let slot = self.slot(buffer, position);
        if self.program.is_local(buffer) { self.local[slot] } else { self.arena.slots[slot] }
    }

    fn store(&mut self, buffer: BufferId, position: i64, element: f64) {
        let slot = self.slot(buffer, position);
        let slots = if self.program.is_local(buffer) { &mut *self.local } else { &mut self.arena.slots[..] };
        slots[slot] = element;
    }

    fn slice(&mut self, kind: &KernelKind, slice: usize, slices: usize) {
        match kind {
            KernelKind::Nest(nest) => self.nest(nest, slice, slices),
            KernelKind::Product(product) | KernelKind::Winograd(Winograd { product, .. }) => {
                self.product(product, slice, slices);
            }
            KernelKind::Filter(_) => {}
            KernelKind::Zero(buffer) => {
                assert_eq!(slices, 1, "zeros are in no group");
                for position in 0..self.program.buffer(*buffer).elements() {
                    self.store(*buffer, position as i64, 0.0);
                }
            }
            KernelKind::Copy { from, to } => {
                assert_eq!(slices, 1, "copies are in no group");
                for position in 0..self.program.buffer(*from).elements() {
                    let element = self.load(*from, position as i64);
                    self.store(*to, position as i64, element);
                }
            }
        }
    }

    fn nest(&mut self, nest: &Nest, slice: usize, slices: usize) {
        assert!(nest.parallel <= nest.outer.len(), "kernel {}: parallel loops are outer loops", self.kernel);
        for outer in part(&points(&nest.outer), slice, slices) {
            let mut reduced: Vec<Vec<f64>> = Vec::new();
            for phase in &nest.phases {
                let results = self.phase(phase, outer, &reduced);
                reduced.push(results);
            }
        }
    }

    fn phase(&mut self, phase: &Phase, outer: &[usize], reduced: &[Vec<f64>]) -> Vec<f64> {
        let mut folds: Vec<Fold> = phase.reductions.iter().map(Fold::new).collect();
        for (number, inner) in points(&phase.inner).into_iter().enumerate() {
            let point = [outer, &inner[..]].concat();
            let mut values = Vec::with_capacity(phase.nodes.len());
            for node in &phase.nodes {
                let value = self.node(node, &point, &values, reduced);
                values.push(value);
            }
            for fold in &mut folds {
                fold.take(values[fold.node.0 as usize], number);
            }
            for store in &phase.stores {
                self.store_at(store, &point, &values);
            }
        }
        folds.into_iter().map(|fold| fold.result).collect()
    }

    fn node(&self, node: &Node, point: &[usize], values: &[f64], reduced: &[Vec<f64>]) -> f64 {
        let value = |id: NodeId| values[id.0 as usize];
        match &node.op {
            NodeOp::Const(number) => match node.dtype {
                DType::Bool => truth(*number != 0.0),
                DType::I32 => number.trunc(),
                DType::F32 => *number,
            },
            NodeOp::Index(linear) => linear.at(point) as f64,
            NodeOp::Load(location) => {
                self.position(location, point, values).map_or(0.0, |position| self.load(location.buffer, position))
            }
            NodeOp::Random { stream, element } => {
                f64::from(philox::uniform(self.seed, self.step, *stream, element.at(point) as u64))
            }
            NodeOp::Reduced { phase, index } => reduced[*phase][*index],
            NodeOp::Unary(op, x) => unary(*op, value(*x)),
            NodeOp::Binary(op, a, b) => match node.dtype {
                DType::I32 => f64::from(binary_integer(*op, value(*a) as i32, value(*b) as i32)),
                DType::F32 | DType::Bool => binary(*op, value(*a), value(*b)),
            },
            NodeOp::Compare(op, a, b) => truth(compare(*op, value(*a), value(*b))),
            NodeOp::Select(condition, then, otherwise) => {
                if value(*condition) != 0.0 {
                    value(*then)
                } else {
                    value(*otherwise)
                }
            }
            NodeOp::Cast(x) => match node.dtype {
                DType::I32 => f64::from(value(*x) as i32),
                DType::Bool => truth(value(*x) != 0.0),
                DType::F32 => value(*x),
            },
        }
    }

    /// The element that a location names at a point; none where a guard fails.
    fn position(&self, location: &Location, point: &[usize], values: &[f64]) -> Option<i64> {
        let holds = |(guard, extent): &(Linear, i64)| (0..*extent).contains(&guard.at(point));
        if !location.guards.iter().all(holds) {
            return None;
        }
        let mut position = location.index.at(point);
        for term in &location.indirect {
            let index = values[term.node.0 as usize] as i64;
            if !(0..term.extent).contains(&index) {
                return None;
            }
            position += term.stride * index;
        }
        Some(position)
    }

    fn store_at(&mut self, store: &Store, point: &[usize], values: &[f64]) {
        let Some(position) = self.position(&store.location, point, values) else { return };
        let buffer = store.location.buffer;
        let value = values[store.value.0 as usize];
        let old = if store.accumulate { self.load(buffer, position) } else { 0.0 };
        self.store(buffer, position, old + value);
    }

    fn product(&mut self, product: &Product, slice: usize, slices: usize) {
        let extents = |loops: &[ProductLoop]| points(&loops.iter().map(|each| each.extent).collect::<Vec<_>>());
        let [a, b, c] = product.functions();
        for batch in part(&extents(&product.batch), slice, slices) {
            for rest in extents(&[&product.m[..], &product.n[..]].concat()) {
                let outer = [&batch[..], &rest[..]].concat();
                let place = c.at(&outer);
                let mut sum = if product.accumulate { self.load(product.c.0, place) } else { 0.0 };
                for k in extents(&product.k) {
                    let all = [&outer[..], &k[..]].concat();
                    sum += self.load(product.a.0, a.at(&all)) * self.load(product.b.0, b.at(&all));
                }
                self.store(product.c.0, place, sum);
            }
        }
    }
}

/// The state of one reduction.
struct Fold {
    kind: ReductionKind,
    node: NodeId,
    best: f64,
    result: f64,
}

impl Fold {
    fn new(reduction: &Reduction) -> Self {
        let result = match reduction.kind {
            ReductionKind::Sum | ReductionKind::ArgMax => 0.0,
            ReductionKind::Max => f64::NEG_INFINITY,
        };
        Self { kind: reduction.kind, node: reduction.node, best: f64::NEG_INFINITY, result }
    }

    fn take(&mut self, value: f64, number: usize) {
        match self.kind {
            ReductionKind::Sum => self.result += value,
            ReductionKind::Max if exceeds(value, self.result) => self.result = value,
            ReductionKind::ArgMax if exceeds(value, self.best) => (self.best, self.result) = (value, number as f64),
            ReductionKind::Max | ReductionKind::ArgMax => {}
        }
    }
}
