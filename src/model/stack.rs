//! Room for recursion over syntax trees and definitions.
//!
//! Input: work that recurses as deep as `apply` and the parser allow. Output: its result.
//! Invariant: a model file of any form that the parser accepts is expanded without overflowing the stack.

use std::thread;

/// Definitions nest at most [`super::apply::MAX_DEPTH`] deep, expressions in each at most 256; a level takes below 20 KiB in
/// a debug build (tested). Only what is touched takes memory.
const STACK_BYTES: usize = 512 << 20;

/// Runs `work` on a thread with a large stack; a panic goes on in the caller.
pub(crate) fn with_room<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let worker = thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
        let worker = worker.expect("the system can start a thread");
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
