//! Bands: products leave out what index comparisons make zero or unread, with the evaluator's results at every level and
//! the same bits on any number of threads.

use ansatz::graph::{Graph, Output};
use ansatz::kernel::print::bands_text;
use ansatz::kernel::{Kernel, Persistent, Program};
use ansatz::schedule::plan;

use crate::library::prepared;
use crate::shapes::check;
use crate::support::lowered::small;

/// The step with the loss and all gradients.
fn program(body: &str) -> Program {
    let (mut graph, _, loss, params) = prepared("bands", body);
    graph.outputs = vec![Output { name: "loss".into(), value: loss }];
    let gradients = ansatz::grad::differentiate(&mut graph, loss, &params);
    let named = |(place, value)| Output { name: format!("gradient{place}").into(), value };
    graph.outputs.extend(gradients.into_iter().enumerate().map(named));
    planned(graph)
}

fn planned(mut graph: Graph) -> Program {
    ansatz::passes::run(&mut graph);
    // Products of these sizes run by the primitive.
    plan(&graph, &Persistent::of(&graph), &small([1; 3], 1 << 20, 1 << 20))
}

/// The bands of all products that have some, sorted.
fn bands(program: &Program) -> Vec<String> {
    let text = |kernel: &Kernel| kernel.kind.product().map(|product| bands_text(product).join(", "));
    let mut bands: Vec<String> = program.kernels.iter().filter_map(text).filter(|text| !text.is_empty()).collect();
    bands.sort();
    bands
}

/// Attention of one head over `t` positions of `d` numbers, its weights made by `weights` from scores `s`.
fn attention(t: usize, d: usize, weights: &str) -> String {
    format!(
        "param q, k, v: [2, {t}, {d}] ~ zeros\n s[n, i, j] = sum[d] q[n, i, d] * k[n, j, d]\n {weights}\n \
         o[n, i, d] = sum[j] a[n, i, j] * v[n, j, d]\n return o"
    )
}

const CAUSAL: &str = "a[n, i, j] = softmax[j] (s[n, i, j] if j <= i else -inf)";
const WINDOW: &str = "a[n, i, j] = softmax[j] (s[n, i, j] if j <= i and i < j + 5 else -inf)";
const LINEAR: &str = "a[n, i, j] = s[n, i, j] if i < j else 0";

#[test]
fn a_causal_mask_bounds_both_products_of_values_and_all_four_of_gradients() {
    let found = bands(&program(&attention(37, 8, CAUSAL)));
    // Scores and the gradient of the weights; values and dQ; dV and dK.
    let [scores, rows, columns] =
        ["m - n >= 0", "m - k >= 0", " - m + k >= 0"].map(|text| found.iter().filter(|band| *band == text).count());
    assert_eq!((scores, rows, columns, found.len()), (2, 2, 2, 6), "{found:?}");
}

#[test]
fn windows_and_masks_to_zero_are_bands_too() {
    let windows = bands(&program(&attention(37, 8, WINDOW)));
    assert_eq!(windows.len(), 6, "{windows:?}");
    assert!(windows.iter().all(|text| text.matches(">=").count() == 2), "{windows:?}");
    let linear = bands(&program(&attention(37, 8, LINEAR)));
    assert_eq!(linear.len(), 6, "{linear:?}");
    assert!(linear.iter().all(|text| text.contains("- 1 >= 0")), "{linear:?}");
}

#[test]
fn scores_that_somebody_reads_outside_the_band_are_computed() {
    let read = format!("{CAUSAL}\n b[n, i] = sum[j] s[n, i, j]");
    let body = attention(37, 8, &read).replace("return o", "z[n, i, d] = o[n, i, d] + b[n, i]\n return z");
    let found = bands(&program(&body));
    let scores = found.iter().filter(|text| text.contains('m') && text.contains('n')).count();
    // The gradient of the weights, values and dV; the gradient of the scores has what the sum adds in every place.
    assert_eq!((scores, found.len()), (1, 3), "{found:?}");
    check(&body);
}

#[test]
fn rows_without_any_score_stay_not_a_number() {
    let strict = "a[n, i, j] = softmax[j] (s[n, i, j] if j < i else -inf)";
    let found = bands(&program(&attention(37, 8, strict)));
    // The first row of weights is NaN, not 0. What is left: the scores, and both products of their gradient, which the mask
    // sets to 0.
    assert_eq!(found, [" - m + k - 1 >= 0", "m - k - 1 >= 0", "m - n - 1 >= 0"]);
    check(&attention(21, 5, strict));
}

#[test]
fn an_open_mask_is_no_band() {
    let open = "a[n, i, j] = softmax[j] (s[n, i, j] if j < 37 else -inf)";
    assert_eq!(bands(&program(&attention(37, 8, open))), Vec::<String>::new());
    let data = "param w: [37] ~ zeros\n a[n, i, j] = softmax[j] (s[n, i, j] if w[j] <= 0 else -inf)";
    assert_eq!(bands(&program(&attention(37, 8, data))), Vec::<String>::new());
}

#[test]
fn banded_attention_is_exact_at_odd_sizes() {
    for weights in [CAUSAL, WINDOW, LINEAR] {
        for (t, d) in [(1, 3), (13, 5), (37, 32), (101, 17)] {
            check(&attention(t, d, weights));
        }
    }
    for (sizes, heads) in [("[2, 67, 12]", 3), ("[1, 21, 15]", 5)] {
        check(&format!("param x: {sizes} ~ zeros\n return x -> Attention({heads}, causal = true)"));
    }
}

#[test]
fn long_rows_cross_blocks_of_the_sum() {
    check(&attention(530, 20, CAUSAL));
}
