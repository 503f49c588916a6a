//! How a nest's code runs a strip function: it fills the table and calls.
//!
//! Input: a phase with a [`Strip`] and a range of its lane loop. Output: instructions. Invariant: the table lies behind
//! the strip slots in the thread's scratch, and nothing in it lives longer than a phase at one outer point.

use cranelift_codegen::ir::types::{F32, F32X4, I32};
use cranelift_codegen::ir::{InstBuilder, Value};

use crate::cpu::code::emit::{Width, memory};
use crate::cpu::code::nest::{NestEmitter, Point};
use crate::cpu::code::wide::{ACCUMULATORS, LANES, RESULTS, Stream, Strip, UNIFORMS, Uniform};
use crate::graph::DType;
use crate::kernel::ReductionKind;

impl NestEmitter<'_, '_> {
    /// A place of the table, as an offset from this thread's scratch.
    fn table(&self, offset: usize) -> i32 {
        (self.plan.table + offset) as i32
    }

    /// The points `from..to` of the lane loop through the strip function of the phase at hand. Its uniforms are there.
    pub(super) fn run_strip(&mut self, strip: &Strip, from: Value, to: Value) {
        let first = Point { start: from, ahead: 0, width: Width::Scalar };
        for (number, stream) in strip.streams.iter().enumerate() {
            let address = self.stream_address(*stream, &first);
            let place = self.table(8 * number);
            self.e.b.ins().store(memory(), address, self.scratch, place);
        }
        for (number, uniform) in strip.uniforms.iter().enumerate() {
            let value = match uniform {
                Uniform::Node(node) => {
                    let value = self.uniform(*node);
                    if self.dtype(*node) == DType::Bool { self.e.b.ins().bmask(I32, value) } else { value }
                }
                Uniform::Index(linear) => {
                    let index = self.linear(linear, &first);
                    self.e.b.ins().ireduce(I32, index)
                }
            };
            let place = self.table(UNIFORMS + 4 * number);
            self.e.b.ins().store(memory(), value, self.scratch, place);
        }
        let table = self.e.b.ins().iadd_imm_s(self.scratch, self.plan.table as i64);
        let count = self.e.b.ins().isub(to, from);
        let function = self.strips[self.phase].expect("a phase with a strip function has been given its name");
        self.e.b.ins().call(function, &[table, count]);
    }

    fn stream_address(&mut self, stream: Stream, first: &Point) -> Value {
        let plan = self.plan;
        let phase = &plan.nest.phases[self.phase];
        let (sum, constant) = match stream {
            Stream::Load(node) => {
                let location = phase.nodes[node.0 as usize].op.location().expect("load streams stem from loads");
                self.address(location, first)
            }
            Stream::Store(store) => self.address(&phase.stores[store].location, first),
            Stream::Reduced(phase, index) => {
                let slot = plan.phases[phase].reduced[index];
                let (address, offset) = self.slot_address(slot, first);
                (address, i64::from(offset))
            }
        };
        if constant == 0 { sum } else { self.e.b.ins().iadd_imm_s(sum, constant) }
    }

    /// Accumulators that go on over several strips start.
    pub(super) fn clear_table(&mut self, strip: &Strip) {
        if !strip.carried {
            return;
        }
        let plan = self.plan;
        for (number, reduction) in plan.nest.phases[self.phase].reductions.iter().enumerate() {
            let identity = match reduction.kind {
                ReductionKind::Sum => 0.0,
                ReductionKind::Max | ReductionKind::ArgMax => f64::NEG_INFINITY,
            };
            let start = self.e.number(identity, DType::F32, Width::Vector);
            for part in 0..LANES as i32 * 4 / F32X4.bytes() as i32 {
                let place = self.table(ACCUMULATORS + 64 * number) + part * F32X4.bytes() as i32;
                self.e.b.ins().store(memory(), start, self.scratch, place);
            }
        }
    }

    /// The results of the phase's reductions after its last strip.
    pub(super) fn table_results(&mut self) -> Vec<Value> {
        let count = self.plan.nest.phases[self.phase].reductions.len();
        let load = |number| {
            let place = self.table(RESULTS + 4 * number);
            self.e.b.ins().load(F32, memory(), self.scratch, place)
        };
        (0..count).map(load).collect()
    }
}
