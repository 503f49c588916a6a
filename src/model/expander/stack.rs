//! Room for recursion over syntax trees and definitions.
//!
//! Input: work that recurses as deep as `apply` and the parser allow. Output: its result.
//! Invariant: a model file of any form that the parser accepts is expanded, or refused, without overflowing the stack.

use std::cell::Cell;
use std::thread;

/// Definitions nest at most `expand/apply::MAX_DEPTH` deep, expressions in each at most 256; a level takes below
/// 20 KiB in a debug build (tested). Only what is touched takes memory, but all is reserved: where a limit on the address space
/// forbids that, less is asked for.
const STACK_BYTES: [usize; 4] = [512 << 20, 128 << 20, 32 << 20, 16 << 20];

/// What the expressions of one definition and the proofs about them take at most.
const DEFINITION_BYTES: usize = 8 << 20;

thread_local! {
    /// The lowest address from which definitions may nest further; 0 where nobody asked for room.
    static END: Cell<usize> = const { Cell::new(0) };
}

/// Runs `work` on a thread with a large stack, or here where the system gives none; a panic goes on in the caller.
pub(crate) fn with_room<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    // A thread that cannot be started drops its closure, so the work is lent to it.
    let mut work = Some(work);
    for bytes in STACK_BYTES {
        let lent = &mut work;
        let done = thread::scope(|scope| {
            let run = move || {
                END.set(here().saturating_sub(bytes - DEFINITION_BYTES));
                lent.take().map(|work| work())
            };
            let worker = thread::Builder::new().stack_size(bytes).spawn_scoped(scope, run).ok()?;
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        if let Some(result) = done {
            return result;
        }
    }
    // Nothing is known of this thread's stack, so what needs room is refused.
    END.set(usize::MAX);
    let work = work.take().expect("no thread took the work");
    let result = work();
    END.set(0);
    result
}

/// Whether another definition may nest here.
pub(crate) fn has_room() -> bool {
    here() > END.get()
}

/// An address in the frame of the caller; stacks grow downwards.
#[inline(never)]
fn here() -> usize {
    let local = 0u8;
    std::ptr::from_ref(std::hint::black_box(&local)) as usize
}
