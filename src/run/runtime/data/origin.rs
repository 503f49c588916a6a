//! Where the samples of a batch come from.
//!
//! Input: a batch and the plan that it was made by. Output: files and records. Invariant: records are counted as the file's own
//! lines or arrays are, before any were dropped.

use super::demand::Provenance;
use super::loader::EpochOrder;
use super::table::record;
use super::{Batch, Dataset, Place, Plan};

impl Dataset {
    /// The record at a place of a training batch: `rows.csv: record 18`, or the file that is the sample.
    pub fn source_of(&self, plan: &Plan, batch: &Batch, place: usize) -> String {
        let split = &self.train;
        let within = (batch.step % plan.steps_per_epoch(split.len())) as usize;
        let sample = EpochOrder::default().of(plan, split.len(), batch.epoch)[within * plan.batch + place] as usize;
        match split.place(sample) {
            Place::File(file) => file.to_string(),
            Place::Record(number) => {
                let found = Provenance::of_row(&self.provenance, split.rows[sample] as usize);
                found.unwrap_or_else(|| record(number - 1))
            }
        }
    }
}
