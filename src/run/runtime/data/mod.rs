//! Data: from a `data` item to batches of numbers.
//!
//! Input: a [`DataSpec`] (plain literals) and the run's seed. Output: a [`Dataset`] with three [`Split`]s, each of
//! which gives [`Batch`]es. Invariants: everything is reproducible from the item, the files and the seed; what is
//! measured is measured on the training split; a damaged file is an error that names the file and the record, never a
//! panic and never an allocation that a header asked for.
//!
//! The steps: [`settings`](self) reads the item, a source reads the files, the columns are brought to the declared
//! types, records are divided, then prepared; augmentation happens as batches are made.

mod arguments;
mod augment;
mod demand;
mod error;
mod field;
mod files;
mod fitted;
mod input;
mod loader;
mod measure;
mod origin;
mod pack;
mod preparation;
mod prepare;
mod random;
mod settings;
mod source;
mod split;
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use error::{DataError, FileError, RELATIVE};
pub use fitted::Fitted;
pub use input::{Input, open_input};
pub use loader::{Augmentation, Batch, Batches, Order, Plan, Rows};
pub use pack::{files as files_of, lies_at, pack};
pub use preparation::{FieldPreparation, Preparation};
pub use table::Place;

use super::memory;
use crate::diagnostics::Diagnostic;
use crate::graph::DType;
use crate::runtime::places::all_finite;
use crate::settings::{DataSpec, FieldInfo, SplitName};
use demand::Provenance;
use field::{Element, Field};
use files::Budget;
use loader::EpochOrder;
use random::{Purpose, Stream};
use settings::{Origin, RowStage, Settings};
use source::{Context, Loaded, Role};
use split::Divided;
pub use table::Columns;
use table::{Part, Places};

/// Opened data.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// The item's name.
    pub name: String,
    /// The fields, in the order of the item.
    pub fields: Vec<FieldInfo>,
    /// Samples to train on; never empty.
    pub train: Arc<Split>,
    /// Held-out samples; may be empty.
    pub valid: Arc<Split>,
    /// Test samples; may be empty.
    pub test: Arc<Split>,
    /// What was measured on `train` and found in the files, or what was given in its place.
    pub preparation: Preparation,
    provenance: Arc<Vec<Provenance>>,
}

/// Some of the samples.
#[derive(Clone, Debug)]
pub struct Split {
    fields: Vec<FieldInfo>,
    columns: Arc<Vec<Column>>,
    places: Arc<Places>,
    rows: Vec<u32>,
}

/// A prepared column with its augmentation.
#[derive(Clone, Debug)]
struct Column {
    values: fitted::Prepared,
    augment: Vec<augment::Stage>,
    /// Sizes before augmentation.
    sizes: Vec<usize>,
}

/// The fields of an item, without touching a file: for `check` and for binding sizes.
///
/// # Errors
/// All findings about the item.
pub fn fields(spec: &DataSpec) -> Result<Vec<FieldInfo>, Vec<Diagnostic>> {
    settings::read(spec).map(|settings| settings.infos)
}

/// Whether an item says what is held out: a source `valid`, or a share of the split.
pub fn declares_valid(spec: &DataSpec) -> bool {
    let of_split = |settings: &settings::Settings| settings.split.is_some_and(|rule| rule.valid.given());
    settings::read(spec).is_ok_and(|settings| settings.valid.is_some() || of_split(&settings))
}

/// Whether all data of an item are made up, so that no file holds any.
pub fn is_made_up(spec: &DataSpec) -> bool {
    settings::read(spec).is_ok_and(|settings| {
        let origins = [Some(&settings.source), settings.valid.as_ref(), settings.test.as_ref()];
        origins.into_iter().flatten().all(|origin| origin.source.made_up() > 0)
    })
}

/// Reads and prepares the data, measuring on the training records. `seed` divides, shuffles and makes synthetic samples.
///
/// # Errors
/// Findings about the item, or the first thing wrong in a file.
pub fn open(spec: &DataSpec, seed: u64) -> Result<Dataset, DataError> {
    open_with(spec, seed, None)
}

/// As [`open`], with what an earlier run measured where that is `known`: nothing is measured then.
///
/// # Errors
/// As [`open`]; an item that is not the one that was prepared.
pub fn open_with(spec: &DataSpec, seed: u64, known: Option<&Preparation>) -> Result<Dataset, DataError> {
    let settings = settings::read(spec).map_err(DataError::Spec)?;
    if let Some(known) = known {
        known.admit(&settings, spec)?;
    }
    let Read { table, divided, words, provenance } = load(&settings, spec, seed, known)?;
    let (mut columns, mut prepared) = (Vec::new(), Vec::new());
    for (index, (field, column)) in settings.fields.iter().zip(table.columns).enumerate() {
        let stages = &settings.prepare[index];
        let values = match known.and_then(|known| known.field(&field.name)) {
            None => measure::measured(column.values, field, stages, &divided.train),
            Some(known) => {
                let stages = known.stages.clone();
                fitted::applied(column.values, field, &stages).map(|values| (values, stages))
            }
        };
        let (values, fitted) = values
            .map_err(|message| DataError::File { span: field.span, error: FileError::new(&column.path, message) })?;
        columns.push(Column { values, augment: settings.augment[index].clone(), sizes: prepared_sizes(field, stages) });
        prepared.push(FieldPreparation {
            words: words[index].clone(),
            columns: table.chosen.get(index).cloned().unwrap_or_default(),
            ..FieldPreparation::new(&spec.fields[index], fitted)
        });
    }
    let preparation = Preparation { fields: prepared, division: divided.digest() };
    Ok(Dataset::new(spec, settings.infos, columns, table.places, divided, preparation, provenance))
}

fn prepared_sizes(field: &Field, stages: &[prepare::Stage]) -> Vec<usize> {
    match (field.element, stages.contains(&prepare::Stage::OneHot)) {
        (Element::Class(classes), true) => vec![classes],
        _ => field.sizes.clone(),
    }
}

/// All sources of an item.
struct Read {
    table: Part,
    divided: Divided,
    /// Of each field.
    words: Vec<Vec<String>>,
    provenance: Vec<Provenance>,
}

/// Reads all sources into one table and divides its records.
fn load(settings: &Settings, spec: &DataSpec, seed: u64, known: Option<&Preparation>) -> Result<Read, DataError> {
    let fields = settings.fields.as_slice();
    let budget = Budget::of_memory();
    let words = known.map_or(Vec::new(), |known| known.words(fields));
    let read = |origin: &Origin, role: Role, columns: &[Columns]| {
        let bytes = origin.source.made_up() as u64 * fields.iter().map(Field::bytes).sum::<u64>();
        memory::check(bytes, "what is made up here").map_err(|words| {
            let diagnostic = Diagnostic::error("out-of-memory", origin.span, words);
            DataError::spec(diagnostic.hint("ask for fewer samples"))
        })?;
        let context = Context { spec, budget: &budget, fields, seed, role, columns, words: &words };
        origin.source.read(&context).map_err(|error| error.with_span(origin.span))
    };
    let columns = known.map_or(Vec::new(), |known| known.columns(fields));
    let Loaded { mut main, test: mut own_test } = read(&settings.source, Role::Train, &columns)?;
    // A table beside another has the same columns by name, in whatever order.
    let columns = main.chosen.clone();
    let mut valid = settings
        .valid
        .as_ref()
        .map(|origin| read(origin, Role::Valid, &columns))
        .transpose()?
        .map(|loaded| loaded.main);
    let mut test = match &settings.test {
        Some(origin) => Some(match read(origin, Role::Test, &columns)? {
            Loaded { test: Some(test), .. } => test,
            Loaded { main, test: None } => main,
        }),
        None => own_test.take(),
    };
    let span = settings.source.span;
    let mut parts: Vec<&mut Part> = [Some(&mut main), valid.as_mut(), test.as_mut()].into_iter().flatten().collect();
    let words = table::unify_words(&mut parts, fields, &words).map_err(|error| error.with_span(span))?;

    let finish = |part: Part, name: &str, origin: Option<&Origin>| {
        let span = origin.map_or(span, |origin| origin.span);
        let mut part = part.conform(&settings.fields).map_err(|error| error.with_span(span))?;
        let drops = settings.rows.contains(&RowStage::DropMissing);
        let kept = drops.then(|| part.drop_missing());
        for (which, field) in settings.fields.iter().enumerate() {
            if !settings.prepare[which].iter().any(|stage| matches!(stage, prepare::Stage::Fill(_))) {
                part.refuse_missing(which, field).map_err(|error| DataError::File { span, error })?;
            }
        }
        match part.records {
            0 => Err(empty(&part, name, span)),
            1..=0x7fff_ffff => Ok((Provenance::of(&part, kept), part)),
            records => {
                let message = format!("{records} records are more than 2^31 - 1");
                Err(DataError::spec(Diagnostic::error("data-source", span, message)))
            }
        }
    };
    let (first, main) = finish(main, "source", None)?;
    let valid = valid.map(|part| finish(part, "valid", settings.valid.as_ref())).transpose()?.unzip();
    let test = test.map(|part| finish(part, "test", settings.test.as_ref())).transpose()?.unzip();
    let provenance = [Some(first), valid.0, test.0].into_iter().flatten().collect();
    let (table, divided) = assemble(settings, main, valid.1, test.1, seed)?;
    Ok(Read { table, divided, words, provenance })
}

fn empty(part: &Part, name: &str, span: crate::source::Span) -> DataError {
    let message = format!("`{name}` gives no record");
    match part.columns.first() {
        Some(column) => DataError::File { span, error: FileError::new(&column.path, message) },
        None => DataError::spec(Diagnostic::error("data-source", span, message)),
    }
}

/// Divides the records of `source` and appends those of `valid` and `test`.
fn assemble(
    settings: &Settings,
    mut table: Part,
    valid: Option<Part>,
    test: Option<Part>,
    seed: u64,
) -> Result<(Part, Divided), DataError> {
    let mut divided = match &settings.split {
        Some(rule) => rule.divide(table.records, seed).map_err(|message| {
            DataError::spec(Diagnostic::error("data-split", settings.source.span, message).hint("take smaller shares"))
        })?,
        None => Divided { train: (0..table.records as u32).collect(), ..Divided::default() },
    };
    if test.is_some() && !divided.test.is_empty() {
        let message = "the source has test records of its own, and the split takes a share for the test";
        let diagnostic = Diagnostic::error("data-split", settings.source.span, message);
        return Err(DataError::spec(diagnostic.hint("leave `test` out of the split")));
    }
    for (part, rows) in [(valid, &mut divided.valid), (test, &mut divided.test)] {
        if let Some(part) = part {
            let first = table.records as u32;
            table.append(part);
            *rows = (first..table.records as u32).collect();
        }
    }
    Ok((table, divided))
}

impl Dataset {
    fn new(
        spec: &DataSpec,
        fields: Vec<FieldInfo>,
        columns: Vec<Column>,
        places: Places,
        divided: Divided,
        preparation: Preparation,
        provenance: Vec<Provenance>,
    ) -> Self {
        let (columns, places) = (Arc::new(columns), Arc::new(places));
        let split = |rows: Vec<u32>| {
            let (fields, columns, places) = (fields.clone(), columns.clone(), places.clone());
            Arc::new(Split { fields, columns, places, rows })
        };
        let [train, valid, test] = [divided.train, divided.valid, divided.test].map(split);
        Self { name: spec.name.clone(), train, valid, test, preparation, provenance: Arc::new(provenance), fields }
    }

    /// The split of this name; it may be empty.
    pub fn split(&self, name: SplitName) -> &Arc<Split> {
        match name {
            SplitName::Train => &self.train,
            SplitName::Valid => &self.valid,
            SplitName::Test => &self.test,
        }
    }

    /// A hash of each field's numbers, as the splits give them in order, and of what is done to them at random.
    pub fn hashes(&self) -> BTreeMap<String, String> {
        let hash = |(which, field): (usize, &FieldInfo)| {
            let mut crc = flate2::Crc::new();
            for split in [&self.train, &self.valid, &self.test] {
                split.hash(which, field.dtype, &mut crc);
            }
            (field.name.clone(), format!("{:08x}", crc.sum()))
        };
        self.fields.iter().enumerate().map(hash).collect()
    }

    /// Samples to train, validate and test on.
    pub fn samples(&self) -> [usize; 3] {
        [&self.train, &self.valid, &self.test].map(|split| split.len())
    }

    /// A line for progress: `digits: 1437 train, 0 valid, 360 test; pixels f32[64], label class[10]`.
    pub fn describe(&self) -> String {
        let fields: Vec<String> = self.fields.iter().map(describe_field).collect();
        format!(
            "{}: {} train, {} valid, {} test; {}",
            self.name,
            self.train.len(),
            self.valid.len(),
            self.test.len(),
            fields.join(", ")
        )
    }
}

fn describe_field(field: &FieldInfo) -> String {
    let sizes: Vec<String> = field.sizes.iter().map(usize::to_string).collect();
    match (field.classes, field.dtype) {
        (Some(classes), _) => format!("{} class[{classes}]", field.name),
        (None, DType::I32) => format!("{} i32[{}]", field.name, sizes.join(", ")),
        (None, DType::F32 | DType::Bool) => format!("{} f32[{}]", field.name, sizes.join(", ")),
    }
}

impl Split {
    /// How many samples.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True without any sample.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Where the sample of this number comes from.
    pub fn place(&self, sample: usize) -> Place<'_> {
        self.places.get(self.rows[sample] as usize)
    }

    /// Steps of one pass over all samples; the last batch may be short.
    pub fn steps_per_epoch(&self, batch: usize) -> u64 {
        self.len().div_ceil(batch.max(1)) as u64
    }

    /// Adds the numbers of one field.
    fn hash(&self, which: usize, dtype: DType, crc: &mut flate2::Crc) {
        let column = &self.columns[which];
        let (mut floats, mut integers) = (vec![0.0; column.values.width()], vec![0; column.values.width()]);
        let mut bytes = Vec::new();
        crc.update(format!("{} {:?} {:?}", self.rows.len(), column.sizes, column.augment).as_bytes());
        for row in &self.rows {
            bytes.clear();
            match dtype {
                DType::I32 => {
                    column.values.write_i32(*row as usize, &mut integers);
                    bytes.extend(integers.iter().flat_map(|value: &i32| value.to_le_bytes()));
                }
                DType::F32 | DType::Bool => {
                    column.values.write_f32(*row as usize, &mut floats);
                    bytes.extend(floats.iter().flat_map(|value: &f32| value.to_le_bytes()));
                }
            }
            crc.update(&bytes);
        }
    }

    /// The batch of one step, computed here.
    ///
    /// # Panics
    /// On an empty split, which has no steps.
    pub fn batch_at(&self, plan: &Plan, step: u64) -> Batch {
        let mut batch = Batch::default();
        self.fill(plan, step, &mut EpochOrder::default(), &mut batch);
        batch
    }

    /// Batches of the steps `first..end`, prepared ahead on a thread; an empty split gives none.
    /// One epoch is `0..steps_per_epoch(batch)`; a resumed run starts at its step.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn batches(self: &Arc<Self>, plan: Plan, first: u64, end: u64) -> std::io::Result<Batches> {
        Batches::spawn(self.clone(), plan, first, end)
    }

    fn fill(&self, plan: &Plan, step: u64, order: &mut EpochOrder, batch: &mut Batch) {
        let steps = plan.steps_per_epoch(self.len());
        let (epoch, within) = (step / steps, (step % steps) as usize);
        let order = order.of(plan, self.len(), epoch);
        let chosen = &order[within * plan.batch..self.len().min((within + 1) * plan.batch)];
        (batch.step, batch.epoch, batch.rows) = (step, epoch, chosen.len());
        batch.is_finite = true;
        batch.fields.resize_with(self.fields.len(), || Rows::F32(Vec::new()));
        let columns = self.fields.iter().zip(self.columns.iter()).zip(&mut batch.fields);
        for (which, ((info, column), rows)) in columns.enumerate() {
            let elements = info.elements();
            match info.dtype {
                DType::I32 => {
                    let out = integers(rows, chosen.len() * elements);
                    for (out, position) in out.chunks_exact_mut(elements).zip(chosen) {
                        column.values.write_i32(self.rows[*position as usize] as usize, out);
                    }
                }
                DType::F32 | DType::Bool => {
                    let out = floats(rows, chosen.len() * elements);
                    let mut picture = augment::Picture::default();
                    for (out, position) in out.chunks_exact_mut(elements).zip(chosen) {
                        let sample = self.rows[*position as usize];
                        column.write(sample, which, epoch, plan, &mut picture, out);
                    }
                    batch.is_finite &= all_finite(out);
                }
            }
        }
    }
}

impl Column {
    /// Writes one sample, augmented where the plan says so.
    fn write(
        &self,
        sample: u32,
        which: usize,
        epoch: u64,
        plan: &Plan,
        picture: &mut augment::Picture,
        out: &mut [f32],
    ) {
        if self.augment.is_empty() {
            return self.values.write_f32(sample as usize, out);
        }
        picture.values.resize(self.values.width(), 0.0);
        let (height, width) = match self.sizes[..] {
            [.., height, width] => (height, width),
            [width] => (1, width),
            [] => (1, 1),
        };
        (picture.height, picture.width) = (height, width);
        self.values.write_f32(sample as usize, &mut picture.values);
        match plan.augmentation {
            Augmentation::On => {
                // Each field draws from a key of its own; odd multiples keep the keys of different seeds apart.
                let key = plan.seed ^ (which as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                let mut stream = Stream::new(key, Purpose::Augment, epoch as u32, sample);
                augment::augment(picture, &self.augment, &mut stream);
            }
            Augmentation::Off => augment::fit_size(picture, &self.augment),
        }
        out.copy_from_slice(&picture.values);
    }
}

fn floats(rows: &mut Rows, length: usize) -> &mut [f32] {
    if !matches!(rows, Rows::F32(_)) {
        *rows = Rows::F32(Vec::new());
    }
    let Rows::F32(values) = rows else { unreachable!("just made floats") };
    values.resize(length, 0.0);
    values
}

fn integers(rows: &mut Rows, length: usize) -> &mut [i32] {
    if !matches!(rows, Rows::I32(_)) {
        *rows = Rows::I32(Vec::new());
    }
    let Rows::I32(values) = rows else { unreachable!("just made integers") };
    values.resize(length, 0);
    values
}
