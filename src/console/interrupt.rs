//! Signals that ask a training to end.
//!
//! Input: SIGINT, SIGTERM, SIGHUP. Output: the signal's number, which the loop looks at after each step. Invariants: once
//! a run is under way no signal, however often it comes, keeps the running step from being saved; a signal that the
//! process was started to ignore (`nohup`) stays ignored.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

#[cfg(unix)]
const SIGNALS: [i32; 3] = [SIGINT, SIGTERM, signal_hook::consts::SIGHUP];
#[cfg(not(unix))]
const SIGNALS: [i32; 2] = [SIGINT, SIGTERM];

/// What signals do to this process.
pub struct Interrupt {
    /// The last signal while a run was under way, or 0.
    number: Arc<AtomicUsize>,
    /// Nothing would be lost by ending at once.
    idle: Arc<AtomicBool>,
}

impl Interrupt {
    /// Watches for signals. Until [`Interrupt::begin`] one ends the process at once, with its exit code.
    pub fn watch() -> io::Result<Self> {
        let interrupt = Self { number: Arc::new(AtomicUsize::new(0)), idle: Arc::new(AtomicBool::new(true)) };
        for signal in SIGNALS.into_iter().filter(|signal| !is_ignored(*signal)) {
            // The first registered acts first.
            flag::register_conditional_shutdown(signal, i32::from(code(signal as usize)), interrupt.idle.clone())?;
            flag::register_usize(signal, interrupt.number.clone(), signal as usize)?;
        }
        Ok(interrupt)
    }

    /// From here on signals are noted, and the run ends at its next step.
    pub fn begin(&self) {
        self.idle.store(false, Ordering::Relaxed);
    }

    /// Everything is saved; from here on a signal ends the process at once.
    pub fn end(&self) {
        self.idle.store(true, Ordering::Relaxed);
    }

    /// Not zero after a signal.
    pub fn flag(&self) -> &AtomicUsize {
        &self.number
    }

    /// The exit code of the signal that came, if one came.
    pub fn code(&self) -> Option<u8> {
        let number = self.number.load(Ordering::Relaxed);
        (number != 0).then(|| code(number))
    }
}

/// 130 after SIGINT, 143 after SIGTERM, 129 after SIGHUP: what a shell shows for a process that the signal ended.
fn code(number: usize) -> u8 {
    128 + number as u8
}

/// Whether the process was started with this signal ignored, as Linux tells it.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
