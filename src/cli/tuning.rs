//! Measured cuts of products, kept from run to run.
//!
//! Input: a folder, a level and a number of threads. Output: a [`Tuning`]. Invariant: what another version of this
//! program, or this program on another processor, has written is not read; a file that cannot be read counts as none.

use std::path::PathBuf;
use std::{env, fs, io};

use crate::contraction::tuning::Tuning;
use crate::machine::Level;
use crate::runtime::{checkpoint, files};

/// A folder of measurements.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

/// What a file holds, and what it holds for.
#[derive(serde::Serialize, serde::Deserialize)]
struct File {
    version: String,
    processor: String,
    cuts: Tuning,
}

/// Bytes of a file of the cache: more than a hundred thousand shapes take. A longer one counts as none.
const LONGEST: u64 = 16 << 20;

impl Cache {
    /// The user's: `ANSATZ_CACHE`, or `ansatz` in the system's folder for such files; none where there is no such folder.
    pub fn of_user() -> Option<Cache> {
        let folder = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let system = || folder("XDG_CACHE_HOME").or_else(|| folder("LOCALAPPDATA"));
        let home = || folder("HOME").map(|home| home.join(".cache"));
        let ansatz = |parent: PathBuf| parent.join("ansatz");
        Some(Cache { folder: folder("ANSATZ_CACHE").or_else(|| system().or_else(home).map(ansatz))? })
    }

    /// Where everything lies that is kept.
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// Where the cuts for so many threads lie.
    pub fn path(&self, level: Level, threads: usize) -> PathBuf {
        self.folder.join(format!("tuning-{level}-{threads}.json"))
    }

    /// What is known of this processor.
    pub fn load(&self, level: Level, threads: usize) -> Tuning {
        let bytes = files::open(&self.path(level, threads)).and_then(|file| files::read_all(file, LONGEST));
        let file = bytes.ok().and_then(|bytes| serde_json::from_slice::<File>(&bytes).ok());
        let file = file.filter(|file| file.version == env!("CARGO_PKG_VERSION") && file.processor == processor());
        file.map(|file| file.cuts).unwrap_or_default()
    }

    /// Replaces what is known.
    ///
    /// # Errors
    /// If the folder cannot be made or written.
    pub fn save(&self, level: Level, threads: usize, tuning: &Tuning) -> io::Result<()> {
        let version = env!("CARGO_PKG_VERSION").to_string();
        let file = File { version, processor: processor(), cuts: tuning.clone() };
        let text = serde_json::to_string_pretty(&file)?;
        fs::create_dir_all(&self.folder)?;
        checkpoint::write_atomically(&self.path(level, threads), text.as_bytes())
    }
}

/// The processor's name where the system tells it, else its architecture.
pub(super) fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("model name"));
    let name = line.and_then(|line| line.split_once(':')).map(|(_, name)| name.trim());
    name.unwrap_or(env::consts::ARCH).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_for_the_same_level_and_threads() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cache = Cache { folder: folder.path().join("new") };
        assert!(cache.load(Level::Portable, 2).is_empty());
        let text = r#"{"portable 0 m64:64,0,64 n64:0,1,1 k64:1,64,0":{"orientation":"Given","row_blocks":2,"column_blocks":1}}"#;
        let tuning: Tuning = serde_json::from_str(text).expect("a tuning");
        cache.save(Level::Portable, 2, &tuning).expect("written");
        assert_eq!(cache.load(Level::Portable, 2), tuning);
        assert!(cache.load(Level::Portable, 1).is_empty());
    }

    #[test]
    fn an_oversized_file_counts_as_none() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cache = Cache { folder: folder.path().to_path_buf() };
        let file = fs::File::create(cache.path(Level::Portable, 1)).expect("made");
        // Without contents: reading it to its end would take longer than memory lasts.
        file.set_len(1 << 42).expect("lengthened");
        assert!(cache.load(Level::Portable, 1).is_empty());
    }

    #[test]
    fn what_another_machine_or_version_wrote_counts_as_none() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cache = Cache { folder: folder.path().to_path_buf() };
        let (level, path) = (Level::Portable, cache.path(Level::Portable, 1));
        let text = r#"{"portable 0":{"orientation":"Given","row_blocks":1,"column_blocks":1}}"#;
        let tuning: Tuning = serde_json::from_str(text).expect("a tuning");
        cache.save(level, 1, &tuning).expect("written");
        let text = fs::read_to_string(&path).expect("what was written");
        assert!(!cache.load(level, 1).is_empty());
        for (right, wrong) in [(processor(), "another"), (env!("CARGO_PKG_VERSION").into(), "0.0.0"), ("{".into(), "")]
        {
            fs::write(&path, text.replace(&right, wrong)).expect("written");
            assert!(cache.load(level, 1).is_empty(), "{wrong}");
        }
    }
}
