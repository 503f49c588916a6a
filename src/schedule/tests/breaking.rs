//! Programs of real graphs, each broken in one place: the verifier says which rule.

use super::*;
use crate::kernel::verify::verify;
use crate::kernel::{Buffer, BufferId, Kernel, Lanes, Nest, NodeId, NodeOp, Product, ReductionKind, Role};
use crate::schedule::{Products, Target};

fn planned(bench: &Bench, lowering: Lowering) -> Program {
    plan(&bench.graph, &Persistent::of(&bench.graph), &lowering)
}

/// Changes a valid program and expects a violation with these words.
fn expect(program: &Program, words: &str, change: impl FnOnce(&mut Program)) {
    assert_eq!(verify(program), Ok(()), "the program is valid before");
    let mut broken = program.clone();
    change(&mut broken);
    let found = verify(&broken).expect_err(words);
    let text: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(text.iter().any(|line| line.contains(words)), "expected `{words}`, found {text:#?}");
}

/// The first nest of this kind.
fn nest<'a>(program: &'a mut Program, fits: impl Fn(&Nest) -> bool) -> &'a mut Nest {
    let nest = |kernel: &'a mut Kernel| if let KernelKind::Nest(nest) = &mut kernel.kind { Some(nest) } else { None };
    program.kernels.iter_mut().filter_map(nest).find(|nest| fits(nest)).expect("the program has such a nest")
}

fn product(program: &mut Program) -> &mut Product {
    program.kernels.iter_mut().find_map(|kernel| kernel.kind.product_mut()).expect("the program has a product")
}

fn is_guarded(nest: &Nest) -> bool {
    nest.loads().any(|load| !load.guards.is_empty())
}

fn guarded_load(program: &mut Program) -> &mut crate::kernel::Location {
    let nest = nest(program, is_guarded);
    let mut loads = nest.phases.iter_mut().flat_map(|phase| &mut phase.nodes).filter_map(|node| node.op.location_mut());
    loads.find(|load| !load.guards.is_empty()).expect("the nest loads behind a guard")
}

fn find(program: &Program, fits: impl Fn(&Buffer) -> bool) -> BufferId {
    BufferId(program.buffers.iter().position(fits).expect("the program has such a buffer") as u32)
}

/// A convolution with padding and its gradients as plain nests, in which borders are guarded.
fn bordered() -> Program {
    let usual = Lowering::default();
    let products = Products { least: usize::MAX, ..usual.target.products };
    planned(&convolution(1, 1, 1, 6, 3), Lowering { target: Target { products, ..usual.target }, tile: 0, ..usual })
}

#[test]
fn accesses_that_leave_their_buffers_are_found() {
    let program = bordered();
    expect(&program, "elements", |program| guarded_load(program).index.offset += 1);
    expect(&program, "elements", |program| guarded_load(program).guards.clear());
    expect(&program, "elements", |program| guarded_load(program).guards[0].1 += 1);
    expect(&program, "elements", |program| guarded_load(program).guards[0].0.offset -= 1);
    expect(&program, "elements", |program| {
        let terms = &mut guarded_load(program).index.terms;
        terms.iter_mut().for_each(|term| term.1 *= 2);
    });
    expect(&program, "elements", |program| nest(program, is_guarded).outer[0] += 1);
    expect(&program, "without iterations", |program| nest(program, is_guarded).outer[0] = 0);
    expect(&program, "no buffer", |program| guarded_load(program).buffer = BufferId(1000));
    expect(&program, "a loop that does not exist", |program| guarded_load(program).index.terms.push((40, 1)));
}

#[test]
fn sizes_that_cannot_be_counted_are_found() {
    let program = bordered();
    for sizes in [vec![usize::MAX, 2], vec![usize::MAX / 4 + 1], vec![isize::MAX as usize / 4 + 1]] {
        expect(&program, "more bytes than can be counted", |program| program.buffers[0].sizes = sizes);
    }
    expect(&program, "more bytes than can be counted", |program| program.buffers[0].offset = usize::MAX - 3);
    expect(&program, "more bytes than can be counted", |program| program.arena_bytes = isize::MAX as usize);
}

#[test]
fn products_that_leave_their_tensors_or_meet_in_an_element_are_found() {
    let program = convolution(2, 1, 1, 9, 3).check();
    expect(&program, "tensor of a product leaves", |program| product(program).m[0].a *= 2);
    expect(&program, "tensor of a product leaves", |program| product(program).n[0].extent += 1);
    expect(&program, "tensor of a product leaves", |program| product(program).a.1 -= 1);
    expect(&program, "two elements of a product", |program| product(program).m[0].c = 0);
    expect(&program, "summed loops no result", |program| product(program).k[0].c = 1);
    expect(&program, "writes its own operand", |program| product(program).c.0 = product(program).a.0);
}

#[test]
fn a_filter_without_room_and_other_tiles_are_found() {
    let (n, c, o, size) = (16, 16, 24, 12);
    let mut bench = Bench::new();
    let (x, w) = (bench.input("x", &[n, c, size, size]), bench.param("w", &[o, c, 3, 3]));
    let at_x = vec![Affine::index(0), Affine::index(4), affine(&[(2, 1), (5, 1)], -1), affine(&[(3, 1), (6, 1)], -1)];
    let domain = [n, o, size, size, c, 3, 3];
    let sizes = [n, o, size, size];
    let y = bench.contract(&domain, vec![at_x, plain(&[1, 4, 5, 6])], plain(&[0, 1, 2, 3]), &[x, w], &sizes);
    bench.output("y", y);
    let program = planned(&bench, Lowering::default());
    let winograds = |program: &mut Program, change: &dyn Fn(&mut crate::kernel::Winograd)| {
        for kernel in &mut program.kernels {
            if let KernelKind::Winograd(winograd) | KernelKind::Filter(winograd) = &mut kernel.kind {
                change(winograd);
            }
        }
    };
    expect(&program, "a filter of", |program| {
        let id = find(program, |buffer| buffer.role.to_string().contains("filter"));
        program.buffers[id.0 as usize].sizes[0] -= 1;
    });
    expect(&program, "tiles of 3", |program| winograds(program, &|winograd| winograd.tile = 3));
    expect(&program, "a filter belongs", |program| winograds(program, &|winograd| winograd.filter = None));
    expect(&program, "no correlation", |program| winograds(program, &|winograd| winograd.product.k.truncate(1)));
    expect(&program, "read before a write", |program| {
        program.kernels.retain(|kernel| !matches!(kernel.kind, KernelKind::Filter(_)));
    });
}

#[test]
fn an_order_in_which_values_are_missing_is_found() {
    let program = clipped_step(3).check();
    let last = program.kernels.len() - 1;
    expect(&program, "read before a write", |program| program.kernels.swap(0, last));
    expect(&program, "read before a write", |program| drop(program.kernels.remove(0)));
}

#[test]
fn buffers_that_are_alive_together_and_share_bytes_are_found() {
    let program = clipped_step(3).check();
    let temporary = |buffer: &Buffer| matches!(buffer.role, Role::Temporary(_));
    expect(&program, "share bytes", |program| {
        let (temporary, input) =
            (find(program, temporary), find(program, |buffer| matches!(buffer.role, Role::Input(_))));
        program.buffers[temporary.0 as usize].offset = program.buffer(input).offset;
    });
    expect(&program, "share bytes", |program| {
        // Two values of the last nest that reads two temporaries.
        let reads = program.kernels.iter().rev().find_map(|kernel| {
            let mut reads = kernel.reads();
            reads.sort_unstable();
            reads.dedup();
            reads.retain(|id| temporary(program.buffer(*id)));
            (reads.len() > 1).then_some(reads)
        });
        let reads = reads.expect("a kernel reads two temporaries");
        program.buffers[reads[0].0 as usize].offset = program.buffer(reads[1]).offset;
    });
    expect(&program, "not aligned", |program| {
        let id = find(program, temporary);
        program.buffers[id.0 as usize].offset += 4;
    });
    expect(&program, "not within", |program| program.arena_bytes -= 64);
}

/// A softmax over rows of 40: phases that reduce, and one that stores.
fn softmax() -> Program {
    let (n, t) = (24, 40);
    let mut bench = Bench::new();
    let x = bench.input("x", &[n, t]);
    let y = softmax_rows(&mut bench, x, &[n, t]);
    bench.output("y", y);
    planned(&bench, Lowering::default())
}

fn softmax_rows(bench: &mut Bench, x: ValueId, sizes: &[usize]) -> ValueId {
    let axis = sizes.len() - 1;
    let most = bench.graph.reduce_max(x, &[axis], span());
    let most = bench.spread(most, sizes, &[axis]);
    let below = bench.sub(x, most);
    let powers = bench.unary(Unary::Exp, below);
    let sum = bench.sum(powers, &[axis]);
    let sum = bench.spread(sum, sizes, &[axis]);
    bench.binary(Binary::Div, powers, sum)
}

#[test]
fn wrong_types_and_nodes_out_of_order_are_found() {
    let program = softmax();
    let reduces = |nest: &Nest| nest.phases.iter().any(|phase| !phase.reductions.is_empty());
    let has_node = |nest: &Nest, fits: &dyn Fn(&NodeOp) -> bool| {
        nest.phases.iter().flat_map(|phase| &phase.nodes).any(|node| fits(&node.op))
    };
    let is_unary = |op: &NodeOp| matches!(op, NodeOp::Unary(..));
    let is_reduced = |op: &NodeOp| matches!(op, NodeOp::Reduced { .. });
    fn nodes(nest: &mut Nest) -> impl Iterator<Item = &mut crate::kernel::Node> {
        nest.phases.iter_mut().flat_map(|phase| &mut phase.nodes)
    }
    expect(&program, "is not I32", |program| {
        let nest = nest(program, |nest| has_node(nest, &is_unary));
        nodes(nest).find(|node| is_unary(&node.op)).expect("found above").dtype = DType::I32;
    });
    expect(&program, "no such reduction of an earlier phase", |program| {
        let nest = nest(program, |nest| has_node(nest, &is_reduced));
        let later = nest.phases.len() - 1;
        nodes(nest).filter(|node| is_reduced(&node.op)).for_each(|node| {
            node.op = NodeOp::Reduced { phase: later, index: 0 };
        });
    });
    expect(&program, "does not precede it", |program| {
        let nest = nest(program, |nest| has_node(nest, &is_unary));
        let operands = nodes(nest).find(|node| is_unary(&node.op)).expect("found above").op.operands_mut();
        operands.into_iter().for_each(|operand| *operand = NodeId(30));
    });
    expect(&program, "it is F32", |program| {
        let nest = nest(program, reduces);
        let phase = nest.phases.iter_mut().find(|phase| !phase.reductions.is_empty()).expect("found above");
        phase.reductions[0].kind = ReductionKind::ArgMax;
    });
    expect(&program, "a store of F32", |program| {
        let output = find(program, |buffer| matches!(buffer.role, Role::Output(_)));
        program.buffers[output.0 as usize].dtype = DType::I32;
    });
}

#[test]
fn parallel_points_that_meet_are_found() {
    let bench = embedding(&[0, 10, 4, 4, 2, 1]);
    let program = planned(&bench, Lowering::default());
    let scatters = |nest: &Nest| nest.stores().any(|store| !store.location.indirect.is_empty());
    expect(&program, "parallel points", |program| {
        let nest = nest(program, scatters);
        // The loops over tokens become parallel.
        nest.outer.append(&mut nest.phases[0].inner);
        nest.parallel = nest.outer.len();
    });
    expect(&program, "lanes may store", |program| {
        let nest = nest(program, scatters);
        nest.lanes = Lanes::Outer;
        nest.phases[0].stores[0].location.index.terms.clear();
    });
    expect(&program, "elements", |program| {
        let nest = nest(program, scatters);
        let stores = nest.phases.iter_mut().flat_map(|phase| &mut phase.stores);
        stores.flat_map(|store| &mut store.location.indirect).for_each(|term| term.extent += 1);
    });
    expect(&program, "is not I32", |program| {
        let nest = nest(program, scatters);
        let phase = &mut nest.phases[0];
        let value = phase.stores[0].value;
        phase.stores[0].location.indirect[0].node = value;
    });
    expect(&program, "read before a write", |program| {
        program.kernels.retain(|kernel| !matches!(kernel.kind, KernelKind::Zero(_)));
    });
}

#[test]
fn an_update_that_reads_another_element_is_found() {
    let mut bench = Bench::new();
    let (w, g) = (bench.param("w", &[64]), bench.input("g", &[64]));
    let next = bench.sub(w, g);
    bench.update(Variable::Param(crate::graph::ParamId(0)), next);
    let program = planned(&bench, Lowering::default());
    expect(&program, "may store at another point", |program| {
        let nest = nest(program, |_| true);
        for load in nest.phases[0].nodes.iter_mut().filter_map(|node| node.op.location_mut()) {
            load.index = load.index.scaled(-1).shifted(63);
        }
    });
    expect(&program, "is written", |program| {
        let input = find(program, |buffer| matches!(buffer.role, Role::Input(_)));
        nest(program, |_| true).phases[0].stores[0].location.buffer = input;
    });
}

/// The attention of 24 heads: two products with a softmax between them, in slices.
fn attention() -> Program {
    let (n, h, t, d) = (4, 6, 40, 24);
    let mut bench = Bench::new();
    let [q, k, v] = ["q", "k", "v"].map(|name| bench.param(name, &[n, t, h, d]));
    let reads = vec![plain(&[0, 2, 1, 4]), plain(&[0, 3, 1, 4])];
    let scores = bench.contract(&[n, h, t, t, d], reads, plain(&[0, 1, 2, 3]), &[q, k], &[n, h, t, t]);
    let weights = softmax_rows(&mut bench, scores, &[n, h, t, t]);
    let reads = vec![plain(&[0, 1, 2, 4]), plain(&[0, 4, 1, 3])];
    let y = bench.contract(&[n, h, t, d, t], reads, plain(&[0, 1, 2, 3]), &[weights, v], &[n, h, t, d]);
    bench.output("y", y);
    let program = planned(&bench, Lowering::default());
    assert!(!program.groups.is_empty() && !program.locals.is_empty(), "attention goes in slices");
    program
}

#[test]
fn slices_that_meet_and_locals_outside_their_group_are_found() {
    let program = attention();
    let last = |program: &Program| program.groups[0].kernels.end - 1;
    expect(&program, "slices", |program| program.groups[0].slices /= 2);
    expect(&program, "outside its group", |program| program.groups[0].kernels.end -= 1);
    expect(&program, "no run of kernels", |program| program.groups.push(program.groups[0].clone()));
    expect(&program, "only nests and products", |program| {
        let output = find(program, |buffer| matches!(buffer.role, Role::Output(_)));
        let position = last(program);
        program.kernels[position].kind = KernelKind::Zero(output);
    });
    expect(&program, "depends on its number", |program| {
        let local = program.locals[0];
        program.buffers[local.0 as usize].sizes[0] *= 24;
        let product = product(program);
        let extents: Vec<usize> = product.batch.iter().map(|each| each.extent).collect();
        let strides = crate::kernel::linear::row_major(&extents);
        product.batch.iter_mut().zip(strides).for_each(|(each, stride)| each.c = stride * 1600);
    });
    expect(&program, "are no ranges", |program| {
        // Head h of the queries is no range of what the last product writes.
        product(program).a.0 = find(program, |buffer| matches!(buffer.role, Role::Output(_)));
    });
    expect(&program, "lanes of a nest", |program| {
        let nest = nest(program, |_| true);
        nest.parallel = 1;
        nest.outer.truncate(1);
        nest.phases.iter_mut().flat_map(|phase| phase.linears_mut()).for_each(|linear| linear.terms.clear());
        nest.lanes = Lanes::Outer;
    });
    expect(&program, "the same element of local:", |program| program.locals.clear());
    expect(&program, "within", |program| program.local_bytes = 0);
    expect(&program, "share bytes", |program| {
        let locals: Vec<usize> = program.locals.iter().map(|id| id.0 as usize).collect();
        locals.into_iter().for_each(|local| program.buffers[local].offset = 0);
    });
}
