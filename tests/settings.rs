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
fn what_to_do_with_a_step_that_is_not_finite_is_one_of_three_with_a_number() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("m.ansatz"), training("  length = 1 epochs\n")).expect("written");
    let plan = |value: &str| {
        let output = ansatz(folder.path(), &["plan", "m.ansatz", "--set", &format!("train.not_finite={value}")]);
        (output.status.code(), text(&output.stderr))
    };
    for value in ["stop", "skip", "skip(20)", "roll_back", "roll_back(1)"] {
        assert_eq!(plan(value).0, Some(0), "{value}: {}", plan(value).1);
    }
    for (value, words) in [
        ("drop", "write `stop`, `skip(10)` or `roll_back(3)`"),
        ("stop(3)", "write `stop`, `skip(10)` or `roll_back(3)`"),
        ("skip(0)", "a whole number of at least 1 is needed here, not 0"),
        ("roll_back(1.5)", "a whole number of at least 1 is needed here, not 1.5"),
        ("skip(1, 2)", "one number is the limit here"),
        ("skip(limit = 2)", "one number is the limit here"),
    ] {
        let (code, found) = plan(value);
        assert!(code == Some(1) && found.contains(words) && found.contains("command line"), "{value}: {found}");
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

#[test]
fn plans_and_derivatives_need_the_declared_sizes_and_no_data() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let lines = "  length = 2 epochs\n  batch = 16\n";
    let absent = training(lines)
        .replace("random(samples = 64)", "csv(\"absent.csv\")")
        .replace("x: f32[8]", "x: f32[8] = columns(0, 7)");
    std::fs::write(folder.path().join("absent.ansatz"), absent).expect("written");
    std::fs::write(folder.path().join("present.ansatz"), training(lines)).expect("written");
    for command in [&["plan"][..], &["plan", "--inference"], &["grad"], &["dump", "--stage", "kernel"]] {
        let output = |file: &str| {
            let output = ansatz(folder.path(), &[command, &[file]].concat());
            assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
            text(&output.stdout).replace(file, "FILE")
        };
        let lines = |text: String| {
            text.lines().map(|line| line.split("  #").next().map(str::trim_end).map(str::to_owned)).collect::<Vec<_>>()
        };
        let (absent, present) = (lines(output("absent.ansatz")), lines(output("present.ansatz")));
        assert_eq!(absent, present, "{command:?}");
    }
    let output = ansatz(folder.path(), &["train", "absent.ansatz"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
}

#[test]
fn the_derivative_of_every_shipped_model_checks_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for model in ["mnist_cnn", "cifar_cnn", "digits", "spirals", "text_mlp", "linear_regression"] {
        let derivative = ansatz(Path::new(env!("CARGO_MANIFEST_DIR")), &["grad", &format!("models/{model}.ansatz")]);
        assert!(derivative.status.success(), "{model}: {}", text(&derivative.stderr));
        std::fs::write(folder.path().join("g.ansatz"), &derivative.stdout).expect("written");
        let output = ansatz(folder.path(), &["check", "g.ansatz"]);
        assert!(output.status.success(), "{model}: {}", text(&output.stderr));
    }
}
