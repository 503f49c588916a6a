//! Files that lie in memory, in place of a folder.
//!
//! Input: paths and bytes. Output: open files, as of a folder that holds them. Invariant: nothing outside of what was put in
//! is found, whatever a path says.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};

use crate::settings::PackedFiles;

/// The file of this path, open.
pub(super) fn open(files: &PackedFiles, below: &Path) -> io::Result<File> {
    match files.get(&plain(below)) {
        Some(bytes) => in_memory(bytes),
        None if is_folder(files, below) => Err(io::Error::new(ErrorKind::IsADirectory, "is a folder, not a file")),
        None => Err(io::Error::new(ErrorKind::NotFound, "is not among the files that are carried")),
    }
}

/// Whether a folder of this path holds any of the files.
pub(super) fn is_folder(files: &PackedFiles, below: &Path) -> bool {
    let folder = plain(below);
    files.keys().any(|file| file.starts_with(&folder) && *file != folder)
}

/// Whether there is a file or a folder of this path.
pub(super) fn exists(files: &PackedFiles, below: &Path) -> bool {
    files.contains_key(&plain(below)) || is_folder(files, below)
}

/// The names in a folder.
pub(super) fn names(files: &PackedFiles, below: &Path) -> Vec<OsString> {
    let folder = plain(below);
    let inside = files.keys().filter_map(|file| file.strip_prefix(&folder).ok()?.components().next());
    let names: BTreeSet<OsString> = inside.map(|name| name.as_os_str().to_owned()).collect();
    names.into_iter().collect()
}

/// A path without `.` and empty parts.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

#[cfg(target_os = "linux")]
fn in_memory(bytes: &[u8]) -> io::Result<File> {
    use rustix::fs::{MemfdFlags, memfd_create};
    let mut file = File::from(memfd_create(c"carried", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

#[cfg(not(target_os = "linux"))]
fn in_memory(bytes: &[u8]) -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("ansatz-{}-{}", std::process::id(), bytes.as_ptr() as usize));
    let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
    // Where an open file cannot lose its name, it stays behind.
    drop(std::fs::remove_file(&path));
    file.write_all(bytes)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn packed_files_are_found_as_in_a_folder_and_nothing_else_is() {
        let files: PackedFiles =
            ["data/a.csv", "data/sub/b.png"].map(|name| (PathBuf::from(name), name.as_bytes().to_vec())).into();
        let mut text = String::new();
        open(&files, Path::new("data/./a.csv")).expect("there").read_to_string(&mut text).expect("text");
        assert_eq!(text, "data/a.csv");
        assert!(is_folder(&files, Path::new("data")) && is_folder(&files, Path::new("data/sub")));
        assert!(!is_folder(&files, Path::new("data/a.csv")) && !exists(&files, Path::new("dat")));
        assert_eq!(names(&files, Path::new("data")), ["a.csv", "sub"]);
        let kind = |path: &str| open(&files, Path::new(path)).expect_err("not there").kind();
        assert_eq!(kind("data"), ErrorKind::IsADirectory);
        assert_eq!(kind("/etc/passwd"), ErrorKind::NotFound);
    }
}
