//! Phases of nests as AVX-512 code over whole strips: 16 lanes, functions such as the exponential inline.
//!
//! Input: a phase. Output: a [`Strip`], a function `fn(table, n)` over n points of the lane loop, where everything that
//! moves along the lanes does so by one element; `None` for phases that stay with the vectors of four lanes.
//! Invariant: a node has the same bits here and there: the same operations in the same order, never contracted, and a
//! function's operations are recorded from its primitive.
//!
//! `code` is the straight-line code of 16 points, `loops` makes it a function, `encode` knows the instructions;
//! [`super::strips`] is what the nest's own code does to run it.

mod code;
mod encode;
mod loops;

use crate::cpu::code::calls::{Call, call_of, extremum_operands};
use crate::graph::{Binary, Compare, DType, Unary};
use crate::kernel::{BufferId, Linear, Location, NodeId, NodeOp, Phase, ReductionKind};
use code::{Code, Id, Op, Pair, Reading, Single, Sink, Take, Test};

pub(super) use loops::{ACCUMULATORS, RESULTS, TABLE_BYTES, UNIFORMS};

/// Most addresses and most uniforms of a table.
const MOST: usize = 64;
/// Most reductions of a phase.
const MOST_REDUCTIONS: usize = 8;
/// Least operations of a strip that pay for its call.
const LEAST_WORK: usize = 192;
/// Lanes of a vector.
pub(super) const LANES: usize = 16;

/// A phase's function and what its table holds.
pub(super) struct Strip {
    /// Machine code.
    pub bytes: Vec<u8>,
    /// Addresses of elements that move along with the lanes.
    pub streams: Vec<Stream>,
    /// Numbers that are the same at all lanes.
    pub uniforms: Vec<Uniform>,
    /// The phase's reductions end in the table, and go on over several strips.
    pub carried: bool,
}

/// Elements that move along with the lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// What a node loads.
    Load(NodeId),
    /// Where a store of the phase goes.
    Store(usize),
    /// The slot of an earlier phase's (or this phase's) reduction.
    Reduced(usize, usize),
}

/// A number that is the same at all lanes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Uniform {
    /// A node's value; a mask for truth values.
    Node(NodeId),
    /// An affine function at the first point of a strip.
    Index(Linear),
}

/// What the analysis of the nest knows about a phase.
pub(super) struct Facts<'a> {
    /// The phase and its number.
    pub phase: (&'a Phase, usize),
    /// The lane loop and its extent.
    pub lane: (usize, usize),
    /// The lanes are outer points.
    pub outer_lanes: bool,
    /// Per node: does it differ along the lanes?
    pub varying: &'a [bool],
    pub dtype: &'a dyn Fn(BufferId) -> DType,
}

/// The strip function of a phase, where there is one and it pays.
pub(super) fn strip(facts: &Facts<'_>) -> Option<Strip> {
    let phase = facts.phase.0;
    let reduces = !phase.reductions.is_empty();
    // A phase without inner loops at a single outer point is scalar code.
    if !facts.outer_lanes && phase.inner.is_empty() || phase.reductions.len() > MOST_REDUCTIONS {
        return None;
    }
    let carried = !facts.outer_lanes && reduces && phase.inner.len() > 1;
    let mut lowering = Lowering { facts, code: Code::default(), streams: Vec::new(), uniforms: Vec::new() };
    lowering.stores()?;
    lowering.reductions()?;
    let (code, streams, uniforms) = (lowering.code, lowering.streams, lowering.uniforms);
    let fits = streams.len() <= MOST && uniforms.len() <= MOST;
    let works = facts.lane.1 >= LANES && facts.lane.1 * (code.ops.len() + code.sinks.len()) >= LEAST_WORK;
    if !fits || !works || code.sinks.is_empty() {
        return None;
    }
    let bytes = loops::function(&code, carried)?;
    Some(Strip { bytes, streams, uniforms, carried })
}

/// A phase on its way to straight-line code.
struct Lowering<'a> {
    facts: &'a Facts<'a>,
    code: Code,
    streams: Vec<Stream>,
    uniforms: Vec<Uniform>,
}

fn position<T: PartialEq>(list: &mut Vec<T>, item: T) -> usize {
    list.iter().position(|known| *known == item).unwrap_or_else(|| {
        list.push(item);
        list.len() - 1
    })
}

impl Lowering<'_> {
    fn stream(&mut self, stream: Stream) -> usize {
        position(&mut self.streams, stream)
    }

    fn load(&mut self, stream: Stream) -> Id {
        let number = self.stream(stream);
        self.code.push(Op::Stream(number))
    }

    fn uniform(&mut self, uniform: Uniform) -> Id {
        let number = position(&mut self.uniforms, uniform);
        self.code.push(Op::Uniform(number))
    }

    /// Whether a location moves by one element along the lanes.
    fn moves(&self, location: &Location) -> bool {
        location.indirect.is_empty()
            && location.index.coefficient(self.facts.lane.0) == 1
            && (self.facts.dtype)(location.buffer) != DType::Bool
    }

    fn stores(&mut self) -> Option<()> {
        let phase = self.facts.phase.0;
        for (number, store) in phase.stores.iter().enumerate() {
            if !self.moves(&store.location) || !store.location.guards.is_empty() {
                return None;
            }
            let stream = self.stream(Stream::Store(number));
            let mut value = self.value(store.value)?;
            if store.accumulate {
                let old = self.code.push(Op::Stream(stream));
                value = self.code.push(Op::Pair(Pair::Add, old, value));
            }
            self.code.sinks.push(Sink::Store(stream, value));
        }
        Some(())
    }

    fn reductions(&mut self) -> Option<()> {
        let (phase, number) = self.facts.phase;
        for (index, reduction) in phase.reductions.iter().enumerate() {
            let take = match reduction.kind {
                ReductionKind::Sum => Take::Sum,
                ReductionKind::Max => Take::Max,
                ReductionKind::ArgMax => return None,
            };
            let plain = phase.inner.is_empty();
            if !plain && phase.nodes[reduction.node.0 as usize].dtype != DType::F32 {
                return None;
            }
            let value = self.value(reduction.node)?;
            if !self.facts.outer_lanes {
                self.code.sinks.push(Sink::Accumulate(take, value));
                continue;
            }
            let stream = Stream::Reduced(number, index);
            let value = match (plain, take) {
                (true, _) => value,
                (false, Take::Sum) => {
                    let old = self.load(stream);
                    self.code.push(Op::Pair(Pair::Add, old, value))
                }
                (false, Take::Max) => {
                    let old = self.load(stream);
                    self.extremum(Pair::Max, old, value, false)
                }
            };
            let stream = self.stream(stream);
            self.code.sinks.push(Sink::Store(stream, value));
        }
        Some(())
    }

    fn dtype(&self, id: NodeId) -> DType {
        self.facts.phase.0.nodes[id.0 as usize].dtype
    }

    fn number(&mut self, x: f64, dtype: DType) -> Id {
        self.code.push(Op::Const(match dtype {
            DType::F32 => (x as f32).to_bits(),
            DType::I32 => x as i32 as u32,
            DType::Bool => u32::from(x != 0.0).wrapping_neg(),
        }))
    }

    fn value(&mut self, id: NodeId) -> Option<Id> {
        let node = &self.facts.phase.0.nodes[id.0 as usize];
        if let NodeOp::Const(x) = node.op {
            return Some(self.number(x, node.dtype));
        }
        if !self.facts.varying[id.0 as usize] {
            return Some(self.uniform(Uniform::Node(id)));
        }
        let float = node.dtype == DType::F32;
        Some(match &node.op {
            NodeOp::Const(_) => unreachable!("constants are done"),
            NodeOp::Index(linear) => {
                let index = self.index(linear);
                if float { self.code.push(Op::Single(Single::ToFloat, index)) } else { index }
            }
            NodeOp::Load(location) if self.moves(location) => self.guarded(id, location),
            NodeOp::Load(_) | NodeOp::Random { .. } => return None,
            NodeOp::Reduced { phase, index } => self.load(Stream::Reduced(*phase, *index)),
            NodeOp::Unary(unary, x) => {
                let x = self.value(*x)?;
                self.unary(*unary, x, &node.op, node.dtype)?
            }
            NodeOp::Binary(binary @ (Binary::Max | Binary::Min), x, y) if float => {
                let (x, y, number) = extremum_operands(&self.facts.phase.0.nodes, *x, *y);
                let (x, y) = (self.value(x)?, self.value(y)?);
                let pair = if *binary == Binary::Max { Pair::Max } else { Pair::Min };
                self.extremum(pair, x, y, number)
            }
            NodeOp::Binary(binary, x, y) => {
                let (x, y) = (self.value(*x)?, self.value(*y)?);
                self.binary(*binary, x, y, float)?
            }
            NodeOp::Compare(compare, x, y) => {
                let reading = reading(self.dtype(*x));
                let (x, y) = (self.value(*x)?, self.value(*y)?);
                self.code.push(Op::Compare(Test { compare: *compare, reading }, x, y))
            }
            NodeOp::Select(condition, yes, no) => self.select(*condition, *yes, *no)?,
            NodeOp::Cast(x) => {
                let (from, x) = (self.dtype(*x), self.value(*x)?);
                self.cast(x, from, node.dtype)?
            }
        })
    }

    /// A comparison that chooses needs no truth value in a vector.
    fn select(&mut self, condition: NodeId, yes: NodeId, no: NodeId) -> Option<Id> {
        let nodes = &self.facts.phase.0.nodes;
        if let (NodeOp::Compare(compare, x, y), true) =
            (&nodes[condition.0 as usize].op, self.facts.varying[condition.0 as usize])
        {
            let test = Test { compare: *compare, reading: reading(self.dtype(*x)) };
            let (x, y) = (self.value(*x)?, self.value(*y)?);
            let (yes, no) = (self.value(yes)?, self.value(no)?);
            return Some(self.code.push(Op::ChooseBy(test, x, y, yes, no)));
        }
        let condition = self.value(condition)?;
        let (yes, no) = (self.value(yes)?, self.value(no)?);
        Some(self.code.push(Op::Choose(condition, yes, no)))
    }

    /// A load; zero where a guard fails.
    fn guarded(&mut self, id: NodeId, location: &Location) -> Id {
        let test = Test { compare: Compare::Lt, reading: Reading::Unsigned };
        let conditions = location.guards.iter().map(|(linear, extent)| {
            let index = self.index(linear);
            let extent = self.number(*extent as f64, DType::I32);
            self.code.push(Op::Compare(test, index, extent))
        });
        let conditions: Vec<Id> = conditions.collect();
        match conditions.into_iter().reduce(|a, b| self.code.push(Op::Pair(Pair::And, a, b))) {
            None => self.load(Stream::Load(id)),
            Some(condition) => {
                let number = self.stream(Stream::Load(id));
                self.code.push(Op::StreamWhere(number, condition))
            }
        }
    }

    fn index(&mut self, linear: &Linear) -> Id {
        let first = self.uniform(Uniform::Index(linear.clone()));
        if linear.coefficient(self.facts.lane.0) == 0 {
            return first;
        }
        let lane = self.code.push(Op::Lane);
        let step = linear.coefficient(self.facts.lane.0);
        let moved = match step {
            1 => lane,
            step => {
                let step = self.number(step as f64, DType::I32);
                self.code.push(Op::Pair(Pair::IntMul, lane, step))
            }
        };
        self.code.push(Op::Pair(Pair::IntAdd, moved, first))
    }

    fn unary(&mut self, unary: Unary, x: Id, op: &NodeOp, dtype: DType) -> Option<Id> {
        let bits = |this: &mut Self, pair, bits| {
            let other = this.code.push(Op::Const(bits));
            this.code.push(Op::Pair(pair, x, other))
        };
        let float = dtype == DType::F32;
        Some(match unary {
            Unary::Neg if float => bits(self, Pair::Xor, 1 << 31),
            Unary::Neg => {
                let zero = self.number(0.0, DType::I32);
                self.code.push(Op::Pair(Pair::IntSub, zero, x))
            }
            Unary::Abs if float => bits(self, Pair::And, !(1 << 31)),
            Unary::Abs => return None,
            Unary::Sqrt => self.code.push(Op::Single(Single::Sqrt, x)),
            Unary::Floor => self.code.push(Op::Single(Single::Floor, x)),
            Unary::Not => bits(self, Pair::Xor, u32::MAX),
            Unary::Exp | Unary::Log | Unary::Sin | Unary::Cos | Unary::Tanh | Unary::Sigmoid | Unary::Erf => {
                match call_of(op)? {
                    Call::Vector(function) => self.code.call(function, x)?,
                    Call::Pow | Call::Random => unreachable!("neither is a function of one argument"),
                }
            }
        })
    }

    fn binary(&mut self, binary: Binary, x: Id, y: Id, float: bool) -> Option<Id> {
        let (pair, x, y) = match binary {
            Binary::Add => (if float { Pair::Add } else { Pair::IntAdd }, x, y),
            Binary::Sub => (if float { Pair::Sub } else { Pair::IntSub }, x, y),
            Binary::Mul => (if float { Pair::Mul } else { Pair::IntMul }, x, y),
            Binary::Div if float => (Pair::Div, x, y),
            Binary::Rem if float => {
                let quotient = self.code.push(Op::Pair(Pair::Div, x, y));
                let whole = self.code.push(Op::Single(Single::Floor, quotient));
                let taken = self.code.push(Op::Pair(Pair::Mul, whole, y));
                (Pair::Sub, x, taken)
            }
            Binary::Div | Binary::Rem | Binary::Pow => return None,
            Binary::Max => (Pair::IntMax, x, y),
            Binary::Min => (Pair::IntMin, x, y),
            Binary::And => (Pair::And, x, y),
            Binary::Or => (Pair::Or, x, y),
        };
        Some(self.code.push(Op::Pair(pair, x, y)))
    }

    /// The larger (smaller) of two floats; NaN where x is, and where y is if that is not known to be a number.
    fn extremum(&mut self, pair: Pair, x: Id, y: Id, y_is_number: bool) -> Id {
        // The instructions give their second operand where either is NaN.
        let extremum = self.code.push(Op::Pair(pair, y, x));
        if y_is_number {
            return extremum;
        }
        let nan = Test { compare: Compare::Ne, reading: Reading::Float };
        self.code.push(Op::ChooseBy(nan, y, y, y, extremum))
    }

    fn cast(&mut self, x: Id, from: DType, to: DType) -> Option<Id> {
        Some(match (from, to) {
            (DType::F32, DType::F32) | (DType::I32, DType::I32) | (DType::Bool, DType::Bool) => x,
            (DType::F32, DType::I32) => return None,
            (DType::I32, DType::F32) => self.code.push(Op::Single(Single::ToFloat, x)),
            (DType::Bool, DType::F32 | DType::I32) => {
                let (one, zero) = (self.number(1.0, to), self.number(0.0, to));
                self.code.push(Op::Choose(x, one, zero))
            }
            (DType::F32 | DType::I32, DType::Bool) => {
                let zero = self.number(0.0, from);
                let test = Test { compare: Compare::Ne, reading: reading(from) };
                self.code.push(Op::Compare(test, x, zero))
            }
        })
    }
}

fn reading(dtype: DType) -> Reading {
    match dtype {
        DType::F32 => Reading::Float,
        DType::I32 => Reading::Signed,
        DType::Bool => Reading::Unsigned,
    }
}
