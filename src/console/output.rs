//! Where the commands' words go, whatever becomes of the reader.
//!
//! Input: words. Output: the same on standard output or standard error. Invariant: printing never ends a command. A reader
//! that has gone away (`| head`) is no failure; words that a full disk did not take are told of, and counted at the end.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::sync::OnceLock;

/// Why standard output did not take everything.
static LOST: OnceLock<String> = OnceLock::new();

/// Writes to standard output.
pub fn say(words: Arguments<'_>) {
    note(io::stdout().lock().write_fmt(words));
}

/// Writes to standard error; where that fails, nothing is left to tell it to.
pub fn tell(words: Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(words);
}

/// Hands over what standard output holds back; why it has not taken everything, if so.
pub fn finish() -> Option<&'static str> {
    note(io::stdout().flush());
    LOST.get().map(String::as_str)
}

fn note(written: io::Result<()>) {
    let Err(error) = written else { return };
    if error.kind() != ErrorKind::BrokenPipe && LOST.set(error.to_string()).is_ok() {
        tell(format_args!("warning: standard output cannot be written: {error}\n"));
    }
}
