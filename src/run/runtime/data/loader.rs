//! Batches: which samples a step gets, and a thread that prepares them ahead.
//!
//! Input: a [`Split`] and a [`Plan`]. Output: [`Batch`]es in the order of steps.
//! Invariant: the batch of a step depends on the split, the plan and the step's number alone. Whether it is computed
//! here ([`Split::batch_at`]) or ahead on another thread ([`Batches`]), and where the first step lies, changes nothing.
//! The last batch of an epoch may be short; no sample is left out but those of a short batch where the plan says so.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::Split;
use super::random::{Purpose, Stream, shuffle};
use crate::settings::Training;

/// Which samples come in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As stored.
    Stored,
    /// Anew in every epoch.
    Shuffled,
}

/// Whether training samples are changed at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Augmentation {
    /// As the data item says.
    On,
    /// Not at all.
    Off,
}

/// How a split becomes batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Samples a batch, at least 1.
    pub batch: usize,
    /// The run's seed, for order and augmentation.
    pub seed: u64,
    /// The order.
    pub order: Order,
    /// Augmentation.
    pub augmentation: Augmentation,
    /// A short last batch of an epoch is left out.
    pub drop_last: bool,
}

impl Plan {
    /// Shuffled and augmented.
    pub fn training(batch: usize, seed: u64) -> Self {
        let (order, augmentation) = (Order::Shuffled, Augmentation::On);
        Self { batch: batch.max(1), seed, order, augmentation, drop_last: false }
    }

    /// What a `train` item says.
    pub fn of_run(training: &Training) -> Self {
        Self { drop_last: training.drop_last, ..Self::training(training.batch, training.seed) }
    }

    /// In order, unchanged.
    pub fn evaluation(batch: usize) -> Self {
        let (order, augmentation) = (Order::Stored, Augmentation::Off);
        Self { batch: batch.max(1), seed: 0, order, augmentation, drop_last: false }
    }

    /// The same in the order as stored.
    pub fn in_order(self) -> Self {
        Self { order: Order::Stored, ..self }
    }

    /// Steps of one epoch over so many samples.
    pub fn steps_per_epoch(&self, samples: usize) -> u64 {
        let steps = if self.drop_last { samples / self.batch } else { samples.div_ceil(self.batch) };
        steps as u64
    }
}

/// The values of one field for the samples of a batch, row-major, sample first.
#[derive(Clone, Debug, PartialEq)]
pub enum Rows {
    /// For fields of type F32.
    F32(Vec<f32>),
    /// For fields of type I32.
    I32(Vec<i32>),
}

impl Rows {
    /// How many values there are.
    pub fn len(&self) -> usize {
        match self {
            Rows::F32(values) => values.len(),
            Rows::I32(values) => values.len(),
        }
    }

    /// True without any value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The samples of one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// The step, counted from 0 over all epochs.
    pub step: u64,
    /// The epoch, from 0.
    pub epoch: u64,
    /// How many samples.
    pub rows: usize,
    /// The values, in the order of [`super::Dataset::fields`].
    pub fields: Vec<Rows>,
    /// Whether none of them is infinite or not a number.
    pub is_finite: bool,
}

impl Batch {
    /// The samples, and copies of the last one until there are `rows`.
    pub fn filled(&self, rows: usize) -> Batch {
        fn fill<T: Copy>(values: &[T], from: usize, to: usize) -> Vec<T> {
            let width = values.len() / from.max(1);
            let last = &values[values.len() - width..];
            [values, &last.repeat(to.saturating_sub(from))].concat()
        }
        let fields = self.fields.iter().map(|values| match values {
            Rows::F32(values) => Rows::F32(fill(values, self.rows, rows)),
            Rows::I32(values) => Rows::I32(fill(values, self.rows, rows)),
        });
        Batch { rows: rows.max(self.rows), fields: fields.collect(), ..*self }
    }

    /// One of the samples by itself.
    pub fn single(&self, row: usize) -> Batch {
        fn part<T: Copy>(values: &[T], row: usize, rows: usize) -> Vec<T> {
            let width = values.len() / rows;
            values[row * width..(row + 1) * width].to_vec()
        }
        let fields = self.fields.iter().map(|values| match values {
            Rows::F32(values) => Rows::F32(part(values, row, self.rows)),
            Rows::I32(values) => Rows::I32(part(values, row, self.rows)),
        });
        Batch { rows: 1, fields: fields.collect(), ..*self }
    }

    /// As many samples, but only those at these places of the batch, in turn.
    pub fn only(&self, places: &[usize]) -> Batch {
        fn only<T: Copy>(values: &[T], rows: usize, places: &[usize]) -> Vec<T> {
            let width = values.len() / rows.max(1);
            let chosen = places.iter().cycle().take(rows);
            chosen.flat_map(|place| &values[place * width..(place + 1) * width]).copied().collect()
        }
        let fields = self.fields.iter().map(|values| match values {
            Rows::F32(values) => Rows::F32(only(values, self.rows, places)),
            Rows::I32(values) => Rows::I32(only(values, self.rows, places)),
        });
        Batch { fields: fields.collect(), ..*self }
    }
}

/// The order of the current epoch.
#[derive(Clone, Debug, Default)]
pub(super) struct EpochOrder {
    epoch: Option<u64>,
    rows: Vec<u32>,
}

impl EpochOrder {
    /// Positions in the split, in the order of `epoch`.
    pub(super) fn of(&mut self, plan: &Plan, samples: usize, epoch: u64) -> &[u32] {
        if self.epoch != Some(epoch) || self.rows.len() != samples {
            self.rows.clear();
            self.rows.extend(0..samples as u32);
            if plan.order == Order::Shuffled {
                // Two words of epoch, so that it never wraps.
                let mut stream = Stream::new(plan.seed, Purpose::Shuffle, epoch as u32, (epoch >> 32) as u32);
                shuffle(&mut self.rows, &mut stream);
            }
            self.epoch = Some(epoch);
        }
        &self.rows
    }
}

/// Batches of successive steps, prepared ahead by a thread of their own.
pub struct Batches {
    ready: Option<Receiver<Batch>>,
    used: SyncSender<Batch>,
    thread: Option<JoinHandle<()>>,
}

/// How many batches may wait.
const AHEAD: usize = 2;

impl Batches {
    /// Batches of the steps `first..end`; epochs follow each other without a gap.
    pub(super) fn spawn(split: Arc<Split>, plan: Plan, first: u64, end: u64) -> std::io::Result<Self> {
        let (send_ready, ready) = sync_channel::<Batch>(AHEAD);
        // One more than can be on the way, so that recycling never blocks.
        let (used, recycled) = sync_channel::<Batch>(AHEAD + 2);
        let end = if plan.steps_per_epoch(split.len()) == 0 { first } else { end };
        let work = move || {
            let mut order = EpochOrder::default();
            for step in first..end {
                let mut batch = recycled.try_recv().unwrap_or_default();
                split.fill(&plan, step, &mut order, &mut batch);
                if send_ready.send(batch).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("data".to_string()).spawn(work)?;
        Ok(Self { ready: Some(ready), used, thread: Some(thread) })
    }

    /// Gives a batch back so that its memory is used again.
    pub fn recycle(&self, batch: Batch) {
        // A full channel means that there are buffers enough; this one is freed.
        drop(self.used.try_send(batch));
    }
}

impl Iterator for Batches {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let batch = self.ready.as_ref()?.recv().ok();
        if batch.is_none()
            && let Some(thread) = self.thread.take()
            && let Err(panic) = thread.join()
        {
            std::panic::resume_unwind(panic);
        }
        batch
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        // Closing the channel wakes a thread that waits to send.
        self.ready = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
