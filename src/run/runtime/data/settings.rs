//! The meaning of a `data` item: which keys it has and what their values say.
//!
//! Input: a [`DataSpec`] (plain literals). Output: [`Settings`], or all findings about the item at once.
//! Invariant: no file is touched here; every key and name that is not known is an error with a suggestion.

use super::arguments::{self, Arguments};
use super::augment;
use super::field::{Element, Field};
use super::prepare;
use super::source::{self, Source};
use super::split::SplitRule;
use crate::diagnostics::Diagnostic;
use crate::graph::DType;
use crate::settings::{DataEntry, DataSpec, FieldInfo, FieldSpec, Literal};
use crate::source::Span;

/// A source with the entry that names it.
pub(super) struct Origin {
    /// The reader.
    pub source: Box<dyn Source>,
    /// Where it stands.
    pub span: Span,
}

/// What is done to whole records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowStage {
    /// Records with a missing value go.
    DropMissing,
}

/// A checked `data` item.
pub(super) struct Settings {
    /// The fields in order.
    pub fields: Vec<Field>,
    /// Where samples come from.
    pub source: Origin,
    /// Where held-out samples come from, if not from `source`.
    pub valid: Option<Origin>,
    /// Where test samples come from, if not from `source`.
    pub test: Option<Origin>,
    /// How `source` is divided.
    pub split: Option<SplitRule>,
    /// What is done to whole records.
    pub rows: Vec<RowStage>,
    /// Per field: what is done to its values.
    pub prepare: Vec<Vec<prepare::Stage>>,
    /// Per field: what is done at random to training samples.
    pub augment: Vec<Vec<augment::Stage>>,
    /// Per field: what the model sees.
    pub infos: Vec<FieldInfo>,
}

const KEYS: [&str; 6] = ["source", "valid", "test", "split", "prepare", "augment"];

/// Reads an item.
pub(super) fn read(spec: &DataSpec) -> Result<Settings, Vec<Diagnostic>> {
    let mut problems = Vec::new();
    let fields: Vec<Field> = spec.fields.iter().filter_map(|field| read_field(field, &mut problems)).collect();
    check_names(&spec.fields, &mut problems);
    check_keys(spec, &mut problems);
    let complete = fields.len() == spec.fields.len();
    if spec.fields.is_empty() {
        let message = format!("`{}` declares no field", spec.name);
        problems.push(
            Diagnostic::error("data-field", spec.span, message).hint("declare one, such as `image: u8[1, 28, 28]`"),
        );
    }

    let origin = |key: &str, problems: &mut Vec<Diagnostic>| {
        let entry = entry(spec, &[key])?;
        let source = source::parse(&entry.value, &fields, complete, problems)?;
        Some(Origin { source, span: entry.value.span })
    };
    let source = origin("source", &mut problems);
    let valid = origin("valid", &mut problems);
    let test = origin("test", &mut problems);
    if entry(spec, &["source"]).is_none() {
        let message = format!("`{}` says no source", spec.name);
        let hint = format!("write one of {}", source::names().join(", "));
        problems.push(Diagnostic::error("data-source", spec.span, message).hint(hint));
    }

    let split = entry(spec, &["split"]).and_then(|entry| SplitRule::parse(&entry.value, &mut problems));
    if let (Some(rule), Some(split)) = (&split, entry(spec, &["split"])) {
        for (name, share) in [("valid", rule.valid.given()), ("test", rule.test.given())] {
            if let (true, Some(own)) = (share, entry(spec, &[name])) {
                let message = format!("`{name}` has a source of its own and a share of the split");
                problems.push(Diagnostic::error("data-split", own.span, message).label(split.span, "the share"));
            }
        }
    }
    let rows = entry(spec, &["prepare"]).map_or(Vec::new(), |entry| read_rows(&entry.value, &mut problems));

    let (mut prepare, mut augment, mut infos) = (Vec::new(), Vec::new(), Vec::new());
    for field in &fields {
        let mut info = info(field);
        let pipeline =
            |key: &str| entry(spec, &[key, &field.name]).map_or(&[][..], |entry| arguments::stages(&entry.value));
        prepare.push(prepare::parse(pipeline("prepare"), field, &mut info, &mut problems));
        augment.push(augment::parse(pipeline("augment"), &mut info, &mut problems));
        infos.push(info);
    }
    match source {
        Some(source) if problems.is_empty() => {
            Ok(Settings { fields, source, valid, test, split, rows, prepare, augment, infos })
        }
        _ => Err(problems),
    }
}

fn entry<'s>(spec: &'s DataSpec, key: &[&str]) -> Option<&'s DataEntry> {
    spec.entries.iter().find(|entry| entry.key == key)
}

fn info(field: &Field) -> FieldInfo {
    let (dtype, classes) = match field.element {
        Element::F32 | Element::U8 => (DType::F32, None),
        Element::I32 => (DType::I32, None),
        Element::Class(classes) => (DType::I32, Some(classes)),
    };
    FieldInfo { name: field.name.clone(), sizes: field.sizes.clone(), dtype, classes }
}

fn read_field(field: &FieldSpec, problems: &mut Vec<Diagnostic>) -> Option<Field> {
    let element = match (field.element.as_str(), field.sizes.as_slice()) {
        ("f32", _) => Element::F32,
        ("u8", _) => Element::U8,
        ("i32", _) => Element::I32,
        ("class", [classes]) if *classes > 0 => Element::Class(*classes),
        ("class", _) => {
            let message = format!("`{}` needs the number of its classes", field.name);
            problems
                .push(Diagnostic::error("data-field", field.span, message).hint("write `class[10]` for ten classes"));
            return None;
        }
        ("text", _) => {
            let message = format!("`{}`: text fields are not supported", field.name);
            let hint = "turn the text into numbers first: counts of words as `f32[n]`, tokens as `i32[n]`";
            problems.push(Diagnostic::error("data-field", field.span, message).hint(hint));
            return None;
        }
        (other, _) => {
            let message = format!("`{}` has the unknown element type `{other}`", field.name);
            let diagnostic = Diagnostic::error("data-field", field.span, message);
            problems.push(arguments::suggest(diagnostic, other, &["f32", "u8", "i32", "class"]));
            return None;
        }
    };
    let sizes = match element {
        Element::Class(_) => Vec::new(),
        Element::F32 | Element::U8 | Element::I32 => field.sizes.clone(),
    };
    // 2³¹ values a record bound every later product of sizes.
    let elements = sizes.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    if !matches!(elements, Some(1..=0x7fff_ffff)) {
        let message = format!("a record of `{}` would hold no value or too many: {sizes:?}", field.name);
        problems.push(Diagnostic::error("data-field", field.span, message));
        return None;
    }
    Some(Field { name: field.name.clone(), element, sizes, value: field.value.clone(), span: field.span })
}

fn check_names(fields: &[FieldSpec], problems: &mut Vec<Diagnostic>) {
    for (index, field) in fields.iter().enumerate() {
        if let Some(first) = fields[..index].iter().find(|first| first.name == field.name) {
            let message = format!("the field `{}` is declared twice", field.name);
            problems.push(Diagnostic::error("data-field", field.span, message).label(first.span, "first here"));
        }
    }
}

fn check_keys(spec: &DataSpec, problems: &mut Vec<Diagnostic>) {
    let fields: Vec<&str> = spec.fields.iter().map(|field| field.name.as_str()).collect();
    for (index, entry) in spec.entries.iter().enumerate() {
        let key = entry.key.join(".");
        if let Some(first) = spec.entries[..index].iter().find(|first| first.key == entry.key) {
            let message = format!("`{key}` is given twice");
            problems.push(Diagnostic::error("data-key", entry.span, message).label(first.span, "first here"));
        }
        let names: Vec<&str> = entry.key.iter().map(String::as_str).collect();
        match names.as_slice() {
            ["augment"] => {
                let diagnostic = Diagnostic::error("data-key", entry.span, "`augment` needs a field");
                problems.push(diagnostic.hint(format!("write `augment.{} = …`", fields.first().unwrap_or(&"image"))));
            }
            [key] if KEYS.contains(key) => {}
            [key @ ("prepare" | "augment"), field] => {
                if !fields.contains(field) {
                    let diagnostic =
                        Diagnostic::error("data-key", entry.span, format!("`{key}`: there is no field `{field}`"));
                    problems.push(arguments::suggest(diagnostic, field, &fields));
                }
            }
            [first, ..] => {
                let diagnostic = Diagnostic::error("data-key", entry.span, format!("a data item has no key `{key}`"));
                problems.push(arguments::suggest(diagnostic, first, &KEYS));
            }
            [] => {}
        }
    }
}

fn read_rows(value: &Literal, problems: &mut Vec<Diagnostic>) -> Vec<RowStage> {
    let mut rows = Vec::new();
    for stage in arguments::stages(value) {
        let Some(call) = Arguments::of(stage, "a stage for whole records", problems) else { continue };
        match call.name {
            "drop_missing" => {
                rows.push(RowStage::DropMissing);
                call.finish();
            }
            other => {
                let message = format!("`prepare` has no stage `{other}` for whole records");
                let diagnostic = Diagnostic::error("data-stage", call.span, message);
                let diagnostic = match prepare::NAMES.contains(&other) {
                    true => diagnostic.hint(format!("`{other}` works on one field: write `prepare.FIELD = {other}…`")),
                    false => arguments::suggest(diagnostic, other, &["drop_missing"]),
                };
                problems.push(diagnostic);
            }
        }
    }
    rows
}
