//! Files of strangers: what a hostile project may make the commands read and print.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// Stands outside of the project; no command may show it.
const SECRET: &str = "TOKEN=hunter2-hunter2";

fn ansatz(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ansatz"));
    command.args(arguments).current_dir(folder).env("SECRET", SECRET).stdin(Stdio::null());
    command.output().expect("the binary runs")
}

fn shown(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().expect("inside of a folder")).expect("made");
    std::fs::write(path, bytes).expect("written");
}

/// A folder with a project `p` and secrets beside and inside of it.
fn project() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(&folder.path().join("outside/secret.ansatz"), SECRET);
    write(&folder.path().join("p/.git/config"), SECRET);
    write(&folder.path().join("p/.hidden.ansatz"), SECRET);
    write(&folder.path().join("p/notes.txt"), SECRET);
    write(&folder.path().join("p/good.ansatz"), "layer Good {\n  input x: [N, K]\n  return x -> Linear(3)\n}\n");
    folder
}

/// Checks a file that imports `path`; the words that are shown, without the secret.
#[track_caller]
fn refused(folder: &TempDir, path: &str, words: &str) {
    write(&folder.path().join("p/m.ansatz"), format!("use Good from \"{path}\"\n"));
    for format in ["human", "json", "github"] {
        let output = ansatz(folder.path(), &["check", "p/m.ansatz", "--format", format]);
        let shown = shown(&output);
        assert_eq!(output.status.code(), Some(1), "{path}: {shown}");
        assert!(!shown.contains("hunter2") && !shown.contains("TOKEN"), "{path} leaks:\n{shown}");
        assert!(shown.contains(words), "{path}: no {words:?} in:\n{shown}");
    }
}

#[cfg(unix)]
#[test]
fn imports_follow_no_link_out_of_the_project_nor_to_anything_but_model_files() {
    use std::os::unix::fs::symlink;
    let folder = project();
    let p = folder.path().join("p");
    symlink("/proc/self/environ", p.join("environ.ansatz")).expect("linked");
    symlink("../outside/secret.ansatz", p.join("relative.ansatz")).expect("linked");
    symlink(folder.path().join("outside"), p.join("folder")).expect("linked");
    symlink("notes.txt", p.join("notes.ansatz")).expect("linked");
    symlink(".git/config", p.join("config.ansatz")).expect("linked");
    symlink("round.ansatz", p.join("round.ansatz")).expect("linked");
    refused(&folder, "environ.ansatz", "leads through a link out of the project's folder");
    refused(&folder, "relative.ansatz", "leads through a link out of the project's folder");
    refused(&folder, "folder/secret.ansatz", "leads through a link out of the project's folder");
    refused(&folder, "notes.ansatz", "is a link to a file that is no model file");
    refused(&folder, "config.ansatz", "leads through a link to a hidden file");
    refused(&folder, "round.ansatz", "cannot read `p/round.ansatz`");
    // A link that stays inside and leads to a model file is an ordinary way to share one.
    symlink("../good.ansatz", p.join("inside.ansatz")).expect("linked");
    std::fs::rename(p.join("inside.ansatz"), {
        std::fs::create_dir(p.join("sub")).expect("made");
        p.join("sub/inside.ansatz")
    })
    .expect("moved");
    write(
        &p.join("m.ansatz"),
        "use Good from \"sub/inside.ansatz\"\nmodel M {\n  input x: [N, 4]\n  return x -> Good\n}\n",
    );
    let output = ansatz(folder.path(), &["check", "p/m.ansatz"]);
    assert!(output.status.success(), "{}", shown(&output));
}

#[test]
fn imports_name_model_files_that_are_not_hidden() {
    let folder = project();
    refused(&folder, ".git/config", "is hidden");
    refused(&folder, ".hidden.ansatz", "is hidden");
    refused(&folder, "notes.txt", "is not a model file");
    refused(&folder, "../outside/secret.ansatz", "leaves the project");
    refused(&folder, "a\0b.ansatz", "holds a NUL character");
    std::fs::create_dir(folder.path().join("p/d.ansatz")).expect("made");
    refused(&folder, "d.ansatz", "is a folder, not a file");
}

#[cfg(unix)]
#[test]
fn pipes_sockets_and_devices_are_errors_and_nothing_waits_for_them() {
    let folder = project();
    let p = folder.path().join("p");
    let made = Command::new("mkfifo").arg(p.join("pipe.ansatz")).status().expect("mkfifo runs");
    assert!(made.success());
    let _socket = std::os::unix::net::UnixListener::bind(p.join("s.ansatz")).expect("bound");
    refused(&folder, "pipe.ansatz", "is a pipe, not a regular file");
    refused(&folder, "s.ansatz", "is a socket, not a regular file");
    for (arguments, words) in [
        (&["check", "p/pipe.ansatz"][..], "is a pipe"),
        (&["fmt", "p/pipe.ansatz"], "is a pipe"),
        (&["summary", "/dev/zero"], "is a device"),
        (&["check", "/dev/zero"], "is a device"),
        (&["dump", "/dev/zero", "--stage", "ast"], "is a device"),
    ] {
        let output = ansatz(folder.path(), arguments);
        assert!(!output.status.success() && shown(&output).contains(words), "{arguments:?}: {}", shown(&output));
    }
}

#[cfg(unix)]
#[test]
fn a_link_on_the_command_line_is_followed_to_model_files_only() {
    use std::os::unix::fs::symlink;
    let folder = project();
    symlink("/proc/self/environ", folder.path().join("e.ansatz")).expect("linked");
    symlink("p/good.ansatz", folder.path().join("g.ansatz")).expect("linked");
    for command in ["check", "fmt", "summary", "train"] {
        let output = ansatz(folder.path(), &[command, "e.ansatz"]);
        let shown = shown(&output);
        assert!(!output.status.success() && !shown.contains("hunter2"), "{command}: {shown}");
        assert!(shown.contains("is a link to a file that is no model file"), "{command}: {shown}");
    }
    let output = ansatz(folder.path(), &["check", "g.ansatz"]);
    assert!(output.status.success(), "{}", shown(&output));
}

const PROMISE: &str =
    "model M {\n  input x: [N, 4]\n  return x -> fc: Linear(3)\n}\n\nassert M {\n  loads(\"FILE\")\n}\n";

#[cfg(unix)]
#[test]
fn a_promise_about_weights_reads_only_descriptions_below_the_project() {
    use std::os::unix::fs::symlink;
    let folder = project();
    let p = folder.path().join("p");
    symlink("/proc/self/environ", p.join("w.safetensors")).expect("linked");
    symlink(folder.path().join("outside"), p.join("out")).expect("linked");
    // What is read as a length is beyond any description.
    write(&p.join("text.safetensors"), SECRET);
    write(&p.join("lies.safetensors"), [&(SECRET.len() as u64).to_le_bytes(), SECRET.as_bytes()].concat());
    let cases = [
        ("w.safetensors", "leads through a link out of the project's folder"),
        ("out/secret.ansatz", "leads through a link out of the project's folder"),
        (".git/config", "is hidden"),
        ("../outside/secret.ansatz", "leaves the project"),
        ("a\0b", "holds a NUL character"),
        ("none.safetensors", "there is no file"),
        ("text.safetensors", "its description is longer than 64.0 MiB"),
        ("lies.safetensors", "not a readable safetensors file"),
    ];
    for (file, words) in cases {
        write(&p.join("m.ansatz"), PROMISE.replace("FILE", file));
        let output = ansatz(folder.path(), &["check", "p/m.ansatz"]);
        let shown = shown(&output);
        assert_eq!(output.status.code(), Some(1), "{file}: {shown}");
        assert!(shown.contains(words) && !shown.contains("hunter2"), "{file}: no {words:?} in:\n{shown}");
    }
    let weights = r#"{"fc.weight":{"dtype":"F32","shape":[3,4],"data_offsets":[0,48]},"fc.bias":{"dtype":"F32","shape":[3],"data_offsets":[48,60]}}"#;
    let bytes = [&(weights.len() as u64).to_le_bytes(), weights.as_bytes(), &[0; 60]].concat();
    write(&p.join("m.ansatz"), PROMISE.replace("FILE", "good.safetensors"));
    write(&p.join("good.safetensors"), &bytes);
    let output = ansatz(folder.path(), &["check", "p/m.ansatz"]);
    assert!(output.status.success(), "{}", shown(&output));
    write(&p.join("good.safetensors"), &bytes[..bytes.len() - 1]);
    let output = ansatz(folder.path(), &["check", "p/m.ansatz"]);
    assert!(shown(&output).contains("its length is not the one that it describes"), "{}", shown(&output));
}

/// A model with a `train` item whose data item has these lines.
fn training(data: &str) -> String {
    format!(
        "model M {{\n  input x: [N, 1]\n  return x -> Linear(1)\n}}\n\ndata d {{\n{data}\n}}\n\n\
         train M on d {{\n  loss = mse(y)\n  optimizer = sgd(lr = 0.1)\n  length = 1 steps\n}}\n"
    )
}

#[cfg(unix)]
#[test]
fn data_lie_below_the_project_unless_the_command_line_names_their_folder() {
    use std::os::unix::fs::symlink;
    let folder = project();
    let p = folder.path().join("p");
    let table = folder.path().join("outside/t.csv");
    write(&table, "x,y\n1,2\n2,4\n");
    symlink(folder.path().join("outside"), p.join("out")).expect("linked");
    let cases = [
        (table.to_str().expect("text"), "is absolute"),
        ("../outside/t.csv", "leaves the project"),
        ("out/t.csv", "leads through a link out of the project's folder"),
        (".git/config", "is hidden"),
    ];
    for (path, words) in cases {
        write(&p.join("m.ansatz"), training(&format!("  source = csv(\"{path}\")\n  x: f32[1]\n  y: f32[1]")));
        let output = ansatz(folder.path(), &["train", "p/m.ansatz"]);
        let shown = shown(&output);
        assert_eq!(output.status.code(), Some(1), "{path}: {shown}");
        assert!(shown.contains(words) && !shown.contains("hunter2"), "{path}: no {words:?} in:\n{shown}");
        assert!(path.starts_with('.') || shown.contains("--set data.folder=FOLDER"), "{shown}");
    }
    write(&p.join("m.ansatz"), training("  source = csv(\"t.csv\")\n  x: f32[1]\n  y: f32[1]"));
    let arguments = ["train", "p/m.ansatz", "--run", "run", "--set", "data.folder=outside", "--stop-after", "1"];
    let output = ansatz(folder.path(), &arguments);
    assert!(output.status.success(), "{}", shown(&output));
    // A run remembers the folder wherever it is resumed from.
    let output = ansatz(&p, &["resume", "../run"]);
    assert!(output.status.success(), "{}", shown(&output));
    // The item itself has no such key.
    write(&p.join("m.ansatz"), training("  folder = \"/etc\"\n  source = csv(\"t.csv\")\n  x: f32[1]\n  y: f32[1]"));
    assert!(shown(&ansatz(folder.path(), &["train", "p/m.ansatz"])).contains("no key `folder`"));
}

#[test]
fn model_files_are_read_up_to_a_limit() {
    let folder = project();
    write(&folder.path().join("p/big.ansatz"), vec![b'#'; (8 << 20) + 1]);
    refused(&folder, "big.ansatz", "is longer than 8.0 MiB, the most that is read");
    for command in ["check", "fmt", "summary"] {
        let output = ansatz(folder.path(), &[command, "p/big.ansatz"]);
        assert!(!output.status.success() && shown(&output).contains("8.0 MiB"), "{command}: {}", shown(&output));
    }
}

#[cfg(unix)]
#[test]
fn weights_are_regular_files_and_fit_into_memory() {
    let folder = project();
    let p = folder.path().join("p");
    write(&p.join("m.ansatz"), training("  source = regression(samples = 8)\n  x: f32[1]\n  y: f32[1]"));
    let huge = std::fs::File::create(folder.path().join("huge.safetensors")).expect("made");
    // A sparse file takes no room on the disk.
    huge.set_len(1 << 43).expect("lengthened");
    for (file, words) in
        [("/dev/zero", "is a device"), ("huge.safetensors", "the most that is read"), ("p", "is a folder")]
    {
        for arguments in [&["eval", "p/m.ansatz", "--weights", file][..], &["train", "p/m.ansatz", "--init", file]] {
            let output = ansatz(folder.path(), arguments);
            let shown = shown(&output);
            assert_eq!(output.status.code(), Some(2), "{arguments:?}: {shown}");
            assert!(shown.contains(words) && shown.contains(file), "{arguments:?}: no {words:?} in:\n{shown}");
        }
    }
}

#[cfg(unix)]
#[test]
fn names_of_files_cannot_begin_a_line_nor_colour_the_terminal() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let evil = "a\n::error::owned\u{1b}[31m\u{202e}\u{9b}31m##[error]owned";
    let wrong = folder.path().join(evil).join("wrong.ansatz");
    write(
        &wrong,
        "use A from \"none.ansatz\"\nmodel M {\n  input x: [N, 4] # ##[error]owned\n  return x -> Liner(3)\n}\n",
    );
    write(&folder.path().join(evil).join("good.ansatz"), "fn f(x) = x\n");
    write(&folder.path().join(evil).join("ugly.ansatz"), "fn  f(x) = x\n");
    let file = format!("{evil}/wrong.ansatz");
    let ugly = format!("{evil}/ugly.ansatz");
    for arguments in [
        &["check", "."][..],
        &["check", ".", "--format", "json"],
        &["check", ".", "--format", "github"],
        &["check", &file],
        &["check", "absent\n::error::owned\u{1b}.ansatz"],
        &["summary", &file],
        &["fmt", "--check", "."],
        &["fmt", &ugly],
        &["train", &file],
        &["new", &format!("{evil}/new\n::error::owned")],
    ] {
        let output = ansatz(folder.path(), arguments);
        let shown = shown(&output);
        assert!(shown.contains("owned"), "{arguments:?}: the name is shown: {shown}");
        let hidden = |character: char| character != '\n' && ansatz::source::is_hidden(character);
        assert!(!shown.contains(hidden), "{arguments:?}: {shown:?}");
        assert!(!shown.lines().any(|line| line.trim_start().starts_with("::error::")), "{arguments:?}: {shown}");
        assert!(!shown.lines().any(|line| !line.starts_with("::") && line.contains("##[")), "{arguments:?}: {shown}");
    }
}
