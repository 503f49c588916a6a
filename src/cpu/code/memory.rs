//! Loads and stores of nests: addresses, guards, lanes.
//!
//! Input: a location and a point (or four). Output: instructions. Invariant: no load faults, since an element that a
//! guard excludes is read from the zero bytes before the arena's base; no excluded element is written.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, F32X4, I8, I8X16, I16X8, I32, I32X4, I64};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Type, Value};

use crate::cpu::code::emit::{LANES, Width, constant_memory, memory};
use crate::cpu::code::nest::{NestEmitter, Point};
use crate::cpu::run::PADDING;
use crate::graph::DType;
use crate::kernel::interpret::element_bytes;
use crate::kernel::{Linear, Location, NodeId, Store};

/// How a location moves along the lanes of a point.
enum Along {
    /// All lanes at one element.
    Same,
    /// At consecutive elements.
    Contiguous,
    /// At every second element, without conditions: two vectors, half of each.
    Second,
    /// Anything else: one lane at a time.
    Scattered,
}

/// When an access is allowed.
struct Conditions {
    /// For all lanes.
    all: Option<Value>,
    /// Per lane; only at vector points.
    lanes: Option<Value>,
}

impl NestEmitter<'_, '_> {
    /// The value of an affine function at a point's first lane, on 64 bits, without the constant part.
    /// Terms are added from the outermost loop to the innermost, so that partial sums leave the inner loops.
    fn terms(&mut self, start: Option<Value>, linear: &Linear, scale: i64, point: &Point) -> Option<Value> {
        let lane = self.lane();
        let mut ordered: Vec<(usize, i64)> = linear.terms.clone();
        if self.lane_innermost {
            ordered.sort_by_key(|(number, _)| Some(*number) == lane);
        }
        ordered.into_iter().fold(start, |sum, (number, factor)| {
            let variable = if Some(number) == lane { point.start } else { self.vars[number] };
            let term = self.e.scaled(variable, factor * scale);
            Some(match sum {
                Some(sum) => self.e.b.ins().iadd(sum, term),
                None => term,
            })
        })
    }

    /// How far the lane loop moves an affine function.
    pub(super) fn lane_step(&self, linear: &Linear) -> i64 {
        self.lane().map_or(0, |lane| linear.coefficient(lane))
    }

    /// The value of an affine function at a point's first lane, on 64 bits.
    pub(super) fn linear(&mut self, linear: &Linear, point: &Point) -> Value {
        let constant = linear.offset + self.lane_step(linear) * point.ahead;
        match self.terms(None, linear, 1, point) {
            Some(sum) if constant == 0 => sum,
            Some(sum) => self.e.b.ins().iadd_imm_s(sum, constant),
            None => self.e.i64(constant),
        }
    }

    /// The value of an affine function at all lanes of a point, as I32.
    pub(super) fn index(&mut self, linear: &Linear, point: &Point) -> Value {
        let first = self.linear(linear, point);
        let first = self.e.b.ins().ireduce(I32, first);
        if point.width == Width::Scalar {
            return first;
        }
        let all = self.e.b.ins().splat(I32X4, first);
        let step = self.lane_step(linear) as u32;
        if step == 0 {
            return all;
        }
        let steps = self.e.words(I32X4, [0, step, step.wrapping_mul(2), step.wrapping_mul(3)]);
        self.e.b.ins().iadd(all, steps)
    }

    /// `linear < extent` and `0 ≤ linear`, for one index value or four.
    fn in_range(&mut self, index: Value, extent: i64, width: Width) -> Value {
        match width {
            Width::Scalar => self.e.b.ins().icmp_imm_u(IntCC::UnsignedLessThan, index, extent),
            Width::Vector => {
                let limit = self.e.number(extent as f64, DType::I32, Width::Vector);
                self.e.b.ins().icmp(IntCC::UnsignedLessThan, index, limit)
            }
        }
    }

    fn conditions(&mut self, location: &Location, point: &Point) -> Conditions {
        let mut found = Conditions { all: None, lanes: None };
        let mut add = |this: &mut Self, condition: Value, width: Width| {
            let place = if width == Width::Scalar { &mut found.all } else { &mut found.lanes };
            *place = Some(match *place {
                Some(earlier) => this.e.b.ins().band(earlier, condition),
                None => condition,
            });
        };
        for (linear, extent) in &location.guards {
            if point.width == Width::Vector && self.lane_step(linear) != 0 {
                let index = self.index(linear, point);
                let condition = self.in_range(index, *extent, Width::Vector);
                add(self, condition, Width::Vector);
            } else {
                let index = self.linear(linear, point);
                let condition = self.in_range(index, *extent, Width::Scalar);
                add(self, condition, Width::Scalar);
            }
        }
        for term in &location.indirect {
            let width = if self.varies(term.node) { point.width } else { Width::Scalar };
            let index = self.narrow_value(term.node, point, width);
            let condition = self.in_range(index, term.extent, width);
            add(self, condition, width);
        }
        found
    }

    /// The value of a node at a point, or as the one scalar that it is at all lanes.
    fn narrow_value(&mut self, node: NodeId, point: &Point, width: Width) -> Value {
        if width == Width::Scalar && !self.varies(node) { self.uniform(node) } else { self.value(node, point) }
    }

    fn along(&self, location: &Location, point: &Point) -> Along {
        if point.width == Width::Vector && location.indirect.iter().any(|term| self.varies(term.node)) {
            return Along::Scattered;
        }
        match self.lane_step(&location.index) {
            0 => Along::Same,
            1 => Along::Contiguous,
            2 if location.guards.is_empty() && location.indirect.is_empty() => Along::Second,
            _strided => Along::Scattered,
        }
    }

    /// The address at a point's first lane as a register and a constant; terms by varying index vectors are left out.
    pub(super) fn address(&mut self, location: &Location, point: &Point) -> (Value, i64) {
        let buffer = &self.program.buffers[location.buffer.0 as usize];
        let bytes = element_bytes(buffer.dtype) as i64;
        let ahead = self.lane_step(&location.index) * point.ahead;
        // A thread's own memory ends where its scratch begins.
        let (base, start) = match self.program.is_local(location.buffer) {
            true => (self.scratch, buffer.offset as i64 - self.program.local_bytes as i64),
            false => (self.base, buffer.offset as i64),
        };
        let constant = start + (location.index.offset + ahead) * bytes;
        let mut sum = self.terms(Some(base), &location.index, bytes, point).expect("the base is there");
        for term in &location.indirect {
            if point.width == Width::Scalar || !self.varies(term.node) {
                let index = self.narrow_value(term.node, point, Width::Scalar);
                let index = self.e.b.ins().sextend(I64, index);
                let moved = self.e.scaled(index, term.stride * bytes);
                sum = self.e.b.ins().iadd(sum, moved);
            }
        }
        if i32::try_from(constant + 16).is_ok() {
            (sum, constant)
        } else {
            (self.e.b.ins().iadd_imm_s(sum, constant), 0)
        }
    }

    /// The address of one lane of a scattered location.
    fn lane_address(&mut self, location: &Location, point: &Point, first: (Value, i64), lane: usize) -> (Value, i64) {
        let bytes = element_bytes(self.program.buffers[location.buffer.0 as usize].dtype) as i64;
        let constant = first.1 + self.lane_step(&location.index) * lane as i64 * bytes;
        let mut sum = first.0;
        for term in &location.indirect {
            if self.varies(term.node) {
                let indices = self.value(term.node, point);
                let index = self.e.b.ins().extractlane(indices, lane as u8);
                let index = self.e.b.ins().sextend(I64, index);
                let moved = self.e.scaled(index, term.stride * bytes);
                sum = self.e.b.ins().iadd(sum, moved);
            }
        }
        if i32::try_from(constant + 16).is_ok() {
            (sum, constant)
        } else {
            (self.e.b.ins().iadd_imm_s(sum, constant), 0)
        }
    }

    /// The address, or that of zero bytes where `condition` fails.
    fn safe(&mut self, address: (Value, i64), condition: Option<Value>) -> (Value, i64) {
        let Some(condition) = condition else { return address };
        let full = self.e.b.ins().iadd_imm_s(address.0, address.1);
        let zeros = self.e.b.ins().iadd_imm_s(self.base, -(PADDING as i64));
        (self.e.b.ins().select(condition, full, zeros), 0)
    }

    /// Loads at a point; zero where a guard fails.
    pub(super) fn load(&mut self, location: &Location, dtype: DType, point: &Point) -> Value {
        let conditions = self.conditions(location, point);
        let guarded = conditions.all.is_some() || conditions.lanes.is_some();
        let pure = !guarded && !self.written[location.buffer.0 as usize];
        let flags = if pure { constant_memory() } else { memory() };
        let first = self.address(location, point);
        if point.width == Width::Scalar {
            let address = self.safe(first, conditions.all);
            return self.load_scalar(dtype, flags, address);
        }
        match self.along(location, point) {
            Along::Second if dtype != DType::Bool => self.load_second(location, dtype, first, flags),
            Along::Second | Along::Scattered => self.load_scattered(location, dtype, point, first, &conditions, flags),
            along @ (Along::Same | Along::Contiguous) => {
                let any = conditions.lanes.map(|lanes| self.e.b.ins().vany_true(lanes));
                let any = match (any, conditions.all) {
                    (Some(any), Some(all)) => Some(self.e.b.ins().band(any, all)),
                    (one, other) => one.or(other),
                };
                let address = self.safe(first, any);
                let value = match along {
                    Along::Contiguous => self.load_vector(dtype, flags, address),
                    Along::Same | Along::Second | Along::Scattered => {
                        let value = self.load_scalar(dtype, flags, address);
                        self.e.splat(value, dtype)
                    }
                };
                match conditions.lanes {
                    None => value,
                    Some(lanes) => {
                        let kept = self.e.bits(I32X4, value);
                        let kept = self.e.b.ins().band(kept, lanes);
                        self.e.bits(crate::cpu::code::emit::register(dtype, Width::Vector), kept)
                    }
                }
            }
        }
    }

    /// Four elements two apart. A load of odd elements reads the same vectors as one of the even ones before them, where
    /// that is known; at most one element behind the buffer is read and dropped.
    fn load_second(&mut self, location: &Location, dtype: DType, first: (Value, i64), flags: MemFlagsData) -> Value {
        let even = location.index.terms.iter().all(|(_, factor)| factor % 2 == 0);
        let odd = even && location.index.offset % 2 == 1;
        let address = (first.0, first.1 - if odd { 4 } else { 0 });
        let low = self.load_vector(dtype, flags, address);
        let high = self.load_vector(dtype, flags, (address.0, address.1 + 16));
        let lanes = if odd { [1, 3, 5, 7] } else { [0, 2, 4, 6] };
        self.shuffle(low, high, lanes)
    }

    /// Lanes of two vectors, counted 0 to 7.
    fn shuffle(&mut self, low: Value, high: Value, lanes: [u8; 4]) -> Value {
        let ty = self.e.b.func.dfg.value_type(low);
        let (low, high) = (self.e.bits(I8X16, low), self.e.bits(I8X16, high));
        let bytes: Vec<u8> = lanes.iter().flat_map(|lane| (0..4).map(move |byte| lane * 4 + byte)).collect();
        let mask = self.e.b.func.dfg.immediates.push(bytes.into());
        let mixed = self.e.b.ins().shuffle(low, high, mask);
        self.e.bits(ty, mixed)
    }

    /// Whether two stores fill neighbouring elements in turn, so that both become whole vectors.
    pub(super) fn interleaves(&self, store: &Store, next: &Store, point: &Point) -> bool {
        let (a, b) = (&store.location, &next.location);
        point.width == Width::Vector
            && matches!(self.along(a, point), Along::Second)
            && matches!(self.along(b, point), Along::Second)
            && a.buffer == b.buffer
            && a.index.terms == b.index.terms
            && a.index.offset + 1 == b.index.offset
            && !store.accumulate
            && !next.accumulate
            && self.program.buffer(a.buffer).dtype != DType::Bool
    }

    /// Two stores that [`NestEmitter::interleaves`] allows.
    pub(super) fn store_pair(&mut self, store: &Store, next: &Store, point: &Point) {
        let dtype = self.program.buffer(store.location.buffer).dtype;
        let (even, odd) = (self.value(store.value, point), self.value(next.value, point));
        let (address, offset) = self.address(&store.location, point);
        let low = self.shuffle(even, odd, [0, 4, 1, 5]);
        let high = self.shuffle(even, odd, [2, 6, 3, 7]);
        self.store_whole(dtype, low, (address, offset), false, Width::Vector);
        self.store_whole(dtype, high, (address, offset + 16), false, Width::Vector);
    }

    fn load_scattered(
        &mut self,
        location: &Location,
        dtype: DType,
        point: &Point,
        first: (Value, i64),
        conditions: &Conditions,
        flags: MemFlagsData,
    ) -> Value {
        let lane_type = if dtype == DType::F32 { F32 } else { I32 };
        let vector_type = if dtype == DType::F32 { F32X4 } else { I32X4 };
        let mut result = None;
        for lane in 0..LANES {
            let address = self.lane_address(location, point, first, lane);
            let condition = self.lane_condition(conditions, lane);
            let address = self.safe(address, condition);
            let value = self.load_raw(dtype, lane_type, flags, address);
            result = Some(match result {
                None => self.e.b.ins().scalar_to_vector(vector_type, value),
                Some(vector) => self.e.b.ins().insertlane(vector, value, lane as u8),
            });
        }
        let vector = result.expect("a vector has lanes");
        if dtype == DType::Bool { self.nonzero(vector) } else { vector }
    }

    /// Whether one lane may access memory.
    fn lane_condition(&mut self, conditions: &Conditions, lane: usize) -> Option<Value> {
        let own = conditions.lanes.map(|lanes| {
            let word = self.e.b.ins().extractlane(lanes, lane as u8);
            self.e.b.ins().icmp_imm_s(IntCC::NotEqual, word, 0)
        });
        match (own, conditions.all) {
            (Some(own), Some(all)) => Some(self.e.b.ins().band(own, all)),
            (one, other) => one.or(other),
        }
    }

    /// A mask of the lanes that are not zero.
    fn nonzero(&mut self, vector: Value) -> Value {
        let zero = self.e.words(I32X4, [0; 4]);
        self.e.b.ins().icmp(IntCC::NotEqual, vector, zero)
    }

    /// One element as a 32-bit lane.
    fn load_raw(&mut self, dtype: DType, ty: Type, flags: MemFlagsData, (address, offset): (Value, i64)) -> Value {
        match dtype {
            DType::F32 | DType::I32 => self.e.b.ins().load(ty, flags, address, offset as i32),
            DType::Bool => {
                let byte = self.e.b.ins().load(I8, flags, address, offset as i32);
                self.e.b.ins().uextend(I32, byte)
            }
        }
    }

    fn load_scalar(&mut self, dtype: DType, flags: MemFlagsData, (address, offset): (Value, i64)) -> Value {
        match dtype {
            DType::F32 => self.e.b.ins().load(F32, flags, address, offset as i32),
            DType::I32 => self.e.b.ins().load(I32, flags, address, offset as i32),
            DType::Bool => {
                let byte = self.e.b.ins().load(I8, flags, address, offset as i32);
                self.e.b.ins().icmp_imm_s(IntCC::NotEqual, byte, 0)
            }
        }
    }

    fn load_vector(&mut self, dtype: DType, flags: MemFlagsData, (address, offset): (Value, i64)) -> Value {
        match dtype {
            DType::F32 => self.e.load_floats(flags, address, offset as i32),
            DType::I32 => self.e.b.ins().load(I32X4, flags, address, offset as i32),
            DType::Bool => {
                let bytes = self.e.b.ins().load(I32, flags, address, offset as i32);
                let bytes = self.e.b.ins().scalar_to_vector(I32X4, bytes);
                let bytes = self.e.bits(I8X16, bytes);
                let halves = self.e.b.ins().uwiden_low(bytes);
                let words = self.e.b.ins().uwiden_low(halves);
                self.nonzero(words)
            }
        }
    }

    /// Stores a node at a point; nothing where a guard fails.
    pub(super) fn store(&mut self, store: &Store, point: &Point) {
        let location = &store.location;
        let dtype = self.program.buffers[location.buffer.0 as usize].dtype;
        let value = self.value(store.value, point);
        let conditions = self.conditions(location, point);
        let first = self.address(location, point);
        let whole = matches!(self.along(location, point), Along::Contiguous) && conditions.lanes.is_none();
        if point.width == Width::Scalar || whole {
            let after = conditions.all.map(|condition| self.e.begin_if(condition));
            self.store_whole(dtype, value, first, store.accumulate, point.width);
            if let Some(after) = after {
                self.e.end_if(after);
            }
            return;
        }
        for lane in 0..LANES {
            let address = self.lane_address(location, point, first, lane);
            let condition = self.lane_condition(&conditions, lane);
            let value = self.e.b.ins().extractlane(value, lane as u8);
            let value = if dtype == DType::Bool {
                let byte = self.e.b.ins().ireduce(I8, value);
                self.e.b.ins().band_imm_u(byte, 1)
            } else {
                value
            };
            let after = condition.map(|condition| self.e.begin_if(condition));
            self.store_whole(dtype, value, address, store.accumulate, Width::Scalar);
            if let Some(after) = after {
                self.e.end_if(after);
            }
        }
    }

    fn store_whole(
        &mut self,
        dtype: DType,
        value: Value,
        (address, offset): (Value, i64),
        accumulate: bool,
        width: Width,
    ) {
        let value = match (dtype, width) {
            (DType::F32, _) if accumulate => {
                let ty = crate::cpu::code::emit::register(dtype, width);
                let old = self.e.b.ins().load(ty, memory(), address, offset as i32);
                self.e.b.ins().fadd(old, value)
            }
            (DType::Bool, Width::Vector) => {
                let halves = self.e.b.ins().snarrow(value, value);
                let halves = self.e.bits(I16X8, halves);
                let bytes = self.e.b.ins().snarrow(halves, halves);
                let word = self.e.bits(I32X4, bytes);
                let word = self.e.b.ins().extractlane(word, 0);
                self.e.b.ins().band_imm_u(word, 0x0101_0101)
            }
            (DType::F32 | DType::I32 | DType::Bool, _) => value,
        };
        self.e.b.ins().store(memory(), value, address, offset as i32);
    }
}
