//! New data for a trained model: a table, an array, a picture or a folder of them in place of the item's source.
//!
//! Input: a data item, its [`Preparation`], the path. Output: an [`Input`] with the fields that are wanted.
//! Invariant: the item is used for its form alone (types, sizes, how its format is read); its own files stay closed and
//! nothing is measured.

use std::path::{Path, PathBuf};

use super::demand::Provenance;
use super::error::{DataError, FileError};
use super::files::Budget;
use super::preparation::Preparation;
use super::settings::{RowStage, Settings};
use super::source::{Context, Role};
use super::split::Divided;
use super::table::Part;
use super::{Column, Dataset, fitted, prepare, prepared_sizes, settings, table};
use crate::diagnostics::Diagnostic;
use crate::settings::{DataSpec, Literal, LiteralKind};

/// Prepared new data.
#[derive(Clone, Debug)]
pub struct Input {
    /// The wanted fields, in the order of the item, and all samples, in order, as its first split.
    pub dataset: Dataset,
    /// What is to be said aloud: columns that no field takes, records left out.
    pub remarks: Vec<String>,
}

/// Reads new data. `path` is the user's, anywhere, or `-` for a text table on standard input; `wanted` are the fields to read.
///
/// # Errors
/// An item that changed since, a file that does not fit it, a source that nothing can stand for.
pub fn open_input(
    spec: &DataSpec,
    preparation: &Preparation,
    path: &Path,
    wanted: &[String],
) -> Result<Input, DataError> {
    let spec = redirect(spec, path, wanted)?;
    let settings = settings::read(&spec).map_err(DataError::Spec)?;
    preparation.admit(&settings, &spec)?;
    let fields = &settings.fields;
    let (columns, words) = (preparation.columns(fields), preparation.words(fields));
    let (columns, words, budget) = (&columns, &words, &Budget::of_memory());
    let context = Context { spec: &spec, budget, fields, seed: 0, role: Role::Input, columns, words };
    let span = settings.source.span;
    let loaded = settings.source.source.read(&context).map_err(|error| error.with_span(span))?;
    let mut remarks = Vec::new();
    let (part, kept) = complete(loaded.main, &settings, words, &mut remarks)?;
    let provenance = Provenance::of(&part, kept);
    let mut prepared = Vec::new();
    for (index, (field, column)) in fields.iter().zip(part.columns).enumerate() {
        let stages = preparation.field(&field.name).map_or(&[][..], |known| known.stages.as_slice());
        let values = fitted::applied(column.values, field, stages)
            .map_err(|message| DataError::File { span, error: FileError::new(&column.path, message) })?;
        let sizes = prepared_sizes(field, &settings.prepare[index]);
        prepared.push(Column { values, augment: settings.augment[index].clone(), sizes });
    }
    let divided = Divided { train: (0..part.records as u32).collect(), ..Divided::default() };
    let (preparation, provenance) = (preparation.clone(), vec![provenance]);
    let dataset = Dataset::new(&spec, settings.infos, prepared, part.places, divided, preparation, provenance);
    Ok(Input { dataset, remarks })
}

/// The records that can be used, in the declared types, and their numbers where some were left out.
fn complete(
    mut part: Part,
    settings: &Settings,
    words: &[Vec<String>],
    remarks: &mut Vec<String>,
) -> Result<(Part, Option<Vec<u32>>), DataError> {
    let (fields, span) = (settings.fields.as_slice(), settings.source.span);
    if !part.unused.is_empty() {
        let shown: Vec<&str> = part.unused.iter().take(8).map(String::as_str).collect();
        let more = if part.unused.len() > shown.len() { ", …" } else { "" };
        remarks.push(format!("not read, since the model takes none of it: {}{more}", shown.join(", ")));
    }
    table::unify_words(&mut [&mut part], fields, words).map_err(|error| error.with_span(span))?;
    let mut part = part.conform(fields).map_err(|error| error.with_span(span))?;
    let mut kept = None;
    if settings.rows.contains(&RowStage::DropMissing) {
        let before = part.records;
        kept = Some(part.drop_missing());
        if part.records < before {
            let left = before - part.records;
            remarks.push(format!("left out {left} of {before} records: a value is missing, and the item drops those"));
        }
    }
    for (which, field) in fields.iter().enumerate() {
        if !settings.prepare[which].iter().any(|stage| matches!(stage, prepare::Stage::Fill(_))) {
            part.refuse_missing(which, field).map_err(|error| DataError::File {
                span,
                error: error.hint(format!(
                    "the run learned nothing to put there; `prepare.{} = fill(mean)` would have",
                    field.name
                )),
            })?;
        }
    }
    if part.records == 0 {
        return Err(super::empty(&part, "the input", span));
    }
    Ok((part, kept))
}

/// The item with the wanted fields alone and the path as its source.
fn redirect(spec: &DataSpec, path: &Path, wanted: &[String]) -> Result<DataSpec, DataError> {
    let mut spec = spec.clone();
    let is_wanted = |field: Option<&String>| field.is_some_and(|field| wanted.contains(field));
    spec.fields.retain(|field| is_wanted(Some(&field.name)));
    spec.entries.retain(|entry| match (entry.key.first().map(String::as_str), entry.key.len()) {
        (Some("split" | "test" | "valid"), _) => false,
        (Some("prepare" | "augment"), 2) => is_wanted(entry.key.last()),
        _ => true,
    });
    let item = spec.span;
    let numbers: Vec<(String, String)> =
        spec.fields.iter().filter(|f| f.element != "class").map(|f| (f.name.clone(), f.element.clone())).collect();
    let entry = spec.entries.iter_mut().find(|entry| entry.key == ["source"]);
    let Some(entry) = entry else { return Ok(spec) };
    let name = if path == Path::new("-") {
        "-".to_string()
    } else {
        let (root, name) = located(path).map_err(|error| DataError::File { span: entry.span, error })?;
        (spec.root, spec.folder, spec.packed) = (root, PathBuf::new(), None);
        name
    };
    let text = Literal { span: entry.value.span, kind: LiteralKind::Text(name) };
    let (own, given) = match &entry.value.kind {
        LiteralKind::Call { name, arguments } => (name.as_str(), arguments.as_slice()),
        _ => ("", &[][..]),
    };
    let format = format_of(path, own);
    // What the item says about reading its format holds for the new file too; names of files and fields do not.
    let kept = |names: &[&str]| -> Vec<(Option<String>, Literal)> {
        let same = own == format;
        given.iter().filter(|(name, _)| same && name.as_deref().is_some_and(|n| names.contains(&n))).cloned().collect()
    };
    let first = |rest: Vec<(Option<String>, Literal)>| [vec![(None, text.clone())], rest].concat();
    let arguments = match (format, numbers.as_slice()) {
        ("csv", _) => {
            let mut said = kept(&["header", "missing", "delimiter"]);
            let tabs = path.to_string_lossy().trim_end_matches(".gz").ends_with(".tsv");
            if tabs && !said.iter().any(|(name, _)| name.as_deref() == Some("delimiter")) {
                let tab = Literal { span: entry.value.span, kind: LiteralKind::Text("\t".to_string()) };
                said.push((Some("delimiter".to_string()), tab));
            }
            first(said)
        }
        ("npz", _) => first(kept(&wanted.iter().map(String::as_str).collect::<Vec<_>>())),
        ("cifar_binary", _) => first(kept(&["labels"])),
        ("image_folder", [(field, element)]) if element != "u8" => {
            let message =
                format!("`{field}` is declared {element}, so nothing says how a picture's bytes become its values");
            return Err(DataError::spec(Diagnostic::error("data-source", item, message)));
        }
        ("image_folder", _) => first(kept(&["size"])),
        ("npy", [(field, _)]) => vec![(Some(field.clone()), text.clone())],
        ("idx", _) => vec![(Some("images".to_string()), text.clone())],
        _ => {
            let message = format!("nothing says how {} is to be read", path.display());
            let diagnostic = Diagnostic::error("data-source", entry.span, message);
            return Err(DataError::spec(
                diagnostic
                    .hint("give a table (.csv), an array (.npy, .npz), a picture (.png, .jpg) or a folder of them"),
            ));
        }
    };
    entry.value.kind = LiteralKind::Call { name: format.to_string(), arguments };
    Ok(spec)
}

/// The folder and the name of what the user names, which may lie anywhere and be a link.
fn located(path: &Path) -> Result<(PathBuf, String), FileError> {
    let real = std::fs::canonicalize(path).map_err(|error| FileError::new(path, error.to_string()))?;
    match (real.parent(), real.file_name().and_then(std::ffi::OsStr::to_str)) {
        (Some(folder), Some(name)) => Ok((folder.to_path_buf(), name.to_string())),
        (None, _) | (_, None) => Err(FileError::new(path, "has no name that is text")),
    }
}

/// The source that reads the path: by its ending, else the item's own.
fn format_of<'a>(path: &Path, own: &'a str) -> &'a str {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name = name.trim_end_matches(".gz");
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    match () {
        () if path == Path::new("-") || ends(&[".csv", ".tsv"]) => "csv",
        () if ends(&[".npz"]) => "npz",
        () if ends(&[".npy"]) => "npy",
        () if ends(&[".png", ".jpg", ".jpeg"]) => "image_folder",
        () if path.is_dir() && own != "cifar_binary" => "image_folder",
        () => own,
    }
}
