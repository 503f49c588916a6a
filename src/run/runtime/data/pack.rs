//! The files of an item, to be carried along.
//!
//! Input: an item. Output: [`PackedFiles`]. Invariant: an item that has them in place of its root gives the same data.

use std::io;

use crate::runtime::files::{self, Place};
use crate::settings::{DataSpec, Literal, LiteralKind, PackedFiles};

/// Everything that an item's texts name below its root: files, and what folders hold. Bytes by the path from the root.
///
/// # Errors
/// A file that cannot be read.
pub fn pack(spec: &DataSpec) -> io::Result<PackedFiles> {
    let mut texts = Vec::new();
    spec.entries.iter().for_each(|entry| texts_of(&entry.value, &mut texts));
    let mut files = PackedFiles::new();
    for text in texts {
        // A text that is no path, such as the name of a column, leads nowhere.
        let Ok(place) = Place::new(&spec.root, &spec.folder, text) else { continue };
        if place.exists() {
            add(&place, &mut files)?;
        }
    }
    Ok(files)
}

fn texts_of<'l>(literal: &'l Literal, found: &mut Vec<&'l str>) {
    match &literal.kind {
        LiteralKind::Text(text) => found.push(text),
        LiteralKind::List(parts) | LiteralKind::Pipeline(parts) => parts.iter().for_each(|part| texts_of(part, found)),
        LiteralKind::Call { arguments, .. } => arguments.iter().for_each(|(_, value)| texts_of(value, found)),
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
