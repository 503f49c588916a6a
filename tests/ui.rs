//! What a user reads: each `tests/ui/NAME.ansatz` with the exact text that checking it shows, `NAME.stderr`.
//!
//! `ANSATZ_BLESS=1 cargo test --test main ui` rewrites the expected texts; read them before you commit them.
//! Files below `tests/ui/files` are imported by cases. Invariant: every case finds something, no expected text is
//! without a case, and no case panics.

use std::collections::BTreeSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use ansatz::cpu::Lowering;
use ansatz::diagnostics::{Diagnostic, render};
use ansatz::model::Project;
use ansatz::workspace::check::check;

/// A name and what makes the text.
type Generated = (&'static str, fn() -> String);

/// Cases that are shorter to build than to store.
const GENERATED: &[Generated] = &[
    ("generated_deep_parentheses", || format!("model M {{\n  return {}x\n}}\n", "(".repeat(10_000))),
    ("generated_deep_blocks", || format!("model M {{\n{}\n}}\n", "if a { ".repeat(10_000))),
    ("generated_long_sum", || format!("fn f(x) = {}1\n", "x + ".repeat(10_000))),
    ("generated_long_line", || format!("fn f(x) = g({}) y\n", vec!["argument"; 2_000].join(", "))),
    ("generated_many_mistakes", || format!("model M {{\n{}}}\n", "  1 2\n".repeat(10_000))),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui")
}

/// The rendered findings of one case, by the same steps as `ansatz check`.
fn findings(name: &str, read: &dyn Fn(&Path) -> io::Result<Vec<u8>>) -> String {
    let (project, file, mut found) = Project::load(Path::new(name), Some(Path::new("")), read);
    if !found.iter().any(Diagnostic::is_error) {
        found.extend(check(&project, file, &Lowering::default()));
    }
    render::human(&found, &project.sources, false)
}

/// Compares one case with its expected text, or writes it; the error says how they differ.
fn verify(name: &str, read: &dyn Fn(&Path) -> io::Result<Vec<u8>>) -> Result<(), String> {
    let shown = catch_unwind(AssertUnwindSafe(|| findings(&format!("{name}.ansatz"), read)))
        .map_err(|_| format!("{name}: the compiler panicked"))?;
    if shown.is_empty() {
        return Err(format!("{name}: nothing was found"));
    }
    let path = folder().join(format!("{name}.stderr"));
    if std::env::var_os("ANSATZ_BLESS").is_some() {
        return std::fs::write(&path, shown).map_err(|error| format!("{name}: {error}"));
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    if shown == expected { Ok(()) } else { Err(format!("{name}: expected\n{expected}\nfound\n{shown}")) }
}

fn names(extension: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder()).expect("tests/ui is readable");
    let paths = entries.map(|entry| entry.expect("tests/ui is readable").path());
    paths
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .filter_map(|path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()))
        .collect()
}

#[test]
fn every_case_shows_its_expected_text() {
    let read = |path: &Path| std::fs::read(folder().join(path));
    let mut wrong: Vec<String> = names("ansatz").iter().filter_map(|name| verify(name, &read).err()).collect();
    for (name, text) in GENERATED {
        let text = text();
        let read = |_: &Path| Ok(text.clone().into_bytes());
        wrong.extend(verify(name, &read).err());
    }
    assert!(wrong.is_empty(), "{} cases differ\n\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_expected_text_has_its_case() {
    let generated = GENERATED.iter().map(|(name, _)| name.to_string());
    let cases: BTreeSet<String> = names("ansatz").into_iter().chain(generated).collect();
    assert_eq!(names("stderr"), cases);
    assert!(cases.len() >= 120, "{} cases", cases.len());
}
