//! `csv("table.csv", header = true, missing = "?", delimiter = ",")`: text tables, a record a row.
//!
//! Which columns a field takes: those that its value names (`= column("age")`, `= column(3)`,
//! `= columns("p00", "p77")`, `= columns(0, 63)`: both ends included, counted from 0); without a value, a field of one
//! number takes the column of its name (or the next column where there is no header), and a field of several numbers
//! takes the columns that no other field named, in order.
//! Empty cells, `nan` and the `missing` texts are missing values.

use std::collections::HashMap;
use std::path::Path;

use super::super::arguments::{self, Arguments};
use super::super::error::{FileError, ReadError};
use super::super::field::{Element, Field};
use super::super::files::{self, Portions};
use super::super::table::{Column, Columns, MISSING, Part, Values};
use super::{Context, Loaded, Role, Source};
use crate::diagnostics::Diagnostic;
use crate::diagnostics::suggest::nearest;
use crate::runtime::files::Place;
use crate::settings::{Literal, LiteralKind};
use crate::source::{Span, shortened};

/// Bytes of one row, so that a file without line ends is not read whole.
const LONGEST_ROW: u64 = 16 << 20;

struct Csv {
    path: String,
    header: bool,
    missing: Vec<String>,
    delimiter: u8,
    choices: Vec<Choice>,
}

/// Which columns a field takes.
#[derive(Clone, Debug)]
enum Choice {
    /// None said.
    ByField,
    /// One column.
    One(Key),
    /// From one to another, both included.
    Range(Key, Key),
    /// These, in this order.
    These(Vec<Key>),
}

#[derive(Clone, Debug)]
enum Key {
    Index(usize, Span),
    Name(String, Span),
}

/// Reads the arguments.
pub(super) fn parse(call: &mut Arguments<'_, '_>, fields: &[Field]) -> Option<Box<dyn Source>> {
    let path = call.text("path", Some(0)).map(str::to_string);
    let path = call.require(path, "path", "csv(\"table.csv\")")?;
    let header = call.flag("header").unwrap_or(true);
    let missing = match call.take("missing", None) {
        Some(Literal { kind: LiteralKind::List(items), .. }) => {
            items.iter().filter_map(|item| arguments::text(item, call.problems)).map(str::to_string).collect()
        }
        Some(literal) => arguments::text(literal, call.problems).map(str::to_string).into_iter().collect(),
        None => Vec::new(),
    };
    let delimiter = match call.text("delimiter", None) {
        None => b',',
        Some(text) => match text.as_bytes() {
            [byte] => *byte,
            _ => {
                return call.refuse(
                    format!("the delimiter \"{text}\" is not one ASCII character"),
                    "write `delimiter = \";\"`",
                );
            }
        },
    };
    let mut choices = Vec::new();
    for field in fields {
        choices.push(match &field.value {
            None => Choice::ByField,
            Some(value) => choice(value, call.problems)?,
        });
    }
    Some(Box::new(Csv { path, header, missing, delimiter, choices }))
}

fn choice(value: &Literal, problems: &mut Vec<Diagnostic>) -> Option<Choice> {
    let mut call = Arguments::of(value, "a choice of columns", problems)?;
    let given = call.take_unnamed();
    let name = call.name;
    let choice = match (name, given.as_slice()) {
        ("column", [one]) => Choice::One(key(one, call.problems)?),
        ("columns", [Literal { kind: LiteralKind::List(items), .. }]) => {
            Choice::These(items.iter().map(|item| key(item, call.problems)).collect::<Option<_>>()?)
        }
        ("columns", [first, last]) => Choice::Range(key(first, call.problems)?, key(last, call.problems)?),
        _ => {
            let diagnostic = Diagnostic::error("data-field", value.span, "this does not choose columns");
            problems.push(
                diagnostic
                    .hint("write `column(\"age\")`, `columns(0, 63)` (both included) or `columns([\"a\", \"b\"])`"),
            );
            return None;
        }
    };
    call.finish();
    Some(choice)
}

fn key(literal: &Literal, problems: &mut Vec<Diagnostic>) -> Option<Key> {
    match &literal.kind {
        LiteralKind::Text(name) => Some(Key::Name(name.clone(), literal.span)),
        _ => Some(Key::Index(arguments::count(literal, problems)?, literal.span)),
    }
}

/// The head of a table: its width and the names of its columns, if it has any.
struct Head {
    width: usize,
    names: Option<Vec<String>>,
}

impl Head {
    fn title(&self, column: usize) -> String {
        match &self.names {
            Some(names) => format!("column {} (\"{}\")", column + 1, shortened(&names[column], CELL_SHOWN)),
            None => format!("column {}", column + 1),
        }
    }

    fn resolve(&self, key: &Key, path: &Path) -> Result<usize, Diagnostic> {
        match key {
            Key::Index(index, _) if *index < self.width => Ok(*index),
            Key::Index(index, span) => {
                let message = format!("{} has columns 0 to {}, not {index}", path.display(), self.width - 1);
                Err(Diagnostic::error("data-field", *span, message))
            }
            Key::Name(name, span) => {
                let Some(names) = &self.names else {
                    let message = format!("{} is read without a header, so \"{name}\" names no column", path.display());
                    let diagnostic = Diagnostic::error("data-field", *span, message);
                    return Err(diagnostic.hint("count the columns from 0, or say `header = true`"));
                };
                match self.find(name) {
                    Some(_) if self.is_ambiguous(name) => Err(two_columns(name, *span, path)),
                    Some(column) => Ok(column),
                    None => Err(no_column(name, names, *span, path)),
                }
            }
        }
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.names.as_ref()?.iter().position(|given| given == name)
    }

    /// Whether several columns have this name.
    fn is_ambiguous(&self, name: &str) -> bool {
        self.names.iter().flatten().filter(|given| *given == name).count() > 1
    }

    /// Columns in a form that finds them in another table: by name where every name stands once.
    fn remember(&self, columns: &[usize]) -> Columns {
        let once = |names: &[String]| columns.iter().all(|column| !self.is_ambiguous(&names[*column]));
        match &self.names {
            Some(names) if once(names) => Columns::Named(columns.iter().map(|column| names[*column].clone()).collect()),
            _ => Columns::Placed { places: columns.to_vec(), width: self.width },
        }
    }

    /// The columns of an earlier table in this one.
    fn again(&self, columns: &Columns, path: &Path) -> Result<Vec<usize>, FileError> {
        match columns {
            Columns::Named(names) => {
                let absent: Vec<&str> = names.iter().map(String::as_str).filter(|n| self.find(n).is_none()).collect();
                if absent.is_empty() {
                    return Ok(names.iter().filter_map(|name| self.find(name)).collect());
                }
                let own = self.names.as_deref().unwrap_or_default();
                let shown: Vec<&str> = absent.iter().take(8).copied().collect();
                let more = if absent.len() > shown.len() { ", …" } else { "" };
                let message = format!(
                    "lacks {} of the {} columns that the training table had: {}{more}",
                    absent.len(),
                    names.len(),
                    shown.join(", ")
                );
                Err(FileError::new(path, message).hint(match nearest(absent[0], own.iter().map(String::as_str)) {
                    Some(near) => format!("is \"{near}\" its \"{}\"? columns go by their names", absent[0]),
                    None => "columns go by the names in the first row, in any order".to_string(),
                }))
            }
            Columns::Placed { places, width } if *width == self.width => Ok(places.clone()),
            Columns::Placed { width, .. } => {
                let message = format!("has {} columns, and the training table had {width}", self.width);
                Err(FileError::new(path, message)
                    .hint("without a name of its own for each column, they go by their places"))
            }
            Columns::None => Ok(Vec::new()),
        }
    }

    /// The names of the columns that nobody takes.
    fn unused(&self, taken: &[Vec<usize>]) -> Vec<String> {
        let names = self.names.iter().flatten().enumerate();
        names.filter(|(column, _)| !taken.iter().flatten().any(|t| t == column)).map(|(_, name)| name.clone()).collect()
    }
}

fn two_columns(name: &str, span: Span, path: &Path) -> Diagnostic {
    let message = format!("{} has several columns \"{name}\"", path.display());
    Diagnostic::error("data-field", span, message).hint("choose one by its place, counted from 0: `= column(3)`")
}

fn no_column(name: &str, names: &[String], span: Span, path: &Path) -> Diagnostic {
    let message = format!("{} has no column \"{name}\"", path.display());
    let diagnostic = Diagnostic::error("data-field", span, message);
    let options: Vec<&str> = names.iter().map(String::as_str).collect();
    match nearest(name, options.iter().copied()) {
        Some(near) => diagnostic.hint(format!("did you mean \"{}\"?", shortened(near, CELL_SHOWN))),
        None => {
            let shown: Vec<String> = options.iter().take(12).map(|name| shortened(name, CELL_SHOWN)).collect();
            let more = if options.len() > shown.len() { ", …" } else { "" };
            diagnostic.hint(format!("its columns are: {}{more}; choose one with `= column(\"…\")`", shown.join(", ")))
        }
    }
}

impl Source for Csv {
    fn read(&self, context: &Context<'_>) -> Result<Loaded, ReadError> {
        let standard_input = context.role == Role::Input && self.path == "-";
        let place = if standard_input { None } else { Some(context.place(&self.path)?) };
        let path = place.as_ref().map_or(Path::new("standard input"), Place::path);
        let input = place.as_ref().map_or_else(|| Ok(files::standard_input()), files::open)?;
        let mut reader = ::csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(self.delimiter)
            .trim(::csv::Trim::All)
            .from_reader(Portions::new(input, LONGEST_ROW));
        let mut row = ::csv::StringRecord::new();
        let mut more = advance(&mut reader, &mut row, path)?;
        if !more {
            return Err(FileError::new(path, "the table is empty").into());
        }
        let head = self.head(&row, path)?;
        if self.header {
            more = advance(&mut reader, &mut row, path)?;
        }
        let columns = match context.columns {
            [] => self.assign(&head, context.fields, path)?,
            known => known.iter().map(|known| head.again(known, path)).collect::<Result<_, FileError>>()?,
        };
        let mut cells: Vec<Cells> = context.fields.iter().map(Cells::new).collect();
        let mut records = 0;
        while more {
            let line = row.position().map_or(0, |position| position.line());
            if row.len() != head.width {
                let message = format!("has {} cells, but the first row has {}", row.len(), head.width);
                let error = FileError::new(path, message).at(format!("row {line}"));
                return Err(error
                    .hint("every row needs as many cells as the first; quote cells that hold the delimiter")
                    .into());
            }
            for (cells, columns) in cells.iter_mut().zip(&columns) {
                for &column in columns {
                    let cell = &row[column];
                    let missing = cell.is_empty() || self.missing.iter().any(|text| text == cell);
                    let place = || format!("row {line}, {}", head.title(column));
                    let kept = cells.push(cell, missing, place, path)?;
                    context
                        .budget
                        .keep(kept)
                        .map_err(|error| files::explain(path, &error).at(format!("row {line}")))?;
                }
            }
            records += 1;
            more = advance(&mut reader, &mut row, path)?;
        }
        let known = |which: usize| context.words.get(which).is_some_and(|words| !words.is_empty());
        let finished = cells.into_iter().zip(&columns).enumerate();
        let finished = finished.map(|(which, (cells, columns))| cells.finish(columns.len(), known(which), path));
        let mut part = Part::new(finished.collect(), records);
        part.chosen = columns.iter().map(|columns| head.remember(columns)).collect();
        part.unused = head.unused(&columns);
        Ok(part.into())
    }
}

fn advance<R: std::io::Read>(
    reader: &mut ::csv::Reader<Portions<R>>,
    row: &mut ::csv::StringRecord,
    path: &Path,
) -> Result<bool, FileError> {
    reader.get_mut().go_on();
    reader.read_record(row).map_err(|error| match error.kind() {
        ::csv::ErrorKind::Io(error) => files::explain(path, error),
        ::csv::ErrorKind::Utf8 { pos, .. } => {
            let error = FileError::new(path, "is not UTF-8 text").hint("convert the table to UTF-8");
            match pos {
                Some(pos) => error.at(format!("row {}", pos.line())),
                None => error,
            }
        }
        _ => FileError::new(path, error.to_string()),
    })
}

impl Csv {
    fn head(&self, row: &::csv::StringRecord, path: &Path) -> Result<Head, FileError> {
        if !self.header {
            return Ok(Head { width: row.len(), names: None });
        }
        let names: Vec<String> = row.iter().map(|name| name.trim_start_matches('\u{feff}').to_string()).collect();
        if names.iter().all(|name| name.parse::<f64>().is_ok()) {
            let error = FileError::new(path, "the first row holds numbers, not names").at("row 1");
            return Err(error.hint("say `header = false` if the table has no header"));
        }
        Ok(Head { width: names.len(), names: Some(names) })
    }

    /// The columns of each field.
    fn assign(&self, head: &Head, fields: &[Field], path: &Path) -> Result<Vec<Vec<usize>>, ReadError> {
        let mut columns: Vec<Option<Vec<usize>>> = Vec::new();
        for (field, choice) in fields.iter().zip(&self.choices) {
            columns.push(match choice {
                Choice::One(key) => Some(vec![head.resolve(key, path)?]),
                Choice::These(keys) => {
                    Some(keys.iter().map(|key| head.resolve(key, path)).collect::<Result<_, Diagnostic>>()?)
                }
                Choice::Range(first, last) => Some((head.resolve(first, path)?..=head.resolve(last, path)?).collect()),
                Choice::ByField if field.elements() == 1 => match (head.find(&field.name), &head.names) {
                    (Some(_), _) if head.is_ambiguous(&field.name) => {
                        return Err(two_columns(&field.name, field.span, path).into());
                    }
                    (Some(column), _) => Some(vec![column]),
                    (None, Some(names)) => return Err(no_column(&field.name, names, field.span, path).into()),
                    (None, None) => None,
                },
                Choice::ByField => None,
            });
        }
        let claimed: Vec<usize> = columns.iter().flatten().flatten().copied().collect();
        let free: Vec<usize> = (0..head.width).filter(|column| !claimed.contains(column)).collect();
        let open = || fields.iter().zip(&columns).filter(|(_, columns)| columns.is_none()).map(|(field, _)| field);
        let needed: usize = open().map(Field::elements).sum();
        if let Some(field) = open().next()
            && needed != free.len()
        {
            let message = format!(
                "`{}` needs {needed} columns, but {} has {} left for it",
                field.name,
                path.display(),
                free.len()
            );
            let diagnostic = Diagnostic::error("data-shape", field.span, message);
            return Err(diagnostic.hint("choose its columns with `= columns(first, last)`").into());
        }
        let mut rest = free.into_iter();
        let taken = fields.iter().zip(columns);
        Ok(taken
            .map(|(field, columns)| columns.unwrap_or_else(|| rest.by_ref().take(field.elements()).collect()))
            .collect())
    }
}

/// How many characters of a cell or a title a message shows.
const CELL_SHOWN: usize = 40;

/// The cells of one field while they are read. A class field stays words until a cell is no whole number.
enum Cells {
    Floats(Vec<f32>, Option<String>),
    Integers(Vec<i32>, Option<String>),
    Labels(Labels, Option<String>),
}

/// Labels as distinct words, so that a million of them cost a number each.
#[derive(Default)]
struct Labels {
    words: Vec<String>,
    places: HashMap<String, u32>,
    rows: Vec<u32>,
}

impl Cells {
    fn new(field: &Field) -> Self {
        match field.element {
            Element::F32 | Element::U8 => Cells::Floats(Vec::new(), None),
            Element::I32 => Cells::Integers(Vec::new(), None),
            Element::Class(_) => Cells::Labels(Labels::default(), None),
        }
    }

    /// Adds a cell; returns how many bytes it keeps.
    fn push(&mut self, cell: &str, missing: bool, place: impl Fn() -> String, path: &Path) -> Result<u64, FileError> {
        let mut kept = 4;
        match self {
            Cells::Floats(values, first) => {
                let value = if missing { Ok(f32::NAN) } else { cell.parse::<f32>() };
                match value {
                    Ok(value) if value.is_infinite() => {
                        let message = format!("\"{}\" is not a finite 32-bit float", shortened(cell, CELL_SHOWN));
                        return Err(FileError::new(path, message).at(place()));
                    }
                    Ok(value) => {
                        if value.is_nan() && first.is_none() {
                            *first = Some(place());
                        }
                        values.push(value);
                    }
                    Err(_) => return Err(not_a_number(cell, place(), path)),
                }
            }
            Cells::Integers(values, first) => {
                let value = if missing { Some(MISSING) } else { integer(cell) };
                if missing && first.is_none() {
                    *first = Some(place());
                }
                values.push(value.ok_or_else(|| not_a_number(cell, place(), path))?);
            }
            Cells::Labels(labels, first) => {
                if missing && first.is_none() {
                    *first = Some(place());
                }
                kept += labels.push(cell, missing);
            }
        }
        Ok(kept)
    }

    /// `words`: labels are words even where all of them look like numbers.
    fn finish(self, elements: usize, words: bool, path: &Path) -> Column {
        let (values, missing_place) = match self {
            Cells::Floats(values, first) => (Values::F32(values), first),
            Cells::Integers(values, first) => (Values::I32(values), first),
            Cells::Labels(labels, first) if words => (labels.named(), first),
            Cells::Labels(labels, first) => (labels.finish(), first),
        };
        Column { sizes: None, elements, values, missing_place, path: path.to_path_buf() }
    }
}

impl Labels {
    /// Adds a label; returns how many bytes a new word keeps.
    fn push(&mut self, cell: &str, missing: bool) -> u64 {
        let before = self.words.len();
        let place = match (missing, self.places.get(cell)) {
            (true, _) => u32::MAX,
            (false, Some(place)) => *place,
            (false, None) => {
                let place = self.words.len() as u32;
                self.words.push(cell.to_string());
                self.places.insert(cell.to_string(), place);
                place
            }
        };
        self.rows.push(place);
        // The word twice, its two owners, and its place.
        if self.words.len() > before { 2 * (cell.len() + size_of::<String>()) as u64 + 8 } else { 0 }
    }

    /// Numbers where every label is a whole number, floats (to be refused) where every label is a number, else names.
    fn finish(self) -> Values {
        let numbers: Option<Vec<i32>> = self.words.iter().map(|word| integer(word)).collect();
        if let Some(numbers) = numbers {
            let value = |place: &u32| numbers.get(*place as usize).copied().unwrap_or(MISSING);
            return Values::I32(self.rows.iter().map(value).collect());
        }
        let floats: Option<Vec<f32>> = self.words.iter().map(|word| word.parse().ok()).collect();
        if let Some(floats) = floats {
            let value = |place: &u32| floats.get(*place as usize).copied().unwrap_or(f32::NAN);
            return Values::F32(self.rows.iter().map(value).collect());
        }
        self.named()
    }

    fn named(self) -> Values {
        let mut order: Vec<u32> = (0..self.words.len() as u32).collect();
        order.sort_by(|a, b| self.words[*a as usize].cmp(&self.words[*b as usize]));
        let mut rank = vec![0u32; order.len()];
        for (sorted, place) in order.iter().enumerate() {
            rank[*place as usize] = sorted as u32;
        }
        let index = self.rows.iter().map(|place| rank.get(*place as usize).copied().unwrap_or(u32::MAX)).collect();
        let mut names = self.words;
        names.sort_unstable();
        Values::Names { names, index }
    }
}

/// A whole number, also written as `3.0`; the mark of missing values is none.
fn integer(cell: &str) -> Option<i32> {
    if let Ok(value) = cell.parse::<i32>() {
        return (value != MISSING).then_some(value);
    }
    let value = cell.parse::<f64>().ok()?;
    (value.fract() == 0.0 && value.abs() < f64::from(i32::MAX)).then_some(value as i32)
}

fn not_a_number(cell: &str, place: String, path: &Path) -> FileError {
    let shown = shortened(cell, CELL_SHOWN);
    let error = FileError::new(path, format!("\"{shown}\" is not a number of the declared type")).at(place);
    error.hint(format!("correct it, or say `missing = \"{shown}\"` if it stands for a missing value"))
}
