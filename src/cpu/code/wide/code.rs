//! Straight-line code on vectors of 16 lanes, and a recorder that turns the primitives' functions into it.
//!
//! Input: operations in the order of their need. Output: a [`Code`] without duplicates. Invariant: operands precede
//! their users; every value is a vector of 16 lanes of 32 bits; a truth value is a lane of ones or zeros.
#![allow(unsafe_op_in_unsafe_fn)]

use std::cell::RefCell;
use std::collections::HashMap;

use crate::machine::lanes::Lanes;
use crate::primitives::vector::{self, VectorFunction};

/// Position in [`Code::ops`].
pub(super) type Id = usize;

/// Functions of two vectors that are one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Pair {
    /// f32 arithmetic.
    Add,
    Sub,
    Mul,
    Div,
    /// The smaller; the second where either is NaN.
    Min,
    /// The larger; the second where either is NaN.
    Max,
    /// The first times two to the second, a whole number.
    Scale,
    /// Bits.
    And,
    Or,
    Xor,
    /// i32 arithmetic.
    IntAdd,
    IntSub,
    IntMul,
    IntMin,
    IntMax,
}

/// Functions of one vector that are one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Single {
    Sqrt,
    Floor,
    /// To the nearest integer, ties to even.
    Round,
    /// To the nearest i32, ties to even.
    ToInt,
    ToFloat,
    ShiftLeft(u8),
    /// Arithmetic.
    ShiftRight(u8),
}

/// What a comparison reads its lanes as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reading {
    Float,
    Signed,
    /// Truth values: ones are more than zeros.
    Unsigned,
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Test {
    /// Which.
    pub compare: crate::graph::Compare,
    /// Of what.
    pub reading: Reading,
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Op {
    /// The same bits in all lanes.
    Const(u32),
    /// 32 bits of the call's table in all lanes.
    Uniform(usize),
    /// The elements of a stream.
    Stream(usize),
    /// The elements of a stream where a truth value holds, zero elsewhere; nothing is read there.
    StreamWhere(usize, Id),
    /// The number of the element in the call, as i32.
    Lane,
    Pair(Pair, Id, Id),
    Single(Single, Id),
    /// a · b + c, rounded once.
    MulAdd(Id, Id, Id),
    /// A truth value.
    Compare(Test, Id, Id),
    /// By a truth value.
    Choose(Id, Id, Id),
    /// `test(a, b) ? c : d`.
    ChooseBy(Test, Id, Id, Id, Id),
}

impl Op {
    /// The values it reads.
    pub(super) fn operands(self) -> Vec<Id> {
        match self {
            Op::Const(_) | Op::Uniform(_) | Op::Stream(_) | Op::Lane => Vec::new(),
            Op::Single(_, a) | Op::StreamWhere(_, a) => vec![a],
            Op::Pair(_, a, b) | Op::Compare(_, a, b) => vec![a, b],
            Op::MulAdd(a, b, c) | Op::Choose(a, b, c) => vec![a, b, c],
            Op::ChooseBy(_, a, b, c, d) => vec![a, b, c, d],
        }
    }

    /// Whether it is the same in all lanes and iterations, and lies in memory.
    pub(super) fn is_invariant(self) -> bool {
        matches!(self, Op::Const(_) | Op::Uniform(_))
    }
}

/// How an accumulator takes a value in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Take {
    Sum,
    /// f32; what is NaN stays.
    Max,
}

/// What becomes of values, after all operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sink {
    /// To the elements of a stream.
    Store(usize, Id),
    /// Into the accumulator of this number.
    Accumulate(Take, Id),
}

impl Sink {
    /// The value that it reads.
    pub(super) fn value(self) -> Id {
        match self {
            Sink::Store(_, id) | Sink::Accumulate(_, id) => id,
        }
    }
}

/// A body for 16 elements.
#[derive(Debug, Default)]
pub(super) struct Code {
    /// In order.
    pub ops: Vec<Op>,
    /// In order, behind the operations. The accumulators are numbered in this order.
    pub sinks: Vec<Sink>,
    known: HashMap<Op, Id>,
}

impl Code {
    /// The value of an operation; the earlier one where it is there already.
    pub(super) fn push(&mut self, op: Op) -> Id {
        *self.known.entry(op).or_insert_with(|| {
            self.ops.push(op);
            self.ops.len() - 1
        })
    }

    /// The operations of a function's primitive; `None` where it is more than straight-line code.
    pub(super) fn call(&mut self, function: VectorFunction, x: Id) -> Option<Id> {
        RECORDER.with(|recorder| {
            recorder.replace(std::mem::take(self));
            // SAFETY: a recorded lane is a number; its methods touch no memory and need no instructions.
            let value = unsafe { vector::straight(function, Recorded(x)) };
            *self = recorder.take();
            value.map(|value| value.0)
        })
    }
}

thread_local! {
    /// The code that [`Recorded`] values are positions in.
    static RECORDER: RefCell<Code> = RefCell::default();
}

/// A value of the code being recorded, in the place of a vector.
#[derive(Clone, Copy)]
struct Recorded(Id);

fn record(op: Op) -> Recorded {
    RECORDER.with(|recorder| Recorded(recorder.borrow_mut().push(op)))
}

fn choose(compare: crate::graph::Compare, a: Recorded, b: Recorded, yes: Recorded, no: Recorded) -> Recorded {
    record(Op::ChooseBy(Test { compare, reading: Reading::Float }, a.0, b.0, yes.0, no.0))
}

macro_rules! pairs {
    ($($method:ident => $pair:ident;)*) => {
        $(
            #[inline(always)]
            unsafe fn $method(self, other: Self) -> Self {
                record(Op::Pair(Pair::$pair, self.0, other.0))
            }
        )*
    };
}

macro_rules! singles {
    ($($method:ident => $single:ident;)*) => {
        $(
            #[inline(always)]
            unsafe fn $method(self) -> Self {
                record(Op::Single(Single::$single, self.0))
            }
        )*
    };
}

macro_rules! never {
    ($($method:ident($($parameters:tt)*) -> $result:ty;)*) => {
        $(
            unsafe fn $method($($parameters)*) -> $result {
                unreachable!("straight-line functions touch no memory and mix no lanes")
            }
        )*
    };
}

impl Lanes for Recorded {
    const COUNT: usize = 16;

    pairs! {
        add => Add;
        sub => Sub;
        mul => Mul;
        div => Div;
        min => Min;
        max => Max;
        scale => Scale;
        int_add => IntAdd;
        int_sub => IntSub;
        and => And;
        or => Or;
        xor => Xor;
    }
    singles! {
        round => Round;
        to_int => ToInt;
        int_to_float => ToFloat;
    }
    unsafe fn splat(x: f32) -> Self {
        record(Op::Const(x.to_bits()))
    }
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        record(Op::MulAdd(self.0, b.0, c.0))
    }
    unsafe fn accumulate(self, b: Self, c: Self) -> Self {
        record(Op::MulAdd(self.0, b.0, c.0))
    }
    unsafe fn shift_left<const BITS: i32>(self) -> Self {
        record(Op::Single(Single::ShiftLeft(BITS as u8), self.0))
    }
    unsafe fn shift_right<const BITS: i32>(self) -> Self {
        record(Op::Single(Single::ShiftRight(BITS as u8), self.0))
    }
    unsafe fn select_less(self, bound: Self, yes: Self, no: Self) -> Self {
        choose(crate::graph::Compare::Lt, self, bound, yes, no)
    }
    unsafe fn select_equal(self, other: Self, yes: Self, no: Self) -> Self {
        choose(crate::graph::Compare::Eq, self, other, yes, no)
    }
    never! {
        load(_: *const f32) -> Self;
        load_first(_: *const f32, _: usize) -> Self;
        load_second(_: *const f32, _: usize) -> Self;
        store(self, _: *mut f32) -> ();
        store_first(self, _: *mut f32, _: usize) -> ();
        not_less_mask(self, _: Self) -> u32;
        transpose(_: &[*const f32], _: usize, _: *mut f32, _: usize) -> ();
        deal(self, _: Self) -> (Self, Self);
        zip_lanes(self, _: Self) -> (Self, Self);
    }
}
