//! A thin layer over Cranelift's function builder: loops, constants, helper calls, widths of values.
//!
//! Input: a function under construction. Output: instructions. Invariant: every loop begun is ended; blocks are sealed
//! as soon as their predecessors are known.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{F32, F32X4, I8, I32, I32X4, I64};
use cranelift_codegen::ir::{
    AbiParam, Block, BlockArg, Endianness, InstBuilder, MemFlagsData, SigRef, Signature, Type, Value,
};
use cranelift_codegen::isa::CallConv;
use cranelift_frontend::FunctionBuilder;

use crate::cpu::run::context::{Helper, field};
use crate::graph::DType;

/// Lanes of a vector.
pub(super) const LANES: usize = 4;

/// One element, or the four lanes of a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// F32, I32, or I8 of 0 or 1.
    Scalar,
    /// F32X4, I32X4, or I32X4 of zeros or ones.
    Vector,
}

/// The register type of a value.
pub(super) fn register(dtype: DType, width: Width) -> Type {
    match (dtype, width) {
        (DType::F32, Width::Scalar) => F32,
        (DType::I32, Width::Scalar) => I32,
        (DType::Bool, Width::Scalar) => I8,
        (DType::F32, Width::Vector) => F32X4,
        (DType::I32 | DType::Bool, Width::Vector) => I32X4,
    }
}

/// A loop under construction.
pub(super) struct Loop {
    header: Block,
    exit: Block,
    /// The index; also its value after the loop.
    pub index: Value,
    step: i64,
}

/// A function under construction that has the context at hand.
pub(super) struct Emitter<'a> {
    /// Cranelift's builder.
    pub b: FunctionBuilder<'a>,
    /// The [`super::context::Context`].
    pub context: Value,
    call_conv: CallConv,
    signatures: Vec<(usize, SigRef)>,
}

impl<'a> Emitter<'a> {
    /// Starts emission; the builder stands in a block.
    pub fn new(b: FunctionBuilder<'a>, context: Value, call_conv: CallConv) -> Self {
        Self { b, context, call_conv, signatures: Vec::new() }
    }

    /// Begins `for (index = from; index < limit; index += step)`.
    pub fn begin(&mut self, from: Value, limit: Value, step: i64) -> Loop {
        let (header, body, exit) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        let index = self.b.append_block_param(header, I64);
        self.b.ins().jump(header, &[BlockArg::Value(from)]);
        self.b.switch_to_block(header);
        let more = self.b.ins().icmp(IntCC::SignedLessThan, index, limit);
        self.b.ins().brif(more, body, &[], exit, &[]);
        self.b.seal_block(body);
        self.b.switch_to_block(body);
        Loop { header, exit, index, step }
    }

    /// Ends a loop's body; emission goes on behind it.
    pub fn end(&mut self, open: Loop) {
        let next = self.b.ins().iadd_imm_s(open.index, open.step);
        self.end_with(open, next);
    }

    /// Ends a loop's body with another next index.
    pub fn end_with(&mut self, open: Loop, next: Value) {
        self.b.ins().jump(open.header, &[BlockArg::Value(next)]);
        self.b.seal_block(open.header);
        self.b.seal_block(open.exit);
        self.b.switch_to_block(open.exit);
    }

    /// Begins a block that runs only if `condition`; give the result to [`Emitter::end_if`].
    pub fn begin_if(&mut self, condition: Value) -> Block {
        let (then, after) = (self.b.create_block(), self.b.create_block());
        self.b.ins().brif(condition, then, &[], after, &[]);
        self.b.seal_block(then);
        self.b.switch_to_block(then);
        after
    }

    /// Ends a conditional block.
    pub fn end_if(&mut self, after: Block) {
        self.b.ins().jump(after, &[]);
        self.b.seal_block(after);
        self.b.switch_to_block(after);
    }

    /// A 64-bit number.
    pub fn i64(&mut self, value: i64) -> Value {
        self.b.ins().iconst(I64, value)
    }

    /// Four 32-bit words.
    pub fn words(&mut self, ty: Type, words: [u32; 4]) -> Value {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let constant = self.b.func.dfg.constants.insert(bytes.into());
        self.b.ins().vconst(ty, constant)
    }

    pub fn number(&mut self, value: f64, dtype: DType, width: Width) -> Value {
        let bits = match dtype {
            DType::F32 => (value as f32).to_bits(),
            DType::I32 => value as i32 as u32,
            DType::Bool => u32::from(value != 0.0),
        };
        match (width, dtype) {
            (Width::Scalar, DType::F32) => self.b.ins().f32const(value as f32),
            (Width::Scalar, DType::I32) => self.b.ins().iconst(I32, i64::from(bits as i32)),
            (Width::Scalar, DType::Bool) => self.b.ins().iconst(I8, i64::from(bits)),
            (Width::Vector, DType::F32) => self.words(F32X4, [bits; 4]),
            (Width::Vector, DType::I32) => self.words(I32X4, [bits; 4]),
            (Width::Vector, DType::Bool) => self.words(I32X4, [bits.wrapping_neg(); 4]),
        }
    }

    /// `value · factor` on 64 bits.
    pub fn scaled(&mut self, value: Value, factor: i64) -> Value {
        match factor {
            1 => value,
            positive if positive > 0 && positive.count_ones() == 1 => {
                self.b.ins().ishl_imm_u(value, i64::from(positive.trailing_zeros()))
            }
            other => self.b.ins().imul_imm_s(value, other),
        }
    }

    /// All lanes equal to a scalar (a Bool becomes a mask).
    pub fn splat(&mut self, value: Value, dtype: DType) -> Value {
        match dtype {
            DType::F32 => self.b.ins().splat(F32X4, value),
            DType::I32 => self.b.ins().splat(I32X4, value),
            DType::Bool => {
                let mask = self.b.ins().bmask(I32, value);
                self.b.ins().splat(I32X4, mask)
            }
        }
    }

    /// The same bits under another vector or scalar type of equal size.
    pub fn bits(&mut self, ty: Type, value: Value) -> Value {
        if self.b.func.dfg.value_type(value) == ty {
            return value;
        }
        self.b.ins().bitcast(ty, MemFlagsData::new().with_endianness(Endianness::Little), value)
    }

    /// `condition ? yes : no`; a vector's condition is a mask.
    pub fn choose(&mut self, condition: Value, yes: Value, no: Value, width: Width) -> Value {
        match width {
            Width::Scalar => self.b.ins().select(condition, yes, no),
            Width::Vector => {
                let ty = self.b.func.dfg.value_type(yes);
                let mask = self.bits(ty, condition);
                self.b.ins().bitselect(mask, yes, no)
            }
        }
    }

    /// The larger of two floats; NaN where `a` is, and where `b` is if that is not known to be a number.
    pub fn larger(&mut self, a: Value, b: Value, b_is_number: bool, width: Width) -> Value {
        // One `maxps`, which gives its second operand where either is NaN.
        let less = self.b.ins().fcmp(FloatCC::LessThan, a, b);
        let larger = self.choose(less, b, a, width);
        if b_is_number { larger } else { self.unless_nan(b, larger, width) }
    }

    /// The smaller of two floats, likewise.
    pub fn smaller(&mut self, a: Value, b: Value, b_is_number: bool, width: Width) -> Value {
        let less = self.b.ins().fcmp(FloatCC::LessThan, b, a);
        let smaller = self.choose(less, b, a, width);
        if b_is_number { smaller } else { self.unless_nan(b, smaller, width) }
    }

    /// `x` where it is NaN, else `other`.
    fn unless_nan(&mut self, x: Value, other: Value, width: Width) -> Value {
        let nan = self.b.ins().fcmp(FloatCC::Unordered, x, x);
        self.choose(nan, x, other, width)
    }

    /// Loads four floats from any address. Below AVX, Cranelift 0.135 makes a load that has one reader the operand of
    /// `cmpps`, which needs 16 bytes of alignment; a load under another type it leaves alone.
    pub fn load_floats(&mut self, flags: MemFlagsData, address: Value, offset: i32) -> Value {
        let words = self.b.ins().load(I32X4, flags, address, offset);
        self.bits(F32X4, words)
    }

    /// A field of the context.
    pub fn field(&mut self, ty: Type, offset: i32) -> Value {
        self.b.ins().load(ty, constant_memory(), self.context, offset)
    }

    /// Calls a helper through the context's table. Arguments are 64 bits wide.
    pub fn call(&mut self, helper: Helper, arguments: &[Value]) {
        let known = self.signatures.iter().find(|(count, _)| *count == arguments.len());
        let signature = match known {
            Some((_, signature)) => *signature,
            None => {
                let mut signature = Signature::new(self.call_conv);
                signature.params.extend(arguments.iter().map(|_| AbiParam::new(I64)));
                let signature = self.b.import_signature(signature);
                self.signatures.push((arguments.len(), signature));
                signature
            }
        };
        let function = self.field(I64, field::function(helper));
        self.b.ins().call_indirect(signature, function, arguments);
    }
}

/// Memory that may be written by the function at hand.
pub(super) fn memory() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}

/// Memory that nobody writes while the function runs: such loads are pure and may move.
pub(super) fn constant_memory() -> MemFlagsData {
    MemFlagsData::new().with_notrap().with_readonly().with_can_move()
}
