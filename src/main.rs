//! The `ansatz` command.
fn main() {}
