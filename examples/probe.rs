//! probe
use ansatz::dim::Dim;
use ansatz::graph::*;
use ansatz::source::Span;
use std::collections::BTreeMap;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let path = std::path::Path::new(&args[1]);
    let (project, file, diagnostics) = ansatz::model::Project::load(path, None, &|p| std::fs::read(p));
    for d in &diagnostics { eprintln!("{d:?}"); }
    let mut sizes = BTreeMap::new();
    for pair in &args[3..] {
        if let Some((n, v)) = pair.split_once('=') { sizes.insert(n.to_string(), v.parse().unwrap()); }
    }
    let expanded = match ansatz::model::expand(&project, file, &args[2], &[], ansatz::model::Mode::Train, &sizes) {
        Ok((e, _)) => e,
        Err(d) => { for d in d { eprintln!("{d:?}"); } return; }
    };
    let mut g = expanded.graph;
    let out = g.outputs[0].value;
    let span = g.value(out).span;
    // last axis classes; rows = rest
    let shape = g.sizes(out);
    let c = *shape.last().unwrap();
    let n: usize = shape.iter().product::<usize>() / c;
    let d = |s: &[usize]| s.iter().map(|&x| Dim::constant(x as i64)).collect::<Vec<_>>();
    let logits = g.reshape(out, &d(&[n, c]), span);
    let label = g.input(Input { name: "label".into(), shape: d(&[n]), dtype: DType::I32, span });
    let loss = ce(&mut g, logits, label, n, c, span);
    g.outputs.push(Output { name: "loss".into(), value: loss });
    let params: Vec<ValueId> = (0..g.params.len()).map(|p| {
        g.values().find(|(_, v)| v.op == Op::Param(ParamId(p as u32))).map(|(id, _)| id).unwrap()
    }).collect();
    let grads = ansatz::grad::differentiate(&mut g, loss, &params);
    for (p, (&param, grad)) in params.iter().zip(grads).enumerate() {
        adam(&mut g, p, param, grad, span);
    }
    ansatz::passes::run(&mut g);
    if args.iter().any(|a| a == "--graph") {
        println!("{}", ansatz::graph::print::print(&g, &project.sources));
    }
    let start = std::time::Instant::now();
    let program = ansatz::schedule::plan(&g, &ansatz::schedule::Persistent::of(&g));
    eprintln!("plan took {:?}, {} values", start.elapsed(), g.len());
    if args.iter().any(|a| a == "--print") {
        println!("{}", ansatz::kernel::print::print(&program));
    }
    println!("{}", ansatz::schedule::report(&program, &project.sources));
}

fn adam(g: &mut Graph, p: usize, w: ValueId, grad: ValueId, span: Span) {
    let shape = g.shape(w).to_vec();
    let mut st = |g: &mut Graph, n: &str| g.state(State { name: format!("{}.{n}", g.params[p].name), shape: shape.clone(), dtype: DType::F32, init: 0.0, kind: StateKind::Optimizer(ParamId(p as u32)), span });
    let (m, v) = (st(g, "m"), st(g, "v"));
    let (ms, vs) = (StateId(g.states.len() as u32 - 2), StateId(g.states.len() as u32 - 1));
    let k = |g: &mut Graph, x: f64| g.constant(x, &shape, DType::F32, span);
    let mix = |g: &mut Graph, o, n, b: f64| { let (x, y) = (k(g, b), k(g, 1.0 - b)); let a = g.binary(Binary::Mul, o, x, span); let c = g.binary(Binary::Mul, n, y, span); g.binary(Binary::Add, a, c, span) };
    let nm = mix(g, m, grad, 0.9);
    let sq = g.binary(Binary::Mul, grad, grad, span);
    let nv = mix(g, v, sq, 0.999);
    let r = g.unary(Unary::Sqrt, nv, span);
    let e = k(g, 1e-8);
    let r = g.binary(Binary::Add, r, e, span);
    let dir = g.binary(Binary::Div, nm, r, span);
    let lr = k(g, 1e-3);
    let s = g.binary(Binary::Mul, dir, lr, span);
    let nw = g.binary(Binary::Sub, w, s, span);
    g.updates.push(Update { target: Target::Param(ParamId(p as u32)), value: nw });
    g.updates.push(Update { target: Target::State(ms), value: nm });
    g.updates.push(Update { target: Target::State(vs), value: nv });
}

fn ce(g: &mut Graph, x: ValueId, label: ValueId, n: usize, c: usize, span: Span) -> ValueId {
    let d = |s: &[usize]| s.iter().map(|&x| Dim::constant(x as i64)).collect::<Vec<_>>();
    let most = g.reduce_max(x, &[1], span);
    let most = g.detach(most, span);
    let most = g.broadcast(most, &d(&[n, c]), &[0], span);
    let sh = g.binary(Binary::Sub, x, most, span);
    let e = g.unary(Unary::Exp, sh, span);
    let t = g.sum(e, &[1], span);
    let l = g.unary(Unary::Log, t, span);
    let l = g.broadcast(l, &d(&[n, c]), &[0], span);
    let logp = g.binary(Binary::Sub, sh, l, span);
    let ind = Indirect { domain: d(&[n]), index: vec![IndirectIndex::Affine(Affine::index(0)), IndirectIndex::Tensor { arg: 1, access: vec![Affine::index(0)] }] };
    let p = g.gather(ind, &[logp, label], span);
    let s = g.sum(p, &[0], span);
    let k = g.constant(-1.0 / n as f64, &[], DType::F32, span);
    g.binary(Binary::Mul, s, k, span)
}
