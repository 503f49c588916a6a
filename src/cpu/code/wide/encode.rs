//! AVX-512 instructions as bytes: the EVEX prefix over three kinds of operands, and the few others that a loop needs.
//!
//! Input: instructions. Output: position-independent code with its constants behind it. Invariant: the function keeps
//! to the registers that its caller in the System V convention may lose: rax, rcx, rdx, rsi, rdi, zmm0-31, k1-7.
//!
//! Registers: rdi the call's table, rsi the elements left, rcx the bytes done, rax scratch, k1 the lanes of the last
//! vector, k2 scratch. Encodings: Intel SDM volume 2, chapter 2.7.

/// An instruction of the EVEX space: opcode map, mandatory prefix (0, 66, F3 as 0, 1, 2), W = 0, opcode.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Opcode {
    map: u8,
    prefix: u8,
    code: u8,
}

const fn opcode(map: u8, prefix: u8, code: u8) -> Opcode {
    Opcode { map, prefix, code }
}

/// The instructions in use, by their names in the manual.
pub(super) mod op {
    use super::{Opcode, opcode};

    pub const ADDPS: Opcode = opcode(1, 0, 0x58);
    pub const MULPS: Opcode = opcode(1, 0, 0x59);
    pub const SUBPS: Opcode = opcode(1, 0, 0x5C);
    pub const MINPS: Opcode = opcode(1, 0, 0x5D);
    pub const DIVPS: Opcode = opcode(1, 0, 0x5E);
    pub const MAXPS: Opcode = opcode(1, 0, 0x5F);
    pub const SQRTPS: Opcode = opcode(1, 0, 0x51);
    pub const ANDPS: Opcode = opcode(1, 0, 0x54);
    pub const ORPS: Opcode = opcode(1, 0, 0x56);
    pub const XORPS: Opcode = opcode(1, 0, 0x57);
    pub const PADDD: Opcode = opcode(1, 1, 0xFE);
    pub const PSUBD: Opcode = opcode(1, 1, 0xFA);
    pub const PMULLD: Opcode = opcode(2, 1, 0x40);
    pub const PMINSD: Opcode = opcode(2, 1, 0x39);
    pub const PMAXSD: Opcode = opcode(2, 1, 0x3D);
    /// Shifts by a constant: /6 left, /4 arithmetic right.
    pub const SHIFT: Opcode = opcode(1, 1, 0x72);
    pub const SCALEFPS: Opcode = opcode(2, 1, 0x2C);
    pub const CMPPS: Opcode = opcode(1, 0, 0xC2);
    pub const PCMPD: Opcode = opcode(3, 1, 0x1F);
    pub const PCMPUD: Opcode = opcode(3, 1, 0x1E);
    pub const BLENDMPS: Opcode = opcode(2, 1, 0x65);
    pub const PMOVM2D: Opcode = opcode(2, 2, 0x38);
    pub const PMOVD2M: Opcode = opcode(2, 2, 0x39);
    pub const RNDSCALEPS: Opcode = opcode(3, 1, 0x08);
    pub const CVTPS2DQ: Opcode = opcode(1, 1, 0x5B);
    pub const CVTDQ2PS: Opcode = opcode(1, 0, 0x5B);
    pub const BROADCASTSS: Opcode = opcode(2, 1, 0x18);
    pub const PBROADCASTD_R32: Opcode = opcode(2, 1, 0x7C);
    pub const MOVAPS: Opcode = opcode(1, 0, 0x28);
    pub const LOAD: Opcode = opcode(1, 0, 0x10);
    pub const STORE: Opcode = opcode(1, 0, 0x11);
    /// The first lane alone.
    pub const STORE_ONE: Opcode = opcode(1, 2, 0x11);
    pub const FMADD132PS: Opcode = opcode(2, 1, 0x98);
    pub const FMADD213PS: Opcode = opcode(2, 1, 0xA8);
    pub const FMADD231PS: Opcode = opcode(2, 1, 0xB8);
    pub const SHUFF32X4: Opcode = opcode(3, 1, 0x23);
    pub const PERMILPS: Opcode = opcode(3, 1, 0x04);
}

/// The mask register of the last vector's lanes.
pub(super) const TAIL: u8 = 1;
/// The mask register of comparisons.
pub(super) const MASK: u8 = 2;

/// Where 32 bits or a vector lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At a byte offset from the table.
    Table(usize),
    /// At a byte offset from the constants.
    Pool(usize),
}

/// The last operand of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operand {
    /// A vector register (or a mask register, or rax).
    Register(u8),
    /// 16 elements of a stream, from the bytes done on.
    Stream(usize),
    /// 16 lanes in memory.
    Vector(Place),
    /// 32 bits in memory for all lanes.
    Broadcast(Place),
}

/// What an instruction does with the lanes that a mask leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Masking {
    /// There is no mask.
    None,
    /// They keep the target's bits.
    Merge(u8),
    /// They become zero.
    Zero(u8),
}

/// A jump whose target is not there yet.
#[must_use]
pub(super) struct Jump(usize);

/// Code under construction.
#[derive(Default)]
pub(super) struct Assembler {
    code: Vec<u8>,
    pool: Vec<u8>,
    /// Positions of 32-bit distances to the constants: of the field, of the next instruction, offset.
    distances: Vec<(usize, usize, usize)>,
}

impl Assembler {
    /// The place of constant words; equal ones lie together.
    pub(super) fn words(&mut self, words: &[u32]) -> Place {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let known = self.pool.chunks_exact(4).position(|chunk| bytes == chunk);
        let at = known.map_or(self.pool.len(), |word| word * 4);
        if known.is_none() {
            self.pool.extend_from_slice(&bytes);
        }
        Place::Pool(at)
    }

    /// `target = instruction(second, last)`; `second` is 0 for instructions that have none.
    pub(super) fn vector(
        &mut self,
        opcode: Opcode,
        target: u8,
        second: u8,
        last: Operand,
        masking: Masking,
        immediate: Option<u8>,
    ) {
        if let Operand::Stream(stream) = last {
            // mov rax, [rdi + 8 · stream]
            self.code.extend_from_slice(&[0x48, 0x8B, 0x87]);
            self.code.extend_from_slice(&(8 * stream as u32).to_le_bytes());
        }
        let (index_bit, base_bit) = match last {
            Operand::Register(register) => (register >> 4 & 1, register >> 3 & 1),
            Operand::Stream(_) | Operand::Vector(_) | Operand::Broadcast(_) => (0, 0),
        };
        let (mask, zero) = match masking {
            Masking::None => (0, 0),
            Masking::Merge(mask) => (mask, 0),
            Masking::Zero(mask) => (mask, 1),
        };
        let broadcast = u8::from(matches!(last, Operand::Broadcast(_)));
        let inverted = |bit: u8, at: u8| (bit & 1 ^ 1) << at;
        self.code.extend_from_slice(&[
            0x62,
            inverted(target >> 3, 7)
                | inverted(index_bit, 6)
                | inverted(base_bit, 5)
                | inverted(target >> 4, 4)
                | opcode.map,
            (!second & 0xF) << 3 | 4 | opcode.prefix,
            zero << 7 | 2 << 5 | broadcast << 4 | inverted(second >> 4, 3) | mask,
            opcode.code,
        ]);
        let field = (target & 7) << 3;
        match last {
            Operand::Register(register) => self.code.push(0xC0 | field | register & 7),
            // [rax + rcx]
            Operand::Stream(_) => self.code.extend_from_slice(&[field | 4, 0x08]),
            Operand::Vector(Place::Table(offset)) | Operand::Broadcast(Place::Table(offset)) => {
                self.code.push(0x80 | field | 7);
                self.code.extend_from_slice(&(offset as u32).to_le_bytes());
            }
            Operand::Vector(Place::Pool(offset)) | Operand::Broadcast(Place::Pool(offset)) => {
                self.code.push(field | 5);
                let end = self.code.len() + 4 + usize::from(immediate.is_some());
                self.distances.push((self.code.len(), end, offset));
                self.code.extend_from_slice(&[0; 4]);
            }
        }
        self.code.extend(immediate);
    }

    /// Bytes of other instructions.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.code.extend_from_slice(bytes);
    }

    /// A conditional jump forward (the second opcode byte of `0F 8x`).
    pub(super) fn jump(&mut self, condition: u8) -> Jump {
        self.code.extend_from_slice(&[0x0F, condition, 0, 0, 0, 0]);
        Jump(self.code.len())
    }

    /// The target of a jump is here.
    pub(super) fn land(&mut self, jump: Jump) {
        let distance = (self.code.len() - jump.0) as i32;
        self.code[jump.0 - 4..jump.0].copy_from_slice(&distance.to_le_bytes());
    }

    /// The position at hand.
    pub(super) fn here(&self) -> usize {
        self.code.len()
    }

    /// A conditional jump back to a position.
    pub(super) fn jump_back(&mut self, condition: u8, to: usize) {
        let distance = to as i32 - (self.code.len() + 6) as i32;
        self.code.extend_from_slice(&[0x0F, condition]);
        self.code.extend_from_slice(&distance.to_le_bytes());
    }

    /// The code and its constants.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let start = self.code.len().next_multiple_of(64);
        self.code.resize(start, 0xCC);
        for (field, end, offset) in &self.distances {
            let distance = (start + offset) as i32 - *end as i32;
            self.code[*field..*field + 4].copy_from_slice(&distance.to_le_bytes());
        }
        self.code.append(&mut self.pool);
        self.code
    }
}
