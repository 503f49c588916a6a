//! Hostile files, a line each: what the commands say of them, and that they end, soon and within little memory.

mod arrays;
mod pictures;
mod runs;
mod tables;
mod texts;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Address space of a command, in KiB: what a header claims must not be taken from it.
const MEMORY: u64 = 1 << 20;

/// Far more than any case takes, on a machine that is busy with other tests.
const LONGEST: Duration = Duration::from_secs(60);

/// A file that is wrong, and what is to be said of it.
struct Case {
    name: &'static str,
    files: Vec<(&'static str, Vec<u8>)>,
    /// The lines of the data item that reads them.
    body: &'static str,
    /// Words of the message; the file's name first.
    words: &'static [&'static str],
}

/// A command in a folder, within [`MEMORY`].
fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -v {MEMORY}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_ansatz")]);
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).env_remove("RUST_BACKTRACE");
    command.output().expect("a shell")
}

/// What is wrong with how a command took a file; none if it refused it with all words.
fn trouble(folder: &Path, arguments: &[&str], words: &[&str]) -> Option<String> {
    let began = Instant::now();
    let output = run(folder, arguments);
    let shown = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let code = output.status.code();
    if !matches!(code, Some(1 | 2)) || shown.contains("panicked") {
        return Some(format!("ends with {:?}: {shown}", output.status));
    }
    if began.elapsed() > LONGEST {
        return Some(format!("takes {:?}", began.elapsed()));
    }
    let absent = words.iter().find(|word| !shown.contains(*word))?;
    Some(format!("no {absent:?} in: {shown}"))
}

fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().expect("inside of a folder")).expect("made");
    std::fs::write(path, bytes).expect("written");
}

/// A model file that trains on the item of these lines.
fn trains_on(body: &str) -> String {
    format!(
        "model M {{\n  input x: [N, 2]\n  return x -> fc: Linear(3)\n}}\n\ndata d {{\n {body}\n}}\n\n\
         train M on d {{\n  loss = cross_entropy(label)\n  optimizer = sgd(lr = 0.1)\n  length = 1 steps\n}}\n"
    )
}

/// A folder with a model file `m.ansatz` that trains on the item of these lines.
fn project(body: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path(), "m.ansatz", trains_on(body));
    folder
}

/// Trains on the files of each case; all that is wrong is told at once.
fn refuse(cases: &[Case]) {
    let check = |case: &Case| {
        let folder = project(case.body);
        case.files.iter().for_each(|(name, bytes)| write(folder.path(), name, bytes));
        let arguments = ["train", "m.ansatz", "--run", "run", "--threads", "1"];
        let words = trouble(folder.path(), &arguments, case.words)?;
        Some(format!("{}: {words}", case.name))
    };
    let wrong: Vec<String> = cases.iter().filter_map(check).collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// Case by case: name, the bytes of the file, words.
fn cases_of(
    file: &'static str,
    body: &'static str,
    cases: Vec<(&'static str, Vec<u8>, &'static [&'static str])>,
) -> Vec<Case> {
    let case = |(name, bytes, words)| Case { name, files: vec![(file, bytes)], body, words };
    cases.into_iter().map(case).collect()
}
