//! `ansatz sweep`: trains a model file with each combination of some settings, one run after another.
//!
//! Input: a model file and values of settings. Output: a folder with a run folder for each combination, a table, a page.
//! Invariants: a folder belongs to one grid; a second call does what the first did not complete; a run that fails ends no
//! other; after a signal everything is saved and the exit code is the signal's.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::host::Host;
use crate::interrupt::Interrupt;
use crate::options::Machine;
use crate::runtime::checkpoint::write_atomically;
use crate::runtime::files::{self, named};
use crate::runtime::folder::RunFolder;
use crate::runtime::record;
use crate::runtime::report::page;
use crate::session::{elsewhere, pair};
use crate::{Failure, failure, report, resume, train};

/// Options of `sweep`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Values of a setting, such as `optimizer.lr=0.1,0.01`; commas within brackets or double quotes are part of a value
    #[arg(long = "set", value_name = "KEY=VALUE,…", value_parser = axis)]
    set: Vec<Axis>,
    /// Seeds, such as `1,2,3`
    #[arg(long, value_name = "SEED,…")]
    seed: Option<String>,
    /// Passes over the training split, of each run
    #[arg(long, conflicts_with = "steps")]
    epochs: Option<f64>,
    /// Optimizer steps of each run
    #[arg(long)]
    steps: Option<u64>,
    /// Leave the short last batch of an epoch out
    #[arg(long)]
    drop_last: bool,
    /// Keep the order of the samples
    #[arg(long)]
    no_shuffle: bool,
    /// The folder of the sweep (a new one below `runs/` by default); one that is there is gone on with
    #[arg(long, value_name = "FOLDER")]
    run: Option<PathBuf>,
    #[command(flatten)]
    machine: Machine,
}

/// A setting and its values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Axis {
    key: String,
    values: Vec<String>,
}

/// What a sweep's folder is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Grid {
    /// The model file, absolute.
    model: PathBuf,
    axes: Vec<Axis>,
    /// What all runs have in common.
    length: Option<String>,
    drop_last: bool,
    no_shuffle: bool,
}

/// The file that makes a folder one of a sweep.
const NAME: &str = "sweep.json";

/// Bytes of that file, and runs of a sweep: far more than anybody waits for.
const LONGEST: u64 = 16 << 20;
const MOST_RUNS: usize = 10_000;

/// `KEY=VALUE,VALUE`.
fn axis(text: &str) -> Result<Axis, String> {
    let (key, values) = text.split_once('=').ok_or("expected KEY=VALUE,VALUE")?;
    let pairs = values_of(values)?.into_iter().map(|value| pair(&format!("{key}={value}")));
    let values = pairs.map(|pair| pair.map(|(_, value)| value)).collect::<Result<Vec<String>, String>>()?;
    Ok(Axis { key: key.trim().to_string(), values })
}

/// The parts between commas that are in no brackets and no double quotes.
fn values_of(text: &str) -> Result<Vec<String>, String> {
    let (mut values, mut depth, mut is_quoted) = (vec![String::new()], 0i32, false);
    for character in text.chars() {
        match character {
            '"' => is_quoted = !is_quoted,
            '(' | '[' | '{' if !is_quoted => depth += 1,
            ')' | ']' | '}' if !is_quoted => depth -= 1,
            ',' if !is_quoted && depth == 0 => {
                values.push(String::new());
                continue;
            }
            _ => {}
        }
        values.last_mut().expect("there is a first value").push(character);
    }
    let values: Vec<String> = values.iter().map(|value| value.trim().to_string()).collect();
    match values.iter().any(String::is_empty) {
        true => Err(format!("`{text}` has an empty value")),
        false => Ok(values),
    }
}

impl Axis {
    /// Keeps each value once, and tells of the others.
    fn once(&mut self) {
        let mut kept: Vec<String> = Vec::new();
        for value in std::mem::take(&mut self.values) {
            match kept.contains(&value) {
                true => eprintln!("note: {}={value} is given twice and trained once", self.key),
                false => kept.push(value),
            }
        }
        self.values = kept;
    }
}

impl Grid {
    fn new(file: &Path, arguments: &Arguments) -> Result<Self, Failure> {
        let mut axes = arguments.set.clone();
        if let Some(seeds) = &arguments.seed {
            let values = values_of(seeds).map_err(Failure::Problem)?;
            axes.push(Axis { key: "train.seed".to_string(), values });
        }
        for (place, axis) in axes.iter().enumerate() {
            let bare = |axis: &Axis| axis.key.strip_prefix("train.").unwrap_or(&axis.key).to_string();
            if axes[..place].iter().any(|other| bare(other) == bare(axis)) {
                let words = format!("`{}` is given twice; write all its values behind one `=`", axis.key);
                return Err(Failure::Problem(words));
            }
        }
        axes.iter_mut().for_each(Axis::once);
        let count = axes.iter().try_fold(1usize, |count, axis| count.checked_mul(axis.values.len()));
        if count.is_none_or(|count| count > MOST_RUNS) {
            return Err(Failure::Problem(format!("these values make more than {MOST_RUNS} runs")));
        }
        let length = match (arguments.epochs, arguments.steps) {
            (Some(epochs), _) => Some(format!("{epochs} epochs")),
            (None, steps) => steps.map(|steps| format!("{steps} steps")),
        };
        Ok(Self {
            model: record::absolute(file)?,
            axes,
            length,
            drop_last: arguments.drop_last,
            no_shuffle: arguments.no_shuffle,
        })
    }

    /// The settings of each run; the last axis changes first.
    fn runs(&self) -> Vec<Vec<(String, String)>> {
        self.axes.iter().fold(vec![Vec::new()], |runs, axis| {
            let with = |run: Vec<(String, String)>| {
                axis.values
                    .iter()
                    .map(move |value| run.iter().cloned().chain([(axis.key.clone(), value.clone())]).collect())
            };
            runs.into_iter().flat_map(with).collect()
        })
    }

    /// The folder of a run; names sort as the runs do.
    fn folder(&self, sweep: &Path, number: usize) -> PathBuf {
        let width = self.runs().len().to_string().len();
        sweep.join(format!("{number:0width$}"))
    }

    fn read(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join(NAME);
        let bytes = files::open(&path).and_then(|file| files::read_all(file, LONGEST)).map_err(Failure::at(&path))?;
        Ok(serde_json::from_slice(&bytes).map_err(|error| named(&path, &format!("damaged: {error}")))?)
    }

    /// Makes a folder this sweep's, or holds one to it.
    fn settle(&self, folder: &RunFolder) -> crate::Outcome {
        let path = folder.join(NAME);
        if folder.join("run.json").exists() {
            return Err(Failure::Problem(format!("{} holds a run, not a sweep", folder.path.display())));
        }
        if !path.exists() {
            let text = serde_json::to_string_pretty(self)?;
            return write_atomically(&path, text.as_bytes()).map_err(Failure::at(&path));
        }
        let before = Self::read(&folder.path)?;
        if before == *self {
            return Ok(());
        }
        let what = match (before.model == self.model, before.axes == self.axes) {
            (false, _) => format!("of the model file {}", before.model.display()),
            (true, false) => {
                let axes = before.axes.iter().map(|axis| format!("{}={}", axis.key, axis.values.join(",")));
                format!("over {}", axes.collect::<Vec<_>>().join(" "))
            }
            (true, true) => "of another length or order".to_string(),
        };
        Err(Failure::Problem(format!("{} holds another sweep, {what}; choose another folder", folder.path.display())))
    }
}

/// Whether a folder is one of a sweep.
pub(crate) fn is_sweep(folder: &Path) -> bool {
    folder.join(NAME).is_file()
}

/// The run folders of a sweep that have begun.
pub(crate) fn runs_of(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let grid = Grid::read(folder)?;
    let folders = (1..=grid.runs().len()).map(|number| grid.folder(folder, number));
    Ok(folders.filter(|folder| folder.join("run.json").exists()).collect())
}

/// Trains each combination that is not complete, and shows all.
///
/// # Errors
/// Runs that failed, of which the exit code is the greatest; a signal; another sweep's folder.
pub fn run(host: &dyn Host, file: &Path, arguments: &Arguments) -> crate::Outcome {
    let interrupt = Interrupt::watch().map_err(Failure::of("signals cannot be watched"))?;
    let grid = Grid::new(file, arguments)?;
    if !file.is_file() {
        return Err(Failure::Problem(format!("there is no file {}", file.display())));
    }
    let folder = match &arguments.run {
        Some(path) => {
            std::fs::create_dir_all(path).map_err(Failure::at(path))?;
            RunFolder::of_run(path)?
        }
        None => {
            let stem = file.file_stem().unwrap_or_default().to_string_lossy();
            RunFolder::fresh(Path::new("runs"), &format!("{stem}-sweep")).map_err(elsewhere)?
        }
    };
    grid.settle(&folder)?;
    let runs = grid.runs();
    let mut failed: Vec<(usize, Failure)> = Vec::new();
    for (number, settings) in (1..).zip(&runs) {
        let path = grid.folder(&folder.path, number);
        let words: Vec<String> = settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let head = format!("run {number} of {}: {}", runs.len(), words.join(" "));
        if resume::is_complete(&path) {
            eprintln!("{head}: complete");
            continue;
        }
        eprintln!("{head}");
        failure::start();
        match one(host, file, arguments, settings, &path, &interrupt) {
            Err(Failure::Signal(code)) => return Err(stopped(&folder.path, code)),
            Err(failure) => {
                if let Failure::Problem(words) = &failure {
                    eprintln!("run {number} failed: {}", crate::source::visible_lines(words));
                }
                failed.push((number, failure));
            }
            Ok(()) => {}
        }
        if let Some(code) = interrupt.code() {
            return Err(stopped(&folder.path, code));
        }
    }
    conclude(&folder.path, &failed, runs.len())
}

/// The words of a sweep that a signal ended.
fn stopped(folder: &Path, code: u8) -> Failure {
    println!("the sweep goes on with the same command and `--run {}`", crate::findings::quoted(folder));
    Failure::Signal(code)
}

/// Trains or goes on with one run.
fn one(
    host: &dyn Host,
    file: &Path,
    arguments: &Arguments,
    settings: &[(String, String)],
    folder: &Path,
    interrupt: &Interrupt,
) -> crate::Outcome {
    let machine = arguments.machine.clone();
    if folder.join("run.json").exists() {
        let (run, data, log, stop_after, changed_data) = (folder.to_path_buf(), None, None, None, false);
        let resume = resume::Arguments { run, data, changed_data, log, stop_after, machine };
        return resume::under(host, Some(file), &resume, interrupt);
    }
    let train = train::Arguments {
        set: settings.to_vec(),
        epochs: arguments.epochs,
        steps: arguments.steps,
        seed: None,
        init: None,
        drop_last: arguments.drop_last,
        no_shuffle: arguments.no_shuffle,
        log: None,
        log_grads: false,
        profile: false,
        stop_after: None,
        run: Some(folder.to_path_buf()),
        machine,
    };
    train::under(host, file, &train, interrupt)
}

/// The table and the page of what there is, and what failed.
fn conclude(folder: &Path, failed: &[(usize, Failure)], count: usize) -> crate::Outcome {
    let folders = runs_of(folder)?;
    if !folders.is_empty() {
        print!("\n");
        let title = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy();
        report::side_by_side(&title, &folders, Some(&folder.join(page::NAME)))?;
    }
    if failed.is_empty() {
        return Ok(());
    }
    let numbers: Vec<String> = failed.iter().map(|(number, _)| number.to_string()).collect();
    let words = format!("{} of {count} runs failed: {}", failed.len(), numbers.join(", "));
    if failed.iter().all(|(_, failure)| matches!(failure, Failure::Findings)) {
        eprintln!("{words}");
        return Err(Failure::Findings);
    }
    Err(Failure::Problem(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_within_brackets_and_quotes_belong_to_a_value() {
        let values = |text: &str| values_of(text).expect("values");
        assert_eq!(values("1, 2,3"), ["1", "2", "3"]);
        assert_eq!(
            values("adamw(lr = 1e-3, decay = 0.1),sgd(lr = 0.1)"),
            ["adamw(lr = 1e-3, decay = 0.1)", "sgd(lr = 0.1)"]
        );
        assert_eq!(values(r#""a,b",[1, 2]"#), [r#""a,b""#, "[1, 2]"]);
        assert!(values_of("1,,2").is_err() && values_of("").is_err());
    }

    #[test]
    fn the_grid_is_every_combination_and_the_last_setting_changes_first() {
        let axis = |key: &str, values: &[&str]| Axis {
            key: key.into(),
            values: values.iter().map(|v| v.to_string()).collect(),
        };
        let grid = Grid {
            model: PathBuf::new(),
            axes: vec![axis("a", &["1", "2"]), axis("b", &["x", "y", "z"])],
            length: None,
            drop_last: false,
            no_shuffle: false,
        };
        let runs: Vec<String> =
            grid.runs().iter().map(|run| run.iter().map(|(_, value)| value.as_str()).collect::<String>()).collect();
        assert_eq!(runs, ["1x", "1y", "1z", "2x", "2y", "2z"]);
        assert_eq!(Grid { axes: Vec::new(), ..grid }.runs(), [Vec::new()], "without values the file as it is");
    }
}
