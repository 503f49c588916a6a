//! How much memory a process may still take.
//!
//! Input: the system's files about the machine, the control group and the process. Output: bytes, and what bounds them.
//! Invariant: what the system does not tell bounds nothing.

use std::fs;
use std::path::Path;

use crate::source::bytes_text;

/// What is left of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that may still be taken.
    pub bytes: u64,
    /// Whose limit it is, in words that follow the bytes.
    pub owner: &'static str,
}

/// The tightest limit.
pub fn room() -> Option<Room> {
    [machine(), group(), process()].into_iter().flatten().min_by_key(|room| room.bytes)
}

/// What is free on a small machine, where the system does not tell.
const ASSUMED: u64 = 8 << 30;

/// A third of the free memory, in bytes: the most that is read of what is kept in memory, since the bytes and the numbers
/// made of them are there at once.
pub fn for_contents() -> u64 {
    room().map_or(ASSUMED, |room| room.bytes) / 3
}

/// Refuses `bytes` for `what` where they are more than there are.
///
/// # Errors
/// In words: what was wanted, and what there is.
pub fn check(bytes: u64, what: &str) -> Result<(), String> {
    match room() {
        Some(room) if bytes > room.bytes => Err(refusal(bytes, what, room)),
        Some(_) | None => Ok(()),
    }
}

/// The words of a refusal.
pub fn refusal(bytes: u64, what: &str, room: Room) -> String {
    format!("{what} takes {}, and {} {}", bytes_text(bytes), bytes_text(room.bytes), room.owner)
}

/// Free memory, with what the system can take back at once, and swap.
fn machine() -> Option<Room> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let bytes = field(&text, "MemAvailable:")? + field(&text, "SwapFree:").unwrap_or(0);
    Some(Room { bytes: bytes * 1024, owner: "of this machine's memory are free" })
}

/// What the process's control group, or one above it, leaves; versions 2 and 1.
fn group() -> Option<Room> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let folders = text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        match (parts.next()?, parts.next()?) {
            ("", path) => Some(("/sys/fs/cgroup", path)),
            (controllers, path) if controllers.split(',').any(|name| name == "memory") => {
                Some(("/sys/fs/cgroup/memory", path))
            }
            (_, _) => None,
        }
    });
    let left = folders.flat_map(|(root, path)| {
        Path::new(path.trim_start_matches('/'))
            .ancestors()
            .filter_map(move |part| group_left(&Path::new(root).join(part)))
    });
    left.min().map(|bytes| Room { bytes, owner: "are left of this control group's memory" })
}

/// What one group leaves; pages of files that are not in use count as free.
fn group_left(folder: &Path) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let limit = number("memory.max").or_else(|| number("memory.limit_in_bytes"))?;
    let used = number("memory.current").or_else(|| number("memory.usage_in_bytes"))?;
    let stat = read("memory.stat").unwrap_or_default();
    let idle = field(&stat, "total_inactive_file").or_else(|| field(&stat, "inactive_file")).unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(idle)))
}

/// What the limit on the address space leaves.
fn process() -> Option<Room> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let limit = field(&limits, "Max address space")?;
    let used = field(&fs::read_to_string("/proc/self/status").ok()?, "VmSize:")?;
    let bytes = limit.saturating_sub(used * 1024);
    Some(Room { bytes, owner: "are left of this process's address space (`ulimit -v`)" })
}

/// The number behind a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_group_is_read_in_both_versions() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
        write("memory.max", "max\n");
        write("memory.current", "1000\n");
        assert_eq!(group_left(folder.path()), None);
        write("memory.max", "5000\n");
        write("memory.stat", "anon 400\ninactive_file 600\n");
        assert_eq!(group_left(folder.path()), Some(4600));
        fs::remove_file(folder.path().join("memory.max")).expect("removed");
        write("memory.limit_in_bytes", "2000\n");
        assert_eq!(group_left(folder.path()), Some(1600));
    }

    #[test]
    fn more_than_there_is_is_refused_with_both_sizes() {
        let room = Room { bytes: 3 << 30, owner: "are free" };
        assert_eq!(refusal(5 << 30, "this", room), "this takes 5.0 GiB, and 3.0 GiB are free");
        assert_eq!(check(0, "nothing"), Ok(()));
        if cfg!(target_os = "linux") {
            assert!(check(1 << 60, "everything").is_err());
        }
    }
}
