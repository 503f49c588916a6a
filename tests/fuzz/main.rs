//! Feeds changed files to every reader, and finds those that panic, abort, hang or take too much memory.
//!
//!     cargo run --example fuzz -- --seconds 60 [READER…] [--seed N] [--once FILE] [--list]
//!
//! Input: names of readers (all by default), seconds for each, a seed. Output: the counts; of each input that breaks
//! a promise a file and the command that repeats it; exit code 1 if there is one. Invariant: an input follows from seed,
//! reader and number alone, so a process that died can be told what killed it. Inputs run in a process of their own, since
//! a panic of a release build, a full stack and a lack of memory end the process. Builds with debug assertions find more: there an
//! overflow is a panic, not a wrong number.

mod formats;
mod random;
mod readers;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use random::Random;
use readers::{READERS, Reader};

/// One input may take so long.
const LONGEST: Duration = Duration::from_secs(if cfg!(debug_assertions) { 20 } else { 5 });

/// Address space of a process that reads, in KiB.
const MEMORY: u64 = 1 << 20;

/// A reader with so many findings is left.
const MOST_FINDINGS: usize = 12;

/// The exit code of a broken promise that is no crash.
const BROKEN: i32 = 3;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        READERS.iter().for_each(|reader| println!("{}", reader.name));
        return ExitCode::SUCCESS;
    }
    let value = |name: &str| {
        let place = arguments.iter().position(|argument| argument == name)?;
        arguments.get(place + 1).cloned()
    };
    let number = |name: &str, default: u64| value(name).map_or(default, |text| text.parse().expect("a number"));
    let seed = number("--seed", 1);
    let named = |reader: &&Reader| arguments.iter().any(|argument| argument == reader.name);
    let mut chosen: Vec<&Reader> = READERS.iter().filter(named).collect();
    if let Some(file) = value("--once") {
        return once(&chosen, Path::new(&file));
    }
    if let Some(progress) = value("--progress") {
        return read_until_killed(chosen[0], seed, number("--from", 0), Path::new(&progress));
    }
    if chosen.is_empty() {
        chosen = READERS.iter().collect();
    }
    let seconds = Duration::from_secs(number("--seconds", 60));
    let mut findings = 0;
    for reader in chosen {
        findings += watch(reader, seed, seconds);
    }
    if findings == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The input of this number.
fn input(reader: &Reader, seeds: &[Vec<u8>], seed: u64, number: u64) -> Vec<u8> {
    let mut random = Random::new(seed, reader.name, number);
    let mut bytes = random.one_of(seeds).cloned().unwrap_or_default();
    random::change(&mut bytes, seeds, reader.words, &mut random);
    if !random.once_in(8) {
        (reader.repair)(&mut bytes, &mut random);
    }
    bytes
}

/// Reads inputs from number `from` on; `progress` always holds the number that is being read, and how many were taken.
fn read_until_killed(reader: &Reader, seed: u64, from: u64, progress: &Path) -> ExitCode {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::env::set_current_dir(folder.path()).expect("a folder that was just made");
    let progress = File::options().write(true).open(progress).expect("the parent made it");
    let (seeds, read) = ((reader.seeds)(folder.path()), (reader.read)(folder.path()));
    let mut taken = 0u64;
    for number in from.. {
        let state = [number.to_le_bytes(), taken.to_le_bytes()].concat();
        progress.write_all_at(&state, 0).expect("a temporary file");
        match read(&input(reader, &seeds, seed, number)) {
            Ok(accepted) => taken += u64::from(accepted),
            Err(words) => {
                eprintln!("{words}");
                std::process::exit(BROKEN);
            }
        }
    }
    ExitCode::SUCCESS
}

/// Reads one file, without limits.
fn once(chosen: &[&Reader], file: &Path) -> ExitCode {
    let bytes = std::fs::read(file).expect("the file of a finding");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let read = (chosen.first().expect("the name of a reader").read)(folder.path());
    println!("{:?}", read(&bytes));
    ExitCode::SUCCESS
}

/// A process that reads inputs, and where it says how far it is.
struct Process {
    child: Child,
    errors: PathBuf,
    progress: File,
}

impl Process {
    fn start(reader: &Reader, seed: u64, from: u64, folder: &Path) -> Self {
        let (path, errors) = (folder.join("progress"), folder.join("errors"));
        let progress = File::options().create(true).truncate(true).read(true).write(true).open(&path);
        let progress = progress.expect("a temporary folder");
        let own = std::env::current_exe().expect("a program's own path");
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -v {MEMORY}; ulimit -c 0; exec \"$0\" \"$@\"")]).arg(own);
        command.args([reader.name, "--seed", &seed.to_string(), "--from", &from.to_string(), "--progress"]).arg(&path);
        command.env("TMPDIR", folder).stdout(Stdio::null()).stderr(File::create(&errors).expect("a temporary folder"));
        Self { child: command.spawn().expect("a shell"), errors, progress }
    }

    /// The number of the running input, and how many were taken.
    fn state(&self) -> Option<(u64, u64)> {
        let mut state = [0u8; 16];
        self.progress.read_exact_at(&mut state, 0).ok()?;
        let (number, taken) = state.split_at(8);
        Some((u64::from_le_bytes(number.try_into().ok()?), u64::from_le_bytes(taken.try_into().ok()?)))
    }

    /// What it said last.
    fn words(&self) -> String {
        let text = String::from_utf8_lossy(&std::fs::read(&self.errors).unwrap_or_default()).into_owned();
        text.lines().filter(|line| !line.trim().is_empty()).take(3).collect::<Vec<_>>().join(" | ")
    }
}

/// A folder in memory where the system has one: a disk's file system takes longer to write a file than a reader to read it.
fn scratch() -> tempfile::TempDir {
    let made = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    made.expect("a temporary folder")
}

/// Runs a reader for so long; tells and counts what breaks it.
fn watch(reader: &Reader, seed: u64, time: Duration) -> usize {
    let folder = scratch();
    let (end, mut from, mut findings) = (Instant::now() + time, 0, 0);
    let mut all_taken = 0;
    let seeds = (reader.seeds)(folder.path());
    while Instant::now() < end && findings < MOST_FINDINGS {
        let mut process = Process::start(reader, seed, from, folder.path());
        let (mut last, mut since) = (None, Instant::now());
        let trouble = loop {
            std::thread::sleep(Duration::from_millis(20));
            if let Some(status) = process.child.try_wait().expect("a child of ours") {
                break Some(format!("{status}: {}", process.words()));
            }
            let state = process.state();
            if state != last {
                (last, since) = (state, Instant::now());
            } else if since.elapsed() > LONGEST {
                break Some(format!("longer than {} s", LONGEST.as_secs()));
            }
            if Instant::now() >= end {
                break None;
            }
        };
        let _ = process.child.kill();
        process.child.wait().expect("a child of ours");
        let (number, taken) = process.state().unwrap_or((from, 0));
        all_taken += taken;
        from = number;
        if let Some(words) = trouble {
            findings += 1;
            let bytes = input(reader, &seeds, seed, number);
            tell(reader, seed, number, &bytes, &words);
            from += 1;
        }
    }
    println!(
        "{}: {from} inputs, {all_taken} taken, {findings} findings (seed {seed}, {} s)",
        reader.name,
        time.as_secs()
    );
    findings
}

/// Writes an input down, and how to repeat what it does.
fn tell(reader: &Reader, seed: u64, number: u64, bytes: &[u8], words: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fuzz");
    std::fs::create_dir_all(&folder).expect("the target folder");
    let path = folder.join(format!("{}-{seed}-{number}.bin", reader.name));
    std::fs::write(&path, bytes).expect("the target folder");
    println!("{}: input {number} of seed {seed}, {} bytes: {words}", reader.name, bytes.len());
    println!("  cargo run --example fuzz -- {} --once {}", reader.name, path.display());
}
