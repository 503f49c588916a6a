//! A pool of threads that run one function together, and the barrier they meet at.
//!
//! Input: a function of the thread's index. Output: it has run once on every thread; the caller is thread 0.
//! Invariants: `run` returns only when every thread is done; a panic on any thread ends the run with a panic
//! in the caller and never leaves a thread waiting.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long an idle worker spins before it sleeps: longer than the host's work between two steps.
const IDLE_SPIN: Duration = Duration::from_micros(50);
/// Pauses at a barrier before the thread yields its core, where every thread has a core.
const BARRIER_SPINS: u32 = 4000;

type Job = *const (dyn Fn(usize) + Sync);

/// A pool of threads. Dropping it ends them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held during a run: runs do not overlap.
    running: Mutex<()>,
}

struct Shared {
    /// Number of runs started; a worker waits for it to change.
    runs: AtomicUsize,
    /// The current run's function; written only while no worker is active.
    job: UnsafeCell<Option<Job>>,
    /// Workers that have not finished the current run.
    active: AtomicUsize,
    /// Workers asleep on `wake`, changed under `sleep`.
    sleeping: AtomicUsize,
    panicked: AtomicBool,
    closing: AtomicBool,
    sleep: Mutex<()>,
    wake: Condvar,
    barrier: Barrier,
}

// SAFETY: `job` is written by the caller before `runs` is increased with Release and read by workers after they see the
// increase with Acquire; it is next written only after `active` has fallen to 0. The pointee is Sync.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is only dereferenced during the run that set it.
unsafe impl Send for Shared {}

impl Pool {
    /// A pool of `threads` threads (at least 1), of which the caller of [`Pool::run`] is one; of fewer where the system
    /// does not give so many.
    pub fn new(threads: usize) -> Pool {
        let mut threads = threads.max(1);
        loop {
            match Self::of(threads) {
                Ok(pool) => return pool,
                // One thread is the caller's, so the last attempt asks for none.
                Err(_) => threads /= 2,
            }
        }
    }

    fn of(threads: usize) -> std::io::Result<Pool> {
        let shared = Arc::new(Shared {
            runs: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            active: AtomicUsize::new(0),
            sleeping: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            barrier: Barrier::new(threads),
        });
        let mut pool = Pool { shared, workers: Vec::new(), running: Mutex::new(()) };
        for thread in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let named = std::thread::Builder::new().name(format!("ansatz-{thread}"));
            pool.workers.push(named.spawn(move || worker(&shared, thread))?);
        }
        Ok(pool)
    }

    /// How many threads a run has.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// The barrier of the current run; every thread must pass it equally often.
    pub fn barrier(&self) -> &Barrier {
        &self.shared.barrier
    }

    /// Calls `job(thread)` once on each of the threads `0..threads()`, the calling thread being 0, and waits for all.
    /// Must not be called from inside a run of the same pool.
    ///
    /// # Panics
    /// If the job panics on any thread.
    pub fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        let _running = lock(&self.running);
        if self.workers.is_empty() {
            return job(0);
        }
        let shared = &*self.shared;
        // SAFETY: no worker is active, so nobody reads `job`; the lifetime is erased, but this function does not return
        // before every worker has finished with the pointer.
        unsafe {
            *shared.job.get() = Some(std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Job>(job));
        }
        shared.panicked.store(false, Ordering::Relaxed);
        shared.active.store(self.workers.len(), Ordering::Relaxed);
        shared.runs.fetch_add(1, Ordering::SeqCst);
        if shared.sleeping.load(Ordering::SeqCst) > 0 {
            drop(lock(&shared.sleep));
            shared.wake.notify_all();
        }
        let own = catch_unwind(AssertUnwindSafe(|| job(0)));
        if own.is_err() {
            shared.barrier.poison();
        }
        let mut spins = 0;
        while shared.active.load(Ordering::Acquire) > 0 {
            shared.barrier.pause(&mut spins);
        }
        shared.barrier.reset();
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(!shared.panicked.load(Ordering::Relaxed), "a worker thread panicked");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        self.shared.runs.fetch_add(1, Ordering::SeqCst);
        drop(lock(&self.shared.sleep));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches the job's panics, so joining cannot fail in a way that matters here.
            let _ = worker.join();
        }
    }
}

fn worker(shared: &Shared, thread: usize) {
    let mut seen = 0;
    loop {
        wait_for_run(shared, seen);
        seen += 1;
        if shared.closing.load(Ordering::SeqCst) {
            return;
        }
        // SAFETY: the caller wrote the job before the increase of `runs` that `wait_for_run` saw, and keeps it alive until
        // `active` is 0.
        let job = unsafe { &*(*shared.job.get()).expect("a run has a job") };
        if catch_unwind(AssertUnwindSafe(|| job(thread))).is_err() {
            shared.panicked.store(true, Ordering::Relaxed);
            shared.barrier.poison();
        }
        shared.active.fetch_sub(1, Ordering::Release);
    }
}

/// Returns when more than `seen` runs have been started.
fn wait_for_run(shared: &Shared, seen: usize) {
    if shared.barrier.spins > 0 {
        let start = Instant::now();
        while start.elapsed() < IDLE_SPIN {
            for _ in 0..32 {
                if shared.runs.load(Ordering::Acquire) != seen {
                    return;
                }
                std::hint::spin_loop();
            }
        }
    }
    let mut guard = lock(&shared.sleep);
    shared.sleeping.fetch_add(1, Ordering::SeqCst);
    while shared.runs.load(Ordering::SeqCst) == seen {
        guard = shared.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
    }
    shared.sleeping.fetch_sub(1, Ordering::SeqCst);
}

/// The lock guards no data, so a panic while it was held does no harm.
fn lock(mutex: &Mutex<()>) -> MutexGuard<'_, ()> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A barrier for a fixed number of threads that spins first and yields later.
#[derive(Debug)]
pub struct Barrier {
    threads: usize,
    /// Pauses before yielding; 0 where the threads outnumber the cores.
    spins: u32,
    arrived: AtomicUsize,
    /// Number of completed rounds; its change releases the waiting threads.
    round: AtomicUsize,
    poisoned: AtomicBool,
}

impl Barrier {
    /// A barrier for `threads` threads.
    pub fn new(threads: usize) -> Barrier {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Barrier {
            threads,
            spins: if threads <= cores { BARRIER_SPINS } else { 0 },
            arrived: AtomicUsize::new(0),
            round: AtomicUsize::new(0),
            poisoned: AtomicBool::new(false),
        }
    }

    /// Waits until all threads have called it. What each thread wrote before is visible to all after.
    /// When a thread of the run has panicked, returns at once: the run is about to end with that panic.
    pub fn wait(&self, thread: usize) {
        debug_assert!(thread < self.threads);
        if self.threads == 1 {
            return;
        }
        let round = self.round.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            self.arrived.store(0, Ordering::Relaxed);
            self.round.store(round.wrapping_add(1), Ordering::Release);
            return;
        }
        let mut spins = 0;
        while self.round.load(Ordering::Acquire) == round && !self.poisoned.load(Ordering::Relaxed) {
            self.pause(&mut spins);
        }
    }

    /// One pause of a spinning loop; `spins` counts them.
    fn pause(&self, spins: &mut u32) {
        if *spins < self.spins {
            *spins += 1;
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }

    fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
    }

    /// Makes the barrier ready for a new run; no thread is inside.
    fn reset(&self) {
        self.arrived.store(0, Ordering::Relaxed);
        self.poisoned.store(false, Ordering::Release);
    }
}

/// [`Barrier::wait`] for machine code.
///
/// # Safety
/// `barrier` points to a live barrier; `thread` is the calling thread's index.
pub unsafe extern "C" fn barrier_wait(barrier: *const Barrier, thread: usize) {
    // SAFETY: the caller's promise.
    unsafe { (*barrier).wait(thread) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn every_thread_runs_once_in_each_run() {
        for threads in [1, 2, 7] {
            let pool = Pool::new(threads);
            let counts: Vec<AtomicU32> = (0..threads).map(|_| AtomicU32::new(0)).collect();
            for _ in 0..100 {
                pool.run(&|thread| {
                    counts[thread].fetch_add(1, Ordering::Relaxed);
                });
            }
            assert_eq!(pool.threads(), threads);
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 100));
        }
    }

    #[test]
    fn barrier_separates_phases_with_more_threads_than_cores() {
        const ROUNDS: usize = 50;
        for threads in [1, 2, 3, 7] {
            let pool = Pool::new(threads);
            let slots: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
            pool.run(&|thread| {
                for round in 1..=ROUNDS {
                    slots[thread].store(round, Ordering::Relaxed);
                    // SAFETY: the barrier outlives the run.
                    unsafe { barrier_wait(pool.barrier(), thread) };
                    assert!(slots.iter().all(|slot| slot.load(Ordering::Relaxed) == round));
                    pool.barrier().wait(thread);
                }
            });
        }
    }

    #[test]
    fn panic_on_any_thread_reaches_the_caller_and_the_pool_stays_usable() {
        let pool = Pool::new(3);
        for bad in 0..3 {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                pool.run(&|thread| {
                    if thread == bad {
                        resume_unwind(Box::new("expected"));
                    }
                    pool.barrier().wait(thread);
                    pool.barrier().wait(thread);
                });
            }));
            assert!(outcome.is_err());
            let count = AtomicU32::new(0);
            pool.run(&|thread| {
                pool.barrier().wait(thread);
                count.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(count.load(Ordering::Relaxed), 3);
        }
    }

    #[test]
    fn workers_wake_after_sleeping() {
        let pool = Pool::new(2);
        let count = AtomicU32::new(0);
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(2));
            pool.run(&|_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(count.load(Ordering::Relaxed), 6);
    }
}
