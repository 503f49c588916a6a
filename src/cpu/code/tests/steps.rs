//! Whole steps: order, barriers, copies.

use super::*;
use crate::cpu::code;
use crate::cpu::run::{Compile, Cpu, Executable, found_in};
use crate::device::Device;
use crate::kernel::{Product, ProductLoop};

/// A chain of kernels, large and small, where each reads what the one before wrote.
fn chain(count: usize) -> Case {
    let mut case = Case::default();
    let buffers: Vec<BufferId> = (0..6).map(|_| case.floats(count)).collect();
    let total = case.zeros(DType::F32, 1);
    for pair in buffers.windows(2) {
        let mut code = Code::default();
        // Read in reverse, so that a thread reads what another one wrote.
        let mut back = at(pair[0], &[(0, -1)]);
        back.index.offset = count as i64 - 1;
        let x = code.load(back);
        let y = code.load(at(pair[1], &[(0, 1)]));
        let sum = code.binary(Binary::Add, x, y);
        code.store(at(pair[1], &[(0, 1)]), sum);
        case.nest(&[count], 1, Lanes::Outer, vec![code.phase(&[])]);
    }
    let mut first = Code::default();
    let x = first.load(at(buffers[5], &[(0, 1)]));
    first.reduce(ReductionKind::Sum, x);
    let mut second = Code::default();
    let sum = second.reduced(0, 0);
    second.store(at(total, &[]), sum);
    case.nest(&[], 0, Lanes::Inner, vec![first.phase(&[count]), second.phase(&[])]);
    let mut code = Code::default();
    let sum = code.load(at(total, &[]));
    let x = code.load(at(buffers[0], &[(0, 1)]));
    let y = code.binary(Binary::Mul, sum, x);
    code.store(at(buffers[0], &[(0, 1)]), y);
    case.nest(&[count], 1, Lanes::Outer, vec![code.phase(&[])]);
    case
}

#[test]
fn dependent_kernels_wait_for_each_other() {
    // Pairs of neighbours sum up to 100 k elements with rounding in another order than the interpreter's.
    for count in [100, 20_000] {
        chain(count).check(1e-3);
    }
}

#[test]
fn zero_and_copy_kernels_move_bytes() {
    for count in [3, 100_000] {
        let mut case = Case::default();
        let (a, b, c) = (case.floats(count), case.floats(count), case.floats(count));
        case.kernel(KernelKind::Copy { from: a, to: b });
        case.kernel(KernelKind::Zero(c));
        let mut code = Code::default();
        let x = code.load(at(b, &[(0, 1)]));
        code.add(at(c, &[(0, 1)]), x);
        case.nest(&[count], 1, Lanes::Outer, vec![code.phase(&[])]);
        case.kernel(KernelKind::Zero(a));
        case.check(0.0);
    }
}

/// `c[m, n] = Σ_k a[m, k] · b[k, n]`, then twice that plus the old `d`.
#[test]
fn products_and_nests_take_turns() {
    for (m, n, k) in [(3, 5, 7), (130, 70, 90)] {
        let mut case = Case::default();
        let (a, b) = (case.floats(m * k), case.floats(k * n));
        let (c, d) = (case.zeros(DType::F32, m * n), case.floats(m * n));
        let row =
            |extent: usize, a: usize, b: usize, c: usize| ProductLoop { extent, a: a as i64, b: b as i64, c: c as i64 };
        let product = |c, accumulate| Product {
            batch: Vec::new(),
            m: vec![row(m, k, 0, n)],
            n: vec![row(n, 0, 1, 1)],
            k: vec![row(k, 1, n, 0)],
            a: (a, 0),
            b: (b, 0),
            c: (c, 0),
            accumulate,
            bands: Vec::new(),
        };
        case.kernel(KernelKind::Product(product(c, false)));
        case.kernel(KernelKind::Product(product(d, true)));
        let mut code = Code::default();
        let (x, y) = (code.load(at(c, &[(0, 1)])), code.load(at(d, &[(0, 1)])));
        let sum = code.binary(Binary::Add, x, y);
        code.store(at(d, &[(0, 1)]), sum);
        case.nest(&[m * n], 1, Lanes::Outer, vec![code.phase(&[])]);
        case.check(1e-4);
    }
}

#[test]
fn profile_counts_time_for_each_kernel() {
    let case = chain(20_000);
    let options = Options { level: crate::machine::detect(), profile: true, tuning: Default::default() };
    let executable = code::load(&case.program, &options).expect("the program compiles");
    assert!(executable.profile().is_empty());
    let (mut arena, pool) = (Arena::new(&case.program).expect("memory"), Pool::new(2));
    executable.run(&mut arena, &pool, INPUT);
    let profile = executable.profile();
    assert_eq!(profile.len(), case.program.kernels.len());
    assert!(profile.iter().all(|time| *time > 0), "{profile:?}");
}

#[test]
fn dumps_show_both_texts_of_a_nest() {
    let case = chain(100);
    let level = crate::machine::detect();
    let clif = code::dump_clif(&case.program, 0, level).expect("the kernel compiles").expect("it is a nest");
    assert!(clif.contains("f32x4"), "{clif}");
    let assembly = code::dump_asm(&case.program, 0, level).expect("the kernel compiles").expect("it is a nest");
    assert!(assembly.contains("addps"), "{assembly}");
}

/// What a file of another process would hold.
fn through_bytes(code: &crate::cpu::run::Code) -> crate::cpu::run::Code {
    postcard::from_bytes(&postcard::to_stdvec(code).expect("plain data")).expect("what was written")
}

#[test]
fn code_read_back_has_the_bits_of_code_just_made() {
    let case = chain(5000);
    for level in Level::available() {
        let options = Options { level, profile: false, tuning: Default::default() };
        let code = code::compile(&case.program, &options).expect("it compiles");
        assert_eq!(code, code::compile(&case.program, &options).expect("it compiles"), "code is the same each time");
        // SAFETY: the code was made for the program.
        let executable = unsafe { Executable::load(&case.program, &through_bytes(&code)) }.expect("it loads");
        let mut arena = case.filled();
        executable.run(&mut arena, &Pool::new(2), INPUT);
        let direct = case.run(level, 2);
        for buffer in &case.program.buffers {
            assert!(arena.raw(buffer) == direct.raw(buffer), "{level}: {}", buffer.role);
        }
    }
}

#[test]
fn every_level_is_made_on_every_machine_and_what_cannot_run_is_refused() {
    let mut case = Case::default();
    let (a, b, c) = (case.floats(64), case.floats(64), case.zeros(DType::F32, 64));
    let row = |a, b, c| vec![ProductLoop { extent: 8, a, b, c }];
    let (m, n, k) = (row(8, 0, 8), row(0, 1, 1), row(1, 8, 0));
    let (a, b, c) = ((a, 0), (b, 0), (c, 0));
    let product = Product { batch: vec![], m, n, k, a, b, c, accumulate: false, bands: vec![] };
    case.kernel(KernelKind::Product(product));
    for level in Level::ALL {
        let options = Options { level, profile: false, tuning: Default::default() };
        let code = code::compile(&case.program, &options).expect("it compiles");
        let load = |code: &crate::cpu::run::Code| {
            // SAFETY: what is wrong with it is seen before it runs.
            unsafe { Executable::load(&case.program, code) }.err().map(|error| error.to_string())
        };
        if !level.is_available() {
            assert!(load(&code).is_some_and(|words| words.contains("instructions")), "{level}");
            continue;
        }
        assert_eq!(load(&code), None);
        let mut uncut = code.clone();
        uncut.cuts.clear();
        let mut miscut = code.clone();
        miscut.cuts[0].row_blocks = 1000;
        let mut cut_off = code.clone();
        cut_off.bytes.truncate(code.step);
        let mut moved = case.program.clone();
        moved.buffers[2].offset += 64;
        moved.arena_bytes += 64;
        let of_another = code::compile(&moved, &options).expect("it compiles");
        for wrong in [uncut, miscut, cut_off, of_another] {
            assert!(load(&wrong).is_some_and(|words| words.contains("not this program's")), "{level}");
        }
        let older = crate::cpu::run::Code { form: "0.0.9 system-v".to_string(), ..code };
        assert!(load(&older).is_some_and(|words| words.contains("of 0.0.9 system-v, not of")), "{level}");
    }
}

#[test]
fn a_device_takes_no_code_of_another_level_and_none_that_is_not_there() {
    let case = chain(100);
    let options = Options { level: Level::Portable, profile: false, tuning: Default::default() };
    let codes = vec![code::compile(&case.program, &options).expect("it compiles")];
    let refused = |level: Level, compile: Compile| {
        // SAFETY: the code is the program's, whatever its level.
        let mut device = unsafe { Cpu::new(level, 1, compile) }.expect("memory");
        device.load(&case.program).err().map(|error| error.to_string())
    };
    assert_eq!(refused(Level::Portable, found_in(codes.clone(), Level::Portable)), None);
    let words = refused(Level::Avx2, found_in(codes.clone(), Level::Avx2)).expect("no such code");
    assert!(words.contains("no machine code for avx2"), "{words}");
    let words = refused(Level::Avx2, found_in(codes, Level::Portable)).expect("another level");
    assert!(words.contains("for portable, not for avx2"), "{words}");
}
