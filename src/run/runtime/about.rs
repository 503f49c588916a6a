//! What a run is about, for people: the model, its plan, where and how it ran, and how it ended.
//!
//! Input: made once by the compiler ([`About`]) and by each process that works on a run ([`Session`], [`Ended`]). Output:
//! `about.json` and `result.json` in the run folder. Invariant: nothing in them changes what a run computes, and a folder
//! without them is still a run.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::checkpoint::write_atomically;
use super::figures::Figures;
use super::files::{self, named};
use crate::diagnostics::Refusal;
use crate::settings::{Best, Direction, Training};
use crate::source::{SourceFile, SourceMap};

/// What the compiler knows of a run before it begins, as plain data: whoever carries it needs no compiler to tell it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct About {
    /// The version of the compiler.
    pub version: String,
    /// The model's name.
    pub model: String,
    /// The user's model files, the one that was named first; the library's are not among them.
    pub sources: Vec<SourceFile>,
    /// A hash of these texts.
    pub hash: String,
    /// Settings of the command line.
    pub settings: Vec<(String, String)>,
    /// The seed.
    pub seed: u64,
    /// The data with its splits and fields, in words.
    pub data: String,
    /// Trained numbers.
    pub parameters: u64,
    /// The model's stages as they are drawn, each after those that it takes something from.
    pub blocks: Vec<Block>,
    /// Bytes of the training step by what they are for.
    pub memory: Vec<(String, u64)>,
    /// The kernels of the training step in order.
    pub kernels: Vec<Kernel>,
    /// The figure by which two runs of the file are compared.
    pub judged_by: Option<Judge>,
}

/// A figure that tells the better of two runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judge {
    /// `valid.accuracy`.
    pub figure: String,
    /// Which values are better.
    pub direction: Direction,
}

impl About {
    /// What the settings of an item tell by themselves.
    pub fn of(training: &Training) -> Self {
        let judge =
            |best: &Best| Judge { figure: format!("{}.{}", best.split, best.figure), direction: best.direction };
        Self {
            model: training.model.clone(),
            settings: training.overrides.clone(),
            seed: training.seed,
            judged_by: training.keep.best.as_ref().map(judge),
            ..Self::default()
        }
    }
}

impl Judge {
    /// Whether the first value is better than the second.
    pub fn prefers(&self, value: f64, other: f64) -> bool {
        match self.direction {
            Direction::Lower => value < other,
            Direction::Higher => value > other,
        }
    }
}

/// One box of the model's picture.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// What it is called: `conv1`, the name of an input.
    pub name: String,
    /// What it is: `Conv`, `relu`, `input`, `add`.
    pub kind: String,
    /// What it gives: `[N, 32, 8, 8]`.
    pub shape: String,
    /// Trained numbers in it.
    pub parameters: u64,
    /// The blocks that it takes something from.
    pub from: Vec<usize>,
}

/// One kernel of the plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Kernel {
    /// `product`, `map`, ….
    pub name: String,
    /// Its loops.
    pub shape: String,
    /// Its place in the model.
    pub place: String,
    /// Arithmetic operations.
    pub flops: u64,
    /// Bytes that it reads and writes.
    pub bytes: u64,
}

/// One process that worked on a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// When it began, in seconds since 1970.
    pub began: u64,
    /// The command as a shell takes it.
    pub command: String,
    /// The processor.
    pub machine: String,
    /// The operating system.
    pub system: String,
    /// The instruction set.
    pub level: String,
    /// Threads.
    pub threads: usize,
    /// Steps that were done before.
    pub after_step: u64,
}

/// How a run ended, or was ended for now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// In words: `complete`, `stopped`, or what ended it.
    pub how: String,
    /// All steps are done.
    pub complete: bool,
    /// Steps done.
    pub step: u64,
    /// The best figure, where the item keeps the weights of one: what, which value, after which step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<(String, f64, u64)>,
    /// The split of the final figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// The final figures that are one number each; one that is not finite has none.
    #[serde(default)]
    pub figures: Vec<(String, Option<f64>)>,
    /// True classes by chosen classes over that split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Classes>,
}

/// How often samples of one class were taken for another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Classes {
    /// Their words or numbers.
    pub words: Vec<String>,
    /// Rows of true classes.
    pub counts: Vec<Vec<u64>>,
}

impl Ended {
    /// Takes the final figures of a split.
    pub fn measured(&mut self, split: &str, figures: &Figures) {
        let finite = |value: f64| Some(value).filter(|value| value.is_finite());
        let single = figures.metrics.iter().filter_map(|metric| Some((metric.name.clone(), finite(metric.single()?))));
        self.split = Some(split.to_string());
        self.figures = [("loss".to_string(), finite(figures.loss))].into_iter().chain(single).collect();
    }
}

/// `about.json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Story {
    /// The run.
    pub about: About,
    /// The processes that worked on it, in order.
    pub sessions: Vec<Session>,
}

/// The name of a [`Story`]'s file.
const STORY: &str = "about.json";

/// The name of an [`Ended`]'s file.
const RESULT: &str = "result.json";

/// Bytes of one of these files: far more than texts of models take.
const LONGEST: u64 = 256 << 20;

impl Story {
    /// Notes in a run folder what it is about, and that this process now works on it; earlier processes stay noted.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn begin(folder: &Path, about: About, session: Session) -> Result<Self, Refusal> {
        // What cannot be read is replaced: it is worth nothing to anybody.
        let before = if session.after_step == 0 { None } else { Self::read(folder).ok().flatten() };
        let mut sessions = before.map(|story| story.sessions).unwrap_or_default();
        sessions.push(session);
        let story = Self { about, sessions };
        // What an earlier process said of its end is no longer so.
        let _ = std::fs::remove_file(folder.join(RESULT));
        write(folder, STORY, &story)?;
        Ok(story)
    }

    /// What a run folder says of itself; none where it says nothing.
    ///
    /// # Errors
    /// The file is damaged or cannot be read.
    pub fn read(folder: &Path) -> Result<Option<Self>, Refusal> {
        read(folder, STORY)
    }
}

impl Ended {
    /// Notes how a run ended.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), Refusal> {
        write(folder, RESULT, self)
    }

    /// How the run in a folder ended; none while it goes on, or where it was killed.
    ///
    /// # Errors
    /// The file is damaged or cannot be read.
    pub fn read(folder: &Path) -> Result<Option<Self>, Refusal> {
        read(folder, RESULT)
    }
}

fn write(folder: &Path, name: &str, value: &impl Serialize) -> Result<(), Refusal> {
    let path = folder.join(name);
    let text = serde_json::to_string(value).expect("plain data");
    write_atomically(&path, text.as_bytes()).map_err(|error| named(&path, &error))
}

fn read<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<Option<T>, Refusal> {
    let path = folder.join(name);
    let bytes = match files::open(&path).and_then(|file| files::read_all(file, LONGEST)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|error| named(&path, &error))?,
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| named(&path, &format!("damaged: {error}")))
}

impl Session {
    /// This process, on this machine.
    pub fn of_process(level: String, threads: usize, after_step: u64) -> Self {
        let command =
            std::env::args().enumerate().map(|(place, word)| if place == 0 { own_name(&word) } else { quoted(&word) });
        Self {
            began: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
            command: command.collect::<Vec<String>>().join(" "),
            machine: processor(),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            level,
            threads,
            after_step,
        }
    }
}

/// The name of a program without its folder.
fn own_name(program: &str) -> String {
    Path::new(program).file_name().map_or_else(|| program.to_string(), |name| name.to_string_lossy().into_owned())
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+=:@%,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The processor as the system names it, with its cores.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = if cores == 1 { "1 core".to_string() } else { format!("{cores} cores") };
    format!("{}, {cores}", name.unwrap_or("unknown processor"))
}

/// The user's texts with a hash of them.
pub fn texts(sources: &SourceMap, is_written: impl Fn(crate::source::FileId) -> bool) -> (Vec<SourceFile>, String) {
    let own: Vec<SourceFile> =
        sources.files().filter(|(id, _)| is_written(*id)).map(|(_, file)| file.clone()).collect();
    let hash = crate::artifact::checksum(own.iter().map(|file| file.text.as_bytes()));
    (own, hash)
}

/// Seconds since 1970 as `2026-11-25 04:12 UTC`.
pub fn date(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Hinnant 2013, "chrono-compatible low-level date algorithms": years begin in March, eras have 146,097 days.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", rest / 3600, rest / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let known = [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59 UTC"),
            (1_767_225_600, "2026-01-01 00:00 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ];
        for (seconds, text) in known {
            assert_eq!(date(seconds), text);
        }
    }

    #[test]
    fn words_of_a_command_are_quoted_where_a_shell_would_take_them_apart() {
        assert_eq!(["a=b,c", "x y", "it's", ""].map(quoted), ["a=b,c", "'x y'", r"'it'\''s'", "''"]);
    }

    #[test]
    fn a_story_notes_each_process_and_forgets_the_end_of_the_one_before() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |after_step| Session { after_step, ..Session::default() };
        let begin = |session| Story::begin(folder.path(), About::default(), session).expect("written").sessions.len();
        assert!(Story::read(folder.path()).expect("nothing is there").is_none());
        assert_eq!(begin(at(0)), 1);
        Ended { step: 7, ..Ended::default() }.write(folder.path()).expect("written");
        assert_eq!(Ended::read(folder.path()).expect("read").map(|ended| ended.step), Some(7));
        assert_eq!(begin(at(7)), 2);
        assert_eq!(Ended::read(folder.path()).expect("read"), None);
        assert_eq!(begin(at(0)), 1, "a run that begins again");
        std::fs::write(folder.path().join(STORY), "{").expect("written");
        assert!(Story::read(folder.path()).expect_err("damaged").to_string().contains("about.json: damaged"));
        assert_eq!(begin(at(9)), 1, "a damaged file is replaced");
    }
}
