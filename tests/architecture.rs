//! The promises of `docs/architecture.md` and of our habits, held against the sources.
//!
//! Input: every Rust file under `src`, and `Cargo.lock`. Invariant: a rule with exceptions lists each with its reason, and an exception
//! that is no longer needed fails too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Lines that a file may have apart from its tests.
const MAX_LINES: usize = 600;

/// Longer files and why they stay whole.
const LONG_FILES: &[(&str, &str)] = &[];

/// Modules that may contain unsafe code.
const UNSAFE_MODULES: &[&str] = &["machine", "primitives", "contraction", "cpu", "cuda", "trainer", "c"];

/// The room that may name the code generator: the half of the CPU that makes code.
const CODE_ROOM: &str = "cpu/code/";

/// The crates that execute runs, a folder of stages below `src` each.
const CRATES: [&str; 3] = ["program", "compute", "run"];
/// What none of them may link.
const COMPILER_CRATES: [&str; 2] = ["pest", "ansatz"];

/// Those that link them all, and the commands that run networks: trainers, and the library of other programs.
const TRAINER_CRATES: [&str; 2] = ["ansatz-trainer", "ansatz-c"];

/// Crates whose build scripts call a C compiler, and why they stay.
const C_CRATES: &[(&str, &str)] = &[
    ("psm", "one assembler file, which tells pest how deep the stack is"),
    ("stacker", "asks the compiler for the name of a system only; no file of it is compiled on ours"),
];

/// Crates through which a build script compiles or links C.
const C_BUILDERS: &[&str] = &["autotools", "bindgen", "cc", "cmake", "cxx-build", "nasm-rs", "pkg-config", "vcpkg"];

/// One source file without its tests.
struct Source {
    /// Below `src`, with `/`.
    path: String,
    /// The first folder or file name within its crate: the stage.
    module: String,
    /// The lines before a test module at the end.
    lines: Vec<String>,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).expect("the folder of sources is readable");
    for entry in entries {
        let path = entry.expect("the folder of sources is readable").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let folder = root().join("src");
    let mut paths = Vec::new();
    rust_files(&folder, &mut paths);
    paths.sort();
    paths.iter().filter_map(|path| source(&folder, path)).collect()
}

/// None for files that hold only tests, and for examples.
fn source(folder: &Path, path: &Path) -> Option<Source> {
    let relative = path.strip_prefix(folder).expect("found below the folder");
    let name = relative.to_string_lossy().replace('\\', "/");
    let is_test = |part: &str| part == "tests" || part == "examples" || part.trim_end_matches(".rs").ends_with("tests");
    if name.split('/').any(is_test) {
        return None;
    }
    let text = std::fs::read_to_string(path).expect("sources are UTF-8");
    let body = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = body.lines().map(str::to_string).collect();
    let mut parts = name.split('/').skip_while(|part| CRATES.contains(part));
    let module = parts.next().unwrap_or_default().trim_end_matches(".rs").to_string();
    Some(Source { path: name, module, lines })
}

/// A line without its comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// The stages in order, from the line of `docs/architecture.md` that gives it.
fn stages() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("docs/architecture.md")).expect("docs/architecture.md exists");
    let (_, section) = text.split_once("## Who may import whom").expect("the section exists");
    let order = section.lines().find(|line| line.contains('<')).expect("the section gives the order");
    order.trim_end_matches('.').split(['<', ',']).map(|stage| stage.trim().to_string()).collect()
}

/// The stages that a file names.
fn imported(source: &Source) -> BTreeSet<String> {
    let stage = |path: Vec<String>| path.into_iter().find(|part| !CRATES.contains(&part.as_str()));
    named_modules(source).into_iter().filter_map(stage).collect()
}

#[test]
fn modules_import_only_earlier_stages() {
    let stages = stages();
    let rank = |module: &str| stages.iter().position(|stage| stage == module);
    let mut wrong = Vec::new();
    for source in sources() {
        if matches!(source.module.as_str(), "lib" | "main" | "bin" | "build") {
            continue;
        }
        let own = rank(&source.module).unwrap_or_else(|| panic!("{} is no stage of {stages:?}", source.module));
        let later = imported(&source).into_iter().filter(|used| rank(used).is_some_and(|used| used > own));
        wrong.extend(later.map(|used| format!("src/{}: {} imports {used}", source.path, source.module)));
    }
    assert!(wrong.is_empty(), "imports point towards earlier stages only:\n{}", wrong.join("\n"));
}

#[test]
fn every_stage_of_the_order_is_a_module() {
    let sources = sources();
    for stage in stages() {
        assert!(sources.iter().any(|source| source.module == stage), "docs/architecture.md names `{stage}`");
    }
}

#[test]
fn every_file_begins_with_its_purpose() {
    let wrong: Vec<String> = sources()
        .into_iter()
        .filter(|source| !source.lines.first().is_some_and(|line| line.starts_with("//!")))
        .map(|source| source.path)
        .collect();
    assert!(wrong.is_empty(), "`//!` is missing at the head of {wrong:?}");
}

#[test]
fn files_stay_short() {
    let sources = sources();
    let long: Vec<&Source> = sources.iter().filter(|source| source.lines.len() > MAX_LINES).collect();
    let is_listed = |source: &Source| LONG_FILES.iter().any(|(path, _)| *path == source.path);
    let wrong: Vec<String> = long
        .iter()
        .filter(|source| !is_listed(source))
        .map(|source| format!("src/{} has {} lines", source.path, source.lines.len()))
        .collect();
    assert!(wrong.is_empty(), "split these or list a reason: {wrong:?}");
    for (path, reason) in LONG_FILES {
        assert!(!reason.is_empty(), "{path} needs a reason");
        assert!(long.iter().any(|source| source.path == *path), "src/{path} is short now; drop it from the list");
    }
}

#[test]
fn only_the_half_that_makes_code_names_cranelift() {
    for source in sources().iter().filter(|source| !source.path.starts_with(CODE_ROOM)) {
        for (number, line) in source.lines.iter().enumerate() {
            assert!(!code(line).contains("cranelift"), "src/{}:{}: {line}", source.path, number + 1);
        }
    }
}

/// Circles of imports within a room that stay, and why.
const CIRCLES: &[(&str, &[&str], &str)] =
    &[("syntax", &["build", "explain", "expression", "parse"], "the grammar itself is recursive")];

/// The paths that a text begins with, groups written out: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn written_out(text: &str) -> Vec<String> {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(text.len());
    let (head, rest) = text.split_at(end);
    let Some(group) = rest.strip_prefix('{') else { return vec![head.to_string()] };
    let (mut depth, mut start, mut paths) = (0, 0, Vec::new());
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                paths.extend(written_out(group[start..at].trim()).iter().map(|path| format!("{head}{path}")));
                start = at + 1;
                if character == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    paths
}

/// The module of a file: its folders and its name; of a folder's `mod.rs` the folder.
fn module_path(path: &str) -> Vec<String> {
    let parts = path.trim_end_matches(".rs").split('/').map(str::to_string);
    parts.filter(|part| part != "mod").collect()
}

/// The modules that a file names.
fn named_modules(source: &Source) -> Vec<Vec<String>> {
    let code: Vec<&str> = source.lines.iter().map(|line| code(line)).collect();
    let (code, own) = (code.join(" "), module_path(&source.path));
    let begins = |at: usize| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
    let crates = CRATES.map(|name| format!("ansatz_{name}::"));
    let words = ["crate::", "super::"].into_iter().chain(crates.iter().map(String::as_str));
    let starts = words.flat_map(|word| code.match_indices(word));
    let paths = starts.filter(|(at, _)| begins(*at)).flat_map(|(at, _)| written_out(&code[at..]));
    let resolved = paths.map(|path| {
        let parts: Vec<&str> = path.split("::").collect();
        let up = parts.iter().take_while(|part| **part == "super").count();
        let crate_folder = usize::from(CRATES.contains(&own[0].as_str()));
        let base = match parts[0].strip_prefix("ansatz_") {
            Some(name) => vec![name.to_string()],
            None if up == 0 => own[..crate_folder].to_vec(),
            None => own[..own.len().saturating_sub(up)].to_vec(),
        };
        base.into_iter().chain(parts[up.max(1)..].iter().map(|part| part.to_string())).collect()
    });
    resolved.collect()
}

/// For each room and each of its modules, the other modules of the room that it imports.
fn imports_of_rooms() -> BTreeMap<String, BTreeMap<String, BTreeSet<String>>> {
    let sources = sources();
    let modules: BTreeSet<Vec<String>> = sources.iter().map(|source| module_path(&source.path)).collect();
    let mut rooms: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for source in &sources {
        let own = module_path(&source.path);
        for other in named_modules(source) {
            let shared = own.iter().zip(&other).take_while(|(a, b)| a == b).count();
            let both = (own.get(shared), other.get(shared));
            if let (1.., (Some(from), Some(to))) = (shared, both)
                && modules.contains(&other[..=shared])
            {
                let room = rooms.entry(own[..shared].join("/")).or_default();
                room.entry(from.clone()).or_default().insert(to.clone());
            }
        }
    }
    rooms
}

/// The modules that are reached from one by imports.
fn reached<'r>(room: &'r BTreeMap<String, BTreeSet<String>>, from: &'r str) -> BTreeSet<&'r str> {
    let (mut found, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(module) = open.pop() {
        let next = room.get(module).into_iter().flatten().map(String::as_str);
        open.extend(next.filter(|next| found.insert(*next)));
    }
    found
}

#[test]
fn siblings_of_a_room_import_one_another_in_no_circle() {
    let rooms = imports_of_rooms();
    let mut circles: BTreeSet<(&str, Vec<&str>)> = BTreeSet::new();
    for (name, room) in &rooms {
        for module in room.keys() {
            let circle: Vec<&str> = reached(room, module)
                .into_iter()
                .filter(|other| reached(room, other).contains(module.as_str()))
                .collect();
            if !circle.is_empty() {
                circles.insert((name, circle));
            }
        }
    }
    let covers = |(room, modules, _): &(&str, &[&str], &str), circle: &(&str, Vec<&str>)| {
        *room == circle.0 && circle.1.iter().all(|module| modules.contains(module))
    };
    for circle in &circles {
        assert!(
            CIRCLES.iter().any(|listed| covers(listed, circle)),
            "src/{} has a circle of imports: {:?}",
            circle.0,
            circle.1
        );
    }
    for listed in CIRCLES {
        assert!(
            circles.iter().any(|circle| covers(listed, circle)),
            "{:?} are no circle now; drop them from the list",
            listed.1
        );
    }
}

/// Stages that execute a run.
const RUNNERS: [&str; 6] = ["artifact", "device", "machine", "primitives", "contraction", "runtime"];

/// Stages that make a run of a model file.
const COMPILERS: [&str; 6] = ["syntax", "model", "grad", "passes", "schedule", "pipeline"];

#[test]
fn a_run_needs_neither_compiler_nor_back_end_and_a_compiler_no_run() {
    let with = |one: &[&'static str], other: &[&'static str]| [one, other].concat();
    let mut apart = vec![("kernel", with(&COMPILERS, &["cpu"]))];
    apart.extend(RUNNERS.map(|runner| (runner, with(&COMPILERS, &["cpu"]))));
    // The plain data of a run is what both know.
    apart.extend(COMPILERS.map(|compiler| (compiler, with(&RUNNERS[1..], &["cpu"]))));
    for source in sources() {
        let Some((_, others)) = apart.iter().find(|(module, _)| *module == source.module) else { continue };
        let named: Vec<String> =
            imported(&source).into_iter().filter(|named| others.contains(&named.as_str())).collect();
        assert!(named.is_empty(), "src/{} names {named:?}", source.path);
    }
}

/// Words that name a machine or a part of one.
const MACHINE_WORDS: &[&str] =
    &["avx", "cache", "core", "cores", "cpu", "gpu", "l1", "l2", "neon", "simd", "thread", "threads", "x86"];

#[test]
fn the_schedule_names_no_machine() {
    let mut words = 0;
    for source in sources().iter().filter(|source| source.module == "schedule") {
        for (number, line) in source.lines.iter().enumerate() {
            for word in line.to_lowercase().split(|c: char| !(c.is_alphanumeric() || c == '_')) {
                assert!(!MACHINE_WORDS.contains(&word), "src/{}:{}: {line}", source.path, number + 1);
                words += 1;
            }
        }
    }
    assert!(words > 0, "the schedule has files");
}

/// The packages of `Cargo.lock` with the names of those that they use.
fn packages() -> Vec<(String, Vec<String>)> {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock is shipped");
    let package = |text: &str| {
        let name = text.lines().find_map(|line| line.strip_prefix("name = ")).expect("a package has a name");
        // Where there are several versions of a crate, its name is followed by the one that is meant.
        let used = text.lines().filter_map(|line| line.strip_prefix(" \"")?.split(['"', ' ']).next());
        (name.trim_matches('"').to_string(), used.map(str::to_string).collect())
    };
    lock.split("[[package]]").skip(1).map(package).collect()
}

/// A package with all that it links.
fn linked_by<'p>(packages: &'p [(String, Vec<String>)], package: &'p str) -> BTreeSet<&'p str> {
    let mut linked = BTreeSet::new();
    let mut todo = vec![package];
    while let Some(name) = todo.pop() {
        if linked.insert(name) {
            // There may be several versions.
            let versions = packages.iter().filter(|(known, _)| known == name);
            todo.extend(versions.flat_map(|(_, used)| used.iter().map(String::as_str)));
        }
    }
    linked
}

#[test]
fn what_executes_runs_links_neither_parser_nor_code_generator() {
    let packages = packages();
    for linked in TRAINER_CRATES.map(|name| linked_by(&packages, name)) {
        for name in CRATES {
            assert!(linked.contains(format!("ansatz-{name}").as_str()), "{name} is among {linked:?}");
        }
        let is_compiler = |name: &&&str| COMPILER_CRATES.contains(name) || name.starts_with("cranelift");
        assert_eq!(linked.iter().find(is_compiler), None);
        assert!(
            linked.contains("clap") && !linked_by(&packages, "ansatz-run").contains("clap"),
            "runs have no command line"
        );
    }
    assert!(packages.iter().any(|(name, _)| name == "cranelift-codegen"), "the names are those of Cargo.lock");
}

#[test]
fn the_licences_that_a_trainer_shows_are_those_of_what_it_links() {
    let text = std::fs::read_to_string(root().join("src/trainer/licences.txt")).expect("the file is shipped");
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock is shipped");
    let named = |line: &str| {
        let (name, version) = line.split_once(": ")?.0.split_once(' ')?;
        version.starts_with(|c: char| c.is_ascii_digit()).then(|| (name.to_string(), version.to_string()))
    };
    let listed: BTreeMap<String, String> =
        text.lines().take_while(|line| !line.starts_with("----")).filter_map(named).collect();
    let remedy = "run `python3 scripts/make_licences.py`";
    for (name, version) in &listed {
        assert!(lock.contains(&format!("name = \"{name}\"\nversion = \"{version}\"")), "{name} {version}: {remedy}");
    }
    for own in ["program", "compute", "run", "console", "trainer"] {
        let manifest = std::fs::read_to_string(root().join("src").join(own).join("Cargo.toml")).expect("a manifest");
        let (_, rest) = manifest.split_once("[dependencies]").expect("it has dependencies");
        let used = rest.split("[dev-dependencies]").next().unwrap_or_default().lines();
        let names =
            used.filter_map(|line| Some(line.split_once(['.', ' '])?.0)).filter(|name| !name.starts_with(['[', '#']));
        for name in names.filter(|name| !name.starts_with("ansatz") && !name.is_empty()) {
            assert!(listed.contains_key(name), "{name}: {remedy}");
        }
    }
}

/// Lines above an unsafe block within which its note stands.
const NOTE_DISTANCE: usize = 8;

#[test]
fn unsafe_code_stays_in_its_modules_and_says_why_it_is_sound() {
    for source in sources() {
        for (number, line) in source.lines.iter().enumerate() {
            let line = code(line);
            let needs_note = line.contains("unsafe {") || line.contains("unsafe impl");
            let above = &source.lines[number.saturating_sub(NOTE_DISTANCE)..=number];
            let has_note = above.iter().any(|line| line.contains("SAFETY:"));
            assert!(!needs_note || has_note, "src/{}:{}: no `SAFETY:` above {line}", source.path, number + 1);
            let is_unsafe = line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("unsafe impl");
            let allowed = UNSAFE_MODULES.contains(&source.module.as_str());
            assert!(allowed || !is_unsafe, "src/{}:{}: {line}", source.path, number + 1);
        }
        let allows = source.lines.iter().any(|line| line.contains("allow(unsafe_code)"));
        assert!(!allows || UNSAFE_MODULES.contains(&source.module.as_str()), "src/{} allows unsafe code", source.path);
    }
}

#[test]
fn sources_do_not_unwrap() {
    for source in sources() {
        for (number, line) in source.lines.iter().enumerate() {
            assert!(!code(line).contains(".unwrap()"), "src/{}:{}: say which invariant holds", source.path, number + 1);
        }
    }
}

#[test]
fn no_dependency_builds_a_c_library() {
    let packages = packages();
    let builds = |(_, used): &&(String, Vec<String>)| used.iter().any(|used| C_BUILDERS.contains(&used.as_str()));
    let found: Vec<&String> = packages.iter().filter(builds).map(|(name, _)| name).collect();
    let listed: Vec<&str> = C_CRATES.iter().map(|(name, _)| *name).collect();
    assert_eq!(found, listed, "a crate that compiles C makes the build slow; choose another or list a reason");
}
