//! Reductions of nests: accumulators, their order, their results.
//!
//! Input: a phase's reductions and points. Output: scalars, or values in strip slots where lanes are outer points.
//! Invariant: the order of combination depends on the nest alone. Outer lanes combine in row-major order. Inner lanes
//! keep one accumulator per lane and unrolled vector and one for the scalar tail; at the end vectors are combined
//! pairwise, then lanes 0 with 2 and 1 with 3, then those two, then the tail.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Value};
use cranelift_frontend::Variable;

use crate::cpu::code::emit::{Width, register};
use crate::cpu::code::nest::{NestEmitter, Point};
use crate::graph::DType;
use crate::kernel::{Linear, Reduction, ReductionKind};

/// The running state of one reduction.
#[derive(Clone, Copy)]
pub(super) struct Accumulator {
    value: Variable,
    /// `ArgMax` only.
    index: Option<Variable>,
}

/// A value with its index, for `ArgMax`.
#[derive(Clone, Copy)]
struct Partial {
    value: Value,
    index: Option<Value>,
}

impl NestEmitter<'_, '_> {
    fn reductions(&self) -> Vec<Reduction> {
        self.plan.nest.phases[self.phase].reductions.clone()
    }

    /// The value that changes nothing.
    fn identity(&mut self, reduction: Reduction, width: Width) -> Value {
        let dtype = self.dtype(reduction.node);
        let number = match (reduction.kind, dtype) {
            (ReductionKind::Sum, _) => 0.0,
            (ReductionKind::Max | ReductionKind::ArgMax, DType::F32) => f64::NEG_INFINITY,
            (ReductionKind::Max | ReductionKind::ArgMax, DType::I32) => f64::from(i32::MIN),
            (ReductionKind::Max | ReductionKind::ArgMax, DType::Bool) => 0.0,
        };
        self.e.number(number, dtype, width)
    }

    /// Fresh accumulators of all reductions; an `ArgMax` that meets nothing greater than −∞ keeps `first_index`.
    pub(super) fn accumulators(&mut self, width: Width, first_index: i64) -> Vec<Accumulator> {
        let reductions = self.reductions();
        reductions
            .into_iter()
            .map(|reduction| {
                let dtype = self.dtype(reduction.node);
                let value = self.e.b.declare_var(register(dtype, width));
                let start = self.identity(reduction, width);
                self.e.b.def_var(value, start);
                let index = (reduction.kind == ReductionKind::ArgMax).then(|| {
                    let index = self.e.b.declare_var(register(DType::I32, width));
                    let start = self.e.number(first_index as f64, DType::I32, width);
                    self.e.b.def_var(index, start);
                    index
                });
                Accumulator { value, index }
            })
            .collect()
    }

    /// The row-major index over the inner loops of the phase.
    fn inner_index(&mut self, point: &Point) -> Value {
        let plan = self.plan;
        let first = plan.nest.outer.len();
        let inner = &plan.nest.phases[self.phase].inner;
        let mut terms = Vec::new();
        let mut stride = 1;
        for (position, extent) in inner.iter().enumerate().rev() {
            terms.push((first + position, stride));
            stride *= *extent as i64;
        }
        terms.reverse();
        self.index(&Linear { terms, offset: 0 }, point)
    }

    /// `a` with `b` taken in; `b` comes later.
    fn combine(&mut self, reduction: Reduction, a: Partial, b: Partial, width: Width) -> Partial {
        let dtype = self.dtype(reduction.node);
        match (reduction.kind, a.index, b.index) {
            (ReductionKind::Sum, ..) if dtype == DType::F32 => {
                Partial { value: self.e.b.ins().fadd(a.value, b.value), index: None }
            }
            (ReductionKind::Sum, ..) => Partial { value: self.e.b.ins().iadd(a.value, b.value), index: None },
            (ReductionKind::ArgMax, Some(first), Some(second)) => {
                let greater = self.exceeds(b.value, a.value, dtype);
                Partial {
                    value: self.e.choose(greater, b.value, a.value, width),
                    index: Some(self.e.choose(greater, second, first, width)),
                }
            }
            (ReductionKind::Max | ReductionKind::ArgMax, ..) if dtype == DType::F32 => {
                Partial { value: self.e.larger(a.value, b.value, false, width), index: None }
            }
            (ReductionKind::Max | ReductionKind::ArgMax, ..) => {
                Partial { value: self.e.b.ins().smax(a.value, b.value), index: None }
            }
        }
    }

    /// Whether `b` replaces `a` as the maximum: a NaN exceeds every number.
    fn exceeds(&mut self, b: Value, a: Value, dtype: DType) -> Value {
        match dtype {
            DType::F32 => {
                let above = self.e.b.ins().fcmp(FloatCC::UnorderedOrGreaterThan, b, a);
                let number = self.e.b.ins().fcmp(FloatCC::Ordered, a, a);
                self.e.b.ins().band(above, number)
            }
            DType::I32 | DType::Bool => self.e.b.ins().icmp(IntCC::SignedGreaterThan, b, a),
        }
    }

    /// Whether neither exceeds the other.
    fn ties(&mut self, a: Value, b: Value, dtype: DType) -> Value {
        match dtype {
            DType::F32 => {
                let equal = self.e.b.ins().fcmp(FloatCC::Equal, a, b);
                let (first, second) = (self.nan(a), self.nan(b));
                let both = self.e.b.ins().band(first, second);
                self.e.b.ins().bor(equal, both)
            }
            DType::I32 | DType::Bool => self.e.b.ins().icmp(IntCC::Equal, a, b),
        }
    }

    fn nan(&mut self, x: Value) -> Value {
        self.e.b.ins().fcmp(FloatCC::Unordered, x, x)
    }

    /// `combine` for partials whose indices interleave: of equal values that with the smaller index.
    fn combine_unordered(&mut self, reduction: Reduction, a: Partial, b: Partial, width: Width) -> Partial {
        let (Some(first), Some(second)) = (a.index, b.index) else {
            return self.combine(reduction, a, b, width);
        };
        let dtype = self.dtype(reduction.node);
        let greater = self.exceeds(b.value, a.value, dtype);
        let equal = self.ties(a.value, b.value, dtype);
        let before = self.e.b.ins().icmp(IntCC::SignedLessThan, second, first);
        let tie = self.e.b.ins().band(equal, before);
        let take = self.e.b.ins().bor(greater, tie);
        Partial {
            value: self.e.choose(take, b.value, a.value, width),
            index: Some(self.e.choose(take, second, first, width)),
        }
    }

    /// The phase's reductions take in a point.
    pub(super) fn accumulate(&mut self, accumulators: &[Accumulator], point: &Point) {
        for (reduction, accumulator) in self.reductions().into_iter().zip(accumulators) {
            let new = self.partial_at(reduction, point);
            let old = Partial {
                value: self.e.b.use_var(accumulator.value),
                index: accumulator.index.map(|index| self.e.b.use_var(index)),
            };
            let sum = self.combine(reduction, old, new, point.width);
            self.e.b.def_var(accumulator.value, sum.value);
            if let (Some(variable), Some(index)) = (accumulator.index, sum.index) {
                self.e.b.def_var(variable, index);
            }
        }
    }

    fn partial_at(&mut self, reduction: Reduction, point: &Point) -> Partial {
        let value = self.value(reduction.node, point);
        let index = (reduction.kind == ReductionKind::ArgMax).then(|| self.inner_index(point));
        Partial { value, index }
    }

    /// Starts the reductions that live in slots.
    pub(super) fn clear_slots(&mut self, point: &Point) {
        let plan = self.plan;
        for (position, reduction) in self.reductions().into_iter().enumerate() {
            let slot = plan.phases[self.phase].reduced[position];
            let dtype = self.dtype(reduction.node);
            let start = self.identity(reduction, point.width);
            if reduction.kind == ReductionKind::ArgMax {
                let index = self.e.number(0.0, DType::I32, point.width);
                self.store_slot(slot, index, DType::I32, point);
                self.store_slot(slot + 1, start, dtype, point);
            } else {
                self.store_slot(slot, start, dtype, point);
            }
        }
    }

    /// The reductions that live in slots take in a point; without inner loops the value itself is kept.
    pub(super) fn accumulate_slots(&mut self, point: &Point) {
        let plan = self.plan;
        let plain = plan.nest.phases[self.phase].inner.is_empty();
        for (position, reduction) in self.reductions().into_iter().enumerate() {
            let slot = plan.phases[self.phase].reduced[position];
            let dtype = self.dtype(reduction.node);
            if plain {
                let (value, dtype) = match reduction.kind {
                    ReductionKind::ArgMax => (self.e.number(0.0, DType::I32, point.width), DType::I32),
                    ReductionKind::Sum | ReductionKind::Max => (self.value(reduction.node, point), dtype),
                };
                self.store_slot(slot, value, dtype, point);
                continue;
            }
            let new = self.partial_at(reduction, point);
            if new.index.is_some() {
                let value = self.load_slot(slot + 1, dtype, point);
                let index = Some(self.load_slot(slot, DType::I32, point));
                let sum = self.combine(reduction, Partial { value, index }, new, point.width);
                self.store_slot(slot + 1, sum.value, dtype, point);
                self.store_slot(slot, sum.index.expect("ArgMax has an index"), DType::I32, point);
            } else {
                let value = self.load_slot(slot, dtype, point);
                let sum = self.combine(reduction, Partial { value, index: None }, new, point.width);
                self.store_slot(slot, sum.value, dtype, point);
            }
        }
    }

    /// Moves results from registers to slots.
    pub(super) fn keep_results(&mut self, accumulators: &[Accumulator], point: &Point) {
        let plan = self.plan;
        for (position, (reduction, accumulator)) in self.reductions().into_iter().zip(accumulators).enumerate() {
            let slot = plan.phases[self.phase].reduced[position];
            let (variable, dtype) = match accumulator.index {
                Some(index) => (index, DType::I32),
                None => (accumulator.value, self.dtype(reduction.node)),
            };
            let value = self.e.b.use_var(variable);
            self.store_slot(slot, value, dtype, point);
        }
    }

    /// The values that a phase without inner loops passes on; the only element is the first maximum.
    pub(super) fn plain_results(&mut self) -> Vec<Value> {
        let reductions = self.reductions();
        reductions
            .into_iter()
            .map(|reduction| match reduction.kind {
                ReductionKind::ArgMax => self.e.number(0.0, DType::I32, Width::Scalar),
                ReductionKind::Sum | ReductionKind::Max => self.uniform(reduction.node),
            })
            .collect()
    }

    /// The results of inner lanes, and of scalar loops where there are no vectors.
    pub(super) fn finish(&mut self, vectors: &[Vec<Accumulator>], scalar: &[Accumulator]) -> Vec<Value> {
        let reductions = self.reductions();
        reductions
            .into_iter()
            .enumerate()
            .map(|(position, reduction)| {
                let tail = self.read(scalar[position]);
                let mut partials: Vec<Partial> = vectors.iter().map(|vector| self.read(vector[position])).collect();
                while partials.len() > 1 {
                    let upper = partials.split_off(partials.len() / 2);
                    for (low, high) in partials.iter_mut().zip(upper) {
                        *low = self.combine_unordered(reduction, *low, high, Width::Vector);
                    }
                }
                let whole = match partials.first() {
                    None => tail,
                    Some(vector) => {
                        let lanes = self.combine_lanes(reduction, *vector);
                        self.combine_unordered(reduction, lanes, tail, Width::Scalar)
                    }
                };
                match whole.index {
                    None => whole.value,
                    Some(index) => self.known_index(index),
                }
            })
            .collect()
    }

    fn read(&mut self, accumulator: Accumulator) -> Partial {
        Partial {
            value: self.e.b.use_var(accumulator.value),
            index: accumulator.index.map(|index| self.e.b.use_var(index)),
        }
    }

    fn combine_lanes(&mut self, reduction: Reduction, vector: Partial) -> Partial {
        let mut lane = |number: u8| Partial {
            value: self.e.b.ins().extractlane(vector.value, number),
            index: vector.index.map(|index| self.e.b.ins().extractlane(index, number)),
        };
        let lanes = [lane(0), lane(1), lane(2), lane(3)];
        let even = self.combine_unordered(reduction, lanes[0], lanes[2], Width::Scalar);
        let odd = self.combine_unordered(reduction, lanes[1], lanes[3], Width::Scalar);
        self.combine_unordered(reduction, even, odd, Width::Scalar)
    }

    /// An index that met nothing greater than −∞ is that of the first element.
    fn known_index(&mut self, index: Value) -> Value {
        let none = self.e.b.ins().icmp_imm_s(IntCC::Equal, index, i64::from(i32::MAX));
        let first = self.e.number(0.0, DType::I32, Width::Scalar);
        self.e.b.ins().select(none, first, index)
    }

    /// The result of an earlier phase's reduction.
    pub(super) fn reduced(&mut self, phase: usize, index: usize, dtype: DType, point: &Point) -> Value {
        if self.plan.outer_lanes {
            return self.load_slot(self.plan.phases[phase].reduced[index], dtype, point);
        }
        self.results[phase][index]
    }
}
