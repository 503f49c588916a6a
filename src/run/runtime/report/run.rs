//! A run folder, read for people.
//!
//! Input: the files of a run, of one that goes on as well. Output: [`Run`]. Invariant: nothing in the folder is changed;
//! files that do not fit together are refused by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::super::about::{Ended, Judge, Story};
use super::super::files::{self, named};
use super::super::memory;
use super::super::record::{Command, Record};
use crate::diagnostics::Refusal;
use crate::settings::Direction;

/// The splits in the order of lines and columns.
pub const SPLITS: [&str; 3] = ["train", "valid", "test"];

/// What a run folder holds.
#[derive(Clone, Debug)]
pub struct Run {
    /// Where it is.
    pub path: PathBuf,
    /// How it was started.
    pub command: Command,
    /// What it is about; none for runs of a version that did not note it.
    pub story: Option<Story>,
    /// How it ended; none while it goes on, or where it was killed.
    pub ended: Option<Ended>,
    /// The lines of its `metrics.jsonl`.
    lines: Vec<Map<String, Value>>,
}

impl Run {
    /// Reads a run folder.
    ///
    /// # Errors
    /// It is not the folder of a run, or a file in it is damaged.
    pub fn read(path: &Path) -> Result<Self, Refusal> {
        if !path.is_dir() {
            return Err(named(path, &"there is no such folder"));
        }
        let command =
            Record::command(path).map_err(|error| named(path, &format!("not the folder of a run: {error}")))?;
        let (story, ended) = (Story::read(path)?, Ended::read(path)?);
        Ok(Self { path: path.to_path_buf(), command, story, ended, lines: lines(path)? })
    }

    /// The folder's name.
    pub fn name(&self) -> String {
        let name = self.path.file_name().or_else(|| self.path.components().next_back().map(|part| part.as_os_str()));
        name.unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned()
    }

    /// The model's name, or that of its file.
    pub fn model(&self) -> String {
        match &self.story {
            Some(story) => story.about.model.clone(),
            None => self.command.model.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        }
    }

    /// The figures that were measured, `loss` first: `accuracy`, `top(5)`.
    pub fn figures(&self) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for (key, value) in self.lines.iter().flatten() {
            let Some((_, figure)) = key.split_once('.').filter(|(split, _)| SPLITS.contains(split)) else { continue };
            if figure != "samples" && !value.is_array() && !found.iter().any(|known| known == figure) {
                found.push(figure.to_string());
            }
        }
        // The keys of an object are sorted.
        found.sort_by_key(|figure| figure != "loss");
        found
    }

    /// Epochs and finite values of `valid.accuracy`, in order.
    pub fn series(&self, key: &str) -> Vec<(f64, f64)> {
        self.lines.iter().filter_map(|line| Some((line.get("epoch")?.as_f64()?, line.get(key)?.as_f64()?))).collect()
    }

    /// The last value of `valid.accuracy`, if it was finite.
    pub fn last(&self, key: &str) -> Option<f64> {
        self.lines.last()?.get(key)?.as_f64()
    }

    /// Steps done, as far as the files tell.
    pub fn steps(&self) -> u64 {
        let written = self.lines.last().and_then(|line| line.get("step")?.as_u64());
        self.ended.as_ref().map(|ended| ended.step).or(written).unwrap_or(0)
    }

    /// Epochs, steps, learning rate and figures by key, of each pass.
    pub fn rows(&self) -> &[Map<String, Value>] {
        &self.lines
    }

    /// Seconds of training up to the last pass, over all processes that worked on it.
    pub fn seconds(&self) -> f64 {
        let starts: Vec<u64> =
            self.story.iter().flat_map(|story| &story.sessions).map(|each| each.after_step).collect();
        // A pass belongs to the last process that began before it; each counts its seconds from 0.
        let mut ends: BTreeMap<Option<usize>, f64> = BTreeMap::new();
        for line in &self.lines {
            let number = |key| line.get(key).and_then(Value::as_f64);
            if let (Some(step), Some(seconds)) = (number("step"), number("seconds")) {
                ends.insert(starts.iter().rposition(|start| (*start as f64) < step), seconds);
            }
        }
        ends.values().sum()
    }

    /// By what the run is judged: what its file keeps the best weights of, else the loss of the first split that was held
    /// out.
    pub fn judge(&self) -> Option<Judge> {
        let told = self.story.as_ref().and_then(|story| story.about.judged_by.clone());
        told.or_else(|| {
            let key = ["valid.loss", "test.loss", "train.loss"].into_iter().find(|key| !self.series(key).is_empty())?;
            Some(Judge { figure: key.to_string(), direction: Direction::Lower })
        })
    }

    /// The best value of a figure and the epoch of it.
    pub fn best(&self, judge: &Judge) -> Option<(f64, f64)> {
        let values = self.series(&judge.figure).into_iter().map(|(epoch, value)| (value, epoch));
        values.reduce(|best, now| if judge.prefers(now.0, best.0) { now } else { best })
    }

    /// `complete`, `stopped`, or what ended it; where nothing is noted it goes on or was killed.
    pub fn state(&self) -> String {
        self.ended.as_ref().map_or("not ended".to_string(), |ended| ended.how.clone())
    }
}

/// The lines of `metrics.jsonl`; a last one that is only begun is left out.
fn lines(folder: &Path) -> Result<Vec<Map<String, Value>>, Refusal> {
    let path = folder.join("metrics.jsonl");
    let bytes = match files::open(&path).and_then(|file| files::read_all(file, memory::for_contents())) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(|error| named(&path, &error))?,
    };
    let mut lines = Vec::new();
    for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        match serde_json::from_slice(line) {
            Ok(Value::Object(object)) => lines.push(object),
            _ if !line.ends_with(b"\n") => break,
            _ => return Err(named(&path, &format!("damaged: line {} is not an object of JSON", number + 1))),
        }
    }
    Ok(lines)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::super::about::{About, Session};
    use super::*;

    /// A run folder with these lines, told of by `about`.
    pub fn folder(path: &Path, about: About, lines: &str) -> Run {
        let command = Command::new(Path::new("/m/net.ansatz"), path, Vec::new(), false, None).expect("paths");
        std::fs::create_dir_all(path).expect("made");
        std::fs::write(path.join("run.json"), serde_json::to_string(&command).expect("JSON")).expect("written");
        std::fs::write(path.join("metrics.jsonl"), lines).expect("written");
        Story::begin(path, about, Session::default()).expect("written");
        Run::read(path).expect("a run")
    }

    const LINES: &str = concat!(
        r#"{"epoch":1.0,"step":5,"lr":0.1,"seconds":2.0,"train.samples":9,"train.loss":2.0,"valid.loss":1.5,"valid.c":[[1]]}"#,
        "\n",
        r#"{"epoch":2.0,"step":10,"lr":0.1,"seconds":1.0,"train.samples":9,"train.loss":null,"valid.loss":1.0,"valid.acc":0.5}"#,
        "\n",
        r#"{"epoch":3.0,"step":15,"lr":0.1,"seconds":4.0,"train.samples":9,"train.loss":0.5,"valid.loss":1.25,"valid.acc":0.75}"#,
        "\n",
    );

    #[test]
    fn a_folder_gives_its_figures_by_split() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let path = parent.path().join("net");
        folder(&path, About::default(), &format!("{LINES}{{\"epoch\": 4"));
        let session = Session { after_step: 7, ..Session::default() };
        Story::begin(&path, About::default(), session).expect("written");
        let run = Run::read(&path).expect("a run");
        assert_eq!((run.name().as_str(), run.figures(), run.steps()), ("net", vec!["loss".into(), "acc".into()], 15));
        assert_eq!(run.series("train.loss"), [(1.0, 2.0), (3.0, 0.5)], "what is not finite is no point");
        assert_eq!((run.last("valid.acc"), run.seconds()), (Some(0.75), 6.0));
        let judge = run.judge().expect("a loss");
        assert_eq!((judge.figure.as_str(), run.best(&judge)), ("valid.loss", Some((1.0, 2.0))));
    }

    #[test]
    fn foreign_and_damaged_folders_are_refused_by_name() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let refused = |path: &Path| Run::read(path).expect_err("refused").to_string();
        assert!(refused(&parent.path().join("none")).contains("there is no such folder"));
        assert!(refused(parent.path()).contains("not the folder of a run"));
        let path = parent.path().join("net");
        for (name, words) in [
            ("about.json", "about.json: damaged"),
            ("result.json", "result.json: damaged"),
            ("metrics.jsonl", "metrics.jsonl: damaged: line 1"),
        ] {
            folder(&path, About::default(), LINES);
            std::fs::write(path.join(name), "[\n{}\n").expect("written");
            assert!(refused(&path).contains(words), "{}", refused(&path));
            std::fs::remove_file(path.join(name)).expect("removed");
        }
    }
}
