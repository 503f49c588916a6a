use std::collections::HashMap;
use std::io;
use std::path::Path;

use super::super::Project;
use crate::diagnostics::Diagnostic;

fn load(root: &str, files: &[(&str, &[u8])]) -> (Project, crate::source::FileId, Vec<Diagnostic>) {
    let files: HashMap<&str, &[u8]> = files.iter().copied().collect();
    let read = move |path: &Path| {
        files.get(path.to_str().unwrap_or("")).map(|bytes| bytes.to_vec()).ok_or(io::ErrorKind::NotFound.into())
    };
    Project::load(Path::new(root), None, &read)
}

fn codes(found: &[Diagnostic]) -> Vec<&'static str> {
    found.iter().map(|diagnostic| diagnostic.code).collect()
}

const BLOCK: &[u8] = b"layer Block(C) {\n  input x: [N, K]\n  return x -> Linear(C)\n}\n";

#[test]
fn an_import_is_found_relative_to_the_importing_file() {
    let (project, file, found) = load(
        "m/a.ansatz",
        &[
            ("m/a.ansatz", b"use Mid from \"parts/mid.ansatz\"\n"),
            (
                "m/parts/mid.ansatz",
                b"use Block from \"../block.ansatz\"\nlayer Mid {\n  input x: [N, K]\n  return x -> Block(3)\n}\n",
            ),
            ("m/block.ansatz", BLOCK),
        ],
    );
    assert!(found.is_empty(), "{found:#?}");
    assert!(project.find(file, "Mid").is_some());
    assert!(project.find(file, "Block").is_none(), "what an import imports stays its own");
    assert!(project.find(file, "Linear").is_some(), "the library is visible");
}

#[test]
fn an_unknown_import_suggests_the_nearest_item() {
    let (_, _, found) = load("a.ansatz", &[("a.ansatz", b"use Blok from \"b.ansatz\"\n"), ("b.ansatz", BLOCK)]);
    assert_eq!(codes(&found), ["unknown-name"]);
    assert!(found[0].hints[0].contains("`Block`"), "{found:#?}");
}

#[test]
fn a_circle_of_imports_names_its_chain() {
    let (_, _, found) = load(
        "a.ansatz",
        &[("a.ansatz", b"use B from \"b.ansatz\"\n"), ("b.ansatz", b"use A from \"a.ansatz\"\nfn B(x) = x\n")],
    );
    assert_eq!(codes(&found), ["use-cycle"]);
    assert!(found[0].message.ends_with("`a.ansatz` uses `b.ansatz` uses `a.ansatz`"), "{}", found[0].message);
}

#[test]
fn paths_that_leave_the_project_are_refused_and_never_read() {
    for path in ["../b.ansatz", "/etc/passwd", "x/../../b.ansatz", "C:/b.ansatz", "a\\\\b.ansatz", ""] {
        let text = format!("use B from \"{path}\"\n");
        let read = |asked: &Path| {
            assert_eq!(asked, Path::new("m/a.ansatz"));
            Ok(text.as_bytes().to_vec())
        };
        let (_, _, found) = Project::load(Path::new("m/a.ansatz"), None, &read);
        assert_eq!(codes(&found), ["bad-path"], "{path}");
    }
}

#[test]
fn a_wider_root_allows_imports_from_sibling_folders() {
    let read = |path: &Path| match path.to_str() {
        Some("p/m/a.ansatz") => Ok(b"use Block from \"../n/b.ansatz\"\n".to_vec()),
        Some("p/n/b.ansatz") => Ok(BLOCK.to_vec()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let (_, _, found) = Project::load(Path::new("p/m/a.ansatz"), Some(Path::new("p")), &read);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn missing_and_unreadable_files_are_errors_at_the_import() {
    let (project, _, found) = load("a.ansatz", &[("a.ansatz", b"use B from \"b.ansatz\"\n")]);
    assert_eq!(codes(&found), ["cannot-read"]);
    assert_eq!(project.sources.location(found[0].span()), "a.ansatz:1:12");
    let (_, _, found) = load("a.ansatz", &[("a.ansatz", b"use B from \"b.ansatz\"\n"), ("b.ansatz", b"ab\xff")]);
    assert_eq!(codes(&found), ["not-utf8"]);
    assert!(found[0].message.contains("offset 2"), "{}", found[0].message);
    let (_, _, found) = load("a.ansatz", &[]);
    assert_eq!(codes(&found), ["cannot-read"]);
}

#[test]
fn a_name_defined_twice_points_at_both_places() {
    let (_, _, found) = load("a.ansatz", &[("a.ansatz", b"fn f(x) = x\nlayer f {\n  input x: [N]\n  return x\n}\n")]);
    assert_eq!(codes(&found), ["duplicate-name"]);
    assert_eq!(found[0].labels.len(), 2);
}

#[test]
fn a_file_imported_twice_is_loaded_once() {
    let (project, _, found) = load(
        "a.ansatz",
        &[
            ("a.ansatz", b"use Block from \"b.ansatz\"\nuse C from \"c.ansatz\"\n"),
            ("b.ansatz", BLOCK),
            ("c.ansatz", b"use Block from \"./b.ansatz\"\nfn C(x) = x\n"),
        ],
    );
    assert!(found.is_empty(), "{found:#?}");
    assert_eq!(project.sources.files().filter(|(_, file)| file.name == "b.ansatz").count(), 1);
}
