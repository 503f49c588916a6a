//! Strip functions: nests whose lanes are long enough for them.

use super::nests::elementwise;
use super::*;
use crate::cpu::code::nest_plan;
use crate::primitives::vector::{self, VectorFunction};

/// A few operations.
const CLOSE: f64 = 1e-5;

/// How many phases of a case's first nest have strip functions.
fn strips(case: &Case) -> usize {
    let KernelKind::Nest(nest) = &case.program.kernels[0].kind else { return 0 };
    nest_plan(&case.program, 0, nest, Level::Avx512).phases.iter().filter(|phase| phase.wide.is_some()).count()
}

/// Whether this build has strip functions.
const HAS: bool = cfg!(all(target_arch = "x86_64", unix));

fn check_wide(case: &Case, phases: usize) {
    assert_eq!(strips(case), if HAS { phases } else { 0 }, "phases with strip functions");
    case.check(CLOSE);
}

#[test]
fn operations_on_strips_agree_with_the_interpreter_for_every_rest() {
    for count in 192..=209 {
        check_wide(&elementwise(count, |code, x, y| code.binary(Binary::Add, x, y)), 1);
    }
    for binary in [Binary::Sub, Binary::Mul, Binary::Div, Binary::Rem, Binary::Max, Binary::Min] {
        check_wide(&elementwise(251, |code, x, y| code.binary(binary, x, y)), 1);
    }
    for unary in
        [Unary::Neg, Unary::Abs, Unary::Floor, Unary::Sqrt, Unary::Exp, Unary::Tanh, Unary::Sigmoid, Unary::Erf]
    {
        check_wide(&elementwise(251, |code, x, _| code.unary(unary, x)), 1);
    }
}

#[test]
fn functions_on_strips_have_the_bits_of_their_primitives() {
    if !HAS || !Level::Avx512.is_available() {
        return;
    }
    let functions = [
        (Unary::Exp, VectorFunction::Exp),
        (Unary::Log, VectorFunction::Log),
        (Unary::Tanh, VectorFunction::Tanh),
        (Unary::Sigmoid, VectorFunction::Sigmoid),
        (Unary::Erf, VectorFunction::Erf),
    ];
    for (unary, function) in functions {
        let case = elementwise(333, |code, x, _| code.unary(unary, x));
        assert_eq!(strips(&case), 1);
        let arena = case.run(Level::Avx512, 2);
        let mut expected = arena.f32(&case.program.buffers[0]).to_vec();
        // SAFETY: the vector has that many elements, and the level was found available.
        unsafe { vector::function(Level::Avx512, function)(expected.as_mut_ptr(), expected.len()) };
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(arena.f32(&case.program.buffers[2])), bits(&expected), "{unary:?}");
    }
}

#[test]
fn more_constants_and_values_than_registers_agree_or_stay_with_four_lanes() {
    // Sixty constants read once each, and a chain that keeps few values alive.
    let chain = elementwise(251, |code, x, y| {
        (0..60).fold(x, |sum, number| {
            let constant = code.number(f64::from(number) * 0.01 - 0.3);
            let product = code.binary(Binary::Mul, y, constant);
            code.binary(Binary::Add, sum, product)
        })
    });
    check_wide(&chain, 1);
    // Forty values that all live until the end have no room.
    let crowd = elementwise(251, |code, x, y| {
        let mut values = Vec::new();
        for number in 0..40 {
            let constant = code.number(f64::from(number) * 0.01 + 1.0);
            let last = values.last().copied().unwrap_or(x);
            let sum = code.binary(Binary::Add, last, constant);
            values.push(code.binary(Binary::Div, sum, constant));
        }
        let scaled: Vec<NodeId> = values.iter().rev().map(|value| code.binary(Binary::Mul, *value, y)).collect();
        scaled.into_iter().reduce(|a, b| code.binary(Binary::Min, a, b)).unwrap_or(x)
    });
    check_wide(&crowd, 0);
}

#[test]
fn masks_and_indices_on_strips_agree() {
    let case = elementwise(251, |code, x, y| {
        let index = code.node(NodeOp::Index(linear(&[(0, 3)], -100)), DType::I32);
        let limit = code.node(NodeOp::Const(250.0), DType::I32);
        let below = code.node(NodeOp::Compare(Compare::Le, index, limit), DType::Bool);
        let less = code.node(NodeOp::Compare(Compare::Gt, x, y), DType::Bool);
        let both = code.node(NodeOp::Binary(Binary::And, below, less), DType::Bool);
        let neither = code.node(NodeOp::Unary(Unary::Not, both), DType::Bool);
        let one = code.node(NodeOp::Cast(neither), DType::F32);
        let number = code.node(NodeOp::Cast(index), DType::F32);
        let chosen = code.node(NodeOp::Select(less, number, y), DType::F32);
        code.binary(Binary::Add, chosen, one)
    });
    check_wide(&case, 1);
}

/// Rows of `inner` points: their sum of products and greatest element, and a phase that uses both.
fn rows(rows: usize, inner: &[usize], lanes: Lanes) -> Case {
    let mut case = Case::default();
    let length: usize = inner.iter().product();
    let (a, b) = (case.floats(rows * length), case.floats(length));
    let y = case.zeros(DType::F32, rows * length);
    let place = |buffer, outer: bool| {
        let mut terms = Vec::new();
        let mut stride = length as i64;
        if outer {
            terms.push((0, if lanes == Lanes::Outer { 1 } else { stride }));
        }
        for (number, extent) in inner.iter().enumerate() {
            stride /= *extent as i64;
            let wide = if lanes == Lanes::Outer && outer { rows as i64 } else { 1 };
            terms.push((number + 1, stride * wide));
        }
        at(buffer, &terms)
    };
    let mut first = Code::default();
    let (x, z) = (first.load(place(a, true)), first.load(place(b, false)));
    let product = first.binary(Binary::Mul, x, z);
    first.reduce(ReductionKind::Sum, product);
    first.reduce(ReductionKind::Max, x);
    let mut second = Code::default();
    let x = second.load(place(a, true));
    let (sum, most) = (second.reduced(0, 0), second.reduced(0, 1));
    let moved = second.binary(Binary::Sub, x, most);
    let value = second.binary(Binary::Add, moved, sum);
    second.store(place(y, true), value);
    case.nest(&[rows], 1, lanes, vec![first.phase(inner), second.phase(inner)]);
    case
}

#[test]
fn reductions_on_strips_agree_along_rows_and_along_columns() {
    for length in [96, 100, 517] {
        check_wide(&rows(3, &[length], Lanes::Inner), 2);
        check_wide(&rows(3, &[2, length], Lanes::Inner), 2);
        check_wide(&rows(length, &[5], Lanes::Outer), 2);
        check_wide(&rows(length, &[2, 3], Lanes::Outer), 2);
    }
}

#[test]
fn maxima_on_strips_keep_what_is_not_a_number() {
    for length in [96, 100, 517] {
        for place in [0, 15, 16, 90, length - 1] {
            for (lanes, inner) in [(Lanes::Inner, vec![2, length]), (Lanes::Outer, vec![5])] {
                let mut case = rows(if lanes == Lanes::Inner { 3 } else { length }, &inner, lanes);
                case.data[0][place] = f64::NAN;
                case.data[0][place + 1] = f64::INFINITY;
                check_wide(&case, 2);
            }
        }
    }
}

#[test]
fn guarded_loads_on_strips_are_zero_outside() {
    // y[r, i] = a[r − 1, i − 60] + a[r, i + 60], zero beyond the ends of rows and of a.
    const WIDTH: i64 = 251;
    let mut case = Case::default();
    let (a, y) = (case.floats(3 * WIDTH as usize), case.zeros(DType::F32, 5 * WIDTH as usize));
    let shifted = |rows: i64, columns: i64| Location {
        buffer: a,
        index: linear(&[(0, WIDTH), (1, 1)], rows * WIDTH + columns),
        guards: vec![(linear(&[(0, 1)], rows), 3), (linear(&[(1, 1)], columns), WIDTH)],
        indirect: Vec::new(),
    };
    let mut code = Code::default();
    let (before, after) = (code.load(shifted(-1, -60)), code.load(shifted(0, 60)));
    let sum = code.binary(Binary::Add, before, after);
    code.store(at(y, &[(0, WIDTH), (1, 1)]), sum);
    case.nest(&[5, WIDTH as usize], 1, Lanes::Outer, vec![code.phase(&[])]);
    check_wide(&case, 1);
}
