//! Measuring on the training records: means, deviations, medians, bounds.
//!
//! Input: a stage as written, a column as the stages before give it, and the training records. Output: the stage with
//! all numbers known. Invariant: only training records are looked at, and every number is finite.

use super::field::{Element, Field};
use super::fitted::{Fitted, Prepared, Reading, TABLE_GROUPS, byte_reading};
use super::prepare::{Figure, Fill, Group, Stage};
use super::table::Values;

/// Measures each stage on the `train` records, after the stages before it, and applies it to all.
pub(super) fn measured(
    values: Values,
    field: &Field,
    stages: &[Stage],
    train: &[u32],
) -> Result<(Prepared, Vec<Fitted>), String> {
    let mut prepared = Prepared::plain(values, field);
    let (mut pending, mut fitted) = (Vec::new(), Vec::new());
    for stage in stages {
        let stage = fit(stage, field, &prepared, &pending, train)?;
        prepared.apply(&stage, &mut pending)?;
        fitted.push(stage);
    }
    Ok((prepared.finish(pending, field)?, fitted))
}

/// Turns a stage into numbers; `before` are the stages that bytes have yet to go through.
fn fit(stage: &Stage, field: &Field, prepared: &Prepared, before: &[Fitted], train: &[u32]) -> Result<Fitted, String> {
    let measure = |group| Moments::measure(prepared, before, train, groups(group, field));
    let fitted = match stage {
        Stage::Fill(Fill::Constant(value)) if matches!(prepared.values, Values::I32(_)) => {
            Fitted::FillInteger(*value as i32)
        }
        Stage::Fill(Fill::Constant(value)) => Fitted::Fill(vec![*value as f32]),
        Stage::Fill(Fill::Mean) => {
            let moments = measure(Group::PerFeature);
            if moments.iter().any(|moments| moments.count == 0.0) {
                return Err(nothing_to_measure(field, "mean"));
            }
            Fitted::Fill(moments.iter().map(|moments| moments.mean() as f32).collect())
        }
        Stage::Fill(Fill::Median) => {
            Fitted::Fill(medians(prepared, before, train).ok_or_else(|| nothing_to_measure(field, "median"))?)
        }
        Stage::Clip(low, high) => Fitted::Clip(vec![bounded(*low)], vec![bounded(*high)]),
        Stage::ClipDeviations(factor, group) => {
            let moments = measure(*group);
            let bound = |sign: f64| moments.iter().map(|m| bounded(m.mean() + sign * factor * m.deviation())).collect();
            Fitted::Clip(bound(-1.0), bound(1.0))
        }
        Stage::Scale(factor) => Fitted::Affine(vec![0.0], vec![*factor as f32]),
        Stage::Shift(offset) => Fitted::Affine(vec![-*offset as f32], vec![1.0]),
        Stage::Log1p => Fitted::Log1p,
        Stage::Normalize(mean, std) => {
            let mean = match mean {
                Figure::Given(values) => values.iter().map(|value| *value as f32).collect(),
                Figure::Measured(group) => measure(*group).iter().map(|moments| moments.mean() as f32).collect(),
            };
            let factor = match std {
                Figure::Given(values) => values.iter().map(|value| (1.0 / value) as f32).collect(),
                Figure::Measured(group) => measure(*group).iter().map(|m| inverse(m.deviation())).collect(),
            };
            Fitted::Affine(mean, factor)
        }
        Stage::MinMax(group) => {
            let moments = measure(*group);
            let lowest = moments.iter().map(|m| if m.count == 0.0 { 0.0 } else { m.lowest as f32 }).collect();
            Fitted::Affine(lowest, moments.iter().map(|m| inverse(m.highest - m.lowest)).collect())
        }
        Stage::OneHot => {
            let Element::Class(classes) = field.element else { unreachable!("`one_hot` was admitted for classes") };
            Fitted::OneHot(classes)
        }
        Stage::Cast(dtype) => Fitted::cast(*dtype),
    };
    let finite = fitted.numbers().all(f32::is_finite);
    let beyond = || format!("a stage of `prepare.{}` has a number beyond those of 32-bit floats", field.name);
    if finite { Ok(fitted) } else { Err(beyond()) }
}

fn nothing_to_measure(field: &Field, what: &str) -> String {
    format!("a feature of `{}` has no value in the training records to take the {what} of", field.name)
}

/// A bound beyond all 32-bit floats bounds nothing, as the largest of them does.
fn bounded(value: f64) -> f32 {
    (value as f32).clamp(f32::MIN, f32::MAX)
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
