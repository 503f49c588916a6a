//! Limits of memory and numbers: errors that say what was wanted and what there is, never an abort.

use std::path::Path;
use std::process::{Command, Output};

/// A model with `hidden` units on made-up data, trained with `settings`.
fn write(folder: &Path, hidden: &str, samples: &str, batch: &str) {
    let text = format!(
        "model M {{\n  input x: [N, 8]\n  return x -> Linear({hidden}) -> relu -> Linear(10)\n}}\n\n\
         data noise {{\n  source = random(samples = {samples})\n  x: f32[8]\n  label: class[10]\n}}\n\n\
         train M on noise {{\n  loss = cross_entropy(label)\n  optimizer = sgd(lr = 0.1)\n  batch = {batch}\n  \
         length = 3 steps\n}}\n"
    );
    std::fs::write(folder.join("m.ansatz"), text).expect("written");
}

fn ansatz(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ansatz")).args(arguments).current_dir(folder).output().expect("the binary runs")
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_step_larger_than_memory_is_an_error_with_both_sizes_and_a_batch_that_fits() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path(), "16", "64", "4294967296");
    let output = ansatz(folder.path(), &["train", "m.ansatz", "--run", "run"]);
    assert_eq!(output.status.code(), Some(2), "{}", words(&output));
    let text = words(&output);
    assert!(text.contains("a step for 4294967296 samples takes") && text.contains("train.batch="), "{text}");
    write(folder.path(), "100000000000", "64", "4");
    let output = ansatz(folder.path(), &["train", "m.ansatz", "--run", "run"]);
    let text = words(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("weights and states alone take"), "{text}");
}

#[test]
fn sizes_whose_product_no_machine_holds_are_findings() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for batch in ["4294967296000000", "9223372036854775807"] {
        write(folder.path(), "16", "64", batch);
        for command in [&["check", "m.ansatz"][..], &["plan", "m.ansatz"], &["train", "m.ansatz"]] {
            let output = ansatz(folder.path(), command);
            assert_eq!(output.status.code(), Some(1), "{command:?}: {}", words(&output));
            assert!(words(&output).contains("smaller `train.batch`"), "{}", words(&output));
        }
    }
    write(folder.path(), "16", "64", "18446744073709551616");
    let text = words(&ansatz(folder.path(), &["check", "m.ansatz"]));
    assert!(text.contains("18446744073709551616 is more than the largest"), "{text}");
}

/// The limit leaves no room for the large stacks of `check`, and little for threads.
#[test]
#[cfg(target_os = "linux")]
fn little_address_space_is_enough_or_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path(), "16", "64", "8");
    let limited = |kibibytes: u32, command: &str| {
        let line = format!("ulimit -v {kibibytes}; exec \"{}\" {command}", env!("CARGO_BIN_EXE_ansatz"));
        Command::new("sh").args(["-c", &line]).current_dir(folder.path()).output().expect("a shell")
    };
    let output = limited(400_000, "check m.ansatz");
    assert!(output.status.success(), "{}", words(&output));
    for kibibytes in [150_000, 250_000, 400_000, 1_000_000] {
        for command in ["check m.ansatz", "train m.ansatz --run run --threads 4"] {
            let output = limited(kibibytes, command);
            assert!(output.status.code().is_some_and(|code| code <= 2), "{kibibytes} {command}: {}", words(&output));
            let _ = std::fs::remove_dir_all(folder.path().join("run"));
        }
    }
}

#[test]
fn every_seed_of_64_bits_is_taken_as_it_is() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path(), "16", "64", "8");
    let weights = |seed: &str| {
        let run = format!("run-{seed}");
        let output = ansatz(folder.path(), &["train", "m.ansatz", "--run", &run, "--seed", seed]);
        assert!(output.status.success(), "{seed}: {}", words(&output));
        std::fs::read(folder.path().join(run).join("weights.safetensors")).expect("the weights")
    };
    let all =
        ["9223372036854775807", "9223372036854775808", "18446744073709551614", "18446744073709551615"].map(weights);
    for (place, one) in all.iter().enumerate() {
        assert!(all[place + 1..].iter().all(|other| one != other), "neighbouring seeds differ");
    }
}

#[test]
fn stopping_behind_a_run_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path(), "16", "64", "8");
    ansatz(folder.path(), &["train", "m.ansatz", "--run", "run", "--stop-after", "2"]);
    assert!(folder.path().join("run/last.safetensors").exists());
    let output = ansatz(folder.path(), &["resume", "run", "--stop-after", "2"]);
    assert_eq!(output.status.code(), Some(2), "{}", words(&output));
    assert!(words(&output).contains("stands after step 2"), "{}", words(&output));
}
