//! The files of an item, to be carried along.
//!
//! Input: an item. Output: [`PackedFiles`]. Invariant: an item that has them in place of its root gives the same data.

use std::io;
use std::path::Path;

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

fn add(place: &Place, files: &mut PackedFiles) -> io::Result<()> {
    if place.is_folder() {
        return place.entries()?.iter().try_for_each(|entry| add(entry, files));
    }
    let bytes = files::read_all(place.open()?, u64::MAX)?;
    files.insert(place.below().to_path_buf(), bytes);
    Ok(())
}
