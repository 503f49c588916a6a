//! Scalars of a run as TensorBoard reads them: `events.out.tfevents.…` files in the run folder.
//!
//! Input: losses of steps, figures of epochs. Output: a file for each process that worked on the run, of TFRecords that each
//! hold an `Event` of TensorFlow's `event.proto`. Invariants: over all files of a folder each step stands once, in order;
//! figures that are not finite are left out; what goes wrong here never ends a run.
//!
//! A run that is gone on with cuts the steps that come again off the older files and begins a new one, whose first event
//! tells a TensorBoard that is watching to forget them too.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::figures::Epoch;
use super::files;
use super::folder::{self, RunFolder};
use super::memory;

/// Steps of a run whose losses are written at most; of longer runs every second one, every third, and so on.
pub const MOST_STEPS: u64 = 1000;

/// The open file of events. One that cannot be written is told of once and ends; the run goes on.
#[derive(Debug, Default)]
pub struct Events {
    out: Option<BufWriter<File>>,
    trouble: Option<String>,
    has_ended: bool,
}

impl Events {
    /// Begins a file for what follows step `done`, and cuts later steps off the folder's older files.
    pub fn begin(folder: &RunFolder, done: u64) -> Self {
        let mut events = Self::default();
        events.go_back(folder, done);
        events
    }

    /// As [`Events::begin`], where this process may have written later steps.
    pub fn go_back(&mut self, folder: &RunFolder, done: u64) {
        // What is held back would be written behind the cut.
        self.flush();
        self.out = None;
        if self.has_ended {
            return;
        }
        match open(folder, done) {
            Ok(out) => self.out = Some(out),
            Err(error) => self.give_up(&error),
        }
    }

    /// Adds the loss of a step, if it is one of those that a run of `total` steps shows.
    pub fn step(&mut self, step: u64, loss: f64, total: u64) {
        if is_shown(step, total) {
            self.write(step, &[("loss/step".to_string(), loss)]);
        }
    }

    /// Adds the figures of a pass, each under `figure/split`, and the learning rate.
    pub fn epoch(&mut self, epoch: &Epoch) {
        let figures = epoch.splits.iter().flat_map(|(split, figures)| {
            let metrics = figures.metrics.iter().filter_map(|metric| Some((metric.name.as_str(), metric.single()?)));
            let all = [("loss", figures.loss)].into_iter().chain(metrics);
            all.map(move |(name, value)| (format!("{name}/{split}"), value))
        });
        let scalars: Vec<(String, f64)> = figures.chain([("lr".to_string(), epoch.lr)]).collect();
        self.write(epoch.step, &scalars);
        self.flush();
    }

    /// Hands what is held back to the system.
    pub fn flush(&mut self) {
        if let Some(Err(error)) = self.out.as_mut().map(BufWriter::flush) {
            self.give_up(&error);
        }
    }

    /// What went wrong, once.
    pub fn trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }

    fn write(&mut self, step: u64, scalars: &[(String, f64)]) {
        let Some(out) = &mut self.out else { return };
        let finite: Vec<&(String, f64)> = scalars.iter().filter(|(_, value)| value.is_finite()).collect();
        let written = match finite.is_empty() {
            true => Ok(()),
            false => out.write_all(&record(&event(step, &field(5, &summary(&finite))))),
        };
        if let Err(error) = written {
            self.give_up(&error);
        }
    }

    fn give_up(&mut self, error: &io::Error) {
        (self.out, self.has_ended) = (None, true);
        self.trouble = Some(format!("the events for TensorBoard cannot be written and end here: {error}"));
    }
}

/// Whether the loss of a step is written; it depends on the run alone, not on where the run was interrupted.
fn is_shown(step: u64, total: u64) -> bool {
    step.is_multiple_of(total.div_ceil(MOST_STEPS).max(1))
}

fn open(folder: &RunFolder, done: u64) -> io::Result<BufWriter<File>> {
    let older = folder.event_files().map_err(|error| io::Error::other(error.0))?;
    for (_, path) in &older {
        cut(path, done)?;
    }
    let session = older.last().map_or(0, |(session, _)| *session) + 1;
    let path = folder.join(&folder::events_name(session));
    let mut out = BufWriter::new(OpenOptions::new().write(true).create_new(true).open(path)?);
    // The third field of an event is the version of its form, the seventh the state of the process: 1 is a start.
    out.write_all(&record(&event(0, &field(3, b"brain.Event:2"))))?;
    if done > 0 || !older.is_empty() {
        out.write_all(&record(&event(done + 1, &field(7, &[0x08, 1]))))?;
    }
    out.flush()?;
    Ok(out)
}

/// Leaves in a file the events up to `done`; a torn one at its end goes too, and a file without any.
fn cut(path: &Path, done: u64) -> io::Result<()> {
    let bytes = files::read_all(files::open(path)?, memory::for_contents())?;
    let (mut length, mut count) = (0, 0);
    for event in records(&bytes) {
        if step_of(event).is_none_or(|step| step > done) {
            break;
        }
        length += event.len() + FRAME;
        count += 1;
    }
    match count {
        // The version alone.
        0 | 1 => std::fs::remove_file(path),
        _ if length < bytes.len() => OpenOptions::new().write(true).open(path)?.set_len(length as u64),
        _ => Ok(()),
    }
}

/// Bytes of a record beside its content: length, checksum of the length, checksum of the content.
const FRAME: usize = 8 + 4 + 4;

/// A TFRecord.
fn record(content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u64).to_le_bytes();
    [&length[..], &masked(&length).to_le_bytes(), content, &masked(content).to_le_bytes()].concat()
}

/// The contents of the records, up to the first that is torn or damaged.
fn records(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let checked = |bytes: &'_ [u8], sum: &[u8]| masked(bytes).to_le_bytes() == *sum;
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_at_checked(8)?;
        let (sum, rest) = rest.split_at_checked(4)?;
        let size = u64::from_le_bytes(length.try_into().expect("eight bytes"));
        if !checked(length, sum) {
            return None;
        }
        let (content, rest) = rest.split_at_checked(usize::try_from(size).ok()?)?;
        let (sum, rest) = rest.split_at_checked(4)?;
        bytes = rest;
        checked(content, sum).then_some(content)
    })
}

/// CRC-32C as TFRecords have it: rotated and shifted, so that a checksum of data that hold checksums is a good one.
fn masked(bytes: &[u8]) -> u32 {
    let crc = !bytes.iter().fold(!0u32, |crc, byte| CASTAGNOLI[usize::from(crc as u8 ^ byte)] ^ (crc >> 8));
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The remainders of single bytes by Castagnoli's polynomial, lowest bit first.
const CASTAGNOLI: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// `Event { 1: wall_time, 2: step, body }`.
fn event(step: u64, body: &[u8]) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
    [&[0x09][..], &now.to_le_bytes(), &[0x10], &varint(step), body].concat()
}

/// The step of an event that [`event`] made.
fn step_of(event: &[u8]) -> Option<u64> {
    let digits = event.get(10..)?;
    let mut step = 0u64;
    for (place, byte) in digits.iter().take(10).enumerate() {
        step |= u64::from(byte & 0x7f) << (7 * place).min(63);
        if byte & 0x80 == 0 {
            return Some(step);
        }
    }
    None
}

/// `Summary { repeated 1: Value { 1: tag, 2: simple_value } }`.
fn summary(scalars: &[&(String, f64)]) -> Vec<u8> {
    let value = |(tag, value): &&(String, f64)| {
        field(1, &[&field(1, tag.as_bytes())[..], &[0x15], &(*value as f32).to_le_bytes()].concat())
    };
    scalars.iter().flat_map(value).collect()
}

/// A field of bytes: its number with the wire type 2, its length, its content.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2][..], &varint(content.len() as u64), content].concat()
}

/// Seven bits a byte, the lowest first; all bytes but the last have their top bit set.
fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::figures::{Figures, Metric};
    use super::*;
    use crate::settings::SplitName;

    /// The fields of a message: number, and a varint, or the bytes of the others.
    fn fields(mut bytes: &[u8]) -> Vec<(u8, u64, Vec<u8>)> {
        let mut found = Vec::new();
        let number = |bytes: &mut &[u8]| {
            let end = bytes.iter().position(|byte| byte & 0x80 == 0).expect("a varint ends");
            let value = bytes[..=end].iter().rev().fold(0u64, |value, byte| value << 7 | u64::from(byte & 0x7f));
            *bytes = &bytes[end + 1..];
            value
        };
        while !bytes.is_empty() {
            let key = number(&mut bytes);
            let size = match key & 7 {
                0 => {
                    found.push(((key >> 3) as u8, number(&mut bytes), Vec::new()));
                    continue;
                }
                1 => 8,
                5 => 4,
                2 => number(&mut bytes) as usize,
                other => panic!("wire type {other}"),
            };
            found.push(((key >> 3) as u8, 0, bytes[..size].to_vec()));
            bytes = &bytes[size..];
        }
        found
    }

    /// Steps, tags and values of all files of a folder, in order; checksums are held on the way.
    fn scalars(folder: &RunFolder) -> Vec<(u64, String, f32)> {
        let mut found = Vec::new();
        for (_, path) in folder.event_files().expect("listed") {
            let bytes = std::fs::read(path).expect("read");
            let events: Vec<&[u8]> = records(&bytes).collect();
            assert_eq!(events.iter().map(|event| event.len() + FRAME).sum::<usize>(), bytes.len(), "whole records");
            assert_eq!(fields(events[0])[2], (3, 0, b"brain.Event:2".to_vec()));
            for event in events {
                let parts = fields(event);
                assert_eq!(parts[1].1, step_of(event).expect("a step"));
                for (_, _, value) in parts.iter().filter(|part| part.0 == 5).flat_map(|part| fields(&part.2)) {
                    let value = fields(&value);
                    let tag = String::from_utf8(value[0].2.clone()).expect("text");
                    let number = f32::from_le_bytes(value[1].2.clone().try_into().expect("four bytes"));
                    found.push((parts[1].1, tag, number));
                }
            }
        }
        found
    }

    fn epoch(step: u64, loss: f64) -> Epoch {
        let metric =
            |name: &str, sizes: &[usize], value| Metric { name: name.into(), sizes: sizes.into(), values: value };
        let metrics = vec![metric("accuracy", &[], vec![0.75]), metric("confusion", &[1, 2], vec![1.0, 2.0])];
        let splits = vec![
            (SplitName::Train, Figures { loss, metrics: Vec::new(), samples: 1 }),
            (SplitName::Valid, Figures { loss: f64::NAN, metrics, samples: 1 }),
        ];
        Epoch { epoch: 1.0, step, lr: 0.25, seconds: 0.0, splits, leaps: 0, skipped: 0 }
    }

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, B.4, and the mask of TensorFlow's record_writer.
        let plain = |bytes: &[u8]| masked(bytes).wrapping_sub(0xa282_ead8).rotate_left(15);
        assert_eq!(plain(&[0; 32]), 0x8a91_36aa);
        assert_eq!(plain(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(plain(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn figures_are_written_by_split_and_those_that_are_no_number_are_left_out() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let folder = RunFolder::for_new_run(parent.path(), "ansatz resume").expect("made");
        let mut events = Events::begin(&folder, 0);
        events.step(1, 2.5, 300);
        events.step(2, f64::INFINITY, 300);
        events.epoch(&epoch(300, 0.5));
        assert_eq!(events.trouble(), None);
        let expected =
            [(1, "loss/step", 2.5), (300, "loss/train", 0.5), (300, "accuracy/valid", 0.75), (300, "lr", 0.25)];
        assert_eq!(scalars(&folder), expected.map(|(step, tag, value)| (step, tag.to_string(), value)));
    }

    #[test]
    fn a_run_that_is_gone_on_with_has_each_step_once() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let folder = RunFolder::for_new_run(parent.path(), "ansatz resume").expect("made");
        let steps = |from: u64, to: u64, done: u64| {
            let mut events = Events::begin(&folder, done);
            (from..=to).for_each(|step| events.step(step, step as f64, 400));
            events.flush();
        };
        steps(1, 200, 0);
        let (_, first) = folder.event_files().expect("listed")[0].clone();
        let mut torn = std::fs::read(&first).expect("read");
        torn.extend_from_slice(&record(&event(201, &[]))[..20]);
        std::fs::write(&first, torn).expect("written");
        steps(151, 160, 150);
        steps(131, 170, 130);
        let found: Vec<u64> = scalars(&folder).into_iter().map(|(step, _, _)| step).collect();
        assert_eq!(found, (1..=170).collect::<Vec<u64>>());
        assert_eq!(folder.event_files().expect("listed").len(), 2, "the second file had nothing left");
        // The state of the process in the last file, after its version.
        let start = || {
            let (_, path) = folder.event_files().expect("listed").pop().expect("a file");
            let bytes = std::fs::read(path).expect("read");
            records(&bytes).nth(1).map(|event| (step_of(event), fields(event).remove(2)))
        };
        let mut events = Events::begin(&folder, 0);
        assert_eq!(start(), Some((Some(1), (7, 0, vec![8, 1]))), "all steps come again");
        (1..=9).for_each(|step| events.step(step, step as f64, 400));
        events.go_back(&folder, 4);
        (5..=6).for_each(|step| events.step(step, step as f64, 400));
        events.flush();
        let found: Vec<u64> = scalars(&folder).into_iter().map(|(step, _, _)| step).collect();
        assert_eq!(found, (1..=6).collect::<Vec<u64>>(), "a run that begins again, and one that goes back by itself");
    }

    #[test]
    fn a_long_run_shows_as_many_steps_as_a_short_one() {
        let shown = |total: u64| (1..=total).filter(|step| is_shown(*step, total)).count() as u64;
        assert_eq!([shown(7), shown(1000), shown(1001), shown(123_456)], [7, 1000, 500, 995]);
    }

    #[test]
    fn a_file_that_cannot_be_made_is_told_once() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let folder = RunFolder::for_new_run(parent.path(), "ansatz resume").expect("made");
        std::fs::create_dir(folder.join(&folder::events_name(1))).expect("made");
        let mut events = Events::begin(&folder, 0);
        assert!(events.trouble().is_some_and(|words| words.contains("TensorBoard")));
        events.step(1, 1.0, 1);
        events.flush();
        assert_eq!(events.trouble(), None);
    }
}
