//! The loops of a nest: rows of the parallel loops, strips, tiles of lanes, phases.
//!
//! Input: a [`NestPlan`]. Output: the body of `fn(base, scratch, context, lo, hi)`, which runs the points `lo..hi` of
//! the flattened parallel loops. Invariant: `lo` and `hi` are multiples of the plan's grain, or `hi` is the total;
//! what is computed for a point does not depend on `lo` and `hi`.

use cranelift_codegen::ir::{FuncRef, InstBuilder, Value};

use crate::cpu::code::calls::Call;
use crate::cpu::code::emit::{Emitter, LANES, Width};
use crate::cpu::code::plan::{GRAIN, NestPlan, SLOT_BYTES, STRIP};
use crate::cpu::code::wide::Strip;
use crate::cpu::run::context::Helper;
use crate::kernel::{BufferId, Node, NodeId, NodeOp, Program};

/// One point of the lane loop, or four from there on.
#[derive(Clone, Copy)]
pub(super) struct Point {
    /// The lane loop's index.
    pub start: Value,
    /// A constant to add to it.
    pub ahead: i64,
    /// How many points.
    pub width: Width,
}

/// A range of the lane loop.
#[derive(Clone, Copy)]
pub(super) struct Range {
    from: Value,
    to: Value,
    /// The number of points modulo [`GRAIN`], if known.
    rest: Option<usize>,
    /// At most this many points.
    most: usize,
    /// Exactly this many points from 0 on.
    count: Option<usize>,
}

/// Some points that are emitted together: vectors from `start` on, or one scalar point.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    start: Value,
    vectors: usize,
}

impl Tile {
    /// The points of the tile, each with the number of its accumulator.
    pub(super) fn points(self) -> impl Iterator<Item = (usize, Point)> {
        let width = if self.vectors == 0 { Width::Scalar } else { Width::Vector };
        (0..self.vectors.max(1))
            .map(move |vector| (vector, Point { start: self.start, ahead: (vector * LANES) as i64, width }))
    }
}

/// A nest's function under construction.
pub(super) struct NestEmitter<'a, 'f> {
    /// Instructions.
    pub e: Emitter<'f>,
    /// For its buffers.
    pub program: &'a Program,
    pub plan: &'a NestPlan,
    /// The phase at hand.
    pub phase: usize,
    /// The arena's base.
    pub base: Value,
    /// This thread's scratch.
    pub scratch: Value,
    /// The scratch address that lane index 0 would have in slot 0.
    pub slots_base: Value,
    /// The number 0.
    pub zero: Value,
    /// Indices of the open loops; the lane loop's is in the points.
    pub vars: Vec<Value>,
    /// Nodes of the phase that are the same at all lanes.
    pub uniforms: Vec<Option<Value>>,
    /// Nodes already emitted at the point at hand.
    pub memo: Vec<Option<Value>>,
    /// Per buffer: the nest may write some of its bytes.
    pub written: Vec<bool>,
    /// The lane loop runs inside the phase's inner loops.
    pub lane_innermost: bool,
    /// Results of reductions, by phase, where they are scalars.
    pub results: Vec<Vec<Value>>,
    /// Strip functions, by phase, where there are some.
    pub strips: Vec<Option<FuncRef>>,
}

impl<'a, 'f> NestEmitter<'a, 'f> {
    /// Starts emission in the current block of `e`.
    pub(super) fn new(
        mut e: Emitter<'f>,
        program: &'a Program,
        plan: &'a NestPlan,
        base: Value,
        scratch: Value,
        written: Vec<bool>,
        strips: Vec<Option<FuncRef>>,
    ) -> Self {
        let zero = e.i64(0);
        Self {
            e,
            program,
            plan,
            phase: 0,
            base,
            scratch,
            slots_base: scratch,
            zero,
            vars: Vec::new(),
            uniforms: Vec::new(),
            memo: Vec::new(),
            written,
            lane_innermost: false,
            results: vec![Vec::new(); plan.phases.len()],
            strips,
        }
    }

    /// The lane loop's number in the phase at hand.
    pub(super) fn lane(&self) -> Option<usize> {
        self.plan.phases[self.phase].lane
    }

    /// Emits the whole nest over `lo..hi`.
    pub(super) fn rows(&mut self, lo: Value, hi: Value) {
        let plan = self.plan;
        let (outer, parallel) = (&plan.nest.outer, plan.nest.parallel);
        if parallel == 0 {
            return self.rest(0);
        }
        let columns = outer[parallel - 1];
        let rows = &outer[..parallel - 1];
        if rows.iter().product::<usize>() == 1 {
            self.vars.extend(rows.iter().map(|_| self.zero));
            return self.columns(lo, hi, Some(columns % GRAIN));
        }
        let open = self.e.begin(lo, hi, 0);
        let row = self.e.b.ins().udiv_imm_u(open.index, columns as i64);
        let before = self.e.scaled(row, columns as i64);
        let from = self.e.b.ins().isub(open.index, before);
        let left = self.e.b.ins().isub(hi, open.index);
        let to = self.e.b.ins().iadd(from, left);
        let end = self.e.i64(columns as i64);
        let to = self.e.b.ins().smin(to, end);
        self.decompose(row, rows);
        self.columns(from, to, (columns % GRAIN == 0).then_some(0));
        let done = self.e.b.ins().isub(to, from);
        let next = self.e.b.ins().iadd(open.index, done);
        self.e.end_with(open, next);
        self.vars.clear();
    }

    /// Pushes the indices of loops from their flattened index.
    fn decompose(&mut self, flat: Value, extents: &[usize]) {
        let mut indices = Vec::new();
        let mut left = flat;
        for (position, extent) in extents.iter().enumerate().rev() {
            if position == 0 {
                indices.push(left);
            } else {
                let above = self.e.b.ins().udiv_imm_u(left, *extent as i64);
                let taken = self.e.scaled(above, *extent as i64);
                indices.push(self.e.b.ins().isub(left, taken));
                left = above;
            }
        }
        self.vars.extend(indices.into_iter().rev());
    }

    /// The last parallel loop over `from..to`.
    fn columns(&mut self, from: Value, to: Value, rest: Option<usize>) {
        let plan = self.plan;
        let number = plan.nest.parallel - 1;
        if plan.outer_lanes && number + 1 == plan.nest.outer.len() {
            self.vars.push(self.zero);
            self.phases_outer(Range { from, to, rest, most: plan.nest.outer[number], count: None });
        } else {
            let open = self.e.begin(from, to, 1);
            self.vars.push(open.index);
            self.rest(number + 1);
            self.e.end(open);
        }
        self.vars.pop();
    }

    /// The outer loops from `number` on, whole.
    fn rest(&mut self, number: usize) {
        let plan = self.plan;
        match plan.nest.outer.get(number) {
            None => (0..plan.phases.len()).for_each(|phase| self.phase_inner(phase)),
            Some(extent) if plan.outer_lanes && number + 1 == plan.nest.outer.len() => {
                self.vars.push(self.zero);
                let range = self.whole(*extent);
                self.phases_outer(range);
                self.vars.pop();
            }
            Some(extent) => self.each(*extent, &mut |this| this.rest(number + 1)),
        }
    }

    /// All of a lane loop.
    fn whole(&mut self, extent: usize) -> Range {
        Range {
            from: self.zero,
            to: self.e.i64(extent as i64),
            rest: Some(extent % GRAIN),
            most: extent,
            count: Some(extent),
        }
    }

    /// A loop from 0 whose index is pushed for its body.
    fn each(&mut self, extent: usize, body: &mut dyn FnMut(&mut Self)) {
        if extent == 1 {
            self.vars.push(self.zero);
            body(self);
        } else {
            let limit = self.e.i64(extent as i64);
            let open = self.e.begin(self.zero, limit, 1);
            self.vars.push(open.index);
            body(self);
            self.e.end(open);
        }
        self.vars.pop();
    }

    /// Inner loops from `position` on up to `end`.
    pub(super) fn inner(&mut self, position: usize, end: usize, body: &mut dyn FnMut(&mut Self)) {
        if position == end {
            return body(self);
        }
        let extent = self.plan.nest.phases[self.phase].inner[position];
        self.each(extent, &mut |this| this.inner(position + 1, end, &mut *body));
    }

    /// A range in strips that fit the slots.
    fn in_strips(&mut self, range: Range, body: &mut dyn FnMut(&mut Self, Range)) {
        if range.most <= STRIP {
            self.strip_start(range.from);
            return body(self, range);
        }
        let open = self.e.begin(range.from, range.to, STRIP as i64);
        let end = self.e.b.ins().iadd_imm_s(open.index, STRIP as i64);
        let to = self.e.b.ins().smin(end, range.to);
        self.strip_start(open.index);
        body(self, Range { from: open.index, to, rest: range.rest, most: STRIP, count: None });
        self.e.end(open);
    }

    fn strip_start(&mut self, start: Value) {
        let bytes = self.e.scaled(start, 4);
        self.slots_base = self.e.b.ins().isub(self.scratch, bytes);
    }

    pub(super) fn slot_address(&mut self, slot: usize, point: &Point) -> (Value, i32) {
        let moved = self.e.scaled(point.start, 4);
        let address = self.e.b.ins().iadd(self.slots_base, moved);
        (address, (slot * SLOT_BYTES) as i32 + point.ahead as i32 * 4)
    }

    /// The points of a range, tile by tile: unrolled vectors, single vectors, and the rest as one vector that ends with
    /// the range if points may run twice (`again`), otherwise as scalars.
    fn tiles(&mut self, range: Range, again: bool, body: &mut dyn FnMut(&mut Self, Tile)) {
        let unroll = self.plan.phases[self.phase].unroll;
        if let Some(count) = range.count.filter(|count| *count < LANES) {
            for point in 0..count {
                let start = self.e.i64(point as i64);
                body(self, Tile { start, vectors: 0 });
            }
            return;
        }
        let rest = range.rest.unwrap_or(GRAIN - 1);
        let mut from = range.from;
        let mut run = |this: &mut Self, vectors: usize, wanted: bool| {
            if !wanted {
                return;
            }
            let step = (vectors * LANES).max(1) as i64;
            if range.count == Some(step as usize) {
                return body(this, Tile { start: from, vectors });
            }
            let limit = this.e.b.ins().iadd_imm_s(range.to, 1 - step);
            let open = this.e.begin(from, limit, step);
            body(this, Tile { start: open.index, vectors });
            from = open.index;
            this.e.end(open);
        };
        run(self, unroll, range.most >= unroll * LANES);
        run(self, 1, unroll > 1 && rest % (unroll * LANES) >= LANES);
        match range.count {
            _whole if rest.is_multiple_of(LANES) => {}
            Some(count) if again => {
                let start = self.e.i64((count - LANES) as i64);
                body(self, Tile { start, vectors: 1 });
            }
            Some(_) | None => run(self, 0, true),
        }
    }

    /// Whether the stores of the phase at hand may run twice for a point: nothing is added to memory, and no load sees
    /// what the phase stores.
    fn repeatable(&self) -> bool {
        let phase = &self.plan.nest.phases[self.phase];
        let overlaps = |a: BufferId, b: BufferId| {
            let (a, b) = (self.program.range(a), self.program.range(b));
            a.start < b.end && b.start < a.end
        };
        phase.stores.iter().all(|store| {
            let seen = phase.loads().any(|location| overlaps(location.buffer, store.location.buffer));
            !store.accumulate && !seen
        })
    }

    /// Whether the phase at hand reduces.
    fn reduces(&self) -> bool {
        !self.plan.nest.phases[self.phase].reductions.is_empty()
    }

    /// Emits at each point of a tile.
    pub(super) fn at_points(&mut self, tile: Tile, body: &mut dyn FnMut(&mut Self, usize, &Point)) {
        for (vector, point) in tile.points() {
            self.memo = vec![None; self.plan.nest.phases[self.phase].nodes.len()];
            body(self, vector, &point);
        }
    }

    /// The stores of the phase at a point.
    fn stores(&mut self, point: &Point) {
        let plan = self.plan;
        let stores = &plan.nest.phases[self.phase].stores;
        let mut position = 0;
        while let Some(store) = stores.get(position) {
            let pair = stores.get(position + 1).filter(|next| self.interleaves(store, next, point));
            match pair {
                Some(next) => self.store_pair(store, next, point),
                None => self.store(store, point),
            }
            position += 1 + usize::from(pair.is_some());
        }
    }

    /// All phases with the last outer loop as lanes.
    fn phases_outer(&mut self, range: Range) {
        if !self.plan.strips {
            return (0..self.plan.phases.len()).for_each(|phase| self.phase_outer(phase, range));
        }
        self.in_strips(range, &mut |this, strip| {
            (0..this.plan.phases.len()).for_each(|phase| this.phase_outer(phase, strip));
        });
    }

    fn phase_outer(&mut self, phase: usize, strip: Range) {
        self.phase = phase;
        let plan = self.plan;
        let inner = plan.nest.phases[phase].inner.len();
        if let Some(wide) = &plan.phases[phase].wide {
            return self.wide_outer(wide, strip, inner);
        }
        if self.plan.phases[phase].levels.is_empty() {
            self.lane_innermost = false;
            if inner == 0 {
                self.prepare_uniforms();
            }
            let again = self.repeatable();
            return self.tiles(strip, again, &mut |this, tile| this.tile_outer(tile));
        }
        self.begin_slots(strip, inner);
        self.inner(0, inner, &mut |this| {
            this.prepare_uniforms();
            this.levels(strip);
            let again = this.repeatable() && (inner == 0 || !this.reduces());
            this.tiles(strip, again, &mut |this, tile| {
                this.at_points(tile, &mut |this, _, point| {
                    this.accumulate_slots(point);
                    this.stores(point);
                });
            });
        });
    }

    /// The lane loop inside a phase's inner loops: reductions live in slots.
    fn begin_slots(&mut self, strip: Range, inner: usize) {
        self.lane_innermost = true;
        if inner > 0 && self.reduces() {
            let clear = &mut |this: &mut Self, _: usize, point: &Point| this.clear_slots(point);
            self.tiles(strip, true, &mut |this, tile| this.at_points(tile, clear));
        }
    }

    /// A phase by its strip function, at each inner point over all lanes.
    fn wide_outer(&mut self, wide: &Strip, strip: Range, inner: usize) {
        self.begin_slots(strip, inner);
        self.inner(0, inner, &mut |this| {
            this.prepare_uniforms();
            this.run_strip(wide, strip.from, strip.to);
        });
    }

    /// A tile of outer points through a phase without calls: accumulators stay in registers.
    fn tile_outer(&mut self, tile: Tile) {
        let inner = self.plan.nest.phases[self.phase].inner.len();
        if inner == 0 {
            return self.at_points(tile, &mut |this, _, point| {
                this.accumulate_slots(point);
                this.stores(point);
            });
        }
        let accumulators: Vec<_> = tile.points().map(|(_, point)| self.accumulators(point.width, 0)).collect();
        self.inner(0, inner, &mut |this| {
            this.prepare_uniforms();
            this.at_points(tile, &mut |this, vector, point| {
                this.accumulate(&accumulators[vector], point);
                this.stores(point);
            });
        });
        for (vector, point) in tile.points() {
            self.keep_results(&accumulators[vector], &point);
        }
    }

    /// A phase at one outer point; its last inner loop runs in lanes if the plan says so.
    fn phase_inner(&mut self, phase: usize) {
        self.phase = phase;
        self.lane_innermost = false;
        let plan = self.plan;
        let inner = &plan.nest.phases[phase].inner;
        let single = Tile { start: self.zero, vectors: 0 };
        if inner.is_empty() {
            self.prepare_uniforms();
            self.results[phase] = self.plain_results();
            return self.at_points(single, &mut |this, _, point| this.stores(point));
        }
        if plan.phases[phase].lane.is_none() {
            let accumulators = self.accumulators(Width::Scalar, 0);
            self.inner(0, inner.len(), &mut |this| {
                this.prepare_uniforms();
                this.at_points(single, &mut |this, _, point| {
                    this.accumulate(&accumulators, point);
                    this.stores(point);
                });
            });
            self.results[phase] = self.finish(&[], &accumulators);
            return;
        }
        if let Some(wide) = &plan.phases[phase].wide {
            return self.wide_inner(wide, phase);
        }
        let first_index = i64::from(i32::MAX);
        let vectors: Vec<_> =
            (0..plan.phases[phase].unroll).map(|_| self.accumulators(Width::Vector, first_index)).collect();
        let scalar = self.accumulators(Width::Scalar, first_index);
        let last = inner.len() - 1;
        self.inner(0, last, &mut |this| {
            this.prepare_uniforms();
            this.vars.push(this.zero);
            let range = this.whole(inner[last]);
            let mut strip = |this: &mut Self, strip: Range| {
                this.levels(strip);
                let again = this.repeatable() && !this.reduces();
                this.tiles(strip, again, &mut |this, tile| {
                    this.at_points(tile, &mut |this, vector, point| {
                        let wide = point.width == Width::Vector;
                        this.accumulate(if wide { &vectors[vector] } else { &scalar }, point);
                        this.stores(point);
                    });
                });
            };
            if plan.phases[phase].levels.is_empty() {
                strip(this, range)
            } else {
                this.in_strips(range, &mut strip)
            }
            this.vars.pop();
        });
        self.results[phase] = self.finish(&vectors, &scalar);
    }

    /// A phase at one outer point by its strip function, which runs over the last inner loop.
    fn wide_inner(&mut self, wide: &Strip, phase: usize) {
        let inner = &self.plan.nest.phases[phase].inner;
        let last = inner.len() - 1;
        self.clear_table(wide);
        self.inner(0, last, &mut |this| {
            this.prepare_uniforms();
            this.vars.push(this.zero);
            let end = this.e.i64(inner[last] as i64);
            this.run_strip(wide, this.zero, end);
            this.vars.pop();
        });
        self.results[phase] = self.table_results();
    }

    /// Fills the slots of all varying calls over a strip, level by level.
    fn levels(&mut self, strip: Range) {
        let plan = self.plan;
        let phase = &plan.phases[self.phase];
        let nodes = &plan.nest.phases[self.phase].nodes;
        let count = self.e.b.ins().isub(strip.to, strip.from);
        for level in &phase.levels {
            if level.iter().any(|id| phase.calls[id.0 as usize] != Some(Call::Random)) {
                self.tiles(strip, true, &mut |this, tile| {
                    this.at_points(tile, &mut |this, _, point| this.arguments(level, point));
                });
            }
            let first = Point { start: strip.from, ahead: 0, width: Width::Scalar };
            for id in level {
                let call = phase.calls[id.0 as usize].expect("levels list calls");
                self.call_strip(call, &nodes[id.0 as usize], phase.slots[id.0 as usize], &first, count);
            }
        }
    }

    /// Stores the arguments of a level's calls at a point.
    fn arguments(&mut self, level: &[NodeId], point: &Point) {
        let plan = self.plan;
        for id in level {
            let slot = plan.phases[self.phase].slots[id.0 as usize];
            let arguments = plan.nest.phases[self.phase].nodes[id.0 as usize].op.operands();
            for (position, argument) in arguments.into_iter().enumerate() {
                let value = self.value(argument, point);
                self.store_slot(slot + position, value, crate::graph::DType::F32, point);
            }
        }
    }

    /// Calls a strip function on the first `count` elements of a slot.
    pub(super) fn call_strip(&mut self, call: Call, node: &Node, slot: usize, first: &Point, count: Value) {
        let strip = self.e.b.ins().iadd_imm_s(self.scratch, (slot * SLOT_BYTES) as i64);
        match (call, &node.op) {
            (Call::Vector(function), _) => self.e.call(Helper::Vector(function), &[strip, count]),
            (Call::Pow, _) => {
                let exponents = self.e.b.ins().iadd_imm_s(strip, SLOT_BYTES as i64);
                self.e.call(Helper::Pow, &[strip, exponents, count]);
            }
            (Call::Random, NodeOp::Random { stream, element }) => {
                let stream = self.e.i64(i64::from(*stream));
                let start = self.linear(element, first);
                let stride = self.lane_step(element);
                let stride = self.e.i64(stride);
                self.e.call(Helper::Random, &[self.e.context, stream, start, stride, strip, count]);
            }
            (Call::Random, _) => unreachable!("a random call stems from a random node"),
        }
    }
}
