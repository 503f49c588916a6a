//! Prepared columns: stages with all numbers known, applied.
//!
//! Input: a column, its stages and the training records. Output: a [`Prepared`] column that turns a record into numbers.
//! Invariant: whatever is measured (means, medians, deviations) is measured on the training records only, after the
//! stages before it, and then applied to every record. Bytes stay bytes in memory; a table turns them into floats.

use super::prepare::{Figure, Fill, Group, Stage};
use super::settings::{Element, Field};
use super::table::{MISSING, Values};
use crate::graph::DType;

/// An elementwise stage with all numbers known; a list has one entry, one per channel, or one per element.
#[derive(Clone, Debug, PartialEq)]
enum Fitted {
    Fill(Vec<f32>),
    Clip(Vec<f32>, Vec<f32>),
    /// (x − first) · second.
    Affine(Vec<f32>, Vec<f32>),
    Log1p,
}

impl Fitted {
    fn groups(&self) -> usize {
        match self {
            Fitted::Fill(values) => values.len(),
            Fitted::Clip(low, high) => low.len().max(high.len()),
            Fitted::Affine(shift, factor) => shift.len().max(factor.len()),
            Fitted::Log1p => 1,
        }
    }

    /// Applies the stage to one record.
    fn apply(&self, values: &mut [f32]) {
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
            }
        }
    }
}

/// How the records of a prepared column become numbers.
#[derive(Clone, Debug)]
enum Reading {
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
    values: Values,
    elements: usize,
    reading: Reading,
}

/// Bytes with more groups than this go through the stages one by one instead of through a table.
const TABLE_GROUPS: usize = 64;

/// Measures on the `train` records and applies the stages.
pub(super) fn prepare(values: Values, field: &Field, stages: &[Stage], train: &[u32]) -> Result<Prepared, String> {
    let elements = field.elements();
    let mut prepared = Prepared { values, elements, reading: Reading::Plain };
    let mut bytes_stages: Vec<Fitted> = Vec::new();
    for stage in stages {
        match stage {
            Stage::OneHot => {
                let Element::Class(classes) = field.element else { unreachable!("`one_hot` was admitted for classes") };
                prepared.reading = Reading::OneHot(classes);
                return Ok(prepared);
            }
            Stage::Cast(dtype) => prepared.cast(*dtype, &mut bytes_stages)?,
            Stage::Fill(Fill::Constant(value)) if matches!(prepared.values, Values::I32(_)) => {
                if let Values::I32(values) = &mut prepared.values {
                    values.iter_mut().filter(|label| **label == MISSING).for_each(|label| *label = *value as i32);
                }
            }
            Stage::Fill(_)
            | Stage::Clip(..)
            | Stage::ClipDeviations(..)
            | Stage::Scale(_)
            | Stage::Shift(_)
            | Stage::Log1p
            | Stage::Normalize(..)
            | Stage::MinMax(_) => {
                let fitted = fit(stage, field, &prepared, &bytes_stages, train)?;
                match &mut prepared.values {
                    Values::F32(values) => values.chunks_exact_mut(elements).for_each(|record| fitted.apply(record)),
                    Values::U8(_) => bytes_stages.push(fitted),
                    Values::I32(_) | Values::Names { .. } => unreachable!("float stages were admitted for floats"),
                }
            }
        }
    }
    prepared.refuse_infinite(field)?;
    if let Values::U8(_) = prepared.values {
        prepared.reading = byte_reading(bytes_stages, elements);
    }
    Ok(prepared)
}

fn byte_reading(stages: Vec<Fitted>, elements: usize) -> Reading {
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

/// Turns a stage into numbers.
fn fit(stage: &Stage, field: &Field, prepared: &Prepared, before: &[Fitted], train: &[u32]) -> Result<Fitted, String> {
    let measure = |group| Moments::measure(prepared, before, train, groups(group, field));
    match stage {
        Stage::Fill(Fill::Constant(value)) => Ok(Fitted::Fill(vec![*value as f32])),
        Stage::Fill(Fill::Mean) => {
            let moments = measure(Group::PerFeature);
            if moments.iter().any(|moments| moments.count == 0.0) {
                return Err(format!(
                    "a feature of `{}` has no value in the training records to take the mean of",
                    field.name
                ));
            }
            Ok(Fitted::Fill(moments.iter().map(|moments| moments.mean() as f32).collect()))
        }
        Stage::Fill(Fill::Median) => medians(prepared, before, train).map(Fitted::Fill).ok_or_else(|| {
            format!("a feature of `{}` has no value in the training records to take the median of", field.name)
        }),
        Stage::Clip(low, high) => Ok(Fitted::Clip(vec![*low as f32], vec![*high as f32])),
        Stage::ClipDeviations(factor, group) => {
            let moments = measure(*group);
            let bound = |sign: f64| moments.iter().map(|m| (m.mean() + sign * factor * m.deviation()) as f32).collect();
            Ok(Fitted::Clip(bound(-1.0), bound(1.0)))
        }
        Stage::Scale(factor) => Ok(Fitted::Affine(vec![0.0], vec![*factor as f32])),
        Stage::Shift(offset) => Ok(Fitted::Affine(vec![-*offset as f32], vec![1.0])),
        Stage::Log1p => Ok(Fitted::Log1p),
        Stage::Normalize(mean, std) => {
            let mean = match mean {
                Figure::Given(values) => values.iter().map(|value| *value as f32).collect(),
                Figure::Measured(group) => measure(*group).iter().map(|moments| moments.mean() as f32).collect(),
            };
            let factor = match std {
                Figure::Given(values) => values.iter().map(|value| (1.0 / value) as f32).collect(),
                Figure::Measured(group) => measure(*group).iter().map(|m| inverse(m.deviation())).collect(),
            };
            Ok(Fitted::Affine(mean, factor))
        }
        Stage::MinMax(group) => {
            let moments = measure(*group);
            let factor = moments.iter().map(|m| inverse(m.highest - m.lowest)).collect();
            Ok(Fitted::Affine(
                moments.iter().map(|m| if m.count == 0.0 { 0.0 } else { m.lowest as f32 }).collect(),
                factor,
            ))
        }
        Stage::OneHot | Stage::Cast(_) => unreachable!("not elementwise"),
    }
}

/// A feature that never varies is centred and otherwise left alone.
fn inverse(spread: f64) -> f32 {
    if spread > 0.0 && spread.is_finite() { (1.0 / spread) as f32 } else { 1.0 }
}

fn groups(group: Group, field: &Field) -> usize {
    match group {
        Group::Whole => 1,
        Group::PerChannel => field.sizes.first().copied().unwrap_or(1),
        Group::PerFeature => field.elements(),
    }
}

/// Sums over the present values of a group, relative to the first of them so that small spreads survive.
#[derive(Clone, Debug)]
struct Moments {
    origin: f64,
    count: f64,
    sum: f64,
    squares: f64,
    lowest: f64,
    highest: f64,
}

impl Moments {
    fn measure(prepared: &Prepared, before: &[Fitted], train: &[u32], groups: usize) -> Vec<Moments> {
        let empty = Moments {
            origin: 0.0,
            count: 0.0,
            sum: 0.0,
            squares: 0.0,
            lowest: f64::INFINITY,
            highest: f64::NEG_INFINITY,
        };
        let mut all = vec![empty; groups];
        if let (Values::U8(bytes), true) = (&prepared.values, groups <= TABLE_GROUPS)
            && let Reading::Table(table) = byte_reading(before.to_vec(), prepared.elements)
        {
            count_bytes(bytes, prepared.elements, train, &table, &mut all);
            return all;
        }
        let run = prepared.elements / groups;
        each_record(prepared, before, train, |record| {
            for (moments, values) in all.iter_mut().zip(record.chunks_exact(run)) {
                values.iter().filter(|value| !value.is_nan()).for_each(|value| moments.add(f64::from(*value), 1.0));
            }
        });
        all
    }

    /// Adds a value that occurs `count` times.
    fn add(&mut self, value: f64, count: f64) {
        if self.count == 0.0 {
            self.origin = value;
        }
        let distance = value - self.origin;
        self.count += count;
        self.sum += count * distance;
        self.squares += count * distance * distance;
        self.lowest = self.lowest.min(value);
        self.highest = self.highest.max(value);
    }

    fn mean(&self) -> f64 {
        if self.count == 0.0 { 0.0 } else { self.origin + self.sum / self.count }
    }

    /// The deviation of the records themselves (divided by their number, as scikit-learn and torchvision do).
    fn deviation(&self) -> f64 {
        if self.count == 0.0 {
            return 0.0;
        }
        let mean = self.sum / self.count;
        (self.squares / self.count - mean * mean).max(0.0).sqrt()
    }
}

/// Moments of bytes by how often each occurs; `table` gives a byte's value, 256 entries per group of its own.
fn count_bytes(bytes: &[u8], elements: usize, train: &[u32], table: &[f32], all: &mut [Moments]) {
    // Group counts are 1, the channels or the elements, so the largest is a multiple of the others.
    let fine = all.len().max(table.len() / 256);
    let run = elements / fine;
    let mut counts = vec![[0u64; 256]; fine];
    for &row in train {
        let record = &bytes[row as usize * elements..][..elements];
        for (counts, bytes) in counts.iter_mut().zip(record.chunks_exact(run)) {
            bytes.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        }
    }
    for (group, counts) in counts.iter().enumerate() {
        let table = &table[group * (table.len() / 256) / fine * 256..][..256];
        let moments = &mut all[group * all.len() / fine];
        for (value, count) in table.iter().zip(counts).filter(|(_, count)| **count > 0) {
            moments.add(f64::from(*value), *count as f64);
        }
    }
}

fn medians(prepared: &Prepared, before: &[Fitted], train: &[u32]) -> Option<Vec<f32>> {
    let mut present: Vec<Vec<f32>> = vec![Vec::new(); prepared.elements];
    each_record(prepared, before, train, |record| {
        for (present, value) in present.iter_mut().zip(record).filter(|(_, value)| !value.is_nan()) {
            present.push(*value);
        }
    });
    let median = |mut values: Vec<f32>| {
        values.sort_unstable_by(f32::total_cmp);
        let upper = *values.get(values.len() / 2)?;
        let lower = if values.len().is_multiple_of(2) { values[values.len() / 2 - 1] } else { upper };
        Some(lower + (upper - lower) / 2.0)
    };
    present.into_iter().map(median).collect()
}

/// Shows each training record, as the stages so far give it.
fn each_record(prepared: &Prepared, before: &[Fitted], train: &[u32], mut show: impl FnMut(&[f32])) {
    let mut record = vec![0f32; prepared.elements];
    for &row in train {
        let row = row as usize;
        prepared.write_f32(row, &mut record);
        before.iter().for_each(|stage| stage.apply(&mut record));
        show(&record);
    }
}
