//! Where the operands of primitives lie.
//!
//! Input: byte offsets. Output: addresses during a run. Invariant: a place is the same for every thread's scratch.
#![allow(unsafe_op_in_unsafe_fn)]

/// Where an operand's buffer starts: so many bytes from the base pointer, or from the scratch of the thread at work.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Bytes.
    pub byte: isize,
    /// From the scratch.
    pub from_scratch: bool,
}

impl Place {
    /// A place in the arena.
    pub fn in_arena(byte: usize) -> Place {
        Place { byte: byte as isize, from_scratch: false }
    }

    /// The place of this element.
    pub fn at(self, element: i64) -> Place {
        Place { byte: self.byte + element as isize * size_of::<f32>() as isize, ..self }
    }

    /// The address, given that of the arena and of the scratch.
    ///
    /// # Safety
    /// Both are valid for the place.
    pub unsafe fn pointer(self, base: *mut u8, scratch: *mut u8) -> *mut f32 {
        let start = if self.from_scratch { scratch } else { base };
        start.offset(self.byte).cast()
    }
}
