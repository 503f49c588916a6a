//! Where samples come from: one file per kind of source, and the registry [`SOURCES`].
//!
//! Input: a `source = …` entry and the declared fields. Output: a [`Part`] with a column per field.
//! Invariant: reading allocates in proportion to what the files hold, not to what their headers claim.
//!
//! To add a source: write a file with a `parse` function and an `impl Source`, and add one line to [`SOURCES`].

mod array;
mod cifar;
mod csv;
mod folder;
mod idx;
mod picture;
mod synthetic;

use std::path::Path;

use super::arguments::{self, Arguments};
use super::error::{FileError, ReadError};
use super::field::Field;
use super::files::{self, Budget};
use super::table::{Column, Columns, Part};
use crate::diagnostics::Diagnostic;
use crate::runtime::files::Place;
use crate::settings::{DataSpec, Literal, LiteralKind, PathRefusal};

/// Which split a source is read for; synthetic samples differ by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// `source`.
    Train,
    Valid,
    Test,
    /// New data, to predict on.
    Input,
}

/// What a source may look at while it reads.
pub(super) struct Context<'a> {
    /// The item: its paths start at its folder and stay below its root.
    pub spec: &'a DataSpec,
    /// The bytes that may be kept.
    pub budget: &'a Budget,
    /// The declared fields.
    pub fields: &'a [Field],
    /// The run's seed, for synthetic samples.
    pub seed: u64,
    /// For which split.
    pub role: Role,
    /// Per field: the columns of a table that it takes by an earlier reading; empty where none was read.
    pub columns: &'a [Columns],
    /// Per field: the words of its classes, as a run found them; empty where no run did.
    pub words: &'a [Vec<String>],
}

impl Context<'_> {
    /// Where a path of the item leads.
    pub(super) fn place(&self, written: &str) -> Result<Place, FileError> {
        let DataSpec { root, folder, packed, .. } = self.spec;
        let place = Place::new(root, folder, written).map(|place| place.within(packed.clone()));
        place.map_err(|refusal| {
            let error = FileError::new(Path::new(written), refusal.words());
            match refusal {
                PathRefusal::Empty | PathRefusal::Nul | PathRefusal::Hidden => error,
                PathRefusal::NotPlain => error.hint("separate folders by `/`"),
                PathRefusal::Absolute | PathRefusal::Leaves => error.hint(files::ELSEWHERE),
            }
        })
    }
}

/// What a source gives.
pub(super) struct Loaded {
    /// The samples.
    pub main: Part,
    /// Test samples, where the source knows which those are.
    pub test: Option<Part>,
}

impl From<Part> for Loaded {
    fn from(main: Part) -> Self {
        Self { main, test: None }
    }
}

/// A source whose arguments have been checked.
pub(super) trait Source {
    /// How many records it makes up; 0 where files hold them.
    fn made_up(&self) -> usize {
        0
    }

    /// Reads all samples.
    fn read(&self, context: &Context<'_>) -> Result<Loaded, ReadError>;
}

/// Reads the arguments of a source; pushes findings and gives `None` where they are wrong.
type Parse = fn(&mut Arguments<'_, '_>, &[Field]) -> Option<Box<dyn Source>>;

/// All sources: name, example, reader of arguments.
const SOURCES: &[(&str, &str, Parse)] = &[
    ("csv", "csv(\"table.csv\")", csv::parse),
    ("npy", "npy(image = \"x.npy\", label = \"y.npy\")", array::parse_npy),
    ("npz", "npz(\"data.npz\")", array::parse_npz),
    ("idx", "idx(images = \"images-idx3-ubyte.gz\", labels = \"labels-idx1-ubyte.gz\")", idx::parse),
    ("cifar_binary", "cifar_binary(\"cifar-10-batches-bin\")", cifar::parse),
    ("image_folder", "image_folder(\"pictures\", size = [64, 64])", folder::parse),
    ("spirals", "spirals(classes = 3, points = 300, noise = 0.1)", synthetic::parse_spirals),
    ("regression", "regression(samples = 1000, noise = 0.1)", synthetic::parse_regression),
    ("random_images", "random_images(samples = 1000)", synthetic::parse_random_images),
    ("random", "random(samples = 1000)", synthetic::parse_random),
];

/// The names of all sources.
pub(super) fn names() -> Vec<&'static str> {
    SOURCES.iter().map(|(name, ..)| *name).collect()
}

/// Reads a `source`, `valid` or `test` entry. Without all fields only the name is checked.
pub(super) fn parse(
    literal: &Literal,
    fields: &[Field],
    complete: bool,
    problems: &mut Vec<Diagnostic>,
) -> Option<Box<dyn Source>> {
    let before = problems.len();
    let Some(mut call) = Arguments::of(literal, "a source", problems) else {
        if let Some(problem) = problems.last_mut() {
            problem.hints.push("write a call, such as `csv(\"table.csv\")`".to_string());
        }
        return None;
    };
    let Some((_, example, parse)) = SOURCES.iter().find(|(name, ..)| *name == call.name) else {
        let diagnostic = Diagnostic::error("data-source", call.span, format!("there is no source `{}`", call.name));
        let diagnostic = arguments::suggest(diagnostic, call.name, &names());
        call.problems.push(diagnostic);
        return None;
    };
    if !complete {
        return None;
    }
    if let LiteralKind::Name(_) = literal.kind {
        return call.refuse(format!("`{}` needs arguments", call.name), format!("write `{example}`"));
    }
    let source = parse(&mut call, fields);
    if source.is_some() {
        call.finish();
    }
    source.filter(|_| problems.len() == before)
}

/// Which fields take the samples and the labels of a source that gives both.
#[derive(Clone, Copy, Debug)]
pub(super) struct Roles {
    /// The field of samples.
    pub sample: usize,
    /// The field of labels; without one, as for an autoencoder, labels are not kept.
    pub label: Option<usize>,
}

impl Roles {
    /// One field of numbers, and at most one `class[n]`.
    fn of(call: &mut Arguments<'_, '_>, fields: &[Field]) -> Option<Self> {
        let label = fields.iter().position(Field::is_class);
        let sample = fields.iter().position(|field| !field.is_class());
        match sample {
            Some(sample) if fields.len() == 1 + usize::from(label.is_some()) => Some(Self { sample, label }),
            _ => {
                let message = format!("`{}` gives two fields: samples and labels", call.name);
                call.refuse(message, "declare one field of numbers, at most one `class[n]`, and no other")
            }
        }
    }

    /// The columns in the order of the fields.
    fn part(self, records: usize, samples: Column, labels: Column) -> Part {
        let columns = match self.label {
            None => vec![samples],
            Some(label) if label < self.sample => vec![labels, samples],
            Some(_) => vec![samples, labels],
        };
        Part::new(columns, records)
    }
}

/// Reports `= columns(…)` at fields of sources that have no columns.
pub(super) fn refuse_values(call: &mut Arguments<'_, '_>, fields: &[Field]) {
    for value in fields.iter().filter_map(|field| field.value.as_ref()) {
        let message = format!("`{}` has no columns to choose", call.name);
        call.problems.push(Diagnostic::error("data-field", value.span, message).hint("leave the value out"));
    }
}
