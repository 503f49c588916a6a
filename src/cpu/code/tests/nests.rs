//! Single nests.

use super::*;

/// Elementwise sums are exact to half a unit in the last place.
const EXACT: f64 = 1e-6;
/// Transcendental functions and longer sums.
const CLOSE: f64 = 1e-5;

/// One nest over `count` elements, `y[i] = f(a[i], b[i])`.
pub(super) fn elementwise(count: usize, f: impl Fn(&mut Code, NodeId, NodeId) -> NodeId) -> Case {
    let mut case = Case::default();
    let (a, b, y) = (case.floats(count), case.floats(count), case.zeros(DType::F32, count));
    let mut code = Code::default();
    let (x, z) = (code.load(at(a, &[(0, 1)])), code.load(at(b, &[(0, 1)])));
    let value = f(&mut code, x, z);
    code.store(at(y, &[(0, 1)]), value);
    case.nest(&[count], 1, Lanes::Outer, vec![code.phase(&[])]);
    case
}

#[test]
fn every_length_from_1_to_40_is_exact() {
    for count in 1..=40 {
        elementwise(count, |code, x, y| code.binary(Binary::Add, x, y)).check(EXACT);
    }
}

#[test]
fn float_operations_agree_with_the_interpreter() {
    for binary in [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Rem, Binary::Max, Binary::Min] {
        elementwise(37, |code, x, y| code.binary(binary, x, y)).check(CLOSE);
    }
    for unary in [Unary::Neg, Unary::Abs, Unary::Floor, Unary::Sqrt] {
        elementwise(37, |code, x, _| code.unary(unary, x)).check(EXACT);
    }
}

#[test]
fn calls_on_strips_agree_with_the_interpreter_for_short_and_long_loops() {
    let all = [Unary::Exp, Unary::Log, Unary::Sin, Unary::Cos, Unary::Tanh, Unary::Sigmoid, Unary::Erf];
    for count in [1, 5, 512, 1500] {
        for unary in all {
            elementwise(count, |code, x, y| {
                let x = if unary == Unary::Log { code.unary(Unary::Abs, x) } else { x };
                let called = code.unary(unary, x);
                code.binary(Binary::Mul, called, y)
            })
            .check(CLOSE);
        }
        elementwise(count, |code, x, y| {
            let x = code.unary(Unary::Abs, x);
            code.binary(Binary::Pow, x, y)
        })
        .check(CLOSE);
    }
}

#[test]
fn calls_of_calls_run_level_by_level() {
    elementwise(1030, |code, x, y| {
        let inner = code.unary(Unary::Tanh, x);
        let shifted = code.binary(Binary::Add, inner, y);
        let outer = code.unary(Unary::Exp, shifted);
        let scaled = code.binary(Binary::Mul, outer, inner);
        code.unary(Unary::Sigmoid, scaled)
    })
    .check(CLOSE);
}

#[test]
fn comparisons_selections_and_logic_agree() {
    for compare in [Compare::Lt, Compare::Le, Compare::Gt, Compare::Ge, Compare::Eq, Compare::Ne] {
        elementwise(37, |code, x, y| {
            // Equal numbers occur: both sides are rounded down to integers.
            let (whole, other) = (code.unary(Unary::Floor, x), code.unary(Unary::Floor, y));
            let first = code.node(NodeOp::Compare(compare, whole, other), DType::Bool);
            let zero = code.number(0.0);
            let second = code.node(NodeOp::Compare(Compare::Lt, x, zero), DType::Bool);
            let not = code.node(NodeOp::Unary(Unary::Not, second), DType::Bool);
            let both = code.node(NodeOp::Binary(Binary::And, first, not), DType::Bool);
            let third = code.node(NodeOp::Compare(Compare::Gt, y, zero), DType::Bool);
            let any = code.node(NodeOp::Binary(Binary::Or, both, third), DType::Bool);
            code.f32(NodeOp::Select(any, x, y))
        })
        .check(EXACT);
    }
}

#[test]
fn bool_buffers_hold_one_byte_an_element() {
    for count in [1, 4, 19, 64] {
        let mut case = Case::default();
        let (a, mask) = (case.floats(count), case.zeros(DType::Bool, count));
        let y = case.zeros(DType::F32, count);
        let mut code = Code::default();
        let x = code.load(at(a, &[(0, 1)]));
        let truth = code.node(NodeOp::Cast(x), DType::Bool);
        let zero = code.number(0.0);
        let less = code.node(NodeOp::Compare(Compare::Lt, x, zero), DType::Bool);
        let both = code.node(NodeOp::Binary(Binary::And, truth, less), DType::Bool);
        code.store(at(mask, &[(0, 1)]), both);
        case.nest(&[count], 1, Lanes::Outer, vec![code.phase(&[])]);
        let mut code = Code::default();
        let flag = code.node(NodeOp::Load(at(mask, &[(0, 1)])), DType::Bool);
        let number = code.f32(NodeOp::Cast(flag));
        code.store(at(y, &[(0, 1)]), number);
        case.nest(&[count], 1, Lanes::Outer, vec![code.phase(&[])]);
        case.check(EXACT);
    }
}

#[test]
fn integers_divide_towards_minus_infinity_and_convert() {
    let mut case = Case::default();
    let count = 45;
    let a = case.buffer(DType::I32, (0..count).map(|i| (i as f64) * 3.0 - 60.0).collect());
    let b = case.buffer(DType::I32, (0..count).map(|i| (i % 9) as f64 - 4.0).collect());
    let mut phase = Code::default();
    let x = phase.node(NodeOp::Load(at(a, &[(0, 1)])), DType::I32);
    let y = phase.node(NodeOp::Load(at(b, &[(0, 1)])), DType::I32);
    for binary in [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Rem, Binary::Max, Binary::Min] {
        let value = phase.node(NodeOp::Binary(binary, x, y), DType::I32);
        let out = case.zeros(DType::I32, count);
        phase.store(at(out, &[(0, 1)]), value);
    }
    let index = phase.node(NodeOp::Index(linear(&[(0, -3)], 7)), DType::I32);
    let out = case.zeros(DType::I32, count);
    phase.store(at(out, &[(0, 1)]), index);
    let float = phase.f32(NodeOp::Cast(index));
    let third = phase.number(0.3);
    let float = phase.binary(Binary::Mul, float, third);
    let back = phase.node(NodeOp::Cast(float), DType::I32);
    let out = case.zeros(DType::I32, count);
    phase.store(at(out, &[(0, 1)]), back);
    case.nest(&[count], 1, Lanes::Outer, vec![phase.phase(&[])]);
    case.check(0.0);
}

/// `y[r, c] = a[r, c] + bias[c] + scale[r]`, and the transposed copy of it.
fn broadcast(rows: usize, columns: usize, parallel: usize) -> Case {
    let mut case = Case::default();
    let (a, bias, scale) = (case.floats(rows * columns), case.floats(columns), case.floats(rows));
    let (y, t) = (case.zeros(DType::F32, rows * columns), case.zeros(DType::F32, rows * columns));
    let wide = columns as i64;
    let mut code = Code::default();
    let x = code.load(at(a, &[(0, wide), (1, 1)]));
    let (b, s) = (code.load(at(bias, &[(1, 1)])), code.load(at(scale, &[(0, 1)])));
    let sum = code.binary(Binary::Add, x, b);
    let sum = code.binary(Binary::Add, sum, s);
    code.store(at(y, &[(0, wide), (1, 1)]), sum);
    code.store(at(t, &[(0, 1), (1, rows as i64)]), sum);
    case.nest(&[rows, columns], parallel, Lanes::Outer, vec![code.phase(&[])]);
    case
}

#[test]
fn rows_of_any_length_divide_among_threads() {
    for (rows, columns) in [(3, 10), (200, 33), (64, 32), (1, 70), (150, 4), (2000, 7), (300, 2), (9, 3)] {
        for parallel in 0..=2 {
            broadcast(rows, columns, parallel).check(EXACT);
        }
    }
}

#[test]
fn three_parallel_loops_are_taken_apart() {
    let (n, c, w) = (12, 7, 50);
    let mut case = Case::default();
    let (a, bias, y) = (case.floats(n * c * w), case.floats(c), case.zeros(DType::F32, n * c * w));
    let mut code = Code::default();
    let place = [(0, (c * w) as i64), (1, w as i64), (2, 1)];
    let x = code.load(at(a, &place));
    let b = code.load(at(bias, &[(1, 1)]));
    let sum = code.binary(Binary::Mul, x, b);
    code.store(at(y, &place), sum);
    case.nest(&[n, c, w], 3, Lanes::Outer, vec![code.phase(&[])]);
    case.check(EXACT);
}

/// Softmax of each row with its lanes inside or across the rows.
fn softmax(rows: usize, columns: usize, lanes: Lanes) -> Case {
    let mut case = Case::default();
    let (a, y) = (case.floats(rows * columns), case.zeros(DType::F32, rows * columns));
    let index = case.zeros(DType::I32, rows);
    let place = [(0, columns as i64), (1, 1)];
    let mut first = Code::default();
    let x = first.load(at(a, &place));
    first.reduce(ReductionKind::Max, x);
    first.reduce(ReductionKind::ArgMax, x);
    let mut second = Code::default();
    let x = second.load(at(a, &place));
    let top = second.reduced(0, 0);
    let less = second.binary(Binary::Sub, x, top);
    let exp = second.unary(Unary::Exp, less);
    second.reduce(ReductionKind::Sum, exp);
    let mut third = Code::default();
    let sum = third.reduced(1, 0);
    let one = third.number(1.0);
    let inverse = third.binary(Binary::Div, one, sum);
    third.reduce(ReductionKind::Sum, inverse);
    let log = third.unary(Unary::Log, sum);
    third.reduce(ReductionKind::Sum, log);
    let place_of_max = third.node(NodeOp::Reduced { phase: 0, index: 1 }, DType::I32);
    third.store(at(index, &[(0, 1)]), place_of_max);
    let mut fourth = Code::default();
    let x = fourth.load(at(a, &place));
    let top = fourth.reduced(0, 0);
    let less = fourth.binary(Binary::Sub, x, top);
    let exp = fourth.unary(Unary::Exp, less);
    let inverse = fourth.reduced(2, 0);
    let value = fourth.binary(Binary::Mul, exp, inverse);
    let log = fourth.reduced(2, 1);
    let value = fourth.binary(Binary::Sub, value, log);
    fourth.store(at(y, &place), value);
    let phases = vec![first.phase(&[columns]), second.phase(&[columns]), third.phase(&[]), fourth.phase(&[columns])];
    case.nest(&[rows], 1, lanes, phases);
    case
}

#[test]
fn softmax_agrees_with_every_choice_of_lanes() {
    for lanes in [Lanes::None, Lanes::Inner, Lanes::Outer] {
        for (rows, columns) in [(1, 1), (5, 10), (70, 33), (9, 1100), (600, 3)] {
            softmax(rows, columns, lanes).check(CLOSE);
        }
    }
}

#[test]
fn arg_max_takes_the_first_of_equal_maxima() {
    for lanes in [Lanes::None, Lanes::Inner, Lanes::Outer] {
        for columns in [1, 3, 4, 17, 40] {
            let mut case = softmax(19, columns, lanes);
            // Few distinct values, and a row of −∞ alone.
            case.data[0].iter_mut().for_each(|x| *x = x.floor());
            case.data[0][..columns].fill(f64::NEG_INFINITY);
            let index = &case.program.buffers[2];
            for level in Level::available() {
                let arena = case.run(level, 2);
                for (row, found) in arena.i32(index).iter().enumerate() {
                    let values = &case.data[0][row * columns..][..columns];
                    let first = (0..columns).rev().max_by(|a, b| values[*a].total_cmp(&values[*b]));
                    assert_eq!(Some(*found as usize), first, "row {row} of {columns} columns");
                }
            }
        }
    }
}

#[test]
fn maxima_and_places_of_what_is_not_a_number_agree() {
    for lanes in [Lanes::None, Lanes::Inner, Lanes::Outer] {
        for columns in [1, 3, 4, 17, 40] {
            let mut case = softmax(19, columns, lanes);
            let data = &mut case.data[0];
            // Rows with one and with two NaN, beside infinities, and of −∞ elsewhere.
            for row in (0..19).filter(|row| row % 4 != 0) {
                let row_data = &mut data[row * columns..][..columns];
                match row % 4 {
                    1 => row_data.fill(f64::NEG_INFINITY),
                    2 => row_data[columns - 1] = f64::INFINITY,
                    _two => row_data[5 * row % columns] = f64::NAN,
                }
                row_data[7 * row % columns] = f64::NAN;
            }
            case.check(CLOSE);
        }
    }
}

/// Numbers with NaN here and there, at other places than in the next.
fn holed(count: usize, first: usize) -> Vec<f64> {
    numbers(count, first as u64)
        .into_iter()
        .enumerate()
        .map(|(i, x)| if i % 5 == first { f64::NAN } else { x })
        .collect()
}

#[test]
fn extrema_of_what_is_not_a_number_are_not_numbers() {
    for count in [1, 7, 37, 251] {
        for binary in [Binary::Max, Binary::Min] {
            let swapped = |code: &mut Code, x, _| {
                let zero = code.number(0.0);
                code.binary(binary, zero, x)
            };
            let constant = |code: &mut Code, x, _| {
                let zero = code.number(0.0);
                code.binary(binary, x, zero)
            };
            let mut cases = [
                elementwise(count, |code, x, y| code.binary(binary, x, y)),
                elementwise(count, swapped),
                elementwise(count, constant),
            ];
            for case in &mut cases {
                (case.data[0], case.data[1]) = (holed(count, 0), holed(count, 2));
                case.check(EXACT);
            }
        }
    }
}

#[test]
fn a_reduction_over_no_loops_is_the_value_and_its_index_0() {
    for lanes in [Lanes::None, Lanes::Inner, Lanes::Outer] {
        let count = 9;
        let mut case = Case::default();
        let (a, y, z) = (case.floats(count), case.zeros(DType::F32, count), case.zeros(DType::I32, count));
        case.data[2].fill(7.0);
        let mut first = Code::default();
        let x = first.load(at(a, &[(0, 1)]));
        first.reduce(ReductionKind::ArgMax, x);
        first.reduce(ReductionKind::Max, x);
        let mut second = Code::default();
        let index = second.node(NodeOp::Reduced { phase: 0, index: 0 }, DType::I32);
        let top = second.reduced(0, 1);
        second.store(at(z, &[(0, 1)]), index);
        second.store(at(y, &[(0, 1)]), top);
        case.nest(&[count], 1, lanes, vec![first.phase(&[]), second.phase(&[])]);
        case.check(0.0);
    }
}

#[test]
fn sums_over_two_inner_loops_and_columns_agree() {
    for lanes in [Lanes::None, Lanes::Inner, Lanes::Outer] {
        let (n, c, h) = (6, 21, 45);
        let mut case = Case::default();
        let (a, y) = (case.floats(n * c * h), case.zeros(DType::F32, c));
        let mut first = Code::default();
        let x = first.load(at(a, &[(0, h as i64), (1, (c * h) as i64), (2, 1)]));
        let square = first.binary(Binary::Mul, x, x);
        first.reduce(ReductionKind::Sum, square);
        let mut second = Code::default();
        let sum = second.reduced(0, 0);
        second.store(at(y, &[(0, 1)]), sum);
        case.nest(&[c], 1, lanes, vec![first.phase(&[n, h]), second.phase(&[])]);
        case.check(CLOSE);
    }
}

/// `y[i, j] = Σ_k a[i, j + k − 1]`, zero outside: guards along the lanes and across them.
#[test]
fn guarded_loads_give_zero_outside() {
    for lanes in [Lanes::None, Lanes::Inner, Lanes::Outer] {
        for columns in [1, 2, 9, 40] {
            let rows = 11;
            let mut case = Case::default();
            let (a, y) = (case.floats(rows * columns), case.zeros(DType::F32, rows * columns));
            let wide = columns as i64;
            let mut first = Code::default();
            for down in -1..=1 {
                let mut place = at(a, &[(0, wide), (1, 1), (2, 1)]);
                place.index.offset = down * wide - 1;
                place.guards.push((linear(&[(1, 1), (2, 1)], -1), wide));
                place.guards.push((linear(&[(0, 1)], down), rows as i64));
                let x = first.load(place);
                first.reduce(ReductionKind::Sum, x);
            }
            let mut second = Code::default();
            let parts = [0, 1, 2].map(|index| second.reduced(0, index));
            let sum = second.binary(Binary::Add, parts[0], parts[1]);
            let sum = second.binary(Binary::Add, sum, parts[2]);
            second.store(at(y, &[(0, wide), (1, 1)]), sum);
            case.nest(&[rows, columns], 2, lanes, vec![first.phase(&[3]), second.phase(&[])]);
            case.check(EXACT);
        }
    }
}

#[test]
fn guarded_stores_and_strided_accesses_leave_the_rest_alone() {
    let count = 50;
    let mut case = Case::default();
    let (a, y, z) = (case.floats(3 * count), case.floats(count), case.floats(20));
    let mut code = Code::default();
    let mut strided = at(a, &[(0, -3)]);
    strided.index.offset = 3 * count as i64 - 1;
    let x = code.load(strided);
    let mut every_second = at(y, &[(0, 2)]);
    every_second.guards.push((linear(&[(0, 2)], 0), count as i64));
    code.store(every_second, x);
    let mut window = at(z, &[(0, 1)]);
    window.index.offset = -5;
    window.guards.push((linear(&[(0, 1)], -5), 20));
    code.store(window, x);
    case.nest(&[count], 1, Lanes::Outer, vec![code.phase(&[])]);
    case.check(0.0);
}

/// Pooling and its gradient: every second element is read, and pairs of elements are written in turn.
#[test]
fn strides_of_two_agree_for_even_and_odd_offsets() {
    for (rows, columns) in [(3, 1), (3, 3), (80, 4), (7, 14), (90, 50)] {
        for odd in [0, 1] {
            let mut case = Case::default();
            let (a, y) = (case.floats(2 * rows * columns + 1), case.floats(2 * rows * columns + 1));
            let wide = 2 * columns as i64;
            let place = |buffer, offset| Location { index: linear(&[(0, wide), (1, 2)], offset), ..at(buffer, &[]) };
            let mut code = Code::default();
            let (x, z) = (code.load(place(a, odd)), code.load(place(a, 1 - odd)));
            let (sum, product) = (code.binary(Binary::Add, x, z), code.binary(Binary::Mul, x, z));
            let sum = code.binary(Binary::Sub, sum, z);
            code.store(place(y, odd), sum);
            code.store(place(y, odd + 1), product);
            case.nest(&[rows, columns], 2, Lanes::Outer, vec![code.phase(&[])]);
            case.check(EXACT);
        }
    }
}

/// Rows of a table by index, some of them out of range, and their gradient.
#[test]
fn gather_and_scatter_skip_indices_out_of_range() {
    for lanes in [Lanes::None, Lanes::Outer] {
        for swapped in [false, true] {
            let (tokens, rows, width) = (23, 6, 9);
            let mut case = Case::default();
            let indices = (0..tokens).map(|i| ((i * 5) % 9) as f64 - 1.0).collect();
            let index = case.buffer(DType::I32, indices);
            let (table, gradient) = (case.floats(rows * width), case.floats(rows * width));
            let y = case.zeros(DType::F32, tokens * width);
            // The lane loop is the last one: columns, or tokens when swapped.
            let (token, column) = if swapped { (1, 0) } else { (0, 1) };
            let outer = if swapped { [width, tokens] } else { [tokens, width] };
            let row_of = |buffer, node| Location {
                buffer,
                index: linear(&[(column, 1)], 0),
                guards: Vec::new(),
                indirect: vec![IndirectTerm { node, stride: width as i64, extent: rows as i64 }],
            };
            let mut place = [(token, width as i64), (column, 1)];
            place.sort_unstable();
            let mut code = Code::default();
            let row = code.node(NodeOp::Load(at(index, &[(token, 1)])), DType::I32);
            let x = code.load(row_of(table, row));
            code.store(at(y, &place), x);
            case.nest(&outer, 2, lanes, vec![code.phase(&[])]);
            let mut code = Code::default();
            let row = code.node(NodeOp::Load(at(index, &[(token, 1)])), DType::I32);
            let x = code.load(at(y, &place));
            code.add(row_of(gradient, row), x);
            // Tokens may meet in a row: columns alone are parallel, and lanes only where they are columns.
            let scatter_lanes = if swapped { Lanes::None } else { lanes };
            case.nest(&outer, usize::from(swapped), scatter_lanes, vec![code.phase(&[])]);
            case.check(EXACT);
        }
    }
}

#[test]
fn scattered_sums_are_added_in_row_major_order() {
    for lanes in [Lanes::None, Lanes::Inner] {
        let count = 100;
        let mut case = Case::default();
        let (a, y) = (case.floats(count), case.floats(4));
        let mut code = Code::default();
        let x = code.load(at(a, &[(0, 1)]));
        let index = code.node(NodeOp::Index(linear(&[(0, 7)], 0)), DType::I32);
        let four = code.node(NodeOp::Const(4.0), DType::I32);
        let bin = code.node(NodeOp::Binary(Binary::Rem, index, four), DType::I32);
        let indirect = vec![IndirectTerm { node: bin, stride: 1, extent: 4 }];
        code.add(Location { buffer: y, index: linear(&[], 0), guards: Vec::new(), indirect }, x);
        case.nest(&[], 0, lanes, vec![code.phase(&[count])]);
        let mut expected: Vec<f32> = case.data[1].iter().map(|x| *x as f32).collect();
        (0..count).for_each(|i| expected[i * 7 % 4] += case.data[0][i] as f32);
        for level in Level::available() {
            assert_eq!(case.run(level, 3).f32(&case.program.buffers[1]), expected);
        }
    }
}

#[test]
fn random_numbers_depend_on_the_element_alone() {
    for (count, stride) in [(5, 1), (1300, 1), (77, 3)] {
        let mut case = Case::default();
        let (a, y) = (case.floats(count), case.zeros(DType::F32, count));
        let mut code = Code::default();
        let draw = code.f32(NodeOp::Random { stream: 4, element: linear(&[(0, stride)], 11) });
        let half = code.number(0.5);
        let keep = code.node(NodeOp::Compare(Compare::Lt, draw, half), DType::Bool);
        let x = code.load(at(a, &[(0, 1)]));
        let value = code.f32(NodeOp::Select(keep, x, draw));
        code.store(at(y, &[(0, 1)]), value);
        case.nest(&[count], 1, Lanes::Outer, vec![code.phase(&[])]);
        case.check(0.0);
    }
}

#[test]
fn updates_in_place_read_the_old_values() {
    for with_call in [false, true] {
        let count = 1100;
        let mut case = Case::default();
        let (p, m, g) = (case.floats(count), case.floats(count), case.floats(count));
        let mut code = Code::default();
        let (x, moment, slope) =
            (code.load(at(p, &[(0, 1)])), code.load(at(m, &[(0, 1)])), code.load(at(g, &[(0, 1)])));
        let nine = code.number(0.9);
        let kept = code.binary(Binary::Mul, moment, nine);
        let moment = code.binary(Binary::Add, kept, slope);
        let step = if with_call { code.unary(Unary::Tanh, moment) } else { moment };
        let next = code.binary(Binary::Sub, x, step);
        code.store(at(m, &[(0, 1)]), moment);
        code.store(at(p, &[(0, 1)]), next);
        case.nest(&[count], 1, Lanes::Outer, vec![code.phase(&[])]);
        case.check(CLOSE);
    }
}

#[test]
fn later_phases_see_what_earlier_ones_stored() {
    for lanes in [Lanes::None, Lanes::Inner, Lanes::Outer] {
        let (rows, columns) = (37, 21);
        let mut case = Case::default();
        let (a, y) = (case.floats(rows * columns), case.zeros(DType::F32, rows * columns));
        let place = [(0, columns as i64), (1, 1)];
        let mut first = Code::default();
        let x = first.load(at(a, &place));
        let value = first.unary(Unary::Exp, x);
        first.store(at(y, &place), value);
        first.reduce(ReductionKind::Sum, value);
        let mut second = Code::default();
        // Read back in reverse order.
        let mut back = at(y, &[(0, columns as i64), (1, -1)]);
        back.index.offset = columns as i64 - 1;
        let value = second.load(back);
        second.reduce(ReductionKind::Max, value);
        let mut third = Code::default();
        let value = third.load(at(y, &place));
        let (sum, top) = (third.reduced(0, 0), third.reduced(1, 0));
        let scale = third.binary(Binary::Add, sum, top);
        let value = third.binary(Binary::Div, value, scale);
        third.store(at(y, &place), value);
        let phases = vec![first.phase(&[columns]), second.phase(&[columns]), third.phase(&[columns])];
        case.nest(&[rows], 1, lanes, phases);
        case.check(CLOSE);
    }
}
