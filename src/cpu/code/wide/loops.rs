//! From straight-line code to a function over a strip: registers, the loop, the last vector, sums of lanes.
//!
//! Input: a [`Code`]. Output: the bytes of `fn(table, n)`. Invariant: an element's result does not depend on its position
//! or on n; accumulators add lane by lane and then lanes i with i + 8, i + 4, i + 2, i + 1.

use std::collections::HashMap;

use super::code::{Code, Id, Op, Pair, Reading, Single, Sink, Take, Test};
use super::encode::{Assembler, MASK, Masking, Opcode, Operand, Place, TAIL, op};
use crate::graph::Compare;

/// Byte offsets in a call's table: addresses of streams, 32-bit uniforms, 32-bit results, accumulators.
pub(in crate::cpu::code) const UNIFORMS: usize = 512;
/// See [`UNIFORMS`].
pub(in crate::cpu::code) const RESULTS: usize = 1024;
/// See [`UNIFORMS`].
pub(in crate::cpu::code) const ACCUMULATORS: usize = 1152;
/// Bytes of a table.
pub(in crate::cpu::code) const TABLE_BYTES: usize = 1664;
/// Bytes of a vector.
const VECTOR: usize = 64;
/// Vector registers.
const REGISTERS: u8 = 32;

/// The function's bytes; `None` where the registers do not suffice. With `carried`, accumulators go on from what the
/// table holds and leave it there.
pub(super) fn function(code: &Code, carried: bool) -> Option<Vec<u8>> {
    // Without kept constants first: what the body leaves over is theirs.
    let bare = Function::emit(code, carried, 0)?;
    let kept = usize::from(REGISTERS - bare.most_registers);
    let function = if kept == 0 { bare } else { Function::emit(code, carried, kept)? };
    Some(function.assembler.finish())
}

/// A function under construction.
struct Function<'a> {
    code: &'a Code,
    assembler: Assembler,
    /// The last operation or sink that reads a value.
    last_use: Vec<usize>,
    /// Invariants that keep a register for the whole function.
    kept: HashMap<Id, u8>,
    free: Vec<u8>,
    most_registers: u8,
    /// Where values of the body at hand lie.
    registers: HashMap<Id, u8>,
    tail: bool,
}

impl<'a> Function<'a> {
    fn emit(code: &'a Code, carried: bool, kept: usize) -> Option<Self> {
        let mut last_use = vec![0; code.ops.len()];
        let mut uses = vec![0; code.ops.len()];
        let mut read = |at: usize, id: Id| {
            last_use[id] = at;
            uses[id] += 1;
        };
        for (at, operation) in code.ops.iter().enumerate() {
            operation.operands().into_iter().for_each(|id| read(at, id));
        }
        for (at, sink) in code.sinks.iter().enumerate() {
            read(code.ops.len() + at, sink.value());
        }
        let free = (0..REGISTERS).rev().collect();
        let (assembler, kept_none) = (Assembler::default(), HashMap::new());
        let registers = HashMap::new();
        let mut this =
            Self { code, assembler, last_use, kept: kept_none, free, most_registers: 0, registers, tail: false };
        let mut invariants: Vec<Id> = (0..code.ops.len()).filter(|id| code.ops[*id].is_invariant()).collect();
        invariants.sort_by_key(|id| std::cmp::Reverse(uses[*id]));
        for id in invariants.into_iter().take(kept) {
            let register = this.take()?;
            let operand = this.operand(id);
            this.load(op::BROADCASTSS, register, operand);
            this.kept.insert(id, register);
        }
        let accumulators = this.begin_accumulators(carried)?;
        this.body_loop(&accumulators)?;
        this.end_accumulators(&accumulators, carried)?;
        // vzeroupper, ret
        this.assembler.raw(&[0xC5, 0xF8, 0x77, 0xC3]);
        Some(this)
    }

    /// The lowest free register.
    fn take(&mut self) -> Option<u8> {
        let register = self.free.pop()?;
        self.most_registers = self.most_registers.max(REGISTERS - self.free.len() as u8);
        Some(register)
    }

    fn give(&mut self, register: u8) {
        self.free.push(register);
    }

    fn takes(&self) -> impl Iterator<Item = (usize, Take)> + use<'a> {
        let takes = self.code.sinks.iter().filter_map(|sink| match sink {
            Sink::Store(..) => None,
            Sink::Accumulate(take, _) => Some(*take),
        });
        takes.enumerate()
    }

    fn begin_accumulators(&mut self, carried: bool) -> Option<Vec<u8>> {
        let mut registers = Vec::new();
        for (number, take) in self.takes() {
            let register = self.take()?;
            let (opcode, start) = if carried {
                (op::LOAD, Operand::Vector(Place::Table(ACCUMULATORS + VECTOR * number)))
            } else {
                let identity = match take {
                    Take::Sum => 0.0f32,
                    Take::Max => f32::NEG_INFINITY,
                };
                (op::BROADCASTSS, Operand::Broadcast(self.assembler.words(&[identity.to_bits()])))
            };
            self.load(opcode, register, start);
            registers.push(register);
        }
        Some(registers)
    }

    /// `BROADCASTSS` reads 32 bits without the prefix's broadcast bit, which arithmetic has.
    fn load(&mut self, opcode: Opcode, target: u8, operand: Operand) {
        let operand = match operand {
            Operand::Broadcast(place) => Operand::Vector(place),
            Operand::Register(_) | Operand::Stream(_) | Operand::Vector(_) => operand,
        };
        self.assembler.vector(opcode, target, 0, operand, Masking::None, None);
    }

    fn end_accumulators(&mut self, accumulators: &[u8], carried: bool) -> Option<()> {
        let other = self.take()?;
        for (number, take) in self.takes() {
            let register = accumulators[number];
            if carried {
                let place = Operand::Vector(Place::Table(ACCUMULATORS + VECTOR * number));
                self.assembler.vector(op::STORE, register, 0, place, Masking::None, None);
            }
            for (shuffle, order) in
                [(op::SHUFF32X4, 0x4E), (op::SHUFF32X4, 0xB1), (op::PERMILPS, 0x4E), (op::PERMILPS, 0xB1)]
            {
                let second = if shuffle == op::SHUFF32X4 { register } else { 0 };
                let last = Operand::Register(register);
                self.assembler.vector(shuffle, other, second, last, Masking::None, Some(order));
                self.combine(take, register, other, Masking::None);
            }
            let place = Operand::Vector(Place::Table(RESULTS + 4 * number));
            self.assembler.vector(op::STORE_ONE, register, 0, place, Masking::None, None);
        }
        self.give(other);
        Some(())
    }

    /// An accumulator takes a vector in.
    fn combine(&mut self, take: Take, accumulator: u8, value: u8, masking: Masking) {
        let (old, new) = (Operand::Register(accumulator), Operand::Register(value));
        match take {
            Take::Sum => self.assembler.vector(op::ADDPS, accumulator, accumulator, new, masking, None),
            Take::Max => {
                // `maxps` gives its second operand where either is NaN: the old one. A new NaN is put in its place.
                const UNORDERED: u8 = 3;
                self.assembler.vector(op::CMPPS, MASK, value, new, masking, Some(UNORDERED));
                self.assembler.vector(op::MAXPS, accumulator, value, old, masking, None);
                self.assembler.vector(op::MOVAPS, accumulator, 0, new, Masking::Merge(MASK), None);
            }
        }
    }

    /// The body for whole vectors, and once for the rest.
    fn body_loop(&mut self, accumulators: &[u8]) -> Option<()> {
        const BELOW: u8 = 0x82;
        const NOT_BELOW: u8 = 0x83;
        const EQUAL: u8 = 0x84;
        let compare = [0x48, 0x83, 0xFE, 16];
        // xor ecx, ecx; cmp rsi, 16
        self.assembler.raw(&[0x31, 0xC9]);
        self.assembler.raw(&compare);
        let short = self.assembler.jump(BELOW);
        let start = self.assembler.here();
        self.body(accumulators)?;
        // add rcx, 64; sub rsi, 16; cmp rsi, 16
        self.assembler.raw(&[0x48, 0x83, 0xC1, VECTOR as u8, 0x48, 0x83, 0xEE, 16]);
        self.assembler.raw(&compare);
        self.assembler.jump_back(NOT_BELOW, start);
        self.assembler.land(short);
        // test rsi, rsi
        self.assembler.raw(&[0x48, 0x85, 0xF6]);
        let done = self.assembler.jump(EQUAL);
        // mov eax, -1; bzhi eax, eax, esi; kmovw k1, eax
        self.assembler.raw(&[0xB8, 0xFF, 0xFF, 0xFF, 0xFF, 0xC4, 0xE2, 0x48, 0xF5, 0xC0, 0xC5, 0xF8, 0x92, 0xC8]);
        self.tail = true;
        self.body(accumulators)?;
        self.assembler.land(done);
        Some(())
    }

    fn body(&mut self, accumulators: &[u8]) -> Option<()> {
        for (at, operation) in self.code.ops.iter().enumerate() {
            if !operation.is_invariant() {
                self.operation(at, *operation)?;
            }
        }
        let mut number = 0;
        for (position, sink) in self.code.sinks.iter().enumerate() {
            let mut held = Held::default();
            let register = self.in_register(sink.value(), &mut held)?;
            match sink {
                Sink::Store(stream, _) => {
                    let masking = if self.tail { Masking::Merge(TAIL) } else { Masking::None };
                    self.assembler.vector(op::STORE, register, 0, Operand::Stream(*stream), masking, None);
                }
                Sink::Accumulate(take, _) => {
                    let masking = if self.tail { Masking::Merge(TAIL) } else { Masking::None };
                    self.combine(*take, accumulators[number], register, masking);
                    number += 1;
                }
            }
            self.release(held, &[sink.value()], self.code.ops.len() + position);
        }
        Some(())
    }

    /// A value as an operand: its register, or memory for an invariant that has none.
    fn operand(&mut self, id: Id) -> Operand {
        if let Some(register) = self.registers.get(&id).or_else(|| self.kept.get(&id)) {
            return Operand::Register(*register);
        }
        match self.code.ops[id] {
            Op::Const(bits) => Operand::Broadcast(self.assembler.words(&[bits])),
            Op::Uniform(number) => Operand::Broadcast(Place::Table(UNIFORMS + 4 * number)),
            _ => unreachable!("operands precede their users"),
        }
    }

    /// A value in a register, which may be one for this instruction alone.
    fn in_register(&mut self, id: Id, held: &mut Held) -> Option<u8> {
        match self.operand(id) {
            Operand::Register(register) => Some(register),
            operand @ (Operand::Stream(_) | Operand::Vector(_) | Operand::Broadcast(_)) => {
                let register = self.take()?;
                self.load(op::BROADCASTSS, register, operand);
                held.0.push(register);
                Some(register)
            }
        }
    }

    /// Frees what the operation at hand held and the operands that nobody reads later.
    fn release(&mut self, held: Held, operands: &[Id], at: usize) {
        held.0.into_iter().for_each(|register| self.give(register));
        for id in operands {
            let last = self.last_use[*id] == at;
            if let Some(register) = last.then(|| self.registers.remove(id)).flatten() {
                self.give(register);
            }
        }
    }

    /// Emits one operation; its target is a register that none of its operands lies in, unless it is overwritten.
    fn operation(&mut self, at: usize, operation: Op) -> Option<()> {
        let mut held = Held::default();
        let none = Masking::None;
        let target = match operation {
            Op::Const(_) | Op::Uniform(_) => unreachable!("invariants are operands"),
            Op::Stream(stream) => {
                let target = self.take()?;
                let masking = if self.tail { Masking::Zero(TAIL) } else { none };
                self.assembler.vector(op::LOAD, target, 0, Operand::Stream(stream), masking, None);
                target
            }
            Op::StreamWhere(stream, condition) => {
                let condition = Operand::Register(self.in_register(condition, &mut held)?);
                self.assembler.vector(op::PMOVD2M, MASK, 0, condition, none, None);
                if self.tail {
                    // kandw k2, k2, k1
                    self.assembler.raw(&[0xC5, 0xEC, 0x41, 0xD1]);
                }
                let target = self.take()?;
                self.assembler.vector(op::LOAD, target, 0, Operand::Stream(stream), Masking::Zero(MASK), None);
                target
            }
            Op::Lane => {
                let target = self.take()?;
                // mov eax, ecx; shr eax, 2
                self.assembler.raw(&[0x89, 0xC8, 0xC1, 0xE8, 2]);
                self.assembler.vector(op::PBROADCASTD_R32, target, 0, Operand::Register(0), none, None);
                let steps: Vec<u32> = (0..16).collect();
                let steps = Operand::Vector(self.assembler.words(&steps));
                self.assembler.vector(op::PADDD, target, target, steps, none, None);
                target
            }
            Op::Single(single, a) => {
                let a = self.in_register(a, &mut held)?;
                let target = self.take()?;
                self.single(single, target, a);
                target
            }
            Op::Pair(pair, a, b) => {
                let swap = self.code.ops[a].is_invariant() && commutes(pair);
                let (a, b) = if swap { (b, a) } else { (a, b) };
                let first = self.in_register(a, &mut held)?;
                let last = self.operand(b);
                let target = self.take()?;
                self.assembler.vector(opcode(pair), target, first, last, none, None);
                target
            }
            Op::MulAdd(a, b, c) => self.mul_add(at, [a, b, c], &mut held)?,
            Op::Compare(test, a, b) => {
                self.test(test, a, b, &mut held)?;
                let target = self.take()?;
                self.assembler.vector(op::PMOVM2D, target, 0, Operand::Register(MASK), none, None);
                target
            }
            Op::Choose(condition, yes, no) => {
                let condition = Operand::Register(self.in_register(condition, &mut held)?);
                self.assembler.vector(op::PMOVD2M, MASK, 0, condition, none, None);
                self.blend(yes, no, &mut held)?
            }
            Op::ChooseBy(test, a, b, yes, no) => {
                self.test(test, a, b, &mut held)?;
                self.blend(yes, no, &mut held)?
            }
        };
        self.registers.insert(at, target);
        self.release(held, &operation.operands(), at);
        if self.last_use[at] <= at {
            self.release(Held::default(), &[at], self.last_use[at]);
        }
        Some(())
    }

    /// Lanes of `yes` where the mask of comparisons is set.
    fn blend(&mut self, yes: Id, no: Id, held: &mut Held) -> Option<u8> {
        let no = self.in_register(no, held)?;
        let yes = self.operand(yes);
        let target = self.take()?;
        self.assembler.vector(op::BLENDMPS, target, no, yes, Masking::Merge(MASK), None);
        Some(target)
    }

    /// Sets the mask of comparisons.
    fn test(&mut self, test: Test, a: Id, b: Id, held: &mut Held) -> Option<()> {
        let first = self.in_register(a, held)?;
        let last = self.operand(b);
        let opcode = match test.reading {
            Reading::Float => op::CMPPS,
            Reading::Signed => op::PCMPD,
            Reading::Unsigned => op::PCMPUD,
        };
        let predicate = match (test.compare, test.reading) {
            (Compare::Eq, _) => 0,
            (Compare::Lt, _) => 1,
            (Compare::Le, _) => 2,
            (Compare::Ne, _) => 4,
            (Compare::Ge, Reading::Float) => 0x0D,
            (Compare::Gt, Reading::Float) => 0x0E,
            (Compare::Ge, Reading::Signed | Reading::Unsigned) => 5,
            (Compare::Gt, Reading::Signed | Reading::Unsigned) => 6,
        };
        self.assembler.vector(opcode, MASK, first, last, Masking::None, Some(predicate));
        Some(())
    }

    fn single(&mut self, single: Single, target: u8, a: u8) {
        let from = Operand::Register(a);
        let (opcode, field, second, immediate) = match single {
            Single::Sqrt => (op::SQRTPS, target, 0, None),
            // Without exceptions: down, and to nearest even.
            Single::Floor => (op::RNDSCALEPS, target, 0, Some(9)),
            Single::Round => (op::RNDSCALEPS, target, 0, Some(8)),
            Single::ToInt => (op::CVTPS2DQ, target, 0, None),
            Single::ToFloat => (op::CVTDQ2PS, target, 0, None),
            // The target is the second operand; the first holds an extension of the opcode.
            Single::ShiftLeft(bits) => (op::SHIFT, 6, target, Some(bits)),
            Single::ShiftRight(bits) => (op::SHIFT, 4, target, Some(bits)),
        };
        self.assembler.vector(opcode, field, second, from, Masking::None, immediate);
    }

    /// `a · b + c` over one of its operands that is read for the last time, or over a copy.
    fn mul_add(&mut self, at: usize, [a, b, c]: [Id; 3], held: &mut Held) -> Option<u8> {
        // At most one operand stays in memory, and it is not the first.
        let (a, b) = if matches!(self.operand(a), Operand::Register(_)) { (a, b) } else { (b, a) };
        let first = self.in_register(a, held)?;
        let mut third = self.operand(c);
        let mut second = self.operand(b);
        if !matches!(second, Operand::Register(_)) && !matches!(third, Operand::Register(_)) {
            third = Operand::Register(self.in_register(c, held)?);
        }
        let dies = |this: &Self, id: Id| this.last_use[id] == at && this.registers.contains_key(&id);
        let over_c = dies(self, c) && c != a && c != b;
        if let (true, Operand::Register(target)) = (over_c, third) {
            self.registers.remove(&c);
            self.assembler.vector(op::FMADD231PS, target, first, second, Masking::None, None);
            return Some(target);
        }
        let target = if dies(self, a) && a != b && a != c {
            self.registers.remove(&a);
            first
        } else {
            let swap = dies(self, b) && b != a && b != c;
            let target = if swap { self.registers.remove(&b)? } else { self.take()? };
            if swap {
                second = Operand::Register(first);
            } else {
                self.assembler.vector(op::MOVAPS, target, 0, Operand::Register(first), Masking::None, None);
            }
            target
        };
        match (second, third) {
            (Operand::Register(second), last) => {
                self.assembler.vector(op::FMADD213PS, target, second, last, Masking::None, None);
            }
            (last, Operand::Register(addend)) => {
                self.assembler.vector(op::FMADD132PS, target, addend, last, Masking::None, None);
            }
            _both_in_memory => unreachable!("one operand is in a register"),
        }
        Some(target)
    }
}

/// Registers for one instruction.
#[derive(Default)]
struct Held(Vec<u8>);

fn commutes(pair: Pair) -> bool {
    match pair {
        Pair::Add | Pair::Mul | Pair::And | Pair::Or | Pair::Xor => true,
        Pair::IntAdd | Pair::IntMul | Pair::IntMin | Pair::IntMax => true,
        Pair::Sub | Pair::Div | Pair::Min | Pair::Max | Pair::Scale | Pair::IntSub => false,
    }
}

fn opcode(pair: Pair) -> Opcode {
    match pair {
        Pair::Add => op::ADDPS,
        Pair::Sub => op::SUBPS,
        Pair::Mul => op::MULPS,
        Pair::Div => op::DIVPS,
        Pair::Min => op::MINPS,
        Pair::Max => op::MAXPS,
        Pair::Scale => op::SCALEFPS,
        Pair::And => op::ANDPS,
        Pair::Or => op::ORPS,
        Pair::Xor => op::XORPS,
        Pair::IntAdd => op::PADDD,
        Pair::IntSub => op::PSUBD,
        Pair::IntMul => op::PMULLD,
        Pair::IntMin => op::PMINSD,
        Pair::IntMax => op::PMAXSD,
    }
}
