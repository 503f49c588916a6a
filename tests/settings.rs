//! Settings of the command line, warnings of a run, and commands that need no data.

use std::path::Path;
use std::process::{Command, Output};

fn ansatz(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ansatz")).args(arguments).current_dir(folder).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A model on 64 made-up samples with these lines in its `train` item.
fn training(lines: &str) -> String {
    format!(
        "model M {{\n  input x: [N, 8]\n  return x -> Linear(10)\n}}\n\n\
         data d {{\n  source = random(samples = 64)\n  x: f32[8]\n  label: class[10]\n}}\n\n\
         train M on d {{\n  loss = cross_entropy(label)\n  optimizer = sgd(lr = 0.1)\n{lines}}}\n"
    )
}

#[test]
fn findings_about_a_setting_point_at_the_command_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("m.ansatz"), training("  length = 1 epochs\n")).expect("written");
    for command in ["plan", "train"] {
        let output = ansatz(folder.path(), &[command, "m.ansatz", "--set", "optimizer.lr=foo"]);
        let words = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{words}");
        assert!(words.contains("command line:1:20") && words.contains("--set optimizer.lr=foo"), "{words}");
        assert!(!words.contains("m.ansatz"), "{words}");
    }
}

#[test]
fn what_is_suspicious_about_a_run_is_told_when_the_data_is_known() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let lines = "  batch = 100\n  schedule = warmup(3 epochs) -> cosine\n  length = 2 epochs\n";
    std::fs::write(folder.path().join("m.ansatz"), training(lines)).expect("written");
    let output = ansatz(folder.path(), &["train", "m.ansatz", "--run", "run"]);
    let words = text(&output.stderr);
    assert!(output.status.success(), "{words}");
    assert!(words.contains("warning[batch-larger-than-data]") && words.contains("m.ansatz:15:11"), "{words}");
    assert!(words.contains("it ends after step 3, and the run has 2"), "{words}");
    let denied = ansatz(folder.path(), &["check", "m.ansatz", "--deny-warnings"]);
    assert_eq!(denied.status.code(), Some(1), "{}", text(&denied.stderr));
    assert!(text(&denied.stderr).contains("warning[schedule-longer-than-run]"), "{}", text(&denied.stderr));
}
