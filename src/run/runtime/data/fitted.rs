//! Prepared columns: stages with all numbers known, applied.
//!
//! Input: a column and its stages, to be measured on the training records or measured before. Output: a [`Prepared`]
//! column that turns a record into numbers, and the stages with their numbers.
//! Invariant: a stage's numbers come from training records or from a run that measured them, and are then applied to
//! every record by the same code, so that new data meet the same bits. Bytes stay bytes in memory; a table turns them
//! into floats.

use serde::{Deserialize, Serialize};

use super::field::{Element, Field};
use super::prepare::{Fill, Stage};
use super::table::{MISSING, Values};
use crate::graph::DType;

/// A stage with all numbers known; a list has one entry, one per channel, or one per element.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fitted {
    /// What stands for a missing value.
    Fill(Vec<f32>),
    /// What stands for a missing integer.
    FillInteger(i32),
    /// The lower and the upper bound.
    Clip(Vec<f32>, Vec<f32>),
    /// (x − first) · second.
    Affine(Vec<f32>, Vec<f32>),
    /// ln(1 + x).
    Log1p,
    /// A class becomes this many floats.
    OneHot(usize),
    /// `cast(f32)`.
    ToFloats,
    /// `cast(i32)`.
    ToIntegers,
}

impl Fitted {
    fn groups(&self) -> usize {
        let [first, second] = self.lists();
        first.len().max(second.len()).max(1)
    }

    /// Its lists of floats.
    fn lists(&self) -> [&[f32]; 2] {
        match self {
            Fitted::Fill(values) => [values, &[]],
            Fitted::Clip(first, second) | Fitted::Affine(first, second) => [first, second],
            Fitted::FillInteger(_) | Fitted::Log1p | Fitted::OneHot(_) => [&[], &[]],
            Fitted::ToFloats | Fitted::ToIntegers => [&[], &[]],
        }
    }

    /// A change of type.
    pub(super) fn cast(dtype: DType) -> Self {
        match dtype {
            DType::I32 => Fitted::ToIntegers,
            DType::F32 | DType::Bool => Fitted::ToFloats,
        }
    }

    /// All its floats.
    pub(super) fn numbers(&self) -> impl Iterator<Item = f32> + '_ {
        self.lists().into_iter().flatten().copied()
    }

    /// True where this is what `stage` may become for a field: the same kind, lists of lengths that fit.
    pub(super) fn fits(&self, stage: &Stage, field: &Field) -> bool {
        let fits = |list: &Vec<f32>| {
            let channels = field.sizes.first().copied().unwrap_or(1);
            [1, channels, field.elements()].contains(&list.len())
        };
        match (self, stage) {
            (Fitted::Fill(list), Stage::Fill(_)) => fits(list),
            (Fitted::FillInteger(fill), Stage::Fill(Fill::Constant(_))) => match field.element {
                Element::Class(classes) => usize::try_from(*fill).is_ok_and(|fill| fill < classes),
                Element::I32 => true,
                Element::F32 | Element::U8 => false,
            },
            (Fitted::Clip(low, high), Stage::Clip(..) | Stage::ClipDeviations(..)) => fits(low) && fits(high),
            (
                Fitted::Affine(shift, factor),
                Stage::Scale(_) | Stage::Shift(_) | Stage::Normalize(..) | Stage::MinMax(_),
            ) => fits(shift) && fits(factor),
            (Fitted::Log1p, Stage::Log1p) => true,
            (Fitted::OneHot(classes), Stage::OneHot) => field.element == Element::Class(*classes),
            (fitted, Stage::Cast(dtype)) => *fitted == Fitted::cast(*dtype),
            _ => false,
        }
    }

    /// Undoes the stage for one record, in f64; what was filled or clipped stays as it is.
    pub(super) fn undo(&self, values: &mut [f64]) {
        let groups = self.groups();
        let run = values.len() / groups.max(1);
        for (group, values) in values.chunks_exact_mut(run.max(1)).enumerate() {
            let pick =
                |list: &[f32]| f64::from(if list.len() == 1 { list[0] } else { list[group * list.len() / groups] });
            match self {
                Fitted::Affine(shift, factor) => {
                    let (shift, factor) = (pick(shift), pick(factor));
                    values.iter_mut().for_each(|value| *value = *value / factor + shift);
                }
                Fitted::Log1p => values.iter_mut().for_each(|value| *value = libm::expm1(*value)),
                Fitted::Fill(_) | Fitted::FillInteger(_) | Fitted::Clip(..) => {}
                Fitted::OneHot(_) | Fitted::ToFloats | Fitted::ToIntegers => {}
            }
        }
    }

    /// Applies the stage to the floats of one record.
    pub(super) fn apply(&self, values: &mut [f32]) {
        let groups = self.groups();
        let run = values.len() / groups.max(1);
        for (group, values) in values.chunks_exact_mut(run.max(1)).enumerate() {
            let pick = |list: &[f32]| if list.len() == 1 { list[0] } else { list[group * list.len() / groups] };
            match self {
                Fitted::Fill(fill) => {
                    let fill = pick(fill);
                    values.iter_mut().filter(|value| value.is_nan()).for_each(|value| *value = fill);
                }
                Fitted::Clip(low, high) => {
                    let (low, high) = (pick(low), pick(high));
                    values
                        .iter_mut()
                        .for_each(|value| *value = if value.is_nan() { *value } else { value.max(low).min(high) });
                }
                Fitted::Affine(shift, factor) => {
                    let (shift, factor) = (pick(shift), pick(factor));
                    values.iter_mut().for_each(|value| *value = (*value - shift) * factor);
                }
                Fitted::Log1p => values.iter_mut().for_each(|value| *value = libm::log1pf(*value)),
                Fitted::FillInteger(_) | Fitted::OneHot(_) | Fitted::ToFloats | Fitted::ToIntegers => {
                    unreachable!("applied to whole columns")
                }
            }
        }
    }
}

/// How the records of a prepared column become numbers.
#[derive(Clone, Debug)]
pub(super) enum Reading {
    /// As stored.
    Plain,
    /// Bytes through a table: 256 floats per group.
    Table(Vec<f32>),
    /// Bytes through the stages.
    Stages(Vec<Fitted>),
    /// Labels to n floats.
    OneHot(usize),
}

/// A column ready for use.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    /// The values, with all stages applied that do not wait for bytes to be read.
    pub values: Values,
    /// Values per record.
    pub elements: usize,
    reading: Reading,
}

/// Stages as written are admitted by type; stages that a file holds may fit nothing.
const MISFIT: &str = "a stage of the preparation does not fit the type of its values";

/// Bytes with more groups than this go through the stages one by one instead of through a table.
pub(super) const TABLE_GROUPS: usize = 64;

/// Applies stages whose numbers were measured before.
pub(super) fn applied(values: Values, field: &Field, stages: &[Fitted]) -> Result<Prepared, String> {
    let mut prepared = Prepared::plain(values, field);
    let mut pending = Vec::new();
    stages.iter().try_for_each(|stage| prepared.apply(stage, &mut pending))?;
    prepared.finish(pending, field)
}

pub(super) fn byte_reading(stages: Vec<Fitted>, elements: usize) -> Reading {
    let groups = stages.iter().map(Fitted::groups).max().unwrap_or(1);
    if groups > TABLE_GROUPS.min(elements) {
        return Reading::Stages(stages);
    }
    let mut table = vec![0f32; groups * 256];
    let mut record = vec![0f32; groups];
    for byte in 0..256 {
        record.fill(byte as f32);
        stages.iter().for_each(|stage| stage.apply(&mut record));
        for (group, value) in record.iter().enumerate() {
            table[group * 256 + byte] = *value;
        }
    }
    Reading::Table(table)
}

impl Prepared {
    pub(super) fn plain(values: Values, field: &Field) -> Self {
        Prepared { values, elements: field.elements(), reading: Reading::Plain }
    }

    /// Applies a stage; for bytes it waits in `pending` until they are read.
    pub(super) fn apply(&mut self, stage: &Fitted, pending: &mut Vec<Fitted>) -> Result<(), String> {
        match stage {
            Fitted::OneHot(classes) => self.reading = Reading::OneHot(*classes),
            Fitted::ToFloats => self.cast(DType::F32, pending)?,
            Fitted::ToIntegers => self.cast(DType::I32, pending)?,
            Fitted::FillInteger(fill) => {
                let Values::I32(values) = &mut self.values else { return Err(MISFIT.to_string()) };
                values.iter_mut().filter(|value| **value == MISSING).for_each(|value| *value = *fill);
            }
            Fitted::Fill(_) | Fitted::Clip(..) | Fitted::Affine(..) | Fitted::Log1p => match &mut self.values {
                Values::F32(values) => values.chunks_exact_mut(self.elements).for_each(|record| stage.apply(record)),
                Values::U8(_) => pending.push(stage.clone()),
                Values::I32(_) | Values::Names { .. } => return Err(MISFIT.to_string()),
            },
        }
        Ok(())
    }

    pub(super) fn finish(mut self, pending: Vec<Fitted>, field: &Field) -> Result<Self, String> {
        self.refuse_infinite(field)?;
        if let Values::U8(_) = self.values {
            self.reading = byte_reading(pending, self.elements);
        }
        Ok(self)
    }

    /// Numbers per record that [`Prepared::write_f32`] or [`Prepared::write_i32`] give.
    pub(super) fn width(&self) -> usize {
        match self.reading {
            Reading::OneHot(classes) => classes,
            Reading::Plain | Reading::Table(_) | Reading::Stages(_) => self.elements,
        }
    }

    /// Writes the floats of a record.
    pub(super) fn write_f32(&self, record: usize, out: &mut [f32]) {
        let range = record * self.elements..(record + 1) * self.elements;
        match (&self.values, &self.reading) {
            (Values::U8(bytes), Reading::Table(table)) => {
                let groups = table.len() / 256;
                let run = self.elements / groups;
                let bytes = bytes[range].chunks_exact(run);
                for ((out, bytes), table) in out.chunks_exact_mut(run).zip(bytes).zip(table.as_chunks::<256>().0) {
                    out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = table[usize::from(*byte)]);
                }
            }
            (Values::U8(bytes), Reading::Stages(stages)) => {
                out.iter_mut().zip(&bytes[range]).for_each(|(out, byte)| *out = f32::from(*byte));
                stages.iter().for_each(|stage| stage.apply(out));
            }
            (Values::U8(bytes), Reading::Plain) => {
                out.iter_mut().zip(&bytes[range]).for_each(|(out, byte)| *out = f32::from(*byte));
            }
            (Values::F32(values), _) => out.copy_from_slice(&values[range]),
            (Values::I32(labels), Reading::OneHot(_)) => {
                out.fill(0.0);
                out[labels[record] as usize] = 1.0;
            }
            (values, reading) => unreachable!("{} values read as floats by {reading:?}", values.len()),
        }
    }

    /// Writes the integers of a record.
    pub(super) fn write_i32(&self, record: usize, out: &mut [i32]) {
        match &self.values {
            Values::I32(values) => out.copy_from_slice(&values[record * self.elements..(record + 1) * self.elements]),
            other => unreachable!("{} values that are no integers read as integers", other.len()),
        }
    }

    fn cast(&mut self, dtype: DType, bytes_stages: &mut Vec<Fitted>) -> Result<(), String> {
        let values = std::mem::replace(&mut self.values, Values::U8(Vec::new()));
        self.values = match (dtype, values) {
            (DType::F32, Values::I32(values)) => Values::F32(
                values.iter().map(|&value| if value == MISSING { f32::NAN } else { value as f32 }).collect(),
            ),
            (DType::I32, values @ (Values::U8(_) | Values::F32(_))) => {
                let mut floats = match values {
                    Values::F32(values) => values,
                    Values::U8(bytes) => bytes.iter().map(|&byte| f32::from(byte)).collect(),
                    Values::I32(_) | Values::Names { .. } => unreachable!("matched above"),
                };
                for record in floats.chunks_exact_mut(self.elements) {
                    bytes_stages.iter().for_each(|stage| stage.apply(record));
                }
                bytes_stages.clear();
                if let Some(value) = floats.iter().find(|value| !value.is_finite() || value.abs() >= 2_147_483_648.0) {
                    return Err(format!("{value} does not fit a 32-bit integer"));
                }
                Values::I32(floats.iter().map(|&value| value as i32).collect())
            }
            (DType::F32 | DType::I32 | DType::Bool, values) => values,
        };
        Ok(())
    }

    fn refuse_infinite(&self, field: &Field) -> Result<(), String> {
        let Values::F32(values) = &self.values else { return Ok(()) };
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(place) => Err(format!(
                "the preparation of `{}` makes {} of record {}",
                field.name,
                values[place],
                place / self.elements.max(1) + 1
            )),
        }
    }
}
