//! Data: sources, errors, splits, preparation, augmentation, batches.

mod batches;
mod errors;
pub mod hostile;
mod preparation;
pub mod sources;
mod spec;

use std::path::{Path, PathBuf};

use ansatz::runtime::data::{self, Batch, DataError, Dataset, Plan, Rows, Split};
use tempfile::TempDir;

/// A folder with these files.
fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, bytes) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("inside the folder")).expect("made");
        std::fs::write(path, bytes).expect("written");
    }
    folder
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn open(folder: &Path, body: &str) -> Result<Dataset, DataError> {
    data::open(&spec::spec(folder, body), 1)
}

fn opened(folder: &Path, body: &str) -> Dataset {
    open(folder, body).unwrap_or_else(|error| panic!("{error}\n{body}"))
}

/// The whole split in order, unchanged.
fn all(split: &Split) -> Batch {
    split.batch_at(&Plan::evaluation(split.len()), 0)
}

fn floats(batch: &Batch, field: usize) -> &[f32] {
    match &batch.fields[field] {
        Rows::F32(values) => values,
        Rows::I32(_) => panic!("field {field} holds integers"),
    }
}

fn integers(batch: &Batch, field: usize) -> &[i32] {
    match &batch.fields[field] {
        Rows::I32(values) => values,
        Rows::F32(_) => panic!("field {field} holds floats"),
    }
}

/// Message, place and hints of what is wrong.
fn refusal(folder: &Path, body: &str) -> String {
    let diagnostics = match open(folder, body) {
        Ok(data) => panic!("opened: {}\n{body}", data.describe()),
        Err(error) => error.into_diagnostics(),
    };
    let describe = |diagnostic: &ansatz::diagnostics::Diagnostic| {
        format!("{} [{}]", diagnostic.message, diagnostic.hints.join("; "))
    };
    diagnostics.iter().map(describe).collect::<Vec<_>>().join("\n").replace(&format!("{}/", folder.display()), "")
}

#[track_caller]
fn expect_refusal(folder: &Path, body: &str, words: &[&str]) {
    let refusal = refusal(folder, body);
    for word in words {
        assert!(refusal.contains(word), "no {word:?} in:\n{refusal}");
    }
}
