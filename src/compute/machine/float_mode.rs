//! The floating-point mode of the calling thread: denormals are flushed, and exceptional results are noticed.
//!
//! Input: a scope. Output: inside it, denormal operands read as zero and denormal results become zero; at its end it is
//! known whether an operation made an infinity or what is not a number out of finite numbers. Invariant: the thread's
//! former mode comes back when the scope ends, by return or by panic.
//! Denormals cost a hundred cycles each and carry nothing that training needs. The processor keeps its exception flags
//! anyway, so noticing costs nothing.

/// Bits 15 (flush results to zero) and 6 (read denormals as zero) of MXCSR.
#[cfg(target_arch = "x86_64")]
const FLUSH_BITS: u32 = (1 << 15) | (1 << 6);

/// The flags of all exceptions in MXCSR; they stay set until written.
#[cfg(target_arch = "x86_64")]
const ALL_FLAGS: u32 = 0x3F;

/// Those of an invalid operation (0), a division by zero (2) and an overflow (3).
#[cfg(target_arch = "x86_64")]
const EXCEPTIONAL_FLAGS: u32 = 1 | (1 << 2) | (1 << 3);

/// Holds the calling thread in flush-to-zero mode until dropped.
#[derive(Debug)]
pub struct Guard {
    #[cfg(target_arch = "x86_64")]
    former: u32,
    /// The mode belongs to one thread, so the guard must not move to another.
    thread_bound: std::marker::PhantomData<*const ()>,
}

impl Guard {
    /// Sets the mode and clears the flags.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Guard {
        #[cfg(target_arch = "x86_64")]
        {
            let former = read_mode();
            write_mode((former | FLUSH_BITS) & !ALL_FLAGS);
            Guard { former, thread_bound: std::marker::PhantomData }
        }
        #[cfg(not(target_arch = "x86_64"))]
        Guard { thread_bound: std::marker::PhantomData }
    }

    /// Whether an operation of this thread since [`Guard::new`] made an infinity or what is not a number out of finite
    /// numbers. True says that one may have done so: what a comparison then left out counts too, and where flags cannot be
    /// read the answer is always true.
    pub fn is_exceptional(&self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return read_mode() & EXCEPTIONAL_FLAGS != 0;
        #[cfg(not(target_arch = "x86_64"))]
        return true;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        write_mode(self.former);
    }
}

/// Sets the flag of an invalid operation, for functions that give infinities or NaN by other means than arithmetic.
#[cold]
pub fn note_exception() {
    let infinity = std::hint::black_box(f32::INFINITY);
    std::hint::black_box(infinity * 0.0);
}

#[cfg(target_arch = "x86_64")]
fn read_mode() -> u32 {
    let mut mode = 0u32;
    // SAFETY: stores the 32-bit MXCSR to a local.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &mut mode, options(nostack, preserves_flags)) };
    mode
}

#[cfg(target_arch = "x86_64")]
fn write_mode(mode: u32) {
    // SAFETY: the value stems from `stmxcsr`, with the two flush bits or without flags, so no reserved bit is set.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &mode, options(nostack, preserves_flags)) };
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use std::hint::black_box;

    #[test]
    fn denormal_results_become_zero_inside_the_scope_only() {
        let tiny = black_box(f32::MIN_POSITIVE);
        let half = black_box(0.5f32);
        assert!(black_box(tiny * half) > 0.0);
        {
            let _guard = Guard::new();
            assert_eq!(black_box(black_box(tiny) * black_box(half)), 0.0);
        }
        assert!(black_box(black_box(tiny) * black_box(half)) > 0.0);
    }

    #[test]
    fn what_makes_an_infinity_or_nan_of_numbers_is_noticed_and_nothing_else() {
        let is_noticed = |operation: fn() -> f32| {
            let guard = Guard::new();
            black_box(operation());
            guard.is_exceptional()
        };
        assert!(is_noticed(|| black_box(f32::MAX) * black_box(2.0)));
        assert!(is_noticed(|| black_box(1.0) / black_box(0.0)));
        assert!(is_noticed(|| black_box(0.0) / black_box(0.0)));
        assert!(is_noticed(|| black_box(f32::INFINITY) * black_box(0.0)));
        assert!(is_noticed(|| black_box(-1.0f32).sqrt()));
        assert!(is_noticed(|| {
            note_exception();
            0.0
        }));
        assert!(!is_noticed(|| black_box(1.0) / black_box(3.0)));
        assert!(!is_noticed(|| black_box(f32::MIN_POSITIVE) * black_box(0.1)));
        assert!(!is_noticed(|| black_box(f32::NEG_INFINITY) + black_box(1.0)));
        assert!(!is_noticed(|| black_box(f32::NAN) + black_box(1.0)));
    }
}
