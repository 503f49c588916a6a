//! A run as an object file and a C header: what `ansatz build --emit obj` writes.
//!
//! Input: the contents of a run. Output: an ELF object with them as constants, and the text of a header that names them.
//! Invariants: every name in the header is a C identifier, and no two are equal; words of the model file cannot leave their
//! comment.

use std::collections::BTreeSet;
use std::fmt::Write;

use object::write::{Object, StandardSection, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};

use crate::artifact::{Artifact, Purpose};
use crate::graph::DType;

/// A linker looks for a section's contents at multiples of this.
const ALIGNMENT: u64 = 16;

/// `NAME_contents` and `NAME_length`, as the header declares them.
pub(super) fn object(name: &str, contents: &[u8]) -> Result<Vec<u8>, object::write::Error> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let section = object.section_id(StandardSection::ReadOnlyData);
    for (suffix, data) in [("contents", contents), ("length", &(contents.len() as u64).to_le_bytes()[..])] {
        let symbol = object.add_symbol(Symbol {
            name: format!("{name}_{suffix}").into_bytes(),
            value: 0,
            size: 0,
            kind: SymbolKind::Data,
            scope: SymbolScope::Dynamic,
            weak: false,
            section: SymbolSection::Undefined,
            flags: SymbolFlags::None,
        });
        object.add_symbol_data(symbol, section, data, ALIGNMENT);
    }
    // Without this section a linker makes the program's stack executable.
    object.add_section(Vec::new(), b".note.GNU-stack".to_vec(), SectionKind::Other);
    object.write()
}

/// The header of a run that is called `name`, of a model file that is called `file`.
pub(super) fn header(name: &str, file: &str, artifact: &Artifact) -> String {
    let training = &artifact.training;
    let upper = name.to_uppercase();
    let mut text = String::new();
    let mut line = |words: &str| writeln!(text, "{words}").expect("a text takes every line");
    line(&format!(
        "/* {} on {}, of {}: constants and contents of the object beside this file.",
        words(&training.model),
        words(&training.data.name),
        words(file)
    ));
    line(&format!(" * Written by ansatz {}; do not edit. */", env!("CARGO_PKG_VERSION")));
    line(&format!("#ifndef {upper}_H\n#define {upper}_H\n\n#include \"ansatz.h\"\n"));
    line("#ifdef __cplusplus\nextern \"C\" {\n#endif\n");
    line("/* The contents for ansatz_create. */");
    line(&format!("extern const unsigned char {name}_contents[];\nextern const uint64_t {name}_length;\n"));
    line("/* Samples of a whole batch, and of the short last one that a step was compiled for; 0 if there is none. */");
    let rows = artifact.steps.keys().filter(|(purpose, rows)| *purpose == Purpose::Train && *rows != training.batch);
    let short = rows.map(|(_, rows)| *rows).next().unwrap_or(0);
    line(&format!("enum {{ {name}_batch = {}, {name}_last_batch = {short} }};\n", training.batch));
    let fields = artifact.fields.iter().map(|field| {
        let element = if field.dtype == DType::F32 { "float" } else { "int32_t" };
        let classes = field.classes.map(|classes| format!(", from 0 to {}", classes.saturating_sub(1)));
        let what = format!("{element} {:?}{}", field.sizes, classes.unwrap_or_default());
        (field.name.as_str(), field.elements(), what)
    });
    table(&mut line, name, "field", "The fields of a sample: place among those of a step, and elements.", fields);
    let outputs = artifact.outputs();
    let outputs = outputs.iter().map(|output| {
        let what = if output.per_sample { "a sample" } else { "all samples" };
        (output.name.as_str(), output.sizes.iter().product(), format!("float {:?} of {what}", output.sizes))
    });
    table(&mut line, name, "output", "The outputs of a prediction.", outputs);
    line("/* A run of these contents at its start; see ansatz_create. */");
    line(&format!(
        "static inline int {name}_create(const ansatz_options *options, ansatz_run **run) {{\n  return \
         ansatz_create({name}_contents, (size_t){name}_length, options, run);\n}}\n"
    ));
    line("#ifdef __cplusplus\n}\n#endif\n#endif");
    text
}

/// Places and numbers of elements as constants.
fn table<'a>(
    line: &mut impl FnMut(&str),
    name: &str,
    kind: &str,
    title: &str,
    entries: impl Iterator<Item = (&'a str, usize, String)>,
) {
    let mut taken = BTreeSet::new();
    let mut count = 0;
    line(&format!("/* {title} */\nenum {{"));
    for (place, (entry, elements, what)) in entries.enumerate() {
        let mut own = identifier(entry);
        // Names that are equal as identifiers are told apart by their places.
        while !taken.insert(own.clone()) {
            own = format!("{own}_{place}");
        }
        line(&format!("  {name}_{kind}_{own} = {place}, /* {} */", words(&what)));
        line(&format!("  {name}_elements_of_{kind}_{own} = {elements},"));
        count += 1;
    }
    line(&format!("  {name}_{kind}s = {count}\n}};\n"));
}

/// Words within a comment of C.
fn words(text: &str) -> String {
    text.replace("*/", "* /").replace("/*", "/ *").replace(|c: char| c.is_control(), " ")
}

/// The text as the rest of an identifier of C.
fn identifier(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// What a file name is called in C.
pub(super) fn name(stem: &str) -> String {
    let name = identifier(stem);
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) { name } else { format!("run_{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_identifiers_and_apart() {
        assert_eq!(
            ["digits", "my-model.v2", "3d", "_x", "é"].map(name),
            ["digits", "my_model_v2", "run_3d", "run__x", "run__"]
        );
        let mut text = String::new();
        let entries =
            [("x.y", 2), ("x_y", 3), ("x_y_1", 4)].map(|(name, elements)| (name, elements, "*/ int".to_string()));
        table(&mut |line| text += &format!("{line}\n"), "m", "field", "Fields.", entries.into_iter());
        let expected = "/* Fields. */\nenum {\n  m_field_x_y = 0, /* * / int */\n  m_elements_of_field_x_y = 2,\n  m_field_x_y_1 = 1, \
                        /* * / int */\n  m_elements_of_field_x_y_1 = 3,\n  m_field_x_y_1_2 = 2, /* * / int */\n  \
                        m_elements_of_field_x_y_1_2 = 4,\n  m_fields = 3\n};\n\n";
        assert_eq!(text, expected);
    }
}
