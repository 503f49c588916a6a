//! Runs whose model file was changed before they are gone on with.

use std::path::Path;
use std::process::Command;

use super::stops::MODEL;

/// The exit code of `ansatz` and what it says.
fn ansatz(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ansatz")).args(arguments).current_dir(folder).output();
    let output = output.expect("the binary runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_was_changed_in_a_model_file_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path();
    let write = |text: &str| std::fs::write(path.join("net.ansatz"), text).expect("written");
    let own = MODEL.replace("-> relu", "-> bent").replace("\nmodel", "\nfn bent(v) = max(v, 0)\n\nmodel");
    write(&own);
    assert_eq!(ansatz(path, &["train", "net.ansatz", "--run", "run", "--stop-after", "9"]).0, Some(0));
    let cases: [(&str, &str, &[&str]); 7] = [
        (
            "sgd(lr = 0.05, momentum = 0.9)",
            "adamw(lr = 0.05)",
            &["`optimizer` is `adamw(lr = 0.05)`, was `sgd(lr = 0.05, momentum = 0.9)`"],
        ),
        (
            "a: Linear(8)",
            "a: Linear(16)",
            &["`a.weight` is [16, 6], was [8, 6]", "`b.weight` is [3, 16], was [3, 8]", "`bn.weight`"],
        ),
        ("-> b: Linear(3)", "-> b: Linear(3) -> c: Linear(3)", &["`c.weight` [3, 3] is new", "`c.bias` [3] is new"]),
        ("bn: BatchNorm -> ", "", &["`bn.weight` is gone"]),
        ("batch     = 5", "batch     = 10", &["`batch` is `10`, was `5`"]),
        (
            "length    = 50 steps",
            "length    = 60 steps\n  clip = 1.0",
            &["`clip` is `1.0`, was not said", "was to take 50 steps and would take 60"],
        ),
        ("max(v, 0)", "max(v, 0) + 0.5", &["the weights have the same shapes, but what a layer"]),
    ];
    for (before, after, expected) in cases {
        assert!(own.contains(before), "{before}");
        write(&own.replace(before, after));
        let (code, words) = ansatz(path, &["resume", "run"]);
        assert_eq!(code, Some(2), "{after}: {words}");
        expected.iter().for_each(|part| assert!(words.contains(part), "{after}: {words}"));
        assert!(
            !words.contains("optimizer:") && (before == "max(v, 0)" || !words.contains("same shapes")),
            "{after}: {words}"
        );
    }
    // Comments, spaces and how a number is written change nothing.
    let text = own
        .replace("  optimizer", "  # of old\n  optimizer")
        .replace("lr = 0.05,", "lr=5e-2 ,")
        .replace("warmup(5 steps) ->", "warmup( 5 steps )->");
    write(&text);
    assert_eq!(ansatz(path, &["resume", "run", "--threads", "1"]).0, Some(0));
    assert_eq!(ansatz(path, &["train", "net.ansatz", "--run", "whole", "--threads", "3"]).0, Some(0));
    let bytes = |run: &str| std::fs::read(path.join(run).join("weights.safetensors")).expect("weights");
    assert!(bytes("run") == bytes("whole"), "other bits at another number of threads");
}
