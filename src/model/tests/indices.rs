//! Indices that are values: what is derived for the data, what is proved, and what needs `else`.

use super::super::expander::demand::Range;
use super::super::expander::{Expander, Inputs};
use super::super::{Mode, forward, training};
use super::*;
use crate::dim::Dim;
use crate::graph::DType;
use crate::settings::FieldInfo;

/// A model whose body reads `w: [10]` by `ids: i32[N]`.
fn reading(body: &str) -> String {
    format!("model M {{\n  input ids: i32[N]\n  param w: [10] ~ ones\n{body}\n  return y\n}}\n")
}

/// `low..=high` of each demand on the inputs, with further values.
fn demands(body: &str) -> Vec<String> {
    let (project, file) = project(&reading(body));
    let mut expander = Expander::new(&project, Mode::Train);
    let definition = project.find(file, "M").expect("the model");
    let span = definition.ast.name.span;
    let outcome = expander.model(&definition, Vec::new(), Inputs::Free(BTreeMap::new()), span);
    assert!(outcome.is_ok(), "{:#?}", expander.diagnostics);
    let end = |end: &Option<Dim>| end.as_ref().map_or(String::new(), Dim::to_string);
    let show = |Range { low, high, except }: &Range| {
        let except: String = except.iter().map(|value| format!(" or {value}")).collect();
        format!("{}..={}{except}", end(low), end(high))
    };
    expander.demands.iter().map(|demand| show(&demand.range)).collect()
}

#[test]
fn a_read_at_a_field_asks_for_the_range_of_the_dim() {
    assert_eq!(demands("  y[n] = w[ids[n]]"), ["0..=9"]);
    assert_eq!(demands("  t = reshape(ids, [N, 1])\n  y[n] = w[t[n, 0]]"), ["0..=9"]);
    assert_eq!(demands("  y[n] = w[ids[n] + 1] + w[ids[n] - 2]"), ["-1..=8", "2..=11"]);
    assert_eq!(demands("  y[n] = w[2 * ids[n] + 1]"), ["0..=4"]);
    assert_eq!(demands("  y[n] = w[9 - ids[n]]"), ["0..=9"]);
    assert_eq!(demands("  y[n] = w[ids[n] / 3]"), ["0..=29"]);
    assert_eq!(demands("  y[n] = (w[ids[n]] else 0)"), [""; 0]);
}

#[test]
fn a_condition_frees_what_it_sorts_out() {
    assert_eq!(demands("  t[n] = ids[n] if ids[n] >= 0 else 0\n  y[n] = w[t[n]]"), ["..=9"]);
    assert_eq!(demands("  t[n] = ids[n] if ids[n] >= 0 and ids[n] < 10 else 0\n  y[n] = w[t[n]]"), [""; 0]);
    assert_eq!(demands("  t[n] = 0 if ids[n] == -100 else ids[n]\n  y[n] = w[t[n]]"), ["0..=9 or -100"]);
    assert_eq!(demands("  t[n] = max(ids[n], 0)\n  y[n] = w[t[n]]"), ["..=9"]);
    assert_eq!(demands("  t[n] = min(max(ids[n], 0), 9)\n  y[n] = w[t[n]]"), [""; 0]);
}

#[test]
fn a_condition_on_one_place_frees_no_other() {
    let shifted = "  t[n] = (ids[n + 1] else 0) if ids[n] >= 0 else 0 : [N]\n  y[n] = w[t[n]]";
    assert_eq!(demands(shifted), ["0..=9"]);
}

#[test]
fn sums_that_would_wrap_around_are_asked_against() {
    assert_eq!(demands("  t[n] = max(ids[n] - 5, 0)\n  y[n] = w[t[n]]"), ["-2147483643..=14"]);
    assert_eq!(demands("  t[n] = min(max(ids[n], 0) + 5, 9)\n  y[n] = w[t[n]]"), ["..=2147483642"]);
    assert_eq!(demands("  t[n] = max(ids[n] + 5, 0)\n  y[n] = w[t[n]]"), ["..=4"]);
}

#[test]
fn an_index_with_bounds_of_its_own_needs_nothing() {
    assert_eq!(demands("  y[n] = w[ids[n] % 10]"), [""; 0]);
    assert_eq!(demands("  s[n, c] = w[c] * f32(ids[n])\n  b[n] = argmax[c] s[n, c]\n  y[n] = w[b[n]]"), [""; 0]);
}

#[test]
fn a_computed_index_needs_else() {
    let truncated = reading("  y[n] = w[i32(sqrt(f32(ids[n])))]");
    one_error(&truncated, "index-out-of-range", "i32(sqrt(f32(ids[n])))");
    good(&truncated.replace("w[i32(sqrt(f32(ids[n])))]", "(w[i32(sqrt(f32(ids[n])))] else 0)"));
    one_error(&reading("  y[n] = w[ids[n] % 11]"), "index-out-of-range", "ids[n] % 11");
    one_error(&reading("  y[n] = w[ids[n] * ids[n]]"), "index-out-of-range", "ids[n] * ids[n]");
}

#[test]
fn a_label_of_more_classes_than_a_shifted_read_stands_is_a_finding() {
    let text = "model M {\n  input x: [N, 3]\n  return x\n}\n\
                loss next(z: [N, C], label: i32[N]) = mean[n] (-z[n, label[n] + 1])\n\
                data d {\n  source = csv(\"d.csv\")\n  x: f32[3]\n  label: class[3]\n}\n\
                train M on d {\n  loss = next(label)\n  optimizer = sgd(lr = 0.1)\n  length = 1 epochs\n}\n";
    let (project, file) = project(text);
    let training = training(&project, file, &[]).expect("settings without mistakes");
    let fields = [("x", vec![3], DType::F32, None), ("label", vec![], DType::I32, Some(3))]
        .map(|(name, sizes, dtype, classes)| FieldInfo { name: name.into(), sizes, dtype, classes });
    let found = forward(&training, 4, Mode::Eval, &fields).expect_err("a finding");
    let words: Vec<&str> = found.iter().map(|finding| finding.message.as_str()).collect();
    assert_eq!(words, ["class 2 of `label` leaves the range of an index: -1 to 1 stay inside"]);
}
