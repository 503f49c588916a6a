//! Bands: where, by the equations, an operand of a product is zero or its result does not matter.
//!
//! Input: a program before its back end rewrites it. Output: [`Product::bands`]. Invariant: a band follows from comparisons of
//! loop indices and from guards alone; leaving out a summand outside it changes no value that is read, except that
//! 0 · ∞ and 0 · NaN count as 0 there.
//!
//! A causal mask makes scores −∞ where j > i, their exponentials and whatever is multiplied by them 0; so of each row of
//! weights only the first elements meet values, and scores that a mask replaces need not be computed.

use std::collections::BTreeMap;

use crate::graph::{Binary, Compare, DType, Unary};
use crate::kernel::{BufferId, Kernel, KernelKind, Linear, Nest, NodeId, NodeOp, Phase, Product, Program, Role};
use zone::{Access, Zone};

mod zone;

/// What is known of a value at a point of a phase.
#[derive(Clone, Debug, Default)]
struct Fact {
    /// Where it is 0 (or NaN, if data are not finite).
    zero: Zone,
    /// Where it is −∞ (or NaN).
    low: Zone,
    /// Where it is false.
    fails: Zone,
    /// Where it is true.
    holds: Zone,
    /// An I32 that is a function of loop indices.
    affine: Option<Linear>,
}

impl Fact {
    /// What is known of the element that another nest reads.
    fn carried(&self, from: &Access, to: &Access) -> Fact {
        let [zero, low, fails, holds] =
            [&self.zero, &self.low, &self.fails, &self.holds].map(|zone| zone.carried(from, to));
        Fact { zero, low, fails, holds, affine: None }
    }
}

/// What is known of a buffer that one store writes.
struct Known {
    at: Access,
    fact: Fact,
}

/// How a nest reads a buffer, and where what it reads does not matter.
type Read = (Access, Zone);

/// Gives products their bands.
pub(super) fn find(program: &mut Program) {
    let Program { buffers, kernels, .. } = program;
    // Others may be read from outside.
    let is_temporary = |buffer: BufferId| matches!(buffers[buffer.0 as usize].role, Role::Temporary(_));
    let writes = writes(kernels);
    let once = |buffer: BufferId| writes.get(&buffer) == Some(&1);
    let mut known: BTreeMap<BufferId, Known> = BTreeMap::new();
    let mut reads: BTreeMap<BufferId, Vec<Read>> = BTreeMap::new();
    for kernel in kernels.iter_mut() {
        match &mut kernel.kind {
            KernelKind::Nest(nest) => {
                for phase in &nest.phases {
                    let facts = facts(nest, phase, &known);
                    let extents = [&nest.outer[..], &phase.inner[..]].concat();
                    for (buffer, index, zone) in unread(phase, &facts) {
                        reads.entry(buffer).or_default().push((Access { index, extents: extents.clone() }, zone));
                    }
                    for store in &phase.stores {
                        let (to, fact) = (&store.location, &facts[store.value.0 as usize]);
                        if once(to.buffer) && !store.accumulate && to.guards.is_empty() && to.indirect.is_empty() {
                            let at = Access { index: to.index.clone(), extents: extents.clone() };
                            known.insert(to.buffer, Known { at, fact: fact.clone() });
                        }
                    }
                }
            }
            KernelKind::Product(product) => {
                let [a, b, _] = accesses(product);
                for (buffer, access) in [(product.a.0, a), (product.b.0, b)] {
                    if let Some(known) = known.get(&buffer) {
                        add(product, &known.fact.zero.carried(&known.at, &access));
                    }
                    reads.entry(buffer).or_default().push((access, Zone::nowhere()));
                }
            }
            KernelKind::Winograd(_) | KernelKind::Filter(_) | KernelKind::Zero(_) | KernelKind::Copy { .. } => {
                for buffer in kernel.reads() {
                    reads.entry(buffer).or_default().push((Access::default(), Zone::nowhere()));
                }
            }
        }
    }
    for kernel in kernels {
        let Some(product) = kernel.kind.product_mut() else { continue };
        let [_, _, c] = accesses(product);
        if once(product.c.0) && is_temporary(product.c.0) && !product.accumulate {
            let reads = reads.get(&product.c.0).into_iter().flatten();
            let zone = reads.fold(Zone::everywhere(), |all, (at, zone)| all.and(&zone.carried(at, &c)));
            add(product, &zone);
        }
    }
}

/// How many stores and kernels write each buffer.
fn writes(kernels: &[Kernel]) -> BTreeMap<BufferId, usize> {
    let mut writes = BTreeMap::new();
    for buffer in kernels.iter().flat_map(Kernel::writes) {
        *writes.entry(buffer).or_insert(0) += 1;
    }
    writes
}

/// A product's operands and result over all its loops.
fn accesses(product: &Product) -> [Access; 3] {
    let extents: Vec<usize> = product.loops().map(|each| each.extent).collect();
    product.functions().map(|index| Access { index, extents: extents.clone() })
}

/// Adds the bands of a zone over all loops of a product that its primitive can follow: of at most one m, one n and one k
/// loop, which is the only one of k, and of no loop of the batch.
fn add(product: &mut Product, zone: &Zone) {
    let batch = product.batch.len();
    let (rows, columns) = (batch + product.m.len(), batch + product.m.len() + product.n.len());
    let summed = product.k.iter().filter(|each| each.extent > 1).count();
    for function in zone.functions() {
        let count =
            |range: std::ops::Range<usize>| function.terms.iter().filter(|(number, _)| range.contains(number)).count();
        let sides = [count(batch..rows), count(rows..columns)];
        let is_plain = count(0..batch) == 0 && sides.iter().all(|terms| *terms <= 1);
        if is_plain && (count(columns..usize::MAX) == 0 || summed == 1) {
            let band = function.compose(|number| Linear::index(number - batch));
            if !product.bands.contains(&band) {
                product.bands.push(band);
            }
        }
    }
}

/// What is known of the nodes of a phase.
fn facts(nest: &Nest, phase: &Phase, known: &BTreeMap<BufferId, Known>) -> Vec<Fact> {
    let extents = [&nest.outer[..], &phase.inner[..]].concat();
    let mut facts: Vec<Fact> = Vec::with_capacity(phase.nodes.len());
    for node in &phase.nodes {
        let of = |id: NodeId| &facts[id.0 as usize];
        let fact = match &node.op {
            NodeOp::Const(number) => constant(*number, node.dtype),
            NodeOp::Index(linear) => Fact { affine: Some(linear.clone()), ..Fact::default() },
            NodeOp::Load(location) => {
                let mut fact = Fact::default();
                if let Some(known) = known.get(&location.buffer).filter(|_| location.indirect.is_empty()) {
                    let at = Access { index: location.index.clone(), extents: extents.clone() };
                    fact = known.fact.carried(&known.at, &at);
                }
                if !location.guards.is_empty() {
                    // 0 outside the guards, which may be where it would be −∞ or true.
                    (fact.low, fact.holds) = (Zone::nowhere(), Zone::nowhere());
                }
                for (guard, extent) in &location.guards {
                    fact.zero = fact.zero.or(&Zone::outside([guard.clone(), guard.scaled(-1).shifted(extent - 1)]));
                }
                fact
            }
            NodeOp::Unary(op, x) => unary(*op, of(*x)),
            NodeOp::Binary(Binary::Sub, x, y) => {
                let by_row = matches!(phase.nodes[y.0 as usize].op, NodeOp::Reduced { .. });
                // A row that is −∞ everywhere minus its own maximum is NaN.
                let keeps = by_row && of(*x).low.leaves_some_in_each_row(&extents, nest.outer.len());
                let low = if keeps { of(*x).low.clone() } else { Zone::nowhere() };
                Fact { low, ..binary(Binary::Sub, of(*x), of(*y)) }
            }
            NodeOp::Binary(op, x, y) => {
                let mut fact = binary(*op, of(*x), of(*y));
                if let (Binary::Mul | Binary::Div, NodeOp::Const(factor)) = (op, &phase.nodes[y.0 as usize].op)
                    && *factor > 0.0
                    && factor.is_finite()
                {
                    fact.low = of(*x).low.clone();
                }
                fact
            }
            NodeOp::Compare(op, x, y) => match (&of(*x).affine, &of(*y).affine) {
                (Some(x), Some(y)) => compare(*op, x, y),
                (Some(_) | None, _) => Fact::default(),
            },
            NodeOp::Select(condition, x, y) => select(of(*condition), of(*x), of(*y)),
            NodeOp::Cast(x) => match phase.nodes[x.0 as usize].dtype {
                DType::Bool => Fact { zero: of(*x).fails.clone(), ..Fact::default() },
                DType::F32 | DType::I32 => Fact { zero: of(*x).zero.clone(), ..Fact::default() },
            },
            NodeOp::Random { .. } | NodeOp::Reduced { .. } => Fact::default(),
        };
        facts.push(fact);
    }
    facts
}

fn constant(number: f64, dtype: DType) -> Fact {
    let zone = |holds: bool| if holds { Zone::everywhere() } else { Zone::nowhere() };
    Fact {
        zero: zone(number == 0.0),
        low: zone(number == f64::NEG_INFINITY),
        fails: zone(number == 0.0 && dtype == DType::Bool),
        holds: zone(number != 0.0 && dtype == DType::Bool),
        affine: (dtype == DType::I32).then(|| Linear::constant(number as i64)),
    }
}

fn unary(op: Unary, x: &Fact) -> Fact {
    let nothing = Fact::default();
    match op {
        Unary::Neg | Unary::Abs | Unary::Sqrt | Unary::Sin | Unary::Tanh | Unary::Erf | Unary::Floor => {
            Fact { zero: x.zero.clone(), ..nothing }
        }
        Unary::Exp | Unary::Sigmoid => Fact { zero: x.low.clone(), ..nothing },
        Unary::Not => Fact { fails: x.holds.clone(), holds: x.fails.clone(), ..nothing },
        Unary::Log | Unary::Cos => nothing,
    }
}

fn binary(op: Binary, x: &Fact, y: &Fact) -> Fact {
    let nothing = Fact::default();
    let affine = x.affine.as_ref().zip(y.affine.as_ref());
    match op {
        Binary::Add => {
            let affine = affine.map(|(x, y)| x.plus(y));
            Fact { zero: x.zero.and(&y.zero), low: x.low.or(&y.low), affine, ..nothing }
        }
        Binary::Sub => {
            Fact { zero: x.zero.and(&y.zero), affine: affine.map(|(x, y)| x.plus(&y.scaled(-1))), ..nothing }
        }
        Binary::Mul => Fact { zero: x.zero.or(&y.zero), ..nothing },
        Binary::Div => Fact { zero: x.zero.clone(), ..nothing },
        Binary::Max => Fact { zero: x.zero.and(&y.zero), low: x.low.and(&y.low), ..nothing },
        Binary::Min => Fact { zero: x.zero.and(&y.zero), low: x.low.or(&y.low), ..nothing },
        Binary::And => Fact { fails: x.fails.or(&y.fails), holds: x.holds.and(&y.holds), ..nothing },
        Binary::Or => Fact { fails: x.fails.and(&y.fails), holds: x.holds.or(&y.holds), ..nothing },
        Binary::Rem | Binary::Pow => nothing,
    }
}

fn compare(op: Compare, x: &Linear, y: &Linear) -> Fact {
    let difference = y.plus(&x.scaled(-1));
    let reverse = difference.scaled(-1);
    let outside = |function: &Linear, offset: i64| Zone::outside([function.shifted(offset)]);
    let apart = outside(&difference, 0).or(&outside(&reverse, 0));
    let (fails, holds) = match op {
        Compare::Le => (outside(&difference, 0), outside(&reverse, -1)),
        Compare::Lt => (outside(&difference, -1), outside(&reverse, 0)),
        Compare::Ge => (outside(&reverse, 0), outside(&difference, -1)),
        Compare::Gt => (outside(&reverse, -1), outside(&difference, 0)),
        Compare::Eq => (apart, Zone::nowhere()),
        Compare::Ne => (Zone::nowhere(), apart),
    };
    Fact { fails, holds, ..Fact::default() }
}

fn select(condition: &Fact, x: &Fact, y: &Fact) -> Fact {
    let either = |x: &Zone, y: &Zone| condition.fails.and(y).or(&condition.holds.and(x)).or(&x.and(y));
    Fact { zero: either(&x.zero, &y.zero), low: either(&x.low, &y.low), ..Fact::default() }
}

/// The loads of a phase, and where any finite value in their place gives the same results.
fn unread(phase: &Phase, facts: &[Fact]) -> Vec<(BufferId, Linear, Zone)> {
    let mut unread = vec![Zone::everywhere(); phase.nodes.len()];
    let limit = |unread: &mut Vec<Zone>, id: NodeId, zone: &Zone| {
        let place = &mut unread[id.0 as usize];
        *place = place.and(zone);
    };
    let results = phase.reductions.iter().map(|reduction| reduction.node);
    let locations = phase.stores.iter().map(|store| &store.location);
    let indirect = locations.flat_map(|location| location.indirect.iter().map(|term| term.node));
    for id in results.chain(phase.stores.iter().map(|store| store.value)).chain(indirect) {
        limit(&mut unread, id, &Zone::nowhere());
    }
    for (number, node) in phase.nodes.iter().enumerate().rev() {
        let own = unread[number].clone();
        let fact = |id: &NodeId| &facts[id.0 as usize];
        match &node.op {
            NodeOp::Binary(Binary::Mul, x, y) => {
                limit(&mut unread, *x, &own.or(&fact(y).zero));
                limit(&mut unread, *y, &own.or(&fact(x).zero));
            }
            NodeOp::Select(condition, x, y) => {
                limit(&mut unread, *condition, &own);
                limit(&mut unread, *x, &own.or(&fact(condition).fails));
                limit(&mut unread, *y, &own.or(&fact(condition).holds));
            }
            // Which element is read matters everywhere.
            NodeOp::Load(_) => node.op.operands().into_iter().for_each(|id| limit(&mut unread, id, &Zone::nowhere())),
            NodeOp::Binary(..) | NodeOp::Compare(..) | NodeOp::Unary(..) | NodeOp::Cast(_) => {
                node.op.operands().into_iter().for_each(|id| limit(&mut unread, id, &own));
            }
            NodeOp::Const(_) | NodeOp::Index(_) | NodeOp::Random { .. } | NodeOp::Reduced { .. } => {}
        }
    }
    let load = |(node, zone): (&crate::kernel::Node, Zone)| {
        let at = node.op.location()?;
        Some((at.buffer, at.index.clone(), if at.indirect.is_empty() { zone } else { Zone::nowhere() }))
    };
    phase.nodes.iter().zip(unread).filter_map(load).collect()
}
