//! The files of an item, to be carried along.
//!
//! Input: an item. Output: [`PackedFiles`]. Invariant: an item that has them in place of its root gives the same data.

use std::io;
use std::path::{Path, PathBuf};

use crate::runtime::files::{self, Place};
use crate::settings::{DataSpec, Literal, LiteralKind, PackedFiles};

/// Everything that an item's texts name below its root: files, and what folders hold. Bytes by the path from the root.
///
/// # Errors
/// A file that cannot be read.
pub fn pack(spec: &DataSpec) -> io::Result<PackedFiles> {
    let mut files = PackedFiles::new();
    places(spec).iter().try_for_each(|place| add(place, &mut files))?;
    Ok(files)
}

/// Whether anything that an item's texts name lies below this root, where its paths start at this folder.
pub fn lies_at(spec: &DataSpec, root: &Path, folder: &Path) -> bool {
    !places(&DataSpec { root: root.to_path_buf(), folder: folder.to_path_buf(), ..spec.clone() }).is_empty()
}

/// The files that an item's texts name, as far as they are there, with what folders among them hold; none of packed ones.
pub fn files(spec: &DataSpec) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if spec.packed.is_none() {
        places(spec).iter().for_each(|place| list(place, &mut found));
    }
    found
}

/// What an item's texts name, as far as it is there.
fn places(spec: &DataSpec) -> Vec<Place> {
    let mut texts = Vec::new();
    spec.entries.iter().for_each(|entry| texts_of(&entry.value, true, &mut texts));
    let place = |(text, names_data): (&str, bool)| {
        // A text that is no path, such as the name of a column, leads nowhere, or as `missing = "."` to the folder itself.
        let place = Place::new(&spec.root, &spec.folder, text).ok()?;
        let is_around = spec.folder.starts_with(place.below());
        (place.exists() && (names_data || !is_around)).then_some(place)
    };
    texts.into_iter().filter_map(place).collect()
}

/// The texts of a literal, each with whether it is what a source is asked for: its first argument, mostly.
fn texts_of<'l>(literal: &'l Literal, names_data: bool, found: &mut Vec<(&'l str, bool)>) {
    let mut all = |parts: &'l [Literal]| parts.iter().for_each(|part| texts_of(part, names_data, found));
    match &literal.kind {
        LiteralKind::Text(text) => found.push((text, names_data)),
        LiteralKind::List(parts) | LiteralKind::Pipeline(parts) => all(parts),
        LiteralKind::Call { arguments, .. } => arguments.iter().for_each(|(name, value)| {
            texts_of(value, name.as_deref().is_none_or(|name| name == "path"), found);
        }),
        LiteralKind::Number(_) | LiteralKind::Bool(_) | LiteralKind::Name(_) => {}
    }
}

fn list(place: &Place, found: &mut Vec<PathBuf>) {
    if place.is_folder() {
        place.entries().unwrap_or_default().iter().for_each(|entry| list(entry, found));
    } else {
        found.push(place.path().to_path_buf());
    }
}

fn add(place: &Place, files: &mut PackedFiles) -> io::Result<()> {
    if place.is_folder() {
        return place.entries()?.iter().try_for_each(|entry| add(entry, files));
    }
    let bytes = files::read_all(place.open()?, u64::MAX)?;
    files.insert(place.below().to_path_buf(), bytes);
    Ok(())
}
