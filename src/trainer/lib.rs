//! Trainers: one executable file that holds a run with its machine code, and needs no compiler where it runs.
//!
//! Input: the [`Contents`] behind the program's own bytes, and arguments. Output: as the `ansatz` command's. Invariants: the
//! same steps, options, files and bits as `ansatz train` on the same level; nothing else is read than the file itself, its
//! data and what the user names.
//!
//! The program in front of the contents, the stub, is this crate with nothing around it: see `build.rs` of the compiler.

#![allow(unsafe_code)]

pub mod carried;
mod command;
pub mod contents;
mod info;

use ansatz_console as console;
use ansatz_program::{artifact, device, kernel, settings, source};
use ansatz_run::{cpu, cuda, runtime};

pub use contents::Contents;

// What unwinds is linked into the file, so that it asks a system for nothing but the C library.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[link(name = "gcc_eh", kind = "static", modifiers = "+whole-archive,-bundle")]
unsafe extern "C" {}

/// Runs this process as a trainer, if its file carries a run.
pub fn main_of_trainer() -> Option<std::process::ExitCode> {
    let path = own_file()?;
    let carried = contents::open(&path).transpose()?;
    Some(command::main(&path, carried))
}

/// The file of this process.
fn own_file() -> Option<std::path::PathBuf> {
    let by_system = std::env::current_exe().ok();
    // Where `/proc` is missing, the name by which the process was started, from the folder that it was started in.
    #[cfg(target_os = "linux")]
    let by_system = by_system.or_else(|| {
        use std::os::unix::ffi::OsStrExt;
        let name = std::ffi::OsStr::from_bytes(rustix::param::linux_execfn().to_bytes());
        std::path::absolute(name).ok()
    });
    by_system
}
