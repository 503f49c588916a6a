//! The run folder: what a run writes for people and programs to read.
//!
//! Input: figures of epochs and steps. Output: `metrics.jsonl`, `loss.svg`, events, a step log, `run.json`.
//! Invariant: every line written is complete JSON; figures that are not finite become `null`.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::curve::{Curve, Point};
use super::events::Events;
use super::figures::Epoch;
use super::files::{self, named};
use super::folder::RunFolder;
use super::memory;
use crate::diagnostics::Refusal;
use crate::settings::SplitName;
use crate::source::bytes_text;

/// The order of the curve's lines.
const SPLITS: [SplitName; 3] = [SplitName::Train, SplitName::Valid, SplitName::Test];

/// How a run was started, so that it can be resumed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// The model file, absolute.
    pub model: PathBuf,
    /// The same from the run folder, for when both have moved.
    pub model_from_folder: PathBuf,
    /// `--set` pairs, with the other options that change results folded in.
    pub overrides: Vec<(String, String)>,
    /// The samples keep their order.
    pub no_shuffle: bool,
    /// The weights that it began from, if not from drawn ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Init>,
}

impl Command {
    /// The command that began a run of the model file `model` in `folder`.
    ///
    /// # Errors
    /// The current folder is gone, or a path is empty.
    pub fn new(
        model: &Path,
        folder: &Path,
        overrides: Vec<(String, String)>,
        no_shuffle: bool,
        init: Option<Init>,
    ) -> Result<Self, Refusal> {
        let model = absolute(model)?;
        let model_from_folder = relative(&absolute(folder)?, &model);
        Ok(Self { model, model_from_folder, overrides, no_shuffle, init })
    }

    /// Where the model file is, given the folder of the run.
    pub fn find_model(&self, folder: &Path) -> Option<PathBuf> {
        [self.model.clone(), folder.join(&self.model_from_folder)].into_iter().find(|path| path.is_file())
    }
}

/// The path from the root, links and all.
///
/// # Errors
/// The current folder is gone, or the path is empty.
pub fn absolute(path: &Path) -> Result<PathBuf, Refusal> {
    std::path::absolute(path).map_err(|error| named(path, &error))
}

/// The way from a folder to a file, both absolute.
pub fn relative(folder: &Path, file: &Path) -> PathBuf {
    let shared = folder.components().zip(file.components()).take_while(|(a, b)| a == b).count();
    let up = folder.components().skip(shared).map(|_| std::path::Component::ParentDir);
    up.chain(file.components().skip(shared)).collect()
}

/// Weights that a run began from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Init {
    /// The file, absolute.
    pub path: PathBuf,
    /// A hash of what was taken from it.
    pub content: String,
}

/// Bytes of `run.json`: far more than settings take.
const LONGEST_COMMAND: u64 = 1 << 20;

/// Bytes of a line of a step log, with a norm for each of a million parameters.
const LONGEST_LINE: u64 = 64 << 20;

/// The text of a regular file of at most `limit` bytes.
fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    let bytes = files::read_all(files::open(path)?, limit)?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Time between two pictures of a run; one more is drawn at its end.
const REDRAW: Duration = Duration::from_secs(5);

/// The open run folder.
#[derive(Debug)]
pub struct Record {
    /// The folder; shared with whoever writes into it beside the loop.
    pub folder: Arc<RunFolder>,
    /// What TensorBoard reads.
    pub events: Events,
    curve: Curve,
    drawn: Option<Instant>,
}

impl Record {
    /// Notes in a folder for a new run how the run was started.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn create(folder: RunFolder, command: &Command) -> Result<Self, Refusal> {
        write_command(&folder, command)?;
        write(&folder, "metrics.jsonl", "")?;
        let events = Events::begin(&folder, 0);
        Ok(Self { folder: folder.into(), events, curve: Curve::default(), drawn: None })
    }

    /// Opens the folder of an earlier run, keeping the epochs up to `step`.
    ///
    /// # Errors
    /// The folder is not one of a run, or cannot be read.
    pub fn open(folder: RunFolder, step: u64) -> Result<Self, Refusal> {
        let (events, curve) = (Events::default(), Curve::default());
        let mut record = Self { folder: folder.into(), events, curve, drawn: None };
        record.go_back(step)?;
        Ok(record)
    }

    /// Keeps the epochs up to `step`; later ones come again.
    ///
    /// # Errors
    /// As [`Record::open`].
    pub fn go_back(&mut self, step: u64) -> Result<(), Refusal> {
        self.events.go_back(&self.folder, step);
        let path = self.folder.join("metrics.jsonl");
        let text = match read_text(&path, memory::for_contents()) {
            // A run that was killed before it had the file has no figures.
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read.map_err(|error| named(&path, &error))?,
        };
        (self.curve, self.drawn) = (Curve::default(), None);
        let mut kept = String::new();
        for line in text.lines() {
            // A line that a killed run left unfinished is no JSON; its epoch is done again.
            let Ok(epoch) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            if epoch["step"].as_u64().is_some_and(|done| done <= step) {
                kept.push_str(line);
                kept.push('\n');
                self.curve.push(Point {
                    epoch: epoch["epoch"].as_f64().unwrap_or(f64::NAN),
                    losses: SPLITS.map(|split| epoch[format!("{split}.loss")].as_f64()),
                });
            }
        }
        write(&self.folder, "metrics.jsonl", &kept)
    }

    /// How the run in `folder` was started.
    ///
    /// # Errors
    /// The folder is not one of a run.
    pub fn command(folder: &Path) -> Result<Command, Refusal> {
        let path = folder.join("run.json");
        let text = read_text(&path, LONGEST_COMMAND).map_err(|error| named(&path, &error))?;
        serde_json::from_str(&text).map_err(|error| named(&path, &error))
    }

    /// Adds an epoch, and draws the curve unless that was done a moment ago.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn add(&mut self, epoch: &Epoch, title: &str) -> Result<(), Refusal> {
        let mut line = serde_json::to_string(epoch).expect("an epoch is plain data");
        line.push('\n');
        let path = self.folder.join("metrics.jsonl");
        let file = OpenOptions::new().append(true).create(true).open(&path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).map_err(|error| named(&path, &error))?;
        self.events.epoch(epoch);
        let losses = SPLITS.map(|split| epoch.split(split).map(|figures| figures.loss));
        self.curve.push(Point { epoch: epoch.epoch, losses });
        if self.drawn.is_some_and(|drawn| drawn.elapsed() < REDRAW) {
            return Ok(());
        }
        self.draw(title)
    }

    /// Draws the curve as it is.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn draw(&mut self, title: &str) -> Result<(), Refusal> {
        self.drawn = Some(Instant::now());
        let picture = self.curve.svg(title).map_err(|words| named(&self.folder.join("loss.svg"), &words))?;
        write(&self.folder, "loss.svg", &picture)
    }
}

/// Notes in a folder how its run was started.
///
/// # Errors
/// The folder cannot be written.
pub fn write_command(folder: &RunFolder, command: &Command) -> Result<(), Refusal> {
    let text = serde_json::to_string_pretty(command).expect("a command is plain data");
    write(folder, "run.json", &text)
}

fn write(folder: &RunFolder, name: &str, text: &str) -> Result<(), Refusal> {
    let path = folder.join(name);
    super::checkpoint::write_atomically(&path, text.as_bytes()).map_err(|error| named(&path, &error))
}

/// What the lines of a step log begin with.
const LINE_HEAD: &[u8] = b"{\"step\":";

/// What is wrong with a file of another kind.
const NO_STEP_LOG: &str = "not a step log; give `--log` another file";

/// One line a step (`--log`).
#[derive(Debug)]
pub struct StepLog {
    out: BufWriter<File>,
    path: PathBuf,
}

/// One step of a [`StepLog`].
#[derive(Clone, Debug, Serialize)]
pub struct StepLine {
    /// From 1.
    pub step: u64,
    /// Mean loss of the batch, before the update.
    pub loss: f64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Milliseconds of the step, without waiting for data.
    pub ms: f64,
    /// The step was not finite: it was undone, or ended the run.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub not_finite: bool,
    /// The median of the losses before it, where this one leapt far above them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leap: Option<f64>,
    /// L2 norm of each parameter's gradient (`--log-grads`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grads: Option<std::collections::BTreeMap<String, f64>>,
}

impl StepLog {
    /// Holds what may lie where a log is to begin: nothing, or an older one.
    ///
    /// # Errors
    /// A file of another kind, or one that cannot be read.
    pub fn hold(path: &Path) -> Result<(), Refusal> {
        let head = files::head(path, LINE_HEAD.len()).map_err(|error| named(path, &error))?;
        if head.is_empty() || head == LINE_HEAD { Ok(()) } else { Err(named(path, &NO_STEP_LOG)) }
    }

    /// Begins a file anew.
    ///
    /// # Errors
    /// As [`StepLog::hold`]; the file cannot be written.
    pub fn create(path: &Path) -> Result<Self, Refusal> {
        Self::hold(path)?;
        let file = File::create(path).map_err(|error| named(path, &error))?;
        Ok(Self { out: BufWriter::new(file), path: path.to_path_buf() })
    }

    /// Goes on behind the lines of the steps up to `step`. Later lines, whose steps come again, and a last line that was
    /// torn when the run was killed are cut off.
    ///
    /// # Errors
    /// The file cannot be read or written, or is no step log.
    pub fn go_on(path: &Path, step: u64) -> Result<Self, Refusal> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = file.map_err(|error| named(path, &error))?;
        let length = Self::length_up_to(&file, step).map_err(|error| named(path, &error))?;
        file.set_len(length).and_then(|()| file.seek(io::SeekFrom::End(0))).map_err(|error| named(path, &error))?;
        Ok(Self { out: BufWriter::new(file), path: path.to_path_buf() })
    }

    /// Takes back the lines of the steps behind `step`, which come again.
    ///
    /// # Errors
    /// As [`StepLog::go_on`].
    pub fn go_back(&mut self, step: u64) -> Result<(), Refusal> {
        self.flush().map_err(|error| named(&self.path, &error))?;
        *self = Self::go_on(&self.path, step)?;
        Ok(())
    }

    /// Bytes of the lines of the steps up to `step`.
    fn length_up_to(file: &File, step: u64) -> io::Result<u64> {
        #[derive(Deserialize)]
        struct Line {
            step: u64,
        }
        let (mut reader, mut length, mut line) = (BufReader::new(file), 0, Vec::new());
        let mut next = |line: &mut Vec<u8>| reader.by_ref().take(LONGEST_LINE).read_until(b'\n', line);
        while next(&mut line)? > 0 && line.ends_with(b"\n") {
            match serde_json::from_slice::<Line>(&line) {
                Ok(read) if read.step > step => break,
                Ok(_) => length += line.len() as u64,
                Err(_) => return Err(io::Error::other(NO_STEP_LOG)),
            }
            line.clear();
        }
        if line.len() as u64 == LONGEST_LINE && !line.ends_with(b"\n") {
            let words = format!("has a line longer than {}, the most that is read", bytes_text(LONGEST_LINE));
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, words));
        }
        // A first line that is torn shows by its beginning whose it is.
        let is_torn_line = line.starts_with(LINE_HEAD) || LINE_HEAD.starts_with(&line);
        if length == 0 && !line.ends_with(b"\n") && !is_torn_line {
            return Err(io::Error::other(NO_STEP_LOG));
        }
        Ok(length)
    }

    /// Adds a line.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add(&mut self, line: &StepLine) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, line).map_err(io::Error::other)?;
        self.out.write_all(b"\n")
    }

    /// Hands buffered lines to the system.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_a_file_goes_up_and_down() {
        let way = |folder: &str, file: &str| relative(Path::new(folder), Path::new(file));
        assert_eq!(way("/a/runs/net", "/a/net.ansatz"), Path::new("../../net.ansatz"));
        assert_eq!(way("/a", "/a/b/net.ansatz"), Path::new("b/net.ansatz"));
        assert_eq!(way("/x/y", "/a/net.ansatz"), Path::new("../../a/net.ansatz"));
    }

    #[test]
    fn oversized_and_endless_files_of_a_run_are_refused_with_the_bound() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        // Without contents: reading it to its end would take longer than memory lasts.
        let long = |name: &str| File::create(at(name)).and_then(|file| file.set_len(1 << 42)).expect("made");
        let refused = |read: Result<(), Refusal>, [name, words]: [&str; 2]| {
            let text = read.expect_err(name).to_string();
            assert!(text.contains(name) && text.contains(words), "{text}");
        };
        let command = || Record::command(folder.path()).map(drop);
        let record = || RunFolder::of_run(folder.path()).and_then(|folder| Record::open(folder, 1)).map(drop);
        long("run.json");
        refused(command(), ["run.json", "is longer than 1.0 MiB, the most that is read"]);
        long("metrics.jsonl");
        refused(record(), ["metrics.jsonl", "the most that is read"]);
        long("steps.jsonl");
        let log = StepLog::go_on(&at("steps.jsonl"), 1).map(drop);
        refused(log, ["steps.jsonl", "has a line longer than 64.0 MiB, the most that is read"]);
        if cfg!(target_os = "linux") {
            for name in ["run.json", "metrics.jsonl"] {
                std::fs::remove_file(at(name)).expect("removed");
                #[cfg(unix)]
                std::os::unix::fs::symlink("/dev/zero", at(name)).expect("linked");
            }
            refused(command(), ["run.json", "is a device, not a regular file"]);
            refused(record(), ["metrics.jsonl", "is a device, not a regular file"]);
        }
    }

    #[test]
    fn a_step_log_goes_on_where_the_checkpoint_stands() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("steps.jsonl");
        let line = |step| StepLine { step, loss: 0.5, lr: 0.1, ms: 1.0, not_finite: false, leap: None, grads: None };
        let mut log = StepLog::create(&path).expect("created");
        (1..=5).for_each(|step| log.add(&line(step)).expect("written"));
        drop(log);
        let whole = std::fs::read_to_string(&path).expect("text");
        std::fs::write(&path, format!("{whole}{{\"step\": 6, \"lo")).expect("written");
        let mut log = StepLog::go_on(&path, 3).expect("opened");
        (4..=5).for_each(|step| log.add(&line(step)).expect("written"));
        drop(log);
        assert_eq!(std::fs::read_to_string(&path).expect("text"), whole);
        drop(StepLog::go_on(&path, 9).expect("opened"));
        assert_eq!(std::fs::read_to_string(&path).expect("text"), whole, "nothing to cut");
        let mut log = StepLog::go_on(&path, 5).expect("opened");
        log.add(&line(6)).expect("written");
        log.go_back(2).expect("cut");
        (3..=5).for_each(|step| log.add(&line(step)).expect("written"));
        drop(log);
        assert_eq!(std::fs::read_to_string(&path).expect("text"), whole, "back and on again");
        std::fs::write(&path, "my notes\nand more").expect("written");
        assert!(StepLog::go_on(&path, 3).expect_err("foreign").to_string().contains("not a step log"));
        for foreign in ["my notes\nand more", "my notes", "{"] {
            std::fs::write(&path, foreign).expect("written");
            assert!(StepLog::create(&path).expect_err("foreign").to_string().contains("not a step log"));
            let torn = foreign == "{";
            assert_eq!(StepLog::go_on(&path, 3).is_ok(), torn, "{foreign}");
            assert_eq!(std::fs::read_to_string(&path).expect("text"), if torn { "" } else { foreign });
        }
        std::fs::write(&path, whole).expect("written");
        drop(StepLog::create(&path).expect("an older one"));
        assert_eq!(std::fs::read_to_string(&path).expect("text"), "");
    }
}
