//! Every case on several GPUs and on one: the same bits. And what must end in errors.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use fulgurite::{Dtype, Mask};
use fulgurite_parallel::{Error, Parallel, ParallelOptions, Sharded, Shards, Strategy};

use crate::process;
use crate::ranks::{connect, each};
use crate::tensors::{Results, Sizes, prepare};

/// How long a call may take.
const CALL: Duration = Duration::from_secs(20);

/// How long a lost peer is waited for.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// How long after that it must have been told.
pub const GRACE: Duration = Duration::from_secs(2);

/// How rows are dealt.
#[derive(Clone, Copy, Debug)]
enum Deal {
    Zigzag,
    Contiguous,
    /// In pieces of so many rows, one after another to the ranks in turn.
    Striped(usize),
}

/// A call.
#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    sizes: Sizes,
    deal: Deal,
    options: ParallelOptions,
    /// Groups have to share room.
    tight: bool,
}

fn cases() -> Vec<Case> {
    let sizes = Sizes {
        dtype: Dtype::Bf16,
        batch: 1,
        heads: 4,
        kv_heads: 2,
        rows: 4096,
        head_dim: 128,
        mask: Mask::Causal,
        rows_first: true,
        lse: true,
    };
    let window = |left, right| Mask::Window { left: Some(left), right: Some(right) };
    let options = ParallelOptions::default();
    let case = |name, deal, sizes| Case { name, sizes, deal, options, tight: false };
    let each = options.groups(2);
    vec![
        case("causal d128", Deal::Zigzag, sizes),
        case("causal d64, short", Deal::Zigzag, Sizes { head_dim: 64, rows: 450, ..sizes }),
        case("causal d256", Deal::Zigzag, Sizes { head_dim: 256, rows: 5003, ..sizes }),
        case(
            "causal d80, f16, two entries",
            Deal::Striped(192),
            Sizes {
                dtype: Dtype::F16,
                head_dim: 80,
                batch: 2,
                rows: 2999,
                rows_first: false,
                ..sizes
            },
        ),
        case("causal d192", Deal::Contiguous, Sizes { head_dim: 192, rows: 3000, ..sizes }),
        case("causal d128, 40000 keys", Deal::Zigzag, Sizes { rows: 40_000, ..sizes }),
        case("full d128", Deal::Contiguous, Sizes { mask: Mask::Full, ..sizes }),
        case(
            "full d64, 40000 keys",
            Deal::Contiguous,
            Sizes { mask: Mask::Full, head_dim: 64, rows: 40_000, kv_heads: 4, ..sizes },
        ),
        case("window 1024", Deal::Contiguous, Sizes { mask: window(1023, 0), rows: 9000, ..sizes }),
        case(
            "window 70 to 20, d64",
            Deal::Zigzag,
            Sizes { mask: window(70, 20), head_dim: 64, ..sizes },
        ),
        case(
            "window 300 to -40, striped",
            Deal::Striped(128),
            Sizes { mask: window(300, -40), ..sizes },
        ),
        Case { options: each, ..case("one head a group", Deal::Zigzag, sizes) },
        Case {
            options: options.groups(8),
            tight: true,
            ..case("room for few groups", Deal::Zigzag, Sizes { heads: 16, kv_heads: 8, ..sizes })
        },
        case("ranks without rows", Deal::Contiguous, Sizes { rows: 60, ..sizes }),
    ]
}

impl Case {
    fn shards(&self, world: usize) -> Result<Shards, Error> {
        let rows = self.sizes.rows;
        match self.deal {
            Deal::Zigzag => Shards::zigzag(rows, world),
            Deal::Contiguous => Shards::contiguous(rows, world),
            Deal::Striped(piece) => {
                let mut ranks = vec![Vec::new(); world];
                for (number, start) in (0..rows).step_by(piece).enumerate() {
                    ranks[number % world].push(start..(start + piece).min(rows));
                }
                Shards::from_ranges(rows, ranks)
            }
        }
    }

    /// In each way that it can be shared.
    fn run(&self, ranks: &[Parallel]) -> Result<String, String> {
        let by_heads = self.sizes.kv_heads.is_multiple_of(ranks.len()) && !self.tight;
        let both = [Some(Strategy::Gather), by_heads.then_some(Strategy::AllToAll)];
        let told = both.into_iter().flatten().map(|strategy| {
            let told = self.run_as(ranks, strategy);
            told.map_err(|error| format!("{strategy:?}: {error}"))
        });
        told.collect::<Result<Vec<String>, _>>().map(|told| told.join("; "))
    }

    /// Three launches behind each other, which share buffers; the last one, on bare addresses, is
    /// compared.
    fn run_as(&self, ranks: &[Parallel], strategy: Strategy) -> Result<String, String> {
        let shards = self.shards(ranks.len()).map_err(|error| error.to_string())?;
        let values = self.sizes.values(7);
        let one = Results::of_one(ranks[0].attention(), self.sizes, &values)?;
        let results = Mutex::new(Results::empty(&self.sizes));
        let mut options = self.options;
        if self.tight {
            options = options.workspace_limit_bytes(self.tight_bytes(ranks, &shards)?);
        }
        let plans = each(ranks, |rank| {
            let (prepared, mut buffers) =
                prepare(rank, self.sizes, &values, (&shards, strategy), &options)?;
            for _ in 0..2 {
                let launched = buffers.launch(&prepared, rank.attention());
                drop(launched.map_err(|error| error.to_string())?);
            }
            let last = buffers.launch_raw(&prepared, rank.attention())?;
            last.wait(CALL).map_err(|error| error.to_string())?;
            let mut results = results.lock().map_err(|error| error.to_string())?;
            buffers.collect(rank.attention(), &mut results)?;
            Ok((prepared.plan().groups(), prepared.plan().slots()))
        })?;
        let results = results.into_inner().map_err(|error| error.to_string())?;
        let (groups, slots) = plans[0];
        if self.tight && slots >= groups {
            return Err(format!("{slots} of {groups} groups have room: nothing is shared"));
        }
        match results.differences(&one) {
            [0, 0] => Ok(format!("{strategy:?} in {groups} groups, room for {slots}")),
            [out, lse] => Err(format!("{out} elements and {lse} log-sum-exps differ")),
        }
    }

    /// Bytes in which not all groups have room.
    fn tight_bytes(&self, ranks: &[Parallel], shards: &Shards) -> Result<u64, String> {
        let of = |rank: usize| {
            let local = self.sizes.request(shards.local_rows(rank));
            let sharded = Sharded::new(&local, shards.clone());
            let device = ranks[rank].attention().facts();
            fulgurite_parallel::ParallelPlan::new(&sharded, rank, device, &self.options)
        };
        let bytes = (0..ranks.len()).map(|rank| of(rank).map(|plan| plan.workspace_bytes()));
        let all = bytes.collect::<Result<Vec<u64>, _>>().map_err(|error| error.to_string())?;
        Ok(all.into_iter().max().unwrap_or(0) / 2)
    }
}

/// Says what it found, or what is wrong.
type Check = fn(&[Parallel]) -> Result<String, String>;

/// Runs all that needs `gpus` GPUs; `Ok(true)` if nothing failed.
///
/// # Errors
/// A message if there are not as many, or they do not connect.
pub fn run(gpus: usize, filter: &[String]) -> Result<bool, String> {
    let ranks = connect(gpus, None)?;
    let (library, version) =
        ranks[0].communicator().nccl_version().map_err(|error| error.to_string())?;
    println!("{gpus} x {}, NCCL {version} ({library})", ranks[0].attention().facts().name);
    let mut passed = true;
    let mut tell = |name: &str, result: Result<String, String>, start: Instant| {
        passed &= result.is_ok();
        let (word, text) = match result {
            Ok(text) => ("ok", text),
            Err(text) => ("FAILED", text),
        };
        println!("{word:<6} {name}: {text} ({:.1} s)", start.elapsed().as_secs_f64());
    };
    let wanted = |name: &str| filter.iter().all(|text| name.contains(text.as_str()));
    for case in cases().iter().filter(|case| wanted(case.name)) {
        let start = Instant::now();
        tell(case.name, case.run(&ranks), start);
    }
    let others: [(&str, Check); 5] = [
        ("plans that differ", plans_differ),
        ("a plan that fails on one rank", a_plan_fails),
        ("a peer that does not launch", a_peer_does_not_launch),
        ("ranks in processes of their own", |ranks| process::verify(ranks.len())),
        ("a process that is killed", |ranks| process::kill(ranks.len())),
    ];
    for (name, check) in others.into_iter().filter(|(name, _)| wanted(name)) {
        let start = Instant::now();
        tell(name, check(&ranks), start);
    }
    Ok(passed)
}

/// The last rank makes other groups.
fn plans_differ(ranks: &[Parallel]) -> Result<String, String> {
    let case = cases()[0];
    let shards = case.shards(ranks.len()).map_err(|error| error.to_string())?;
    let last = ranks.len() - 1;
    refused(ranks, |rank| {
        let number = rank.communicator().rank();
        let sharded = Sharded::new(&case.sizes.request(shards.local_rows(number)), shards.clone());
        let options = ParallelOptions::default().groups(if number == last { 1 } else { 2 });
        rank.plan_with(&sharded, &options).err()
    })
}

/// The last rank's tensors have a row less than its shard.
fn a_plan_fails(ranks: &[Parallel]) -> Result<String, String> {
    let case = cases()[0];
    let shards = case.shards(ranks.len()).map_err(|error| error.to_string())?;
    let last = ranks.len() - 1;
    refused(ranks, |rank| {
        let number = rank.communicator().rank();
        let rows = shards.local_rows(number) - usize::from(number == last);
        let error = rank.plan(&Sharded::new(&case.sizes.request(rows), shards.clone())).err()?;
        // The rank itself is told what it did.
        let own = matches!(error, Error::LocalRows { .. });
        Some(if own { Error::PlansDiffer { ranks: vec![number] } } else { error })
    })
}

/// All ranks are told that the last one's plan is another one.
fn refused(
    ranks: &[Parallel],
    plan: impl Fn(&Parallel) -> Option<Error> + Sync,
) -> Result<String, String> {
    let want = Error::PlansDiffer { ranks: vec![ranks.len() - 1] };
    for got in each(ranks, |rank| Ok(plan(rank)))? {
        match got {
            Some(got) if got == want => {}
            Some(got) => return Err(format!("another error: {got}")),
            None => return Err("no error".to_owned()),
        }
    }
    Ok("all ranks are told".to_owned())
}

/// Rank 0 launches, and the others never do.
fn a_peer_does_not_launch(ranks: &[Parallel]) -> Result<String, String> {
    let case = cases()[0];
    let ranks = &connect(ranks.len(), None)?[..];
    let shards = case.shards(ranks.len()).map_err(|error| error.to_string())?;
    let values = case.sizes.values(7);
    let one = Results::of_one(ranks[0].attention(), case.sizes, &values)?;
    let told = each(ranks, |rank| {
        let options = ParallelOptions::default();
        let (prepared, mut buffers) =
            prepare(rank, case.sizes, &values, (&shards, Strategy::Gather), &options)?;
        // The first launch makes the connections, for which all ranks are needed.
        let first = buffers.launch(&prepared, rank.attention()).and_then(|work| work.wait(CALL));
        first.map_err(|error| error.to_string())?;
        if rank.communicator().rank() > 0 {
            return Ok(None);
        }
        let start = Instant::now();
        let lost = buffers.launch(&prepared, rank.attention()).and_then(|work| work.wait(PATIENCE));
        let took = start.elapsed();
        let dead = buffers.launch(&prepared, rank.attention()).map(|_| ());
        Ok(Some((lost, took, dead)))
    })?;
    let Some(Some((lost, took, dead))) = told.into_iter().next() else {
        return Err("rank 0 said nothing".to_owned());
    };
    let text = check_lost(&lost, took)?;
    if !matches!(dead, Err(Error::CommunicatorDead { .. })) {
        return Err(format!("the next launch: {dead:?}"));
    }
    if Results::of_one(ranks[0].attention(), case.sizes, &values)? != one {
        return Err("the device computes something else afterwards".to_owned());
    }
    Ok(text)
}

/// Whether a lost peer was told, and in time.
///
/// # Errors
/// A message if not.
pub fn check_lost(lost: &Result<(), Error>, took: Duration) -> Result<String, String> {
    match lost {
        Err(error @ Error::PeerLost { .. }) if took < PATIENCE + GRACE => {
            Ok(format!("after {took:.2?}: {error}"))
        }
        other => Err(format!("after {took:.2?}: {other:?}")),
    }
}
