//! The whole algorithm on the CPU: programs of all ranks against an exchange that delivers late and
//! out of order.

mod emulated;
mod tags;
mod world;

use std::ops::Range;

use fulgurite::{DeviceFacts, Mask};
use fulgurite_parallel::program::{Action, Lane, Message};
use fulgurite_parallel::{ParallelOptions, ParallelPlan, Sharded, Shards, Strategy};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use tags::Shape;
use world::World;

/// The plans of all ranks.
fn plans(shape: &Shape, shards: &Shards, options: &ParallelOptions) -> Vec<ParallelPlan> {
    let device = DeviceFacts::h200();
    let plan = |rank| {
        let local = shape.local(shards.local_rows(rank));
        let sharded = Sharded::new(&local, shards.clone()).strategy(shape.strategy);
        ParallelPlan::new(&sharded, rank, &device, options).unwrap()
    };
    (0..shards.world()).map(plan).collect()
}

/// Runs a call with rows that say who they are.
fn run(shape: &Shape, plans: &[ParallelPlan], seed: u64) -> Result<(), String> {
    let shards = &plans[0].sharded().shards;
    let mut world = World::new(plans.iter().map(tags::rank).collect(), seed);
    world.run(&mut |_, request, attend, all| tags::attend(shape, shards, request, attend, all))?;
    plans.iter().zip(&world.ranks).try_for_each(|(plan, rank)| tags::check(plan, rank))
}

/// Rows dealt at random, in pieces of any length.
fn dealt(random: &mut ChaCha8Rng, rows: usize, world: usize, unit: usize) -> Shards {
    let mut borders: Vec<usize> = (0..random.random_range(0..3 * world))
        .map(|_| random.random_range(0..=rows) / unit * unit)
        .collect();
    borders.extend([0, rows]);
    borders.sort_unstable();
    let mut pieces: Vec<Range<usize>> = borders.windows(2).map(|it| it[0]..it[1]).collect();
    pieces.shuffle(random);
    let mut ranks = vec![Vec::new(); world];
    for piece in pieces {
        ranks[random.random_range(0..world)].push(piece);
    }
    Shards::from_ranges(rows, ranks).unwrap()
}

fn any_shards(random: &mut ChaCha8Rng, rows: usize) -> Shards {
    let world = random.random_range(1..=5);
    match random.random_range(0..3) {
        0 => Shards::contiguous(rows, world).unwrap(),
        1 => Shards::zigzag(rows, world).unwrap(),
        _ => dealt(random, rows, world, 1),
    }
}

fn any_mask(random: &mut ChaCha8Rng) -> Mask {
    let mut end = || random.random_bool(0.8).then(|| random.random_range(-20..200));
    let (left, right) = (end(), end());
    match random.random_range(0..4) {
        0 => Mask::Full,
        1 => Mask::Causal,
        _ => Mask::Window { left, right: right.map(|it| it.max(-left.unwrap_or(20))) },
    }
}

fn any_shape(random: &mut ChaCha8Rng) -> Shape {
    let kv_heads = random.random_range(1..=4);
    Shape {
        batch: random.random_range(1..=2),
        heads: kv_heads * random.random_range(1..=2),
        kv_heads,
        head_dim: 8,
        mask: any_mask(random),
        lse: random.random(),
        rows_first: random.random(),
        strategy: Strategy::Auto,
    }
}

fn any_options(random: &mut ChaCha8Rng, shape: &Shape, shards: &Shards) -> ParallelOptions {
    let mut options = ParallelOptions::default().groups(random.random_range(1..=shape.kv_heads));
    options.one_stream = random.random();
    if random.random() {
        return options;
    }
    // Room for some groups, not for all.
    let whole = |plan: &ParallelPlan| plan.workspace_bytes();
    let most = plans(shape, shards, &options).iter().map(whole).max().unwrap();
    let limit = most - random.random_range(0..=most / 3);
    let sharded = Sharded::new(&shape.local(shards.local_rows(0)), shards.clone());
    let tight = options.workspace_limit_bytes(limit);
    let sharded = sharded.strategy(shape.strategy);
    let fits = ParallelPlan::new(&sharded, 0, &DeviceFacts::h200(), &tight).is_ok();
    if fits { tight } else { options }
}

#[test]
fn every_row_sees_its_keys() {
    for seed in 0..200 {
        let random = &mut ChaCha8Rng::seed_from_u64(seed);
        let rows = random.random_range(0..600);
        let (mut shape, shards) = (any_shape(random), any_shards(random, rows));
        if shape.kv_heads.is_multiple_of(shards.world()) {
            let all = [Strategy::Auto, Strategy::Gather, Strategy::AllToAll];
            shape.strategy = all[random.random_range(0..3)];
        }
        let options = any_options(random, &shape, &shards);
        let plans = plans(&shape, &shards, &options);
        if let Err(error) = run(&shape, &plans, seed) {
            panic!("seed {seed}: {error}\n{shape:?}\n{shards:?}\n{options:?}");
        }
    }
}

#[test]
fn sends_meet_receives() {
    for world in (1..=64).step_by(7) {
        let shape = Shape {
            batch: 1,
            heads: 8,
            kv_heads: 2,
            head_dim: 64,
            mask: Mask::Causal,
            lse: false,
            rows_first: true,
            strategy: Strategy::Gather,
        };
        let shards = Shards::zigzag(256 * world + 3, world).unwrap();
        let plans = plans(&shape, &shards, &ParallelOptions::default());
        assert!(plans.iter().all(|plan| plan.hash() == plans[0].hash()));
        let bytes = |rank: usize, peer: usize, sends: bool| -> Vec<u64> {
            let messages = plans[rank].program().messages(sends);
            messages.filter(|it| it.peer == peer).map(|it| it.bytes).collect()
        };
        for from in 0..world {
            for to in 0..world {
                assert_eq!(bytes(from, to, true), bytes(to, from, false));
            }
        }
        let received = |plan: &ParallelPlan| {
            plan.program().messages(false).map(|message| message.bytes).sum::<u64>()
        };
        let most = plans.iter().map(received).max().unwrap();
        assert_eq!(most, plans[0].cost().received_bytes);
    }
}

/// A fault in a rank's program: `None` where there is no place for it.
type Fault = fn(&mut Vec<(Lane, Action)>) -> Option<()>;

fn missing_full(steps: &mut Vec<(Lane, Action)>) -> Option<()> {
    let exchange = steps.iter().position(|(_, it)| matches!(it, Action::Exchange(..)))?;
    let Action::Record(full) = steps[exchange + 1].1 else { return None };
    let before = steps.len();
    steps.retain(|(_, action)| *action != Action::Wait(full));
    (steps.len() < before).then_some(())
}

/// Drops waits of the transfers' lane: the first one is for the start, the second one for the
/// rank's own rows, the others are for room.
fn drop_waits(steps: &mut Vec<(Lane, Action)>, dropped: Range<usize>) -> Option<()> {
    let (before, mut number) = (steps.len(), 0);
    steps.retain(|(lane, action)| {
        let is_wait = *lane == Lane::Transfer && matches!(action, Action::Wait(_));
        number += usize::from(is_wait);
        !is_wait || !dropped.contains(&(number - 1))
    });
    (steps.len() < before).then_some(())
}

/// The caller's lane waits for neither of the others at the end.
fn missing_end(steps: &mut Vec<(Lane, Action)>) -> Option<()> {
    for _ in 0..2 {
        let is_wait = |(lane, action): &(Lane, Action)| {
            *lane == Lane::Caller && matches!(action, Action::Wait(_))
        };
        steps.remove(steps.iter().rposition(is_wait)?);
    }
    Some(())
}

fn receives(steps: &mut [(Lane, Action)]) -> Vec<&mut Message> {
    let exchanges = steps.iter_mut().filter_map(|(_, action)| match action {
        Action::Exchange(_, messages) => Some(messages),
        _ => None,
    });
    exchanges.flatten().filter(|message| !message.sends).collect()
}

fn swapped_piece(steps: &mut [(Lane, Action)]) -> Option<()> {
    let mut receives = receives(steps);
    let other =
        receives.iter().position(|it| it.at != receives[0].at && it.bytes == receives[0].bytes)?;
    let spot = receives[other].at;
    receives[other].at = receives[0].at;
    receives[0].at = spot;
    Some(())
}

fn wrong_peer(steps: &mut [(Lane, Action)]) -> Option<()> {
    let mut receives = receives(steps);
    let other = receives.iter().map(|it| it.peer).find(|peer| *peer != receives[0].peer)?;
    receives[0].peer = other;
    Some(())
}

fn event_too_early(steps: &mut [(Lane, Action)]) -> Option<()> {
    let exchange = steps.iter().position(|(_, it)| matches!(it, Action::Exchange(..)))?;
    steps.swap(exchange, exchange + 1);
    Some(())
}

/// Of the schedules that are tried, some notice each fault; without one, none objects.
#[test]
fn planted_faults_are_noticed() {
    let shape = Shape {
        batch: 1,
        heads: 6,
        kv_heads: 6,
        head_dim: 8,
        mask: Mask::Causal,
        lse: true,
        rows_first: false,
        strategy: Strategy::Gather,
    };
    let by_heads = Shape { strategy: Strategy::AllToAll, ..shape.clone() };
    let shards = Shards::zigzag(6 * 64, 3).unwrap();
    let roomy = ParallelOptions::default().groups(6);
    let bytes = plans(&shape, &shards, &roomy)[0].workspace_bytes();
    let tight = roomy.workspace_limit_bytes(bytes * 2 / 3);
    for (shape, options) in [(&shape, &roomy), (&shape, &tight), (&by_heads, &roomy)] {
        let plans = plans(shape, &shards, options);
        let is_tight = plans[0].slots() < plans[0].groups();
        assert_eq!(is_tight, options.workspace_limit_bytes.is_some(), "{}", plans[0]);
        let faults: [(&str, Option<Fault>); 9] = [
            ("none", None),
            ("missing full", Some(missing_full)),
            ("missing start", Some(|steps| drop_waits(steps, 0..1))),
            ("missing own rows, or launch", Some(|steps| drop_waits(steps, 1..2))),
            ("missing empty", is_tight.then_some(|steps| drop_waits(steps, 2..99) as Option<()>)),
            ("missing end", Some(missing_end)),
            ("swapped piece", Some(|steps| swapped_piece(steps))),
            ("wrong peer", Some(|steps| wrong_peer(steps))),
            ("event too early", Some(|steps| event_too_early(steps))),
        ];
        for (name, fault) in faults {
            let noticed = (0..150).any(|seed| is_noticed(shape, &plans, fault, seed));
            assert_eq!(noticed, fault.is_some(), "{name}\n{}", plans[1]);
        }
    }
}

/// Whether a fault of rank 1 is found in one schedule.
fn is_noticed(shape: &Shape, plans: &[ParallelPlan], fault: Option<Fault>, seed: u64) -> bool {
    let shards = &plans[0].sharded().shards;
    let mut ranks: Vec<_> = plans.iter().map(tags::rank).collect();
    if let Some(fault) = fault {
        let mut program = plans[1].program().clone();
        fault(&mut program.steps).expect("there is a place for the fault");
        ranks[1] = tags::rank_with(&plans[1], program);
    }
    let mut world = World::new(ranks, seed);
    let ran =
        world.run(&mut |_, request, attend, all| tags::attend(shape, shards, request, attend, all));
    let mut pairs = plans.iter().zip(&world.ranks);
    ran.and_then(|()| pairs.try_for_each(|(plan, rank)| tags::check(plan, rank))).is_err()
}

#[test]
fn a_dead_peer_leaves_the_others_waiting() {
    let shape = Shape {
        batch: 1,
        heads: 2,
        kv_heads: 2,
        head_dim: 8,
        mask: Mask::Full,
        lse: false,
        rows_first: false,
        strategy: Strategy::Gather,
    };
    let shards = Shards::contiguous(192, 3).unwrap();
    let all = plans(&shape, &shards, &ParallelOptions::default());
    let mut world = World::new(all.iter().map(tags::rank).collect(), 0);
    world.ranks[2].dead = true;
    let error = world
        .run(&mut |_, request, attend, all| tags::attend(&shape, &shards, request, attend, all))
        .unwrap_err();
    assert!(error.starts_with("stuck: rank 0"), "{error}");
}
