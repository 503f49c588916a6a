//! Samples in memory: one column per field, one row per record.
//!
//! Input: what the readers of sources give. Output: columns that agree with the declared fields.
//! Invariant: a column holds exactly `records × elements` values; bytes stay bytes, labels lie in their class range.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{FileError, ReadError};
use super::field::{Element, Field};
use crate::diagnostics::Diagnostic;

/// Marks a missing value of an integer column; a missing float is NaN.
pub(super) const MISSING: i32 = i32::MIN;

/// The values of a column, row-major.
#[derive(Clone, Debug)]
pub(super) enum Values {
    /// Bytes, such as pixels.
    U8(Vec<u8>),
    /// Floats; NaN is missing.
    F32(Vec<f32>),
    /// Integers; [`MISSING`] is missing.
    I32(Vec<i32>),
    /// Words for classes: the distinct words in sorted order, and one of them per record (`u32::MAX` is missing).
    Names { names: Vec<String>, index: Vec<u32> },
}

impl Values {
    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        match self {
            Values::U8(values) => values.len(),
            Values::F32(values) => values.len(),
            Values::I32(values) => values.len(),
            Values::Names { index, .. } => index.len(),
        }
    }

    /// Builds the distinct, sorted names.
    pub(super) fn from_words(words: &[Option<String>]) -> Self {
        let mut names: Vec<String> = words.iter().flatten().cloned().collect();
        names.sort_unstable();
        names.dedup();
        let place = |word: &Option<String>| match word {
            Some(word) => names.binary_search(word).map_or(u32::MAX, |place| place as u32),
            None => u32::MAX,
        };
        let index = words.iter().map(place).collect();
        Values::Names { names, index }
    }

    /// Appends values of the same kind; mixed bytes and floats become floats.
    fn append(&mut self, other: Values) {
        match (&mut *self, other) {
            (Values::U8(a), Values::U8(b)) => a.extend_from_slice(&b),
            (Values::F32(a), Values::F32(b)) => a.extend_from_slice(&b),
            (Values::I32(a), Values::I32(b)) => a.extend_from_slice(&b),
            (Values::F32(a), Values::U8(b)) => a.extend(b.iter().map(|&value| f32::from(value))),
            (Values::U8(a), Values::F32(b)) => {
                let mut joined: Vec<f32> = a.iter().map(|&value| f32::from(value)).collect();
                joined.extend_from_slice(&b);
                *self = Values::F32(joined);
            }
            (mine, theirs) => {
                unreachable!("conformed columns of one field agree: {} and {} values", mine.len(), theirs.len())
            }
        }
    }

    /// Keeps the rows whose flag is true.
    fn retain(&mut self, elements: usize, keep: &[bool]) {
        fn kept<T: Copy>(values: &mut Vec<T>, elements: usize, keep: &[bool]) {
            let mut place = 0;
            for (row, _) in keep.iter().enumerate().filter(|(_, keep)| **keep) {
                values.copy_within(row * elements..(row + 1) * elements, place);
                place += elements;
            }
            values.truncate(place);
        }
        match self {
            Values::U8(values) => kept(values, elements, keep),
            Values::F32(values) => kept(values, elements, keep),
            Values::I32(values) => kept(values, elements, keep),
            Values::Names { index, .. } => kept(index, elements, keep),
        }
    }

    /// The first missing value.
    fn first_missing(&self) -> Option<usize> {
        match self {
            Values::U8(_) => None,
            Values::F32(values) => values.iter().position(|value| value.is_nan()),
            Values::I32(values) => values.iter().position(|value| *value == MISSING),
            Values::Names { index, .. } => index.iter().position(|value| *value == u32::MAX),
        }
    }
}

/// The values of one field.
#[derive(Clone, Debug)]
pub(super) struct Column {
    /// Sizes per record; `None` where the source has only a list of numbers, as a row of a text table.
    pub sizes: Option<Vec<usize>>,
    /// Values per record.
    pub elements: usize,
    pub values: Values,
    /// Where the first missing value stands (`row 3, column "age"`), where the reader knows better than by record.
    pub missing_place: Option<String>,
    /// The file that the values stand in.
    pub path: PathBuf,
}

impl Column {
    /// Values of these sizes a record, of a reader that knows no places within records.
    pub(super) fn new(sizes: Vec<usize>, values: Values, path: &Path) -> Self {
        let elements = sizes.iter().product();
        Self { sizes: Some(sizes), elements, values, missing_place: None, path: path.to_path_buf() }
    }
}

/// Where a sample comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// A record of a table or an array, counted from 1.
    Record(usize),
    /// A file of its own, such as a picture.
    File(&'a str),
}

/// Columns of a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Columns {
    /// The source is no table.
    #[default]
    None,
    /// By their names, in the order in which the field takes them.
    Named(Vec<String>),
    /// By their places from 0 in a table of that width: names are missing, or stand twice.
    Placed {
        /// The places.
        places: Vec<usize>,
        /// Columns of the table.
        width: usize,
    },
}

/// What one source gives: a column per field, in the order of the fields.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub columns: Vec<Column>,
    /// How many records each column has.
    pub records: usize,
    /// Where the records come from.
    pub places: Places,
    /// The columns of a table that each field takes; empty for other sources.
    pub chosen: Vec<Columns>,
    /// What the source holds and no field takes: columns of a table, files that are no pictures.
    pub unused: Vec<String>,
}

/// A place per record: a number from 1, or a file of the list (as its number's complement).
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    list: Vec<u32>,
    files: Vec<String>,
}

impl Places {
    /// Records of one file.
    pub(super) fn numbered(records: usize) -> Self {
        Self { list: (0..records).map(|record| record as u32 + 1).collect(), files: Vec::new() }
    }

    /// A file per record.
    pub(super) fn files(files: Vec<String>) -> Self {
        Self { list: (0..files.len()).map(|file| !(file as u32)).collect(), files }
    }

    pub(super) fn get(&self, record: usize) -> Place<'_> {
        let place = self.list[record];
        match self.files.get(!place as usize) {
            Some(file) => Place::File(file),
            None => Place::Record(place as usize),
        }
    }

    fn append(&mut self, other: Places) {
        let shift = self.files.len() as u32;
        let files = other.files.len();
        self.list.extend(other.list.iter().map(|place| match (!place as usize) < files {
            true => place - shift,
            false => *place,
        }));
        self.files.extend(other.files);
    }

    fn retain(&mut self, keep: &[bool]) {
        let mut flags = keep.iter();
        self.list.retain(|_| flags.next().copied().unwrap_or(false));
    }
}

impl Part {
    /// Records in the order of one file.
    pub(super) fn new(columns: Vec<Column>, records: usize) -> Self {
        Self { columns, records, places: Places::numbered(records), chosen: Vec::new(), unused: Vec::new() }
    }

    /// Appends the records of another part of the same fields.
    pub(super) fn append(&mut self, other: Part) {
        for (mine, theirs) in self.columns.iter_mut().zip(other.columns) {
            mine.values.append(theirs.values);
        }
        self.records += other.records;
        self.places.append(other.places);
    }

    /// Drops the records with a missing value in any column; gives the numbers of the others.
    pub(super) fn drop_missing(&mut self) -> Vec<u32> {
        let complete = |row: usize| {
            self.columns.iter().all(|column| match &column.values {
                Values::U8(_) => true,
                Values::F32(values) => {
                    values[row * column.elements..(row + 1) * column.elements].iter().all(|value| !value.is_nan())
                }
                Values::I32(values) => {
                    values[row * column.elements..(row + 1) * column.elements].iter().all(|value| *value != MISSING)
                }
                Values::Names { index, .. } => index[row] != u32::MAX,
            })
        };
        let keep: Vec<bool> = (0..self.records).map(complete).collect();
        for column in &mut self.columns {
            column.values.retain(column.elements, &keep);
        }
        self.places.retain(&keep);
        let kept: Vec<u32> = (0..).zip(&keep).filter(|(_, keep)| **keep).map(|(row, _)| row).collect();
        self.records = kept.len();
        kept
    }

    /// Brings the columns to the declared element types and checks sizes and ranges.
    pub(super) fn conform(mut self, fields: &[Field]) -> Result<Part, ReadError> {
        for (column, field) in self.columns.iter_mut().zip(fields) {
            check_sizes(column, field)?;
            let values = std::mem::replace(&mut column.values, Values::U8(Vec::new()));
            column.values = convert(values, column.elements, field, &column.path)?;
        }
        Ok(self)
    }

    /// Reports the first missing value of a field.
    pub(super) fn refuse_missing(&self, which: usize, field: &Field) -> Result<(), FileError> {
        let column = &self.columns[which];
        let Some(first) = column.values.first_missing() else { return Ok(()) };
        let place = match &column.missing_place {
            Some(place) => place.clone(),
            None => record(first / column.elements.max(1)),
        };
        let way_out = match field.element {
            Element::Class(_) | Element::I32 => "say `prepare = drop_missing`".to_string(),
            Element::F32 | Element::U8 => {
                format!("say `prepare = drop_missing`, or `prepare.{} = fill(mean)`", field.name)
            }
        };
        Err(FileError::new(&column.path, format!("a value of `{}` is missing", field.name)).at(place).hint(way_out))
    }
}

/// Gives all parts the same list of words per field, and turns words into class numbers. The words are those of the
/// parts in sorted order, or those of a run where `known` has some; the result is the words of each field. Words for what
/// a run knew as numbers are refused: nothing says which is which.
pub(super) fn unify_words(
    parts: &mut [&mut Part],
    fields: &[Field],
    known: &[Vec<String>],
) -> Result<Vec<Vec<String>>, ReadError> {
    let mut unified = Vec::new();
    for (which, field) in fields.iter().enumerate() {
        // Without a run before there are no lists at all.
        let saw_numbers = known.get(which).is_some_and(Vec::is_empty);
        let known = known.get(which).filter(|words| !words.is_empty());
        let mut found: Vec<String> = Vec::new();
        let mut numbers = None;
        let mut words = None;
        for part in parts.iter() {
            match &part.columns[which].values {
                Values::Names { names, .. } => {
                    found.extend(names.iter().cloned());
                    words = Some(part.columns[which].path.clone());
                }
                Values::U8(_) | Values::F32(_) | Values::I32(_) => numbers = Some(part.columns[which].path.clone()),
            }
        }
        let Some(words) = words else {
            unified.push(known.cloned().unwrap_or_default());
            continue;
        };
        if let Some(numbers) = numbers {
            let message = format!("`{}` is given in words here, but in numbers in {}", field.name, numbers.display());
            return Err(FileError::new(&words, message).into());
        }
        if saw_numbers {
            return Err(words_for_numbers(parts, which, field, &words).into());
        }
        found.sort_unstable();
        found.dedup();
        let all = known.cloned().unwrap_or(found);
        for part in parts.iter_mut() {
            number_words(&mut part.columns[which], field, &all)?;
        }
        let Element::Class(classes) = field.element else {
            let message = format!("`{}` holds words (\"{}\", …), but is declared as numbers", field.name, all[0]);
            return Err(FileError::new(&words, message).hint("declare it `class[n]`").into());
        };
        if all.len() > classes {
            let message =
                format!("`{}` has {} different words, but is declared class[{classes}]", field.name, all.len());
            return Err(FileError::new(&words, message).hint(format!("declare class[{}]", all.len())).into());
        }
        unified.push(all);
    }
    Ok(unified)
}

/// The first record with a word, of a field that was numbers in the run.
fn words_for_numbers(parts: &[&mut Part], which: usize, field: &Field, path: &Path) -> FileError {
    let message = |word: &str| format!("`{}` is \"{word}\", but numbers in the run that made the weights", field.name);
    let first = parts.iter().filter(|part| part.columns[which].path == path).find_map(|part| {
        let Values::Names { names, index } = &part.columns[which].values else { return None };
        let is_word = |name: &u32| names.get(*name as usize).is_some_and(|name| name.parse::<f64>().is_err());
        let record = index.iter().position(is_word).or_else(|| index.iter().position(|name| *name != u32::MAX))?;
        Some((part.places.get(record), &names[index[record] as usize]))
    });
    let hint = "give the numbers of the classes, from 0, as that run had them";
    match first {
        None => FileError::new(path, message("…")).hint(hint),
        Some((Place::Record(number), word)) => FileError::new(path, message(word)).at(record(number - 1)).hint(hint),
        Some((Place::File(file), word)) => FileError::new(Path::new(file), message(word)).hint(hint),
    }
}

/// Turns the words of a column into their places in `all`.
fn number_words(column: &mut Column, field: &Field, all: &[String]) -> Result<(), ReadError> {
    let Values::Names { names, index } = &column.values else { return Ok(()) };
    let known: HashMap<&str, usize> = all.iter().enumerate().map(|(place, word)| (word.as_str(), place)).collect();
    let places: Vec<Option<usize>> = names.iter().map(|name| known.get(name.as_str()).copied()).collect();
    if let Some(unknown) = places.iter().position(Option::is_none) {
        let first = index.iter().position(|name| *name as usize == unknown).unwrap_or(0);
        let message =
            format!("`{}` is \"{}\", which the run that made the weights did not see", field.name, names[unknown]);
        let shown: Vec<&str> = all.iter().take(12).map(String::as_str).collect();
        let error = FileError::new(&column.path, message).at(record(first));
        return Err(error
            .hint(format!("it saw: {}{}", shown.join(", "), if all.len() > 12 { ", …" } else { "" }))
            .into());
    }
    let place = |name: &u32| places.get(*name as usize).copied().flatten().map_or(MISSING, |place| place as i32);
    column.values = Values::I32(index.iter().map(place).collect());
    Ok(())
}

/// `record 12`, counted from 1.
pub(super) fn record(index: usize) -> String {
    format!("record {}", index + 1)
}

/// Sizes that a message shows; a file may claim thousands.
const MOST_SIZES: usize = 8;

/// `[4, 3]`.
pub(super) fn sizes_text(sizes: &[usize]) -> String {
    if sizes.len() > MOST_SIZES { format!("{} sizes", sizes.len()) } else { format!("{sizes:?}") }
}

fn check_sizes(column: &Column, field: &Field) -> Result<(), ReadError> {
    let declared: usize = field.sizes.iter().product();
    let agree = match &column.sizes {
        None => column.elements == declared,
        Some(sizes) => squeezed(sizes) == squeezed(&field.sizes),
    };
    if agree {
        return Ok(());
    }
    let given = match &column.sizes {
        Some(sizes) => sizes_text(sizes),
        None => format!("{} values", column.elements),
    };
    let message = format!(
        "`{}` is declared {:?} ({declared} values a record), but {} has {given} a record",
        field.name,
        field.sizes,
        column.path.display()
    );
    Err(Diagnostic::error("data-shape", field.span, message).at(format!("the data have {given}")).into())
}

/// Sizes without ones: `[1, 28, 28]` and `[28, 28]` hold the same values in the same order.
fn squeezed(sizes: &[usize]) -> Vec<usize> {
    sizes.iter().copied().filter(|size| *size != 1).collect()
}

fn convert(values: Values, elements: usize, field: &Field, path: &Path) -> Result<Values, ReadError> {
    let refuse = |place: usize, what: String, hint: String| {
        let error = FileError::new(path, format!("`{}` is {what}", field.name));
        ReadError::from(error.at(record(place / elements.max(1))).hint(hint))
    };
    let infinite = |values: &[f32]| values.iter().position(|value| value.is_infinite());
    match field.element {
        Element::F32 => match values {
            Values::F32(values) => match infinite(&values) {
                Some(place) => Err(refuse(place, values[place].to_string(), "use finite numbers".to_string())),
                None => Ok(Values::F32(values)),
            },
            Values::I32(values) => Ok(Values::F32(values.iter().map(|&value| float(value)).collect())),
            Values::U8(_) | Values::Names { .. } => Ok(values),
        },
        Element::U8 => to_bytes(values).map_err(|(place, value)| {
            refuse(place, format!("{value}, which is not a whole number from 0 to 255"), "declare it f32".to_string())
        }),
        Element::I32 => to_integers(values).map_err(|(place, value)| {
            refuse(place, format!("{value}, which is not a 32-bit whole number"), "declare it f32".to_string())
        }),
        Element::Class(classes) => {
            let values = to_integers(values).map_err(|(place, value)| {
                refuse(place, format!("{value}, which is not the number of a class"), "labels count from 0".to_string())
            })?;
            if let Values::I32(labels) = &values {
                let outside = |label: &i32| *label != MISSING && !(0..classes as i64).contains(&i64::from(*label));
                if let Some(place) = labels.iter().position(outside) {
                    let what = format!("{}, but class[{classes}] has labels 0 to {}", labels[place], classes - 1);
                    return Err(refuse(place, what, "labels count from 0; declare enough classes".to_string()));
                }
            }
            Ok(values)
        }
    }
}

fn float(value: i32) -> f32 {
    if value == MISSING { f32::NAN } else { value as f32 }
}

/// Bytes where all values are whole and present; floats where some are missing.
fn to_bytes(values: Values) -> Result<Values, (usize, f64)> {
    let whole = |value: f32| value.is_nan() || ((0.0..=255.0).contains(&value) && value.fract() == 0.0);
    let floats: Vec<f32> = match values {
        Values::U8(_) | Values::Names { .. } => return Ok(values),
        Values::I32(values) => values.iter().map(|&value| float(value)).collect(),
        Values::F32(values) => values,
    };
    if let Some(place) = floats.iter().position(|&value| !whole(value)) {
        return Err((place, f64::from(floats[place])));
    }
    match floats.iter().any(|value| value.is_nan()) {
        true => Ok(Values::F32(floats)),
        false => Ok(Values::U8(floats.iter().map(|&value| value as u8).collect())),
    }
}

fn to_integers(values: Values) -> Result<Values, (usize, f64)> {
    let floats = match values {
        Values::I32(_) | Values::Names { .. } => return Ok(values),
        Values::U8(values) => return Ok(Values::I32(values.iter().map(|&value| i32::from(value)).collect())),
        Values::F32(values) => values,
    };
    // Above 2²⁴ a float no longer tells neighbouring whole numbers apart.
    let whole = |value: f32| value.is_nan() || (value.fract() == 0.0 && value.abs() <= 16_777_216.0);
    if let Some(place) = floats.iter().position(|&value| !whole(value)) {
        return Err((place, f64::from(floats[place])));
    }
    let integer = |&value: &f32| if value.is_nan() { MISSING } else { value as i32 };
    Ok(Values::I32(floats.iter().map(integer).collect()))
}
