//! Integers of the data against the reads of the model.
//!
//! Input: an opened dataset and the ranges that a model's reads ask of its fields. Output: nothing, or the first value
//! that leaves a range, with its file, record and field. Invariant: data that passes never leads a read without `else`
//! outside of its tensor, in any split, as training and inference give integers as they are.

use std::path::PathBuf;

use super::table::{Part, record};
use super::{DataError, Dataset};
use crate::diagnostics::Diagnostic;
use crate::graph::DType;
use crate::settings::{DataSpec, FieldRange};

/// Where some of the rows of a dataset come from.
#[derive(Clone, Debug)]
pub(super) struct Provenance {
    /// How many rows.
    records: usize,
    /// The file of each field.
    paths: Vec<PathBuf>,
    /// The numbers of the records that were kept, from 0; all where absent.
    kept: Option<Vec<u32>>,
}

impl Provenance {
    pub(super) fn of(part: &Part, kept: Option<Vec<u32>>) -> Self {
        let paths = part.columns.iter().map(|column| column.path.clone()).collect();
        Self { records: part.records, paths, kept }
    }

    /// The file of the first field and the record of a row of the pieces together.
    pub(super) fn of_row(pieces: &[Provenance], row: usize) -> Option<String> {
        let mut first = 0;
        for piece in pieces {
            if row < first + piece.records {
                let path = piece.paths.first()?;
                return Some(format!("{}: {}", path.display(), record(piece.number(row - first))));
            }
            first += piece.records;
        }
        None
    }

    /// The number of a row's record, from 0, before any were dropped.
    fn number(&self, row: usize) -> usize {
        self.kept.as_ref().map_or(row, |kept| kept[row] as usize)
    }
}

impl Dataset {
    /// Holds every value of the fields to what reads ask of them; `spec` tells where the fields are declared.
    ///
    /// # Errors
    /// The first value, in the order of the ranges, that leaves one.
    pub fn hold(&self, spec: &DataSpec, ranges: &[FieldRange]) -> Result<(), DataError> {
        for range in ranges {
            let Some(which) = self.fields.iter().position(|field| field.name == range.field) else { continue };
            if self.fields[which].dtype != DType::I32 {
                continue;
            }
            let values = &self.train.columns[which].values;
            let mut sample = vec![0i32; values.width()];
            let mut first = 0;
            for piece in self.provenance.iter() {
                for row in 0..piece.records {
                    values.write_i32(first + row, &mut sample);
                    if let Some(value) = sample.iter().find(|value| !range.admits(i64::from(**value))) {
                        let place = format!("{}: {}", piece.paths[which].display(), record(piece.number(row)));
                        return Err(outside(spec, range, &place, *value));
                    }
                }
                first += piece.records;
            }
        }
        Ok(())
    }
}

fn outside(spec: &DataSpec, range: &FieldRange, place: &str, value: i32) -> DataError {
    let FieldRange { field, low, high, span, .. } = range;
    let message = match (*low, *high) {
        (i64::MIN, high) => format!("{place}: `{field}` is {value}, but indices up to {high} are read at it"),
        (low, i64::MAX) => format!("{place}: `{field}` is {value}, but indices from {low} are read at it"),
        (low, high) => format!("{place}: `{field}` is {value}, but the model reads at {low} to {high}"),
    };
    let declared = spec.fields.iter().find(|known| known.name == *field).map_or(spec.span, |known| known.span);
    let diagnostic = Diagnostic::error("data-range", declared, message).label(*span, "used as an index here");
    DataError::spec(diagnostic.hint("give that dim a place for every value, or guard the read: `(x[…] else 0)`"))
}
