//! Opening and reading files: the one home of both.
//!
//! Input: a path that the user names, or a [`Place`] that a model file names. Output: open files and bounded bytes.
//! Invariants: a place lies below its root and is not hidden, whatever links the folders hold; only regular files and folders are opened,
//! so that opening neither waits nor acts on a device; nothing is read beyond a limit, which the error tells.
//!
//! Errors of this module say what is wrong with the file and leave its name to the caller, who puts it before them by
//! [`named`].

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::packed;
use crate::diagnostics::Refusal;
use crate::settings::{PackedFiles, PathRefusal, below, is_hidden};
use crate::source::bytes_text;

/// A path that a model file names: below a root, however it is written.
#[derive(Clone, Debug)]
pub struct Place {
    root: PathBuf,
    below: PathBuf,
    path: PathBuf,
    packed: Option<Arc<PackedFiles>>,
}

impl Place {
    /// What `written` means in a file of `folder`, a folder relative to `root`. Touches no file.
    ///
    /// # Errors
    /// An absolute path, one that climbs above the root, and what is no plain path.
    pub fn new(root: &Path, folder: &Path, written: &str) -> Result<Self, PathRefusal> {
        Ok(Self::at(root, &below(folder, written)?))
    }

    /// A path relative to `root`, without `..`.
    pub fn at(root: &Path, below: &Path) -> Self {
        Self { root: root.to_path_buf(), below: below.to_path_buf(), path: root.join(below), packed: None }
    }

    /// The same among packed files, where there are any.
    pub fn within(self, packed: Option<Arc<PackedFiles>>) -> Self {
        Self { packed, ..self }
    }

    /// The path from the root.
    pub fn below(&self) -> &Path {
        &self.below
    }

    /// The place as the user would name it, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file or folder inside of this folder.
    pub fn join(&self, name: impl AsRef<Path>) -> Self {
        Self::at(&self.root, &self.below.join(name)).within(self.packed.clone())
    }

    /// Opens the regular file that lies here.
    ///
    /// # Errors
    /// No such file, anything but a regular file, or a link that leads out of the root.
    pub fn open(&self) -> io::Result<File> {
        self.open_resolved().map(|(file, _)| file)
    }

    /// The open file, and the path below the root that it has without links.
    ///
    /// # Errors
    /// As [`Place::open`].
    pub fn open_resolved(&self) -> io::Result<(File, PathBuf)> {
        if let Some(files) = &self.packed {
            return Ok((packed::open(files, &self.below)?, self.below.clone()));
        }
        regular(&system::look(&self.root, &self.below)?)?;
        let (file, path) = system::open(&self.root, &self.below)?;
        regular(&file.metadata()?)?;
        Ok((file, path))
    }

    /// Whether a folder lies here.
    pub fn is_folder(&self) -> bool {
        if let Some(files) = &self.packed {
            return packed::is_folder(files, &self.below);
        }
        system::look(&self.root, &self.below).is_ok_and(|found| found.is_dir())
    }

    /// Whether anything lies here that may be looked at.
    pub fn exists(&self) -> bool {
        if let Some(files) = &self.packed {
            return packed::exists(files, &self.below);
        }
        system::look(&self.root, &self.below).is_ok()
    }

    /// What the folder that lies here holds, but for what is hidden, in the order of the names.
    ///
    /// # Errors
    /// As [`Place::open`], for folders.
    pub fn entries(&self) -> io::Result<Vec<Place>> {
        if let Some(files) = &self.packed {
            return Ok(packed::names(files, &self.below).into_iter().map(|name| self.join(name)).collect());
        }
        if !system::look(&self.root, &self.below)?.is_dir() {
            return Err(io::Error::new(ErrorKind::NotADirectory, "is a file, not a folder"));
        }
        let mut names = system::names(&self.root, &self.below)?;
        names.retain(|name| !name.as_encoded_bytes().starts_with(b"."));
        names.sort_unstable();
        Ok(names.into_iter().map(|name| self.join(name)).collect())
    }
}

/// Opens a regular file that the user names; it may lie anywhere and may be a link.
///
/// # Errors
/// No such file, or anything but a regular file.
pub fn open(path: &Path) -> io::Result<File> {
    // Looked at first: opening a device may act on it, and opening a pipe waits for its other end.
    regular(&std::fs::metadata(path)?)?;
    let file = system::open_named(path)?;
    regular(&file.metadata()?)?;
    Ok(file)
}

/// The first bytes of a regular file, at most so many; none where there is no file, or one of another sort, such as a device.
///
/// # Errors
/// What reading gives.
pub fn head(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let is_file = std::fs::metadata(path).is_ok_and(|found| found.is_file());
    let mut head = Vec::new();
    if is_file {
        open(path)?.take(most as u64).read_to_end(&mut head)?;
    }
    Ok(head)
}

/// Whether two names lead to one file that is there.
pub fn are_one(one: &Path, other: &Path) -> bool {
    let (Ok(first), Ok(second)) = (std::fs::metadata(one), std::fs::metadata(other)) else { return false };
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        (first.dev(), first.ino()) == (second.dev(), second.ino())
    }
    #[cfg(not(unix))]
    {
        let places = [one, other].map(std::fs::canonicalize);
        first.is_file() == second.is_file() && matches!(&places, [Ok(one), Ok(other)] if one == other)
    }
}

/// The whole of an open file of at most `limit` bytes.
///
/// # Errors
/// A longer file, one for which there is no memory, and what reading gives.
pub fn read_all(mut file: File, limit: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    if length > limit {
        return Err(too_long(limit));
    }
    let mut bytes = Vec::new();
    reserve(&mut bytes, length)?;
    // The length is that of a moment ago, and 0 for files that the system makes up.
    file.by_ref().take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(too_long(limit)) } else { Ok(bytes) }
}

/// What is wrong with a file or a folder, behind its name.
pub fn named(path: &Path, problem: &dyn std::fmt::Display) -> Refusal {
    Refusal(format!("{}: {problem}", path.display()))
}

/// IEEE 754 binary16 to binary32.
pub fn half_to_f32(bits: u16) -> f32 {
    let sign = if bits & 0x8000 != 0 { -1.0 } else { 1.0 };
    let exponent = i32::from((bits >> 10) & 31);
    let mantissa = f32::from(bits & 1023);
    match (exponent, mantissa) {
        (31, 0.0) => sign * f32::INFINITY,
        (31, _) => f32::NAN,
        (0, _) => sign * mantissa * 2f32.powi(-24),
        _ => sign * (1.0 + mantissa / 1024.0) * 2f32.powi(exponent - 15),
    }
}

fn too_long(limit: u64) -> io::Error {
    io::Error::new(ErrorKind::FileTooLarge, format!("is longer than {}, the most that is read", bytes_text(limit)))
}

fn reserve(bytes: &mut Vec<u8>, length: u64) -> io::Result<()> {
    let refused = || {
        let words = format!("is {} long, for which there is no memory", bytes_text(length));
        io::Error::new(ErrorKind::OutOfMemory, words)
    };
    let length = usize::try_from(length).map_err(|_| refused())?;
    bytes.try_reserve_exact(length).map_err(|_| refused())
}

/// Refuses all but regular files.
fn regular(found: &Metadata) -> io::Result<()> {
    let kind = found.file_type();
    if kind.is_file() {
        return Ok(());
    }
    if kind.is_dir() {
        return Err(io::Error::new(ErrorKind::IsADirectory, "is a folder, not a file"));
    }
    Err(io::Error::new(ErrorKind::Unsupported, format!("is a {}, not a regular file", special(kind))))
}

#[cfg(unix)]
fn special(kind: std::fs::FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match kind {
        kind if kind.is_fifo() => "pipe",
        kind if kind.is_socket() => "socket",
        _ => "device",
    }
}

#[cfg(not(unix))]
fn special(_: std::fs::FileType) -> &'static str {
    "device"
}

fn hidden() -> io::Error {
    io::Error::new(ErrorKind::Unsupported, "leads through a link to a hidden file, and is not followed")
}

fn leaves() -> io::Error {
    io::Error::new(ErrorKind::CrossesDevices, "leads through a link out of the project's folder, and is not followed")
}

/// The system resolves paths below a root itself (`openat2` of Linux 5.6).
#[cfg(target_os = "linux")]
mod system {
    use std::ffi::OsString;
    use std::fs::{File, Metadata, OpenOptions};
    use std::io;
    use std::os::fd::{AsFd, AsRawFd, OwnedFd};
    use std::os::unix::ffi::OsStringExt;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::{Path, PathBuf};

    use rustix::fs::{Dir, Mode, OFlags, ResolveFlags};
    use rustix::io::Errno;

    use super::{hidden, is_hidden, leaves, links};

    /// A resolution that meets a renamed folder is tried again so many times.
    const ATTEMPTS: usize = 16;

    /// Opens `below` with `flags`, below `root`, and gives its path without links; links are followed where they stay
    /// there and lead to nothing hidden. None where this system cannot tell.
    fn beneath(root: &Path, below: &Path, flags: OFlags) -> io::Result<Option<(File, PathBuf)>> {
        let dot = |path: &Path| if path.as_os_str().is_empty() { Path::new(".").to_owned() } else { path.to_owned() };
        let folder: OwnedFd =
            rustix::fs::open(dot(root), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..ATTEMPTS {
            match rustix::fs::openat2(&folder, dot(below), flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Ok(file) => {
                    let Some(path) =
                        name(&file).and_then(|path| Some(path.strip_prefix(name(&folder)?).ok()?.to_owned()))
                    else {
                        return Ok(None);
                    };
                    return if is_hidden(&path) { Err(hidden()) } else { Ok(Some((file.into(), path))) };
                }
                Err(Errno::AGAIN) => {}
                Err(Errno::XDEV) => return Err(leaves()),
                // An older kernel, or one that is told to refuse the call.
                Err(Errno::NOSYS | Errno::PERM) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// Where an open file lies. A link of the system's own is read; nothing is opened.
    fn name(file: &impl AsFd) -> Option<PathBuf> {
        std::fs::read_link(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())).ok()
    }

    pub(super) fn look(root: &Path, below: &Path) -> io::Result<Metadata> {
        match beneath(root, below, OFlags::PATH)? {
            Some((file, _)) => file.metadata(),
            None => links::look(root, below),
        }
    }

    pub(super) fn open(root: &Path, below: &Path) -> io::Result<(File, PathBuf)> {
        match beneath(root, below, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)? {
            Some(file) => Ok(file),
            None => links::open(root, below),
        }
    }

    pub(super) fn names(root: &Path, below: &Path) -> io::Result<Vec<OsString>> {
        let Some((folder, _)) = beneath(root, below, OFlags::RDONLY | OFlags::DIRECTORY)? else {
            return links::names(root, below);
        };
        let mut names = Vec::new();
        for entry in Dir::new(OwnedFd::from(folder))? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        Ok(names)
    }

    pub(super) fn open_named(path: &Path) -> io::Result<File> {
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
        OpenOptions::new().read(true).custom_flags(flags).open(path)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) use super::links::{look, names, open};

    pub(super) fn open_named(path: &std::path::Path) -> std::io::Result<std::fs::File> {
        std::fs::File::open(path)
    }
}

/// Where the system does not resolve paths below a root: no link is followed at all. Between the look and the opening
/// someone else may put a link in place; who can do that to a folder can also change the files.
mod links {
    use std::ffi::OsString;
    use std::fs::{File, Metadata};
    use std::io;
    use std::path::{Path, PathBuf};

    pub(super) fn look(root: &Path, below: &Path) -> io::Result<Metadata> {
        let mut path = root.to_path_buf();
        let mut found = std::fs::metadata(if path.as_os_str().is_empty() { Path::new(".") } else { root })?;
        for component in below.components() {
            path.push(component);
            found = std::fs::symlink_metadata(&path)?;
            if found.is_symlink() {
                return Err(super::leaves());
            }
        }
        Ok(found)
    }

    pub(super) fn open(root: &Path, below: &Path) -> io::Result<(File, PathBuf)> {
        super::regular(&look(root, below)?)?;
        Ok((File::open(root.join(below))?, below.to_owned()))
    }

    pub(super) fn names(root: &Path, below: &Path) -> io::Result<Vec<OsString>> {
        look(root, below)?;
        std::fs::read_dir(root.join(below))?.map(|entry| Ok(entry?.file_name())).collect()
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().expect("inside of a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    }

    /// A root `p` with links inside and outside of it.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path().join("p");
        write(&folder.path().join("out/x"), "outside");
        write(&root.join("in/x"), "inside");
        write(&root.join("in/.y"), "hidden");
        symlink("in", root.join("link")).expect("linked");
        symlink("../out", root.join("away")).expect("linked");
        symlink("/proc/self/environ", root.join("in/absolute")).expect("linked");
        symlink("in/.y", root.join("dotted")).expect("linked");
        folder
    }

    fn kind(root: &Path, below: &str) -> Option<ErrorKind> {
        Place::at(root, Path::new(below)).open().err().map(|error| error.kind())
    }

    #[test]
    fn a_place_is_below_its_root_through_whatever_links() {
        let folder = folder();
        let root = &folder.path().join("p");
        assert_eq!(kind(root, "in/x"), None);
        assert_eq!(kind(root, "link/x"), None);
        for outside in ["away/x", "in/absolute", "link/absolute", "link/../../out/x"] {
            assert_eq!(kind(root, outside), Some(ErrorKind::CrossesDevices), "{outside}");
        }
        assert_eq!(kind(root, "dotted"), Some(ErrorKind::Unsupported));
        assert_eq!(kind(root, "in"), Some(ErrorKind::IsADirectory));
        assert_eq!(kind(root, "none"), Some(ErrorKind::NotFound));
        assert_eq!(kind(root, "in/x/y"), Some(ErrorKind::NotADirectory));
        let entries = |below| Place::at(root, Path::new(below)).entries();
        let names: Vec<PathBuf> = entries("link").expect("listed").iter().map(|place| place.below.clone()).collect();
        assert_eq!(names, [Path::new("link/absolute"), Path::new("link/x")]);
        assert_eq!(entries("away").map_err(|error| error.kind()).err(), Some(ErrorKind::CrossesDevices));
    }

    #[test]
    fn without_the_systems_help_no_link_is_followed() {
        let folder = folder();
        let root = &folder.path().join("p");
        let kind = |below: &str| links::open(root, Path::new(below)).err().map(|error| error.kind());
        assert_eq!(kind("in/x"), None);
        for link in ["link/x", "away/x", "in/absolute", "dotted"] {
            assert_eq!(kind(link), Some(ErrorKind::CrossesDevices), "{link}");
        }
        assert_eq!(kind("in"), Some(ErrorKind::IsADirectory));
        assert_eq!(links::names(root, Path::new("in")).expect("listed").len(), 3);
        assert!(links::names(root, Path::new("away")).is_err());
    }

    #[test]
    fn a_file_is_one_by_whatever_name() {
        let folder = folder();
        let at = |name: &str| folder.path().join(name);
        std::fs::hard_link(at("out/x"), at("out/hard")).expect("linked");
        for other in ["out/x", "out/../out/x", "p/away/x", "out/hard"] {
            assert!(are_one(&at("out/x"), &at(other)), "{other}");
        }
        assert!(!are_one(&at("out/x"), &at("p/in/x")) && !are_one(&at("none"), &at("none")));
    }

    #[test]
    fn no_more_than_the_limit_is_read() {
        let folder = folder();
        let open = || open(&folder.path().join("out/x")).expect("opened");
        assert_eq!(read_all(open(), 7).expect("read"), b"outside");
        assert_eq!(read_all(open(), 6).map_err(|error| error.kind()), Err(ErrorKind::FileTooLarge));
        // Its length is 0 before it is read.
        let made_up = super::open(Path::new("/proc/self/status")).expect("opened");
        assert_eq!(read_all(made_up, 6).map_err(|error| error.kind()), Err(ErrorKind::FileTooLarge));
    }
}
