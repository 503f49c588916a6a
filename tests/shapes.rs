//! Contractions of sizes that fit no tile, at every instruction-set level against the reference evaluator: forward and
//! both gradients of convolutions, pools, linear layers and attention. Every contraction that can be one is a product.

use ansatz::cpu::Lowering;
use ansatz::graph::{Output, Precision, evaluate};
use ansatz::kernel::{KernelKind, Persistent};
use ansatz::machine::Level;
use ansatz::machine::pool::Pool;
use ansatz::schedule::plan;

use crate::library::prepared;
use crate::machine_code::compiled_within;
use crate::support::lowered::{difference, small};

/// f32 against f64: sums of some thousand terms around 1, each rounded to 6e-8, relative to the largest element.
const TOLERANCE: f64 = 5e-5;

/// The layer's loss and all gradients, compiled for each level and limit, on one and on three threads.
pub fn check(body: &str) {
    let (mut graph, feeds, loss, params) = prepared("shape", body);
    graph.outputs.push(Output { name: "loss".into(), value: loss });
    let gradients = ansatz::grad::differentiate(&mut graph, loss, &params);
    for (place, value) in gradients.into_iter().enumerate() {
        graph.outputs.push(Output { name: format!("gradient{place}").into(), value });
    }
    let expected = evaluate(&graph, &feeds);
    ansatz::passes::run(&mut graph);
    let (one, three) = (Pool::new(1), Pool::new(3));
    for level in Level::available() {
        // Even the smallest products run by the primitive: odd sizes, single rows, tails; then thin sides and small ones apart.
        for lowering in [Lowering::default(), small([1; 3], 64, 16), small([4, 2, 2], 64, 16)] {
            let actual = compiled_within(&graph, &feeds, level, &one, lowering);
            assert_eq!(difference(&expected, &actual, TOLERANCE), None, "{level}, {lowering:?}: {body}");
            let threaded = compiled_within(&graph, &feeds, level, &three, lowering);
            assert_eq!(difference(&actual, &threaded, 0.0), None, "three threads, {level}, {lowering:?}: {body}");
        }
    }
}

/// A convolution with what flows in as a parameter, so that its gradient is taken too.
fn convolution(input: &[usize], arguments: &str) {
    check(&format!("param x: {input:?} ~ zeros\n return x -> Conv({arguments})"));
}

#[test]
fn convolutions_over_lines_are_exact_at_every_shape() {
    for (input, arguments) in [
        ([1, 1, 1], "1, 1"),
        ([1, 1, 17], "1, 17"),
        ([3, 1, 31], "7, 2"),
        ([1, 5, 37], "3, 5, pad = 2"),
        ([3, 7, 41], "11, 3, stride = 3"),
        ([3, 3, 67], "17, 4, stride = 3, pad = 2"),
        ([1, 17, 29], "1, 3, pad = 2, dilation = 2"),
        ([3, 2, 53], "5, 4, stride = 2, pad = 3, dilation = 2"),
        ([3, 6, 47], "6, 3, pad = 1, groups = 6"),
        ([1, 9, 61], "9, 5, stride = 3, pad = 4, dilation = 2, groups = 9"),
        ([3, 6, 35], "9, 3, pad = 1, groups = 3"),
        ([2, 10, 33], "15, 2, stride = 2, groups = 5, bias = false"),
    ] {
        convolution(&input, arguments);
    }
}

#[test]
fn convolutions_over_images_are_exact_at_every_shape() {
    for (input, arguments) in [
        ([1, 1, 1, 1], "17, 1"),
        ([1, 3, 7, 5], "1, 3, pad = 1"),
        ([3, 1, 11, 13], "5, [1, 4]"),
        ([3, 5, 7, 9], "7, 2"),
        ([1, 7, 13, 11], "3, 3, stride = 3, pad = 1"),
        ([3, 3, 9, 17], "5, [4, 2], stride = [3, 1], pad = [1, 0]"),
        ([1, 2, 13, 13], "3, 3, pad = 2, dilation = 2"),
        ([3, 3, 17, 11], "2, [2, 3], stride = 2, pad = 2, dilation = [3, 1]"),
        ([3, 5, 7, 19], "5, 3, pad = 1, groups = 5, bias = false"),
        ([1, 7, 15, 9], "7, 3, stride = 2, pad = 1, groups = 7"),
        ([3, 4, 9, 9], "4, 4, stride = 3, pad = 1, groups = 4"),
        ([2, 3, 11, 9], "6, 3, pad = 2, dilation = 2, groups = 3"),
        ([1, 6, 7, 7], "9, 2, stride = 2, groups = 3"),
        ([3, 17, 1, 5], "1, 1, stride = 2"),
    ] {
        convolution(&input, arguments);
    }
}

#[test]
fn convolutions_over_volumes_are_exact_at_every_shape() {
    for (input, arguments) in [
        ([1, 1, 1, 1, 17], "1, 1"),
        ([3, 1, 3, 5, 7], "2, [1, 2, 3]"),
        ([1, 3, 5, 4, 7], "5, 3, pad = 1"),
        ([1, 2, 7, 5, 6], "3, 2, stride = 3, pad = 1"),
        ([1, 2, 5, 6, 7], "3, [2, 3, 2], pad = 1, dilation = 2"),
        ([2, 3, 4, 5, 7], "3, [3, 2, 3], stride = [1, 2, 2], pad = 1, groups = 3"),
        ([1, 4, 3, 5, 5], "6, 2, groups = 2, bias = false"),
    ] {
        convolution(&input, arguments);
    }
}

/// A convolution that is computed by minimal filtering with its two gradients, at both sizes of tiles.
fn filtered(input: &[usize], arguments: &str) {
    let body = format!("param x: {input:?} ~ zeros\n return x -> Conv({arguments})");
    let (mut graph, feeds, loss, params) = prepared("filtered", &body);
    for (place, value) in ansatz::grad::differentiate(&mut graph, loss, &params).into_iter().enumerate() {
        graph.outputs.push(Output { name: format!("gradient{place}").into(), value });
    }
    let expected = evaluate(&graph, &feeds);
    ansatz::passes::run(&mut graph);
    let (one, three) = (Pool::new(1), Pool::new(3));
    for (tile, tolerance) in [(2, TOLERANCE), (4, 10.0 * TOLERANCE)] {
        graph.precision = if tile == 2 { Precision::Strict } else { Precision::Fast };
        let lowering = Lowering::default();
        let program = plan(&graph, &Persistent::of(&graph), &lowering);
        let chosen = program.kernels.iter().filter(|kernel| matches!(kernel.kind, KernelKind::Winograd(_))).count();
        assert_eq!(chosen, 3, "products by minimal filtering: {body}");
        for level in Level::available() {
            let actual = compiled_within(&graph, &feeds, level, &one, lowering);
            assert_eq!(difference(&expected, &actual, tolerance), None, "{level}, tiles of {tile}: {body}");
            let threaded = compiled_within(&graph, &feeds, level, &three, lowering);
            assert_eq!(difference(&actual, &threaded, 0.0), None, "three threads, {level}: {body}");
        }
    }
}

#[test]
fn convolutions_by_minimal_filtering_agree_with_the_evaluator() {
    for (input, arguments) in [
        ([8, 16, 8, 8], "16, 3, pad = 1"),
        ([5, 17, 12, 19], "23, 3, bias = false"),
        ([3, 32, 15, 16], "16, 3, pad = 1, bias = false"),
        ([2, 16, 20, 37], "31, 3, pad = 2"),
    ] {
        filtered(&input, arguments);
    }
}

#[test]
fn pools_are_exact_at_every_shape() {
    for (input, stage) in [
        ("[1, 1, 17]", "max_pool(17)"),
        ("[3, 5, 31]", "max_pool(3, stride = 2, pad = 1)"),
        ("[3, 7, 29]", "avg_pool(4, stride = 3, pad = 1)"),
        ("[1, 3, 13, 11]", "max_pool(2)"),
        ("[3, 5, 11, 7]", "max_pool(3, stride = 1, pad = 1)"),
        ("[3, 1, 17, 9]", "max_pool([4, 1], stride = [3, 2])"),
        ("[1, 17, 5, 5]", "max_pool(5)"),
        ("[3, 3, 7, 13]", "avg_pool(2, stride = 3)"),
    ] {
        check(&format!("param x: {input} ~ zeros\n return x -> {stage}"));
    }
}

#[test]
fn linear_layers_and_attention_are_exact_at_every_shape() {
    for (rows, inputs, outputs) in
        [(1, 1, 1), (1, 17, 1), (17, 1, 3), (3, 1, 97), (1, 613, 5), (53, 37, 2), (7, 31, 127), (3, 257, 4), (97, 3, 1)]
    {
        check(&format!("param x: [{rows}, {inputs}] ~ zeros\n return x -> Linear({outputs})"));
    }
    for (sizes, arguments) in [
        ("[1, 1, 3]", "1"),
        ("[3, 17, 6]", "3, causal = true"),
        ("[1, 31, 10]", "2, bias = false"),
        ("[2, 13, 5]", "5"),
    ] {
        check(&format!("param x: {sizes} ~ zeros\n return x -> Attention({arguments})"));
    }
}
