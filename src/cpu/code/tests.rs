//! Machine code against the loop IR's interpreter, at every level and several numbers of threads.

use super::step::Thresholds;
use super::{Options, load_dividing};
use crate::cpu::run::Arena;
use crate::device::StepInput;
use crate::graph::{Binary, Compare, DType, Unary};
use crate::kernel::interpret::{self, interpret};
use crate::kernel::{
    Buffer, BufferId, IndirectTerm, Kernel, KernelKind, Lanes, Linear, Location, Nest, Node, NodeId, NodeOp, Phase,
    Program, Reduction, ReductionKind, Role, Store,
};
use crate::machine::Level;
use crate::machine::pool::Pool;
use crate::source::Span;

mod nests;
mod steps;
mod wide;

const THREADS: [usize; 4] = [1, 2, 3, 7];
const INPUT: StepInput = StepInput { seed: 0x1234_5678_9abc, step: 5 };

/// A program under construction, with the contents of its buffers.
#[derive(Default)]
struct Case {
    program: Program,
    data: Vec<Vec<f64>>,
}

/// Numbers in [−2, 2), the same in each run, exact in f32.
fn numbers(count: usize, salt: u64) -> Vec<f64> {
    (0..count as u64)
        .map(|position| {
            let mixed = (position + 1)
                .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                .wrapping_add(salt.wrapping_mul(0xD1B5_4A32_D192_ED03));
            let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            ((mixed >> 44) as f64 / 262_144.0) - 2.0
        })
        .collect()
}

impl Case {
    fn buffer(&mut self, dtype: DType, data: Vec<f64>) -> BufferId {
        let id = BufferId(self.program.buffers.len() as u32);
        let bytes = data.len() * if dtype == DType::Bool { 1 } else { 4 };
        self.program.buffers.push(Buffer {
            role: Role::Temporary(format!("b{}", id.0)),
            dtype,
            sizes: vec![data.len()],
            offset: self.program.arena_bytes,
        });
        self.program.arena_bytes += bytes.next_multiple_of(64);
        self.data.push(data);
        id
    }

    fn floats(&mut self, count: usize) -> BufferId {
        let salt = self.data.len() as u64;
        self.buffer(DType::F32, numbers(count, salt))
    }

    fn zeros(&mut self, dtype: DType, count: usize) -> BufferId {
        self.buffer(dtype, vec![0.0; count])
    }

    fn kernel(&mut self, kind: KernelKind) {
        let name = format!("k{}", self.program.kernels.len());
        self.program.kernels.push(Kernel { kind, name, span: Span::new(crate::source::FileId(0), 0, 0) });
    }

    fn nest(&mut self, outer: &[usize], parallel: usize, lanes: Lanes, phases: Vec<Phase>) {
        self.kernel(KernelKind::Nest(Nest { outer: outer.to_vec(), parallel, lanes, phases }));
    }

    /// The arena's bytes after one step.
    fn run(&self, level: Level, threads: usize) -> Arena {
        let options = Options { level, profile: false, tuning: Default::default() };
        // Small cases too are divided among threads.
        let executable = load_dividing(&self.program, &options, Thresholds::NONE).expect("it compiles");
        let mut arena = self.filled();
        executable.run(&mut arena, &Pool::new(threads), INPUT);
        arena
    }

    /// The arena before the step.
    fn filled(&self) -> Arena {
        let mut arena = Arena::new(&self.program).expect("memory");
        for (buffer, data) in self.program.buffers.iter().zip(&self.data) {
            match buffer.dtype {
                DType::F32 => arena.f32_mut(buffer).iter_mut().zip(data).for_each(|(to, from)| *to = *from as f32),
                DType::I32 => arena.i32_mut(buffer).iter_mut().zip(data).for_each(|(to, from)| *to = *from as i32),
                DType::Bool => arena.bool_mut(buffer).iter_mut().zip(data).for_each(|(to, from)| *to = *from as u8),
            }
        }
        arena
    }

    /// Compares with the interpreter within `tolerance`, relative to 1 + |expected|, and all thread counts bit by bit.
    fn check(&self, tolerance: f64) {
        let mut expected = interpret::Arena::new(self.program.arena_bytes);
        for (buffer, data) in self.program.buffers.iter().zip(&self.data) {
            expected.write(buffer, data);
        }
        interpret(&self.program, &mut expected, INPUT.seed, INPUT.step);
        for level in Level::available() {
            let first = self.run(level, 1);
            for buffer in &self.program.buffers {
                let found: Vec<f64> = match buffer.dtype {
                    DType::F32 => first.f32(buffer).iter().map(|x| f64::from(*x)).collect(),
                    DType::I32 => first.i32(buffer).iter().map(|x| f64::from(*x)).collect(),
                    DType::Bool => first.bool(buffer).iter().map(|x| f64::from(*x)).collect(),
                };
                for (position, (found, expected)) in found.iter().zip(expected.read(buffer)).enumerate() {
                    let same = found.is_nan() && expected.is_nan() || *found == expected;
                    let close = (found - expected).abs() <= tolerance * (1.0 + expected.abs());
                    assert!(same || close, "{level}: {}[{position}] is {found}, not {expected}", buffer.role);
                }
            }
            for threads in &THREADS[1..] {
                let other = self.run(level, *threads);
                for buffer in &self.program.buffers {
                    assert!(
                        other.raw(buffer) == first.raw(buffer),
                        "{level}: {} differs on {threads} threads",
                        buffer.role
                    );
                }
            }
        }
    }
}

/// `Σ coefficient · loop + offset`.
fn linear(terms: &[(usize, i64)], offset: i64) -> Linear {
    Linear { terms: terms.to_vec(), offset }
}

fn at(buffer: BufferId, terms: &[(usize, i64)]) -> Location {
    Location { buffer, index: linear(terms, 0), guards: Vec::new(), indirect: Vec::new() }
}

/// A phase under construction.
#[derive(Default)]
struct Code {
    nodes: Vec<Node>,
    reductions: Vec<Reduction>,
    stores: Vec<Store>,
}

impl Code {
    fn node(&mut self, op: NodeOp, dtype: DType) -> NodeId {
        self.nodes.push(Node { op, dtype });
        NodeId(self.nodes.len() as u32 - 1)
    }

    fn f32(&mut self, op: NodeOp) -> NodeId {
        self.node(op, DType::F32)
    }

    fn load(&mut self, location: Location) -> NodeId {
        self.f32(NodeOp::Load(location))
    }

    fn number(&mut self, number: f64) -> NodeId {
        self.f32(NodeOp::Const(number))
    }

    fn unary(&mut self, unary: Unary, x: NodeId) -> NodeId {
        self.f32(NodeOp::Unary(unary, x))
    }

    fn binary(&mut self, binary: Binary, x: NodeId, y: NodeId) -> NodeId {
        self.f32(NodeOp::Binary(binary, x, y))
    }

    fn reduced(&mut self, phase: usize, index: usize) -> NodeId {
        self.f32(NodeOp::Reduced { phase, index })
    }

    fn reduce(&mut self, kind: ReductionKind, node: NodeId) {
        self.reductions.push(Reduction { kind, node });
    }

    fn store(&mut self, location: Location, value: NodeId) {
        self.stores.push(Store { location, value, accumulate: false });
    }

    fn add(&mut self, location: Location, value: NodeId) {
        self.stores.push(Store { location, value, accumulate: true });
    }

    fn phase(self, inner: &[usize]) -> Phase {
        Phase { inner: inner.to_vec(), nodes: self.nodes, reductions: self.reductions, stores: self.stores }
    }
}
