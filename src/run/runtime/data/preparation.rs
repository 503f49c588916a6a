//! What a run measured and settled on its training data, so that new data are prepared as those were.
//!
//! Input: an opened item. Output: a [`Preparation`], plain data that a checkpoint keeps. Invariant: it is applied as it
//! is, or refused where the item has changed; nothing is ever measured on new data.

use serde::{Deserialize, Serialize};

use super::error::DataError;
use super::field::{Element, Field};
use super::fitted::Fitted;
use super::measure;
use super::prepare::Stage;
use super::settings::{self, Settings};
use super::table::{Columns, Values};
use crate::diagnostics::Diagnostic;
use crate::settings::{DataEntry, DataSpec, FieldSpec, LiteralKind};

/// The preparation of all fields of an item.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Preparation {
    /// The fields, in the order of the item.
    pub fields: Vec<FieldPreparation>,
    /// A hash of which records train, which are held out, which test.
    pub division: u64,
}

/// The preparation of one field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FieldPreparation {
    /// The field.
    pub name: String,
    /// Its declared type, such as `f32`.
    pub element: String,
    /// Its declared sizes; for `class[n]`, n.
    pub sizes: Vec<usize>,
    /// The words of its classes by number; empty where the data have numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<String>,
    /// The columns that it takes of a table.
    #[serde(default)]
    pub columns: Columns,
    /// The stages of `prepare.FIELD` with their numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Fitted>,
}

impl FieldPreparation {
    /// Of a field without words and columns.
    pub(super) fn new(declared: &FieldSpec, stages: Vec<Fitted>) -> Self {
        let FieldSpec { name, element, sizes, .. } = declared.clone();
        Self { name, element, sizes, words: Vec::new(), columns: Columns::None, stages }
    }
}

impl Preparation {
    /// The preparation of an item that measures nothing, without its files; `None` where something is measured, or where
    /// a table's columns are to be found.
    ///
    /// # Errors
    /// Findings about the item.
    pub fn given(spec: &DataSpec) -> Result<Option<Self>, DataError> {
        let settings = settings::read(spec).map_err(DataError::Spec)?;
        let is_table = |entry: &DataEntry| matches!(&entry.value.kind, LiteralKind::Call { name, .. } if entry.key == ["source"] && name == "csv");
        if spec.entries.iter().any(is_table) || settings.prepare.iter().flatten().any(Stage::is_measured) {
            return Ok(None);
        }
        let mut fields = Vec::new();
        for (which, field) in settings.fields.iter().enumerate() {
            let values = match field.element {
                Element::F32 => Values::F32(Vec::new()),
                Element::U8 => Values::U8(Vec::new()),
                Element::I32 | Element::Class(_) => Values::I32(Vec::new()),
            };
            let fitted = measure::measured(values, field, &settings.prepare[which], &[]);
            let (_, stages) =
                fitted.map_err(|words| DataError::spec(Diagnostic::error("data-value", field.span, words)))?;
            fields.push(FieldPreparation::new(&spec.fields[which], stages));
        }
        Ok(Some(Self { fields, division: 0 }))
    }

    /// The preparation of a field.
    pub fn field(&self, name: &str) -> Option<&FieldPreparation> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The class's word, or its number where the data have numbers.
    pub fn class(&self, field: &str, class: usize) -> String {
        let word = self.field(field).and_then(|field| field.words.get(class));
        word.cloned().unwrap_or_else(|| class.to_string())
    }

    /// The first field that has words here and had numbers in `before`, if it is the same field otherwise.
    pub fn words_for_numbers(&self, before: &Preparation) -> Option<&FieldPreparation> {
        let had_numbers = |field: &FieldPreparation| {
            let same = |known: &FieldPreparation| known.element == field.element && known.sizes == field.sizes;
            before.field(&field.name).is_some_and(|known| same(known) && known.words.is_empty())
        };
        self.fields.iter().find(|field| !field.words.is_empty() && had_numbers(field))
    }

    /// Brings values of a prepared field back to the unit of the data. What was clipped or filled stays as it is.
    pub fn restore(&self, field: &str, values: &mut [f64]) {
        if let Some(field) = self.field(field) {
            field.stages.iter().rev().for_each(|stage| stage.undo(values));
        }
    }

    /// Refuses an item whose fields or stages are not those that were prepared.
    pub(super) fn admit(&self, settings: &Settings, spec: &DataSpec) -> Result<(), DataError> {
        let mut problems = Vec::new();
        for (which, field) in settings.fields.iter().enumerate() {
            let declared = spec.fields.iter().find(|declared| declared.name == field.name);
            let same = |known: &FieldPreparation| {
                let stages = &settings.prepare[which];
                declared.is_some_and(|declared| known.element == declared.element && known.sizes == declared.sizes)
                    && known.stages.len() == stages.len()
                    && known.stages.iter().zip(stages).all(|(known, stage)| known.fits(stage, field))
            };
            if !self.field(&field.name).is_some_and(same) {
                let message = format!("`{}` is not prepared as in the run that made the weights", field.name);
                let diagnostic = Diagnostic::error("data-changed", field.span, message);
                problems.push(diagnostic.hint("restore the field's lines of the data item, or train again"));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(DataError::Spec(problems)) }
    }

    /// The columns that these fields take.
    pub(super) fn columns(&self, fields: &[Field]) -> Vec<Columns> {
        let known: Vec<Columns> =
            fields.iter().filter_map(|field| Some(self.field(&field.name)?.columns.clone())).collect();
        if known.contains(&Columns::None) { Vec::new() } else { known }
    }

    /// The words of these fields.
    pub(super) fn words(&self, fields: &[Field]) -> Vec<Vec<String>> {
        fields.iter().map(|field| self.field(&field.name).map_or(Vec::new(), |known| known.words.clone())).collect()
    }
}
