//! Scalar expressions of nests as instructions, for one point or four.
//!
//! Input: nodes of a phase and a point. Output: a register per node. Invariant: a node's value has the same bits at a
//! scalar point and in a lane: the same operations in the same order, never contracted.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{F32, I32, I32X4, I64};
use cranelift_codegen::ir::{InstBuilder, Value};

use crate::cpu::code::calls::{Call, extremum_operands};
use crate::cpu::code::emit::{LANES, Width, memory, register};
use crate::cpu::code::nest::{NestEmitter, Point};
use crate::cpu::code::plan::SLOT_BYTES;
use crate::graph::{Binary, Compare, DType, Unary};
use crate::kernel::{Node, NodeId, NodeOp};

impl NestEmitter<'_, '_> {
    /// True if the node differs along the lanes.
    pub(super) fn varies(&self, node: NodeId) -> bool {
        self.plan.phases[self.phase].varying[node.0 as usize]
    }

    /// The scalar of a node that is the same at all lanes.
    pub(super) fn uniform(&self, node: NodeId) -> Value {
        self.uniforms[node.0 as usize].expect("uniform nodes are computed before the lane loop")
    }

    /// A node's value at a point. Each node is emitted once a point.
    pub(super) fn value(&mut self, id: NodeId, point: &Point) -> Value {
        if let Some(value) = self.memo[id.0 as usize] {
            return value;
        }
        let plan = self.plan;
        let phase = &plan.nest.phases[self.phase];
        let node = &phase.nodes[id.0 as usize];
        let value = match (&node.op, self.varies(id)) {
            (NodeOp::Const(number), false) => self.e.number(*number, node.dtype, point.width),
            (_, false) => {
                let scalar = self.uniform(id);
                if point.width == Width::Scalar { scalar } else { self.e.splat(scalar, node.dtype) }
            }
            (_, true) => match plan.phases[self.phase].calls[id.0 as usize] {
                Some(_) => self.load_slot(plan.phases[self.phase].slots[id.0 as usize], DType::F32, point),
                None => self.compute(node, point),
            },
        };
        self.memo[id.0 as usize] = Some(value);
        value
    }

    /// Computes all uniform nodes of the phase at hand, calls included, in the current block.
    pub(super) fn prepare_uniforms(&mut self) {
        let plan = self.plan;
        let phase = &plan.nest.phases[self.phase];
        self.uniforms = vec![None; phase.nodes.len()];
        self.memo = vec![None; phase.nodes.len()];
        let point = Point { start: self.zero, ahead: 0, width: Width::Scalar };
        for (index, node) in phase.nodes.iter().enumerate() {
            if self.varies(NodeId(index as u32)) {
                continue;
            }
            let value = match plan.phases[self.phase].calls[index] {
                Some(call) => self.call_once(call, node, &point),
                None => self.compute(node, &point),
            };
            self.uniforms[index] = Some(value);
        }
    }

    /// One element through a strip function.
    fn call_once(&mut self, call: Call, node: &Node, point: &Point) -> Value {
        let one = self.e.i64(1);
        for (slot, argument) in node.op.operands().into_iter().enumerate() {
            let argument = self.uniform(argument);
            self.e.b.ins().store(memory(), argument, self.scratch, (slot * SLOT_BYTES) as i32);
        }
        self.call_strip(call, node, 0, point, one);
        self.e.b.ins().load(F32, memory(), self.scratch, 0)
    }

    /// Emits a node that is not a varying call.
    fn compute(&mut self, node: &Node, point: &Point) -> Value {
        let width = point.width;
        match &node.op {
            NodeOp::Const(number) => self.e.number(*number, node.dtype, width),
            NodeOp::Index(linear) => {
                let index = self.index(linear, point);
                self.cast(index, DType::I32, node.dtype, width)
            }
            NodeOp::Load(location) => self.load(location, node.dtype, point),
            NodeOp::Random { .. } => unreachable!("random numbers come from strips"),
            NodeOp::Reduced { phase, index } => self.reduced(*phase, *index, node.dtype, point),
            NodeOp::Unary(unary, x) => {
                let x = self.operand(*x, point);
                self.unary(*unary, x, width)
            }
            NodeOp::Binary(Binary::Max, x, y) if node.dtype == DType::F32 => {
                let (x, y, number) = self.extremum(*x, *y, point);
                self.e.larger(x, y, number, width)
            }
            NodeOp::Binary(Binary::Min, x, y) if node.dtype == DType::F32 => {
                let (x, y, number) = self.extremum(*x, *y, point);
                self.e.smaller(x, y, number, width)
            }
            NodeOp::Binary(binary, x, y) => {
                let (x, y) = (self.operand(*x, point), self.operand(*y, point));
                self.binary(*binary, x, y, node.dtype, width)
            }
            NodeOp::Compare(compare, x, y) => {
                let dtype = self.dtype(*x);
                let (x, y) = (self.operand(*x, point), self.operand(*y, point));
                self.compare(*compare, x, y, dtype)
            }
            NodeOp::Select(condition, yes, no) => {
                let condition = self.operand(*condition, point);
                let (yes, no) = (self.operand(*yes, point), self.operand(*no, point));
                self.e.choose(condition, yes, no, width)
            }
            NodeOp::Cast(x) => {
                let from = self.dtype(*x);
                let x = self.operand(*x, point);
                self.cast(x, from, node.dtype, width)
            }
        }
    }

    /// The operands of a maximum or minimum of floats, and whether the second is known to be a number.
    fn extremum(&mut self, x: NodeId, y: NodeId, point: &Point) -> (Value, Value, bool) {
        let (x, y, number) = extremum_operands(&self.plan.nest.phases[self.phase].nodes, x, y);
        (self.operand(x, point), self.operand(y, point), number)
    }

    /// The dtype of a node of the phase at hand.
    pub(super) fn dtype(&self, id: NodeId) -> DType {
        self.plan.nest.phases[self.phase].nodes[id.0 as usize].dtype
    }

    /// An operand: before the lane loop the uniforms alone are there.
    fn operand(&mut self, id: NodeId, point: &Point) -> Value {
        if !self.varies(id) && point.width == Width::Scalar { self.uniform(id) } else { self.value(id, point) }
    }

    fn unary(&mut self, unary: Unary, x: Value, width: Width) -> Value {
        let float = self.e.b.func.dfg.value_type(x).lane_type() == F32;
        let ins = self.e.b.ins();
        match (unary, float) {
            (Unary::Neg, true) => ins.fneg(x),
            (Unary::Neg, false) => ins.ineg(x),
            (Unary::Abs, true) => ins.fabs(x),
            (Unary::Abs, false) => ins.iabs(x),
            (Unary::Sqrt, _) => ins.sqrt(x),
            (Unary::Floor, _) => ins.floor(x),
            (Unary::Not, _) => match width {
                Width::Scalar => ins.bxor_imm_u(x, 1),
                Width::Vector => ins.bnot(x),
            },
            (Unary::Exp | Unary::Log | Unary::Sin | Unary::Cos | Unary::Tanh | Unary::Sigmoid | Unary::Erf, _) => {
                unreachable!("these are calls on strips")
            }
        }
    }

    fn binary(&mut self, binary: Binary, x: Value, y: Value, dtype: DType, width: Width) -> Value {
        let float = dtype == DType::F32;
        match binary {
            Binary::Add if float => self.e.b.ins().fadd(x, y),
            Binary::Add => self.e.b.ins().iadd(x, y),
            Binary::Sub if float => self.e.b.ins().fsub(x, y),
            Binary::Sub => self.e.b.ins().isub(x, y),
            Binary::Mul if float => self.e.b.ins().fmul(x, y),
            Binary::Mul => self.e.b.ins().imul(x, y),
            Binary::Div if float => self.e.b.ins().fdiv(x, y),
            Binary::Rem if float => {
                let quotient = self.e.b.ins().fdiv(x, y);
                let whole = self.e.b.ins().floor(quotient);
                let taken = self.e.b.ins().fmul(whole, y);
                self.e.b.ins().fsub(x, taken)
            }
            Binary::Div | Binary::Rem => self.lanewise(x, y, width, |this, x, y| this.divide(binary, x, y)),
            Binary::Max => self.e.b.ins().smax(x, y),
            Binary::Min => self.e.b.ins().smin(x, y),
            Binary::And => self.e.b.ins().band(x, y),
            Binary::Or => self.e.b.ins().bor(x, y),
            Binary::Pow => unreachable!("powers are calls on strips"),
        }
    }

    /// An I32 function that has no vector instruction.
    fn lanewise(&mut self, x: Value, y: Value, width: Width, f: impl Fn(&mut Self, Value, Value) -> Value) -> Value {
        if width == Width::Scalar {
            return f(self, x, y);
        }
        let mut result = x;
        for lane in 0..LANES as u8 {
            let (a, b) = (self.e.b.ins().extractlane(x, lane), self.e.b.ins().extractlane(y, lane));
            let value = f(self, a, b);
            result = self.e.b.ins().insertlane(result, value, lane);
        }
        result
    }

    /// Floor division or its remainder; 0 where the divisor is 0. On 64 bits nothing overflows.
    fn divide(&mut self, binary: Binary, x: Value, y: Value) -> Value {
        let ins_zero = self.e.b.ins().icmp_imm_s(IntCC::Equal, y, 0);
        let (x, wide) = (self.e.b.ins().sextend(I64, x), self.e.b.ins().sextend(I64, y));
        let one = self.e.i64(1);
        let divisor = self.e.b.ins().select(ins_zero, one, wide);
        let quotient = self.e.b.ins().sdiv(x, divisor);
        let back = self.e.b.ins().imul(quotient, divisor);
        let rest = self.e.b.ins().isub(x, back);
        let signs = self.e.b.ins().bxor(rest, divisor);
        let unlike = self.e.b.ins().icmp_imm_s(IntCC::SignedLessThan, signs, 0);
        let inexact = self.e.b.ins().icmp_imm_s(IntCC::NotEqual, rest, 0);
        let below = self.e.b.ins().band(unlike, inexact);
        let result = if binary == Binary::Div {
            let lower = self.e.b.ins().iadd_imm_s(quotient, -1);
            self.e.b.ins().select(below, lower, quotient)
        } else {
            let moved = self.e.b.ins().iadd(rest, divisor);
            self.e.b.ins().select(below, moved, rest)
        };
        let zero = self.e.i64(0);
        let result = self.e.b.ins().select(ins_zero, zero, result);
        self.e.b.ins().ireduce(I32, result)
    }

    fn compare(&mut self, compare: Compare, x: Value, y: Value, dtype: DType) -> Value {
        match dtype {
            DType::F32 => {
                let condition = match compare {
                    Compare::Lt => FloatCC::LessThan,
                    Compare::Le => FloatCC::LessThanOrEqual,
                    Compare::Gt => FloatCC::GreaterThan,
                    Compare::Ge => FloatCC::GreaterThanOrEqual,
                    Compare::Eq => FloatCC::Equal,
                    Compare::Ne => FloatCC::NotEqual,
                };
                self.e.b.ins().fcmp(condition, x, y)
            }
            DType::I32 | DType::Bool => {
                // A true lane is −1 in a vector and 1 in a scalar: Bool is ordered without signs.
                let signed = dtype == DType::I32;
                let condition = match compare {
                    Compare::Lt if signed => IntCC::SignedLessThan,
                    Compare::Le if signed => IntCC::SignedLessThanOrEqual,
                    Compare::Gt if signed => IntCC::SignedGreaterThan,
                    Compare::Ge if signed => IntCC::SignedGreaterThanOrEqual,
                    Compare::Lt => IntCC::UnsignedLessThan,
                    Compare::Le => IntCC::UnsignedLessThanOrEqual,
                    Compare::Gt => IntCC::UnsignedGreaterThan,
                    Compare::Ge => IntCC::UnsignedGreaterThanOrEqual,
                    Compare::Eq => IntCC::Equal,
                    Compare::Ne => IntCC::NotEqual,
                };
                self.e.b.ins().icmp(condition, x, y)
            }
        }
    }

    fn cast(&mut self, x: Value, from: DType, to: DType, width: Width) -> Value {
        match (from, to) {
            (DType::F32, DType::F32) | (DType::I32, DType::I32) | (DType::Bool, DType::Bool) => x,
            (DType::F32, DType::I32) => self.e.b.ins().fcvt_to_sint_sat(register(to, width), x),
            (DType::I32, DType::F32) => self.e.b.ins().fcvt_from_sint(register(to, width), x),
            (DType::Bool, _) => {
                let (one, zero) = (self.e.number(1.0, to, width), self.e.number(0.0, to, width));
                self.e.choose(x, one, zero, width)
            }
            (DType::F32, DType::Bool) => {
                let zero = self.e.number(0.0, DType::F32, width);
                self.e.b.ins().fcmp(FloatCC::NotEqual, x, zero)
            }
            (DType::I32, DType::Bool) => {
                let zero = self.e.number(0.0, DType::I32, width);
                self.e.b.ins().icmp(IntCC::NotEqual, x, zero)
            }
        }
    }

    /// A value of a strip slot at a point.
    pub(super) fn load_slot(&mut self, slot: usize, dtype: DType, point: &Point) -> Value {
        let (address, offset) = self.slot_address(slot, point);
        match (dtype, point.width) {
            (DType::F32, Width::Scalar) => self.e.b.ins().load(F32, memory(), address, offset),
            (DType::F32, Width::Vector) => self.e.load_floats(memory(), address, offset),
            (DType::I32, Width::Scalar) => self.e.b.ins().load(I32, memory(), address, offset),
            (DType::I32 | DType::Bool, Width::Vector) => self.e.b.ins().load(I32X4, memory(), address, offset),
            (DType::Bool, Width::Scalar) => {
                let word = self.e.b.ins().load(I32, memory(), address, offset);
                self.e.b.ins().icmp_imm_s(IntCC::NotEqual, word, 0)
            }
        }
    }

    /// Puts a value into a strip slot at a point. A Bool becomes a mask.
    pub(super) fn store_slot(&mut self, slot: usize, value: Value, dtype: DType, point: &Point) {
        let (address, offset) = self.slot_address(slot, point);
        let value = match (dtype, point.width) {
            (DType::Bool, Width::Scalar) => self.e.b.ins().bmask(I32, value),
            (DType::F32 | DType::I32 | DType::Bool, _) => value,
        };
        self.e.b.ins().store(memory(), value, address, offset);
    }
}
