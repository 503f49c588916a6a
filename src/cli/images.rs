//! Images of GPU kernels, kept from run to run.
//!
//! Input: what an image was made from, and the image. Output: the image, if it was made from the very same. Invariant: a file
//! that is damaged or another's counts as none; one that cannot be written costs time alone.

use std::fs;
use std::path::PathBuf;

use super::tuning::Cache;
use crate::artifact::checksum;
use crate::cuda::compile::Made;
use crate::runtime::{checkpoint, files};

/// Bytes of a file. A longer one counts as none.
const LONGEST: u64 = 256 << 20;
/// Files that are kept; the oldest go first.
const MOST: usize = 256;

/// A folder of images; none where the user has no such folder.
pub(super) struct Images(Option<PathBuf>);

/// What a file holds.
#[derive(serde::Serialize, serde::Deserialize)]
struct File {
    key: Vec<String>,
    image: Vec<u8>,
    /// Of the image.
    checksum: String,
}

impl Images {
    /// The user's.
    pub(super) fn of_user() -> Images {
        Images(Cache::of_user().map(|cache| cache.folder().join("cuda")))
    }

    fn path(&self, key: &[&str]) -> Option<PathBuf> {
        Some(self.0.as_ref()?.join(checksum(key.iter().map(|part| part.as_bytes()))))
    }

    /// Removes all but the newest.
    fn tidy(folder: &PathBuf) -> std::io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            files.push((entry.metadata()?.modified()?, entry.path()));
        }
        files.sort();
        let spare = files.len().saturating_sub(MOST);
        files[..spare].iter().try_for_each(|(_, path)| fs::remove_file(path))
    }
}

impl Made for Images {
    fn find(&self, key: &[&str]) -> Option<Vec<u8>> {
        let bytes = files::open(&self.path(key)?).and_then(|file| files::read_all(file, LONGEST)).ok()?;
        let file: File = postcard::from_bytes(&bytes).ok()?;
        let is_whole = file.key == key && file.checksum == checksum([&file.image[..]].into_iter());
        is_whole.then_some(file.image)
    }

    fn keep(&self, key: &[&str], image: &[u8]) {
        let (Some(path), Some(folder)) = (self.path(key), self.0.as_ref()) else { return };
        let checksum = checksum([image].into_iter());
        let key = key.iter().map(|part| part.to_string()).collect();
        let file = File { key, image: image.to_vec(), checksum };
        let Ok(bytes) = postcard::to_stdvec(&file) else { return };
        let written = fs::create_dir_all(folder).and_then(|()| checkpoint::write_atomically(&path, &bytes));
        // Without it the next run compiles again.
        let _ = written.and_then(|()| Self::tidy(folder));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_found_by_all_that_it_was_made_from_and_only_whole() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let images = Images(Some(folder.path().to_path_buf()));
        images.keep(&["sm_90", "text"], b"image");
        assert_eq!(images.find(&["sm_90", "text"]), Some(b"image".to_vec()));
        assert_eq!(images.find(&["sm_80", "text"]), None);
        let path = images.path(&["sm_90", "text"]).expect("a path");
        let whole = fs::read(&path).expect("written");
        // Another text of the same checksum would have the same path.
        fs::write(images.path(&["sm_80", "text"]).expect("a path"), &whole).expect("written");
        assert_eq!(images.find(&["sm_80", "text"]), None);
        for place in 0..whole.len() {
            let mut broken = whole.clone();
            broken[place] ^= 1;
            fs::write(&path, &broken).expect("written");
            assert_eq!(images.find(&["sm_90", "text"]), None, "byte {place}");
        }
    }
}
