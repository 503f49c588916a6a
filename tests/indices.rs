//! Integers of the data that stand as indices: refused at load where a read would leave its tensor.

use std::path::Path;
use std::process::{Command, Output};

fn ansatz(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ansatz")).args(arguments).current_dir(folder).output().expect("the binary runs")
}

/// A table of two tokens and a label; the third record holds what is asked for.
pub fn table(token: i64, label: i64) -> String {
    format!("a,b,label\n1,2,0\n9,0,2\n3,{token},{label}\n4,4,1\n")
}

pub const DATA: &str = "  source = csv(\"d.csv\")\n  ids: i32[2] = columns(\"a\", \"b\")\n  label: i32\n";

/// A classifier of two of ten tokens into three classes.
pub fn model(data: &str, loss: &str, metrics: &str) -> String {
    format!(
        "model M {{\n  input ids: i32[N, 2]\n  return ids -> e: Embedding(10, 4) -> flatten -> fc: Linear(3)\n}}\n\
         data d {{\n{data}}}\n\
         train M on d {{\n  loss = {loss}\n  optimizer = sgd(lr = 0.1)\n  batch = 2\n  length = 1 epochs\n  metrics = {metrics}\n}}\n"
    )
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).expect("written");
}

/// The findings of a command that refuses the data.
#[track_caller]
fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = ansatz(folder, arguments);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {words}");
    words
}

#[track_caller]
fn accepted(folder: &Path, arguments: &[&str]) {
    let output = ansatz(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_token_outside_the_table_is_refused_by_every_command_that_reads_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    write(folder, "m.ansatz", &model(DATA, "cross_entropy(label)", "accuracy"));
    write(folder, "d.csv", &table(9, 1));
    accepted(folder, &["train", "m.ansatz", "--run", "r"]);
    for token in [-1, 10, i64::from(i32::MAX)] {
        write(folder, "d.csv", &table(token, 1));
        for arguments in [
            &["train", "m.ansatz"][..],
            &["eval", "m.ansatz", "--weights", "r/weights.safetensors"],
            &["predict", "m.ansatz", "--weights", "r/weights.safetensors"],
        ] {
            let words = refused(folder, arguments);
            let expected = format!("d.csv: record 3: `ids` is {token}, but the model reads at 0 to 9");
            assert!(words.contains(&expected) && words.contains("Embedding(10, 4)"), "{words}");
        }
    }
}

#[test]
fn a_label_outside_the_classes_is_refused_where_it_is_used() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    write(folder, "m.ansatz", &model(DATA, "cross_entropy(label)", "accuracy"));
    write(folder, "d.csv", &table(9, 1));
    accepted(folder, &["train", "m.ansatz", "--run", "r"]);
    write(folder, "d.csv", &table(9, 3));
    for command in [&["train", "m.ansatz"][..], &["eval", "m.ansatz", "--weights", "r/weights.safetensors"]] {
        let words = refused(folder, command);
        assert!(words.contains("d.csv: record 3: `label` is 3, but the model reads at 0 to 2"), "{words}");
    }
    // A prediction looks at no label.
    accepted(folder, &["predict", "m.ansatz", "--weights", "r/weights.safetensors"]);
}

#[test]
fn a_label_that_only_a_metric_compares_is_held_to_the_classes_too() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    write(folder, "d.csv", &table(9, -1));
    for metric in ["accuracy", "confusion", "recall(macro)", "precision(micro)", "f1(macro)", "top(2)", "perplexity"] {
        write(folder, "m.ansatz", &model(DATA, "mean[n, c] output[n, c]^2", metric));
        let words = refused(folder, &["train", "m.ansatz"]);
        assert!(words.contains("record 3: `label` is -1"), "{metric}: {words}");
    }
}

#[test]
fn a_read_with_else_takes_any_value() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let loss = "loss masked(logits: [N, C], label: i32[N]) {\n  p[n, c] = log_softmax[c] logits[n, c]\n  \
                return mean[n] (-(p[n, label[n]] else 0))\n}\n";
    write(folder, "m.ansatz", &format!("{loss}{}", model(DATA, "masked(label)", "")).replace("  metrics = \n", ""));
    write(folder, "d.csv", &table(9, -100));
    accepted(folder, &["train", "m.ansatz"]);
}

#[test]
fn records_are_counted_as_the_file_has_them_and_made_up_samples_are_held_too() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let dropping = format!("{DATA}  prepare = drop_missing\n");
    write(folder, "m.ansatz", &model(&dropping, "cross_entropy(label)", "accuracy"));
    write(folder, "d.csv", "a,b,label\n1,2,0\n?,0,2\n3,10,1\n");
    let missing = dropping.replace("\"d.csv\"", "\"d.csv\", missing = \"?\"");
    write(folder, "m.ansatz", &model(&missing, "cross_entropy(label)", "accuracy"));
    let words = refused(folder, &["train", "m.ansatz"]);
    assert!(words.contains("d.csv: record 3: `ids` is 10"), "{words}");
    let made = "  source = random(samples = 50, below = 12, seed = 1)\n  ids: i32[2]\n  label: class[3]\n";
    write(folder, "m.ansatz", &model(made, "cross_entropy(label)", "accuracy"));
    let words = refused(folder, &["train", "m.ansatz"]);
    assert!(words.contains("(made up): record") && words.contains("`ids` is 1"), "{words}");
}
