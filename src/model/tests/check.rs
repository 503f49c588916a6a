use super::super::Project;
use super::super::check::{Hooks, check, grouped};
use super::project;
use crate::diagnostics::Diagnostic;
use crate::source::bytes_text;

const MLP: &str = "model M(width = 8) {\n  input x: [N, 4]\n  return x -> Linear(width) -> relu -> Linear(2)\n}\n";

fn found(text: &str, hooks: &Hooks<'_>) -> Vec<Diagnostic> {
    let (project, file) = project(text);
    check(&project, file, hooks)
}

fn codes(text: &str) -> Vec<&'static str> {
    found(text, &Hooks::default()).iter().map(|diagnostic| diagnostic.code).collect()
}

#[test]
fn assertions_that_hold_say_nothing() {
    let text = format!(
        "{MLP}assert M {{\n  params == 58\n  params < 1 k, \"small\"\n  macs(N = 10) == 480 and flops(N = 10) == 2 * 480\n  not params > 100\n  params / 2 <= 29\n}}\nassert M(width = 16) {{ params == 114 }}\n"
    );
    assert_eq!(codes(&text), [""; 0]);
}

#[test]
fn an_assertion_that_fails_shows_its_words_and_the_value() {
    let found = found(&format!("{MLP}assert M {{ params < 50, \"must fit the board\" }}\n"), &Hooks::default());
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].code, "assert-failed");
    assert_eq!(found[0].message, "must fit the board");
    assert_eq!(found[0].labels[0].text, "params is 58");
}

#[test]
fn assertions_without_a_meaning_are_errors() {
    let line = |line: &str| codes(&format!("{MLP}assert M {{ {line} }}\n"));
    assert_eq!(line("parms < 3"), ["unknown-name"]);
    assert_eq!(line("params"), ["bad-assertion"]);
    assert_eq!(line("macs < 3 k"), ["undecided"]);
    assert_eq!(line("macs(Q = 3, N = 1) < 3 k"), ["unknown-argument"]);
    assert_eq!(line("macs(N = 0) < 3 k"), ["bad-size"]);
    assert_eq!(line("params < 3 epochs"), ["bad-assertion"]);
    assert_eq!(line("loads(\"w.safetensors\")"), ["unsupported"]);
    assert_eq!(line("train_memory(N = 1) < 1 GiB"), ["unsupported"]);
    assert_eq!(codes("assert Nobody { params < 3 }\n"), ["unknown-name"]);
}

#[test]
fn hooks_answer_what_later_stages_know() {
    let text = format!("{MLP}assert M {{\n  train_memory(N = 7) == 7 KiB\n  loads(\"w.safetensors\")\n}}\n");
    let loads = |_: &Project, _: &super::super::ModelUse<'_>, _: &super::super::Expanded, path: &str| {
        assert_eq!(path, "w.safetensors");
        Err("`fc.weight` is missing".to_owned())
    };
    let hooks = Hooks { train_memory: Some(&|_, _, sizes| Ok(1024 * sizes["N"] as u64)), loads: Some(&loads) };
    let found = found(&text, &hooks);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].labels[0].text, "`fc.weight` is missing");
}

#[test]
fn names_that_nothing_reads_are_warned_about() {
    let text = "model M(spare = 3) {\n  input x: [N, 4]\n  y = x * 2\n  _meant = x * 3\n  return x\n}\n";
    let found = found(text, &Hooks::default());
    let names: Vec<&str> = found.iter().map(|diagnostic| diagnostic.message.as_str()).collect();
    assert_eq!(names, ["the argument `spare` is never used", "the name `y` is never used"]);
    assert!(found.iter().all(|diagnostic| !diagnostic.is_error()));
}

#[test]
fn one_mistake_is_reported_once_for_both_modes() {
    assert_eq!(codes("model M {\n  input x: [N, 4]\n  return x -> Liner(3)\n}\n"), ["unknown-name"]);
}

#[test]
fn every_training_of_a_file_is_checked() {
    let text = format!(
        "{MLP}data d {{\n  source = csv(\"d.csv\")\n  x: f32[4] = columns(0, 3)\n  label: class[2]\n}}\n\
         train M on d {{\n  loss = cross_entropy(label)\n  optimizer = sgd(lr = 0.1)\n  batch = 4\n  length = 1 epochs\n}}\n"
    );
    assert_eq!(codes(&text), [""; 0]);
    assert_eq!(codes(&text.replace("length =", "lenght =")).first(), Some(&"unknown-key"));
    assert_eq!(codes(&text.replace("on d", "on e")), ["unknown-name"]);
}

#[test]
fn counts_are_shown_in_groups_and_bytes_in_units() {
    assert_eq!(["11_689_512", "58", "-1_000"].map(str::to_owned), [grouped(11_689_512), grouped(58), grouped(-1000)]);
    assert_eq!(
        ["512.0 MiB", "1.5 KiB", "12 B"].map(str::to_owned),
        [bytes_text(512 << 20), bytes_text(1536), bytes_text(12)]
    );
}

#[test]
fn weights_of_inference_alone_are_a_finding() {
    let text = |training: &str, inference: &str| {
        format!(
            "model M {{\n  input x: [N, 4]\n  if training {{\n{training}\n  }} else {{\n{inference}\n  }}\n  return y\n}}\n"
        )
    };
    let param = |size: &str| format!("    param w: [{size}] ~ ones\n    s = sum[c] w[c]\n    y = x * s");
    assert_eq!(codes(&text("    y = x", &param("4"))), ["untrained"]);
    assert_eq!(codes(&text(&param("4"), &param("5"))), ["untrained"]);
    assert_eq!(codes(&text(&param("4"), &param("4"))), [""; 0]);
    let state = "    state s: [4] = 1\n    y[n, c] = x[n, c] * s[c]";
    assert_eq!(codes(&text("    y = x", state)), ["untrained"]);
}

#[test]
fn an_input_whose_sizes_are_read_is_used() {
    let text = "layer Positions {\n  input ids: [N, T]\n  param w: [T, 3] ~ ones\n  return w\n}\n\
                fn zeros_like(x: [N, C]) {\n  y[n, c] = 0 : [N, C]\n  return y\n}\n";
    assert_eq!(codes(text), [""; 0]);
    let unused = "layer L {\n  input ids: [N, T], other: [N, T]\n  return ids\n}\n";
    let unused = unused.replace(", other", "\n  input other");
    assert_eq!(codes(&unused), ["unused-name"]);
}
