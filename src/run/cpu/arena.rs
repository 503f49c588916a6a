//! The bytes that a program runs over: one zeroed block, 64-byte aligned, with typed views by buffer.
//!
//! Input: a program's size. Output: views and a base pointer. Invariant: [`PADDING`] readable bytes lie before and
//! behind the program's bytes, since masked vector loads may touch up to three elements around a buffer.
//!
//! The block is mapped, not allocated: the system zeroes a page when a thread first touches it, so nobody waits for
//! the whole block and bytes that no kernel reaches never become resident. Large pages are asked for.

use std::io;
use std::ptr::NonNull;

use memmap2::MmapMut;

use crate::graph::DType;
use crate::kernel::{Buffer, Program};

/// Bytes before and behind the program's own; also the alignment of the block.
pub const PADDING: usize = 64;

/// Bytes of a large page on x86-64; a smaller block has no use for one.
#[cfg(target_os = "linux")]
const LARGE_PAGE: usize = 2 << 20;

/// The memory of one run of a program. All elements start as zero.
#[derive(Debug)]
pub struct Arena {
    /// The start of `map`.
    block: NonNull<u8>,
    /// Owns the block.
    map: MmapMut,
    bytes: usize,
    /// Memory of the threads of a run; its contents mean nothing between runs.
    scratch: Option<Box<Arena>>,
}

// SAFETY: the arena owns its block; views borrow it by Rust's rules.
unsafe impl Send for Arena {}
// SAFETY: shared access only reads.
unsafe impl Sync for Arena {}

/// What a buffer's bytes are read as: 4-byte numbers, or bytes.
trait Element: Copy {
    const DTYPE: DType;
}
impl Element for f32 {
    const DTYPE: DType = DType::F32;
}
impl Element for i32 {
    const DTYPE: DType = DType::I32;
}
impl Element for u8 {
    const DTYPE: DType = DType::Bool;
}

impl Arena {
    /// The zeroed memory of a program.
    ///
    /// # Errors
    /// Where the system has not so much.
    pub fn new(program: &Program) -> io::Result<Self> {
        Self::with_bytes(program.arena_bytes)
    }

    /// Zeroed memory of this many bytes.
    ///
    /// # Errors
    /// As [`Arena::new`].
    pub fn with_bytes(bytes: usize) -> io::Result<Self> {
        let padded = bytes.checked_next_multiple_of(PADDING).and_then(|bytes| bytes.checked_add(2 * PADDING));
        let mut map = MmapMut::map_anon(padded.ok_or(io::ErrorKind::OutOfMemory)?)?;
        #[cfg(target_os = "linux")]
        if map.len() >= LARGE_PAGE {
            // Advice may be refused, by a kernel without large pages for one; small pages do as well.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        let block = NonNull::new(map.as_mut_ptr()).expect("a mapping does not lie at address 0");
        Ok(Self { block, map, bytes, scratch: None })
    }

    /// Bytes of the program, without the padding.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes room for at least this many bytes; what was there stays.
    ///
    /// # Errors
    /// As [`Arena::new`]; the arena is then as it was.
    pub fn grow(&mut self, bytes: usize) -> io::Result<()> {
        if bytes <= self.bytes {
            return Ok(());
        }
        let mut larger = Self::with_bytes(bytes)?;
        // SAFETY: both blocks hold the padding and `self.bytes` bytes behind it, and do not overlap.
        unsafe { larger.block.copy_from_nonoverlapping(self.block, PADDING + self.bytes) };
        debug_assert!(larger.map.len() >= self.map.len(), "an arena only grows");
        larger.scratch = self.scratch.take();
        *self = larger;
        Ok(())
    }

    /// Makes room for at least this many bytes of scratch, so that a run need not.
    ///
    /// # Errors
    /// As [`Arena::new`].
    pub fn grow_scratch(&mut self, bytes: usize) -> io::Result<()> {
        if self.scratch.as_ref().is_none_or(|scratch| scratch.bytes < bytes) {
            self.scratch = Some(Box::new(Self::with_bytes(bytes)?));
        }
        Ok(())
    }

    /// The address that buffers' offsets count from.
    pub(super) fn base(&mut self) -> *mut u8 {
        // SAFETY: the padding lies inside the block.
        unsafe { self.block.as_ptr().add(PADDING) }
    }

    /// At least this many bytes of scratch, 64-byte aligned.
    ///
    /// # Panics
    /// Where the system has not so much and [`Arena::grow_scratch`] was not asked before.
    pub(super) fn scratch(&mut self, bytes: usize) -> *mut u8 {
        self.grow_scratch(bytes).expect("scratch of a run fits the memory");
        self.scratch.as_mut().expect("just made").base()
    }

    fn range<T: Element>(&self, buffer: &Buffer) -> (*mut T, usize) {
        assert_eq!(buffer.dtype, T::DTYPE, "buffer `{}` is viewed as its own type", buffer.role);
        let count: usize = buffer.sizes.iter().product();
        let end = buffer.offset + count * size_of::<T>();
        assert!(end <= self.bytes, "buffer `{}` lies inside the arena", buffer.role);
        assert_eq!(buffer.offset % align_of::<T>(), 0, "buffer `{}` is aligned", buffer.role);
        // SAFETY: the range is inside the block by the assertions.
        (unsafe { self.block.as_ptr().add(PADDING + buffer.offset).cast() }, count)
    }

    fn view<T: Element>(&self, buffer: &Buffer) -> &[T] {
        let (start, count) = self.range(buffer);
        // SAFETY: in bounds and aligned (`range`), initialised (zeroed), and any bits are a valid `T`.
        unsafe { std::slice::from_raw_parts(start, count) }
    }

    fn view_mut<T: Element>(&mut self, buffer: &Buffer) -> &mut [T] {
        let (start, count) = self.range(buffer);
        // SAFETY: as in `view`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(start, count) }
    }

    /// The elements of an F32 buffer.
    pub fn f32(&self, buffer: &Buffer) -> &[f32] {
        self.view(buffer)
    }

    /// The elements of an F32 buffer, for writing.
    pub fn f32_mut(&mut self, buffer: &Buffer) -> &mut [f32] {
        self.view_mut(buffer)
    }

    /// The elements of an I32 buffer.
    pub fn i32(&self, buffer: &Buffer) -> &[i32] {
        self.view(buffer)
    }

    /// The elements of an I32 buffer, for writing.
    pub fn i32_mut(&mut self, buffer: &Buffer) -> &mut [i32] {
        self.view_mut(buffer)
    }

    /// The elements of a Bool buffer, 0 or 1.
    pub fn bool(&self, buffer: &Buffer) -> &[u8] {
        self.view(buffer)
    }

    /// The elements of a Bool buffer, for writing 0 or 1.
    pub fn bool_mut(&mut self, buffer: &Buffer) -> &mut [u8] {
        self.view_mut(buffer)
    }

    /// The bytes of a buffer of any type (checkpoints).
    pub fn raw(&self, buffer: &Buffer) -> &[u8] {
        let end = buffer.offset + buffer.bytes();
        assert!(end <= self.bytes, "buffer `{}` lies inside the arena", buffer.role);
        // SAFETY: in bounds, and all bytes are initialised.
        unsafe { std::slice::from_raw_parts(self.block.as_ptr().add(PADDING + buffer.offset), buffer.bytes()) }
    }

    /// The bytes of a buffer of any type, for writing.
    pub fn raw_mut(&mut self, buffer: &Buffer) -> &mut [u8] {
        let (start, count) = (self.raw(buffer).as_ptr().cast_mut(), buffer.bytes());
        // SAFETY: as in `raw`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(start, count) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Role;

    fn buffer(dtype: DType, offset: usize, size: usize) -> Buffer {
        Buffer { role: Role::Temporary("b".into()), dtype, sizes: vec![size], offset }
    }

    #[test]
    fn views_are_zero_at_first_and_keep_what_is_written() {
        let mut arena = Arena::with_bytes(200).expect("memory");
        let (a, b) = (buffer(DType::F32, 64, 5), buffer(DType::Bool, 128, 3));
        assert_eq!(arena.f32(&a), [0.0; 5]);
        arena.f32_mut(&a)[4] = 2.5;
        arena.bool_mut(&b)[1] = 1;
        assert_eq!(arena.f32(&a)[4], 2.5);
        assert_eq!(arena.raw(&b), [0, 1, 0]);
        assert_eq!(arena.base() as usize % 64, 0);
    }

    #[test]
    fn more_than_the_system_has_is_an_error_and_changes_nothing() {
        let mut arena = Arena::with_bytes(64).expect("memory");
        arena.f32_mut(&buffer(DType::F32, 0, 1))[0] = 1.0;
        for bytes in [usize::MAX, 1 << 60] {
            assert!(Arena::with_bytes(bytes).is_err() && arena.grow_scratch(bytes).is_err());
            assert!(arena.grow(bytes).is_err());
        }
        assert_eq!((arena.bytes(), arena.f32(&buffer(DType::F32, 0, 1))[0]), (64, 1.0));
    }

    #[test]
    #[should_panic(expected = "lies inside the arena")]
    fn a_view_beyond_the_arena_is_refused() {
        Arena::with_bytes(64).expect("memory").f32(&buffer(DType::F32, 0, 17));
    }
}
