//! The models of the design, whole.

use std::collections::BTreeMap;

use super::super::check::{Hooks, check};
use super::super::summary::{macs, params, summarize};
use super::super::{Mode, expand};
use super::project;

const TEXT_MLP: &str = "model M {
  input words: [N, 1000]
  return words -> Linear(500) -> relu -> Linear(250) -> relu -> Linear(10)
}
";

const SEED_CNN: &str = "model M(classes = 10) {
  input image: [N, 3, 32, 32]
  return image
    -> conv1: Conv(32, 5) -> relu -> max_pool(2)
    -> conv2: Conv(64, 5) -> relu -> max_pool(2)
    -> [N, 64, 5, 5]
    -> flatten
    -> fc1: Linear(1024) -> relu -> fc2: Linear(classes)
}
";

const RESNET: &str = "layer Basic(C, stride = 1) {
  input x: [N, K, H, W]
  y = x -> conv1: Conv(C, 3, stride = stride, pad = 1, bias = false) -> bn1: BatchNorm -> relu
        -> conv2: Conv(C, 3, pad = 1, bias = false) -> bn2: BatchNorm
  skip = x if stride == 1 and K == C
         else x -> downsample: chain(Conv(C, 1, stride = stride, bias = false), BatchNorm)
  return relu(y + skip)
}

model M(classes = 1000) {
  input image: [N, 3, H, W]
  require H >= 32 and W >= 32
  return image -> conv1: Conv(64, 7, stride = 2, pad = 3, bias = false) -> bn1: BatchNorm -> relu
    -> max_pool(3, stride = 2, pad = 1)
    -> layer1: repeat(2) Basic(64)
    -> layer2: chain(Basic(128, stride = 2), Basic(128))
    -> layer3: chain(Basic(256, stride = 2), Basic(256))
    -> layer4: chain(Basic(512, stride = 2), Basic(512))
    -> mean_over(H, W) -> fc: Linear(classes)
}
";

const GPT: &str = "layer Block(heads) {
  input x: [N, T, C]
  return x -> residual { LayerNorm -> Attention(heads, causal = true) }
           -> residual { LayerNorm -> Linear(4 * C) -> gelu -> Linear(C) }
}

model M(V = 50257, T = 1024, C = 768, depth = 12, heads = 12) {
  input tokens: i32[N, S]
  require S <= T, \"the sequence is longer than the position table\"
  wte = Embedding(V, C)
  wpe = Embedding(T, C)
  x = wte(tokens) + wpe(range(S))
  y = x -> h: repeat(depth) Block(heads) -> ln_f: LayerNorm
  logits[n, s, v] = sum[c] y[n, s, c] * wte.weight[v, c]
  return logits
}
";

/// Parameters with free sizes, and multiply-adds with bound ones, after a check without findings.
fn counts(text: &str, sizes: &[(&str, i64)]) -> (i64, i64) {
    let (project, file) = project(text);
    let found = check(&project, file, &Hooks::default());
    assert!(found.is_empty(), "{found:#?}");
    let free = expand(&project, file, "M", &[], Mode::Eval, &BTreeMap::new()).expect("checked").0;
    let sizes = sizes.iter().map(|(name, size)| ((*name).to_owned(), *size)).collect();
    let bound = expand(&project, file, "M", &[], Mode::Eval, &sizes).expect("checked").0;
    let macs = macs(&bound.graph).as_const().expect("sizes are bound");
    (params(&free.graph).as_const().expect("weights do not depend on the input"), macs)
}

#[test]
fn the_text_classifier_has_its_parameters() {
    assert_eq!(counts(TEXT_MLP, &[("N", 1)]), (628_260, 1000 * 500 + 500 * 250 + 250 * 10));
}

#[test]
fn the_small_cnn_has_its_parameters() {
    let params = 32 * 3 * 25 + 32 + 64 * 32 * 25 + 64 + 1600 * 1024 + 1024 + 1024 * 10 + 10;
    let macs = 28 * 28 * 32 * 75 + 10 * 10 * 64 * 800 + 1600 * 1024 + 1024 * 10;
    assert_eq!(counts(SEED_CNN, &[("N", 1)]), (params, macs));
}

#[test]
fn the_residual_network_has_the_parameters_and_work_of_resnet18() {
    // Parameters as in torchvision; multiply-adds as fvcore counts them.
    let (params, macs) = counts(RESNET, &[("N", 1), ("H", 224), ("W", 224)]);
    assert_eq!(params, 11_689_512);
    assert_eq!(macs, 1_814_073_344);
}

#[test]
fn the_residual_network_has_the_names_of_the_published_weights() {
    let (project, file) = project(RESNET);
    let expanded = expand(&project, file, "M", &[], Mode::Eval, &BTreeMap::new()).expect("expands").0;
    let names: Vec<&str> = expanded.graph.params.iter().map(|param| param.name.as_str()).collect();
    for name in
        ["conv1.weight", "layer1.0.bn1.bias", "layer2.0.downsample.0.weight", "layer4.1.conv2.weight", "fc.bias"]
    {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
    assert_eq!(names.len(), 62);
}

#[test]
fn the_transformer_ties_its_head_and_has_its_parameters() {
    // As many as the published GPT-2 has.
    assert_eq!(counts(GPT, &[("N", 1), ("S", 8)]).0, 124_439_808);
}

#[test]
fn a_summary_has_a_row_for_each_stage_with_symbolic_shapes() {
    let (project, file) = project(SEED_CNN);
    let expanded = expand(&project, file, "M", &[], Mode::Eval, &BTreeMap::new()).expect("expands").0;
    let summary = summarize(&expanded);
    let rows: Vec<(String, String)> =
        summary.rows.iter().map(|row| (row.path.clone(), super::super::expand::show(&row.shape))).collect();
    assert_eq!(rows[0], ("conv1".into(), "[N, 32, 28, 28]".into()));
    assert_eq!(rows.len(), 10);
    assert_eq!(summary.rows[0].params.as_const(), Some(2432));
    assert_eq!(summary.rows.last().map(|row| row.path.clone()), Some("fc2".into()));
}
