//! Element-wise evaluation of form values inside a nest: what is not in memory is computed on the spot.
//!
//! Input: a value and the element wanted, in loop indices. Output: nodes in a [`Code`].
//! Invariant: every load lies inside its value wherever its guards hold. A value that cannot be computed at the wanted
//! place (a view of a flattened index, a random number at a data-dependent place) is demanded: it becomes a root.

use std::collections::{BTreeSet, HashMap};

use super::code::{At, Code, CodeOp, Coord, Element};
use super::form::{Form, FormOp, FormValue, GatherIndex, Guard, Id, View};
use crate::graph::{Binary, Compare, DType};
use crate::kernel::linear::row_major;
use crate::kernel::{Linear, NodeId};

/// True for values that lie in memory: sources, roots, and results that only a kernel of their own can make.
pub(super) fn in_memory(form: &Form, roots: &BTreeSet<Id>, id: Id) -> bool {
    let op = &form.value(id).op;
    op.is_source() || op.is_kernel() || roots.contains(&id)
}

/// Coordinates over dims of these sizes that give this row-major number, if they are linear over the loops.
pub(super) fn unflatten(flat: &Linear, sizes: &[usize], extents: &[usize]) -> Option<Vec<Linear>> {
    let strides = row_major(sizes);
    let mut rest = flat.clone();
    let mut coords = Vec::with_capacity(sizes.len());
    for (dim, &size) in sizes.iter().enumerate() {
        if size == 1 {
            coords.push(Linear::constant(0));
            continue;
        }
        let stride = strides[dim];
        let terms = rest.terms.iter().map(|&(index, by)| (index, by.div_euclid(stride))).filter(|term| term.1 != 0);
        let coord = Linear { terms: terms.collect(), offset: rest.offset.div_euclid(stride) };
        if !coord.is_within(extents, size as i64) {
            return None;
        }
        rest = rest.plus(&coord.scaled(-stride));
        coords.push(coord);
    }
    (rest == Linear::default()).then_some(coords)
}

/// The row-major number of an element given by coordinates.
pub(super) fn flatten(coords: &[Linear], sizes: &[usize]) -> Linear {
    coords.iter().zip(row_major(sizes)).fold(Linear::default(), |sum, (coord, by)| sum.plus(&coord.scaled(by)))
}

/// All coordinates as linear functions; none where one depends on data.
pub(super) fn linear_coords(coords: &[Coord]) -> Option<Vec<Linear>> {
    let linear = |coord: &Coord| match coord {
        Coord::Linear(linear) => Some(linear.clone()),
        Coord::Node(_) => None,
    };
    coords.iter().map(linear).collect()
}

/// Evaluates values at elements; one per phase.
pub(super) struct Inliner<'a> {
    pub form: &'a Form,
    /// Values in memory; demands are added.
    pub roots: &'a mut BTreeSet<Id>,
    /// Extents of the loops, outer then inner.
    pub extents: Vec<usize>,
    pub code: Code,
    pub memo: HashMap<(Id, At, Vec<Guard>), NodeId>,
}

impl<'a> Inliner<'a> {
    pub fn new(form: &'a Form, roots: &'a mut BTreeSet<Id>, extents: Vec<usize>) -> Self {
        Self { form, roots, extents, code: Code::default(), memo: HashMap::new() }
    }

    /// The element where the guards hold; anything elsewhere.
    pub fn element(&mut self, id: Id, at: &At, guards: &[Guard]) -> NodeId {
        if in_memory(self.form, self.roots, id) {
            return self.load(id, at, guards, &[]);
        }
        self.compute(id, at, guards)
    }

    /// As [`Self::element`], but computed although the value may be a root: the way a root itself is made.
    pub fn compute(&mut self, id: Id, at: &At, guards: &[Guard]) -> NodeId {
        let key = (id, at.clone(), guards.to_vec());
        if let Some(&node) = self.memo.get(&key) {
            return node;
        }
        let node = self.compute_new(id, at, guards);
        self.memo.insert(key, node);
        node
    }

    fn compute_new(&mut self, id: Id, at: &At, guards: &[Guard]) -> NodeId {
        let value = self.form.value(id);
        let at = &self.dims_if_possible(value, at);
        let form = self.form;
        let arg = |this: &mut Self, position: usize| this.element(form.value(id).args[position], at, guards);
        let op = match &value.op {
            FormOp::Const(bits) => CodeOp::Const(*bits),
            FormOp::Index { axis } => return self.index(value, *axis, at),
            FormOp::Random { stream } => match self.number(value, at) {
                Some(element) => CodeOp::Random { stream: *stream, element },
                None => return self.demand(id, at, guards),
            },
            FormOp::Unary(op) => CodeOp::Unary(*op, arg(self, 0)),
            FormOp::Binary(op) => {
                let (a, b) = (arg(self, 0), arg(self, 1));
                CodeOp::Binary(*op, a, b)
            }
            FormOp::Compare(op) => {
                let (a, b) = (arg(self, 0), arg(self, 1));
                CodeOp::Compare(*op, a, b)
            }
            FormOp::Select => {
                let (condition, then, otherwise) = (arg(self, 0), arg(self, 1), arg(self, 2));
                CodeOp::Select(condition, then, otherwise)
            }
            FormOp::Cast => CodeOp::Cast(arg(self, 0)),
            FormOp::Reshape => {
                return match self.number(value, at) {
                    Some(flat) => self.element(value.args[0], &At::Flat(flat), guards),
                    None => self.demand(id, at, guards),
                };
            }
            FormOp::View(view) => {
                return match self.view(value, view, at, guards) {
                    Some(node) => node,
                    None => self.demand(id, at, guards),
                };
            }
            FormOp::Gather(index) => {
                return match self.gather(value, index, at, guards) {
                    Some(node) => node,
                    None => self.demand(id, at, guards),
                };
            }
            FormOp::Source(_) | FormOp::Reduce(_) | FormOp::Scatter { .. } | FormOp::Product(_) => {
                unreachable!("such a value lies in memory")
            }
        };
        self.code.push(op, value.dtype)
    }

    /// Makes the value a root and loads it.
    fn demand(&mut self, id: Id, at: &At, guards: &[Guard]) -> NodeId {
        self.roots.insert(id);
        self.load(id, at, guards, &[])
    }

    fn dims_if_possible(&self, value: &FormValue, at: &At) -> At {
        match at {
            At::Dims(_) => at.clone(),
            At::Flat(flat) => match unflatten(flat, &value.sizes, &self.extents) {
                Some(coords) => At::Dims(coords.into_iter().map(Coord::Linear).collect()),
                None => at.clone(),
            },
        }
    }

    /// The row-major number of the element, where it does not depend on data.
    fn number(&self, value: &FormValue, at: &At) -> Option<Linear> {
        match at {
            At::Flat(flat) => Some(flat.clone()),
            At::Dims(coords) => linear_coords(coords).map(|coords| flatten(&coords, &value.sizes)),
        }
    }

    /// A load with its own guards, and those of its surroundings where it would leave the value without them.
    fn load(&mut self, id: Id, at: &At, surrounding: &[Guard], own: &[Guard]) -> NodeId {
        let value = self.form.value(id);
        let at = self.dims_if_possible(value, at);
        let safe = match &at {
            At::Flat(flat) => flat.is_within(&self.extents, value.elements() as i64),
            At::Dims(coords) => coords.iter().zip(&value.sizes).all(|(coord, &size)| match coord {
                Coord::Linear(linear) => linear.is_within(&self.extents, size as i64),
                Coord::Node(_) => true,
            }),
        };
        let mut guards = own.to_vec();
        if !safe {
            guards.extend(surrounding.iter().filter(|guard| !own.contains(guard)).cloned());
        }
        self.code.push(CodeOp::Load(Element { value: id, at, guards }), value.dtype)
    }

    fn index(&mut self, value: &FormValue, axis: usize, at: &At) -> NodeId {
        match at {
            At::Dims(coords) => match &coords[axis] {
                Coord::Linear(linear) => self.code.push(CodeOp::Index(linear.clone()), DType::I32),
                Coord::Node(node) => *node,
            },
            At::Flat(flat) => {
                let stride = row_major(&value.sizes)[axis] as f64;
                let flat = self.code.push(CodeOp::Index(flat.clone()), DType::I32);
                let stride = self.integer(stride);
                let size = self.integer(value.sizes[axis] as f64);
                let outer = self.code.push(CodeOp::Binary(Binary::Div, flat, stride), DType::I32);
                self.code.push(CodeOp::Binary(Binary::Rem, outer, size), DType::I32)
            }
        }
    }

    fn integer(&mut self, number: f64) -> NodeId {
        self.code.push(CodeOp::Const(number.to_bits()), DType::I32)
    }

    /// A linear function of the value's dims at these coordinates; none where it mixes data-dependent ones.
    fn compose(&self, linear: &Linear, coords: &[Coord]) -> Option<Coord> {
        if let Some(dim) = linear.as_index() {
            return Some(coords[dim].clone());
        }
        let mut sum = Linear::constant(linear.offset);
        for &(dim, by) in &linear.terms {
            match &coords[dim] {
                Coord::Linear(coord) => sum = sum.plus(&coord.scaled(by)),
                Coord::Node(_) => return None,
            }
        }
        Some(Coord::Linear(sum))
    }

    /// Guards of a value at these coordinates, without those that always hold; none where they depend on data.
    fn guards_at(&self, guards: &[Guard], coords: &[Coord]) -> Option<Vec<Guard>> {
        let mut needed: Vec<Guard> = Vec::new();
        for (linear, extent) in guards {
            match self.compose(linear, coords)? {
                Coord::Node(_) => return None,
                Coord::Linear(linear) if linear.is_within(&self.extents, *extent) => {}
                Coord::Linear(linear) => needed.push((linear, *extent)),
            }
        }
        Some(needed)
    }

    fn view(&mut self, value: &FormValue, view: &View, at: &At, guards: &[Guard]) -> Option<NodeId> {
        let At::Dims(coords) = at else { return None };
        let access = view.access.iter().map(|linear| self.compose(linear, coords)).collect::<Option<Vec<_>>>()?;
        let own = self.guards_at(&view.guards, coords)?;
        Some(self.guarded(value.args[0], &At::Dims(access), guards, &own, &[]))
    }

    fn gather(&mut self, value: &FormValue, index: &[GatherIndex], at: &At, guards: &[Guard]) -> Option<NodeId> {
        let At::Dims(coords) = at else { return None };
        let data = value.args[0];
        let sizes = self.form.sizes(data);
        let mut access = Vec::with_capacity(index.len());
        let mut own = Vec::new();
        let mut conditions = Vec::new();
        for (entry, &size) in index.iter().zip(sizes) {
            match entry {
                GatherIndex::Linear(linear) => {
                    access.push(self.compose(linear, coords)?);
                    own.extend(self.guards_at(&[(linear.clone(), size as i64)], coords)?);
                }
                GatherIndex::Tensor(arg) => {
                    let node = self.element(value.args[*arg], at, guards);
                    access.push(Coord::Node(node));
                    conditions.push((node, size as i64));
                }
            }
        }
        Some(self.guarded(data, &At::Dims(access), guards, &own, &conditions))
    }

    /// An element of `id` that counts as 0 where the own guards or conditions fail.
    fn guarded(
        &mut self,
        id: Id,
        at: &At,
        surrounding: &[Guard],
        own: &[Guard],
        conditions: &[(NodeId, i64)],
    ) -> NodeId {
        if in_memory(self.form, self.roots, id) {
            return self.load(id, at, surrounding, own);
        }
        let mut all = surrounding.to_vec();
        all.extend(own.iter().filter(|guard| !surrounding.contains(guard)).cloned());
        let inside = self.element(id, at, &all);
        let mut holds = Vec::new();
        for (linear, extent) in own {
            let index = self.code.push(CodeOp::Index(linear.clone()), DType::I32);
            let (least, greatest) = linear.range(&self.extents);
            self.range_conditions(index, *extent, least < 0, greatest >= *extent, &mut holds);
        }
        for (node, extent) in conditions {
            self.range_conditions(*node, *extent, true, true, &mut holds);
        }
        let Some(condition) =
            holds.into_iter().reduce(|a, b| self.code.push(CodeOp::Binary(Binary::And, a, b), DType::Bool))
        else {
            return inside;
        };
        let dtype = self.code.dtype(inside);
        let zero = self.code.push(CodeOp::Const(0f64.to_bits()), dtype);
        self.code.push(CodeOp::Select(condition, inside, zero), dtype)
    }

    fn range_conditions(&mut self, index: NodeId, extent: i64, below: bool, above: bool, holds: &mut Vec<NodeId>) {
        if below {
            let zero = self.integer(0.0);
            holds.push(self.code.push(CodeOp::Compare(Compare::Ge, index, zero), DType::Bool));
        }
        if above {
            let end = self.integer(extent as f64);
            holds.push(self.code.push(CodeOp::Compare(Compare::Lt, index, end), DType::Bool));
        }
    }
}
