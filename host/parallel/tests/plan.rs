//! What a plan decides, and what it refuses.

use fulgurite::{DeviceFacts, Dtype, Forward, Layout, Mask, Precision};
use fulgurite_parallel::{Error, Links, ParallelOptions, ParallelPlan, Sharded, Shards, Strategy};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn request(rows: usize, heads: usize, kv_heads: usize, mask: Mask) -> Forward {
    let qo = Layout::bshd(Dtype::Bf16, 1, rows, heads, 128);
    let kv = Layout::bshd(Dtype::Bf16, 1, rows, kv_heads, 128);
    Forward::new(qo, kv, kv, qo, mask)
}

fn plan(sharded: &Sharded, options: &ParallelOptions) -> Result<ParallelPlan, Error> {
    ParallelPlan::new(sharded, 0, &DeviceFacts::h200(), options)
}

/// The same of other tensors.
fn with(sharded: &Sharded, local: Forward) -> Sharded {
    Sharded::new(&local, sharded.shards.clone())
}

fn zigzag(rows: usize, world: usize, heads: usize, kv_heads: usize) -> Sharded {
    let shards = Shards::zigzag(rows * world, world).unwrap();
    Sharded::new(&request(rows, heads, kv_heads, Mask::Causal), shards)
}

#[test]
fn bytes_decide_how_a_call_is_shared() {
    let options = ParallelOptions::default();
    let strategy = |world, heads, kv_heads| {
        plan(&zigzag(8192, world, heads, kv_heads), &options).unwrap().strategy()
    };
    assert_eq!(strategy(2, 64, 8), Strategy::Gather);
    assert_eq!(strategy(8, 64, 8), Strategy::Gather);
    assert_eq!(strategy(8, 32, 32), Strategy::AllToAll);
    // Three ranks cannot share eight KV heads.
    assert_eq!(strategy(3, 32, 8), Strategy::Gather);
    let error = plan(&zigzag(8192, 3, 32, 8).strategy(Strategy::AllToAll), &options).unwrap_err();
    assert_eq!(error, Error::KvHeads { kv_heads: 8, world: 3 });
}

/// The figures of the design: 64/8 heads, 32k rows of each of 2 GPUs.
#[test]
fn the_model_gives_what_its_formula_says() {
    let plan = plan(&zigzag(32_768, 2, 64, 8), &ParallelOptions::default()).unwrap();
    let cost = plan.cost();
    // 4 KB a row from the other rank.
    assert_eq!(cost.received_bytes, 32_768 * 4096);
    assert!((cost.transfer * 1e3 - 0.363).abs() < 1e-3, "{cost:?}");
    assert!((cost.compute * 1e3 - 54.1).abs() < 0.1, "{cost:?}");
    assert!(cost.efficiency > 0.999, "{cost:?}");
    assert_eq!((plan.groups(), plan.slots()), (8, 8));
    let text = plan.to_string();
    for part in ["rank 0 of 2, Gather", "fwd_sm90_bf16_d128_causal_long", "those of one GPU"] {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

#[test]
fn slower_links_choose_what_moves_less() {
    let mut links = Links::default();
    (links.host_ranks, links.network_bytes) = (1, 1e9);
    let options = ParallelOptions::default().links(links);
    let plan = plan(&zigzag(8192, 8, 32, 8), &options).unwrap();
    assert_eq!(plan.strategy(), Strategy::AllToAll, "{plan}");
}

#[test]
fn a_window_moves_its_keys_alone() {
    let window = Mask::Window { left: Some(1023), right: Some(0) };
    let shards = Shards::contiguous(8 * 32_768, 8).unwrap();
    let sharded = Sharded::new(&request(32_768, 64, 8, window), shards);
    let device = DeviceFacts::h200();
    let plan = |rank| ParallelPlan::new(&sharded, rank, &device, &ParallelOptions::default());
    let received = |rank| {
        let plan = plan(rank).unwrap();
        assert_eq!(plan.strategy(), Strategy::Gather);
        plan.program().messages(false).map(|message| message.bytes).sum::<u64>()
    };
    assert_eq!(received(0), 0);
    // 1023 keys before the first row, from a tile's border on.
    assert_eq!(received(5), 1024 * 4096);
}

#[test]
fn less_room_is_shared_by_groups() {
    let sharded = zigzag(32_768, 2, 64, 8).strategy(Strategy::Gather);
    let whole = plan(&sharded, &ParallelOptions::default()).unwrap().workspace_bytes();
    let limit = ParallelOptions::default().workspace_limit_bytes(whole / 2);
    let half = plan(&sharded, &limit).unwrap();
    assert!(half.workspace_bytes() <= whole / 2 && half.slots() < half.groups(), "{half}");
    let tiny = ParallelOptions::default().workspace_limit_bytes(whole / 100);
    let error = plan(&sharded, &tiny).unwrap_err();
    assert!(matches!(error, Error::WorkspaceLimit { .. }), "{error}");
    assert!(error.to_string().contains("ask for more groups"), "{error}");
}

#[test]
fn what_differs_has_another_hash() {
    let options = ParallelOptions::default();
    let hash =
        |sharded: &Sharded, options: &ParallelOptions| plan(sharded, options).unwrap().hash();
    let sharded = zigzag(8192, 2, 32, 8);
    let of_rank_1 = ParallelPlan::new(&sharded, 1, &DeviceFacts::h200(), &options).unwrap();
    let own = hash(&sharded, &options);
    assert_eq!(own, of_rank_1.hash());
    // Strides are a rank's own business.
    let mut strided = sharded.clone();
    strided.local.q = Layout::bhsd(Dtype::Bf16, 1, 32, 8192, 128);
    assert_eq!(own, hash(&strided, &options));
    let mut others = vec![zigzag(8192, 2, 32, 4), zigzag(8320, 2, 32, 8)];
    others.push(with(&sharded, sharded.local.clone().scale(0.1)));
    others.push(with(&sharded, sharded.local.clone().with_lse()));
    others.push(sharded.clone().strategy(Strategy::AllToAll));
    let shards = Shards::contiguous(16_384, 2).unwrap();
    others.push(Sharded::new(&sharded.local, shards));
    for other in others {
        assert_ne!(own, hash(&other, &options), "{other:?}");
    }
    assert_ne!(own, hash(&sharded, &options.groups(2)));
}

#[test]
fn nothing_to_compute_is_no_program() {
    let none = plan(&zigzag(0, 2, 32, 8), &ParallelOptions::default()).unwrap();
    assert!(none.program().steps.is_empty() && none.workspace_bytes() == 0, "{none}");
    // A rank without rows has nothing to do; the others do without it.
    let shards = Shards::contiguous(64, 3).unwrap();
    let rank = |rank, rows| {
        let sharded = Sharded::new(&request(rows, 32, 8, Mask::Causal), shards.clone());
        let options = ParallelOptions::default();
        ParallelPlan::new(&sharded, rank, &DeviceFacts::h200(), &options).unwrap()
    };
    assert_eq!(rank(2, 0).program().messages(true).count(), 0);
    assert_eq!(rank(0, 64).program().messages(false).count(), 0);
}

#[test]
fn what_is_wrong_is_said() {
    let options = ParallelOptions::default();
    let sharded = zigzag(8192, 2, 32, 8);
    let error = ParallelPlan::new(&sharded, 2, &DeviceFacts::h200(), &options).unwrap_err();
    assert_eq!(error, Error::NoRank { rank: 2, world: 2 });

    let short = with(&sharded, request(8000, 32, 8, Mask::Causal));
    let error = plan(&short, &options).unwrap_err();
    assert_eq!(error, Error::LocalRows { rank: 0, tensor: "q", got: 8000, want: 8192 });
    assert!(error.to_string().contains("rank 0 holds 8192 of the sequence"), "{error}");

    let local = sharded.local.clone().precision(Precision::S8E4m3);
    let error = plan(&with(&sharded, local), &options).unwrap_err();
    assert!(matches!(error, Error::EightBits { .. }), "{error}");

    let error = plan(&sharded, &options.groups(9)).unwrap_err();
    assert_eq!(error.to_string(), "9 groups of 8 KV heads: there are 1 to 8");

    let local = sharded.local.clone().scale(-1.0);
    let error = plan(&with(&sharded, local), &options).unwrap_err();
    assert_eq!(error.name(), "Scale");
}

/// Whatever is asked for is planned or refused.
#[test]
fn plans_are_total() {
    let sizes = [0, 1, 2, 7, 64, 65, 1 << 16, (1 << 31) - 512, 1 << 31, 1 << 40, usize::MAX];
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let mut planned = 0;
    for _ in 0..12_000 {
        let mut any = |choice: &[usize]| choice[random.random_range(0..choice.len())];
        let world = any(&[1, 2, 3, 8]);
        let rows = any(&sizes);
        let shards = match any(&[0, 1]) {
            0 => Shards::contiguous(rows, world),
            _ => Shards::zigzag(rows, world),
        };
        let Ok(shards) = shards else { continue };
        let (batch, heads, kv_heads) = (any(&sizes), any(&sizes), any(&sizes));
        let head_dim = any(&[0, 8, 12, 128, 256, 264]);
        let local = shards.local_rows(any(&[0, 1, 2]));
        let left = [None, Some(i32::MIN), Some(-3), Some(0), Some(900), Some(i32::MAX)];
        let mask = match any(&[0, 1, 2]) {
            0 => Mask::Full,
            1 => Mask::Causal,
            _ => Mask::Window {
                left: left[any(&[0, 1, 2, 3, 4, 5])],
                right: left[any(&[0, 1, 2, 3, 4, 5])],
            },
        };
        let layout = |heads| {
            Layout::strided(
                Dtype::Bf16,
                [batch, heads, local, head_dim],
                [0, head_dim, heads.saturating_mul(head_dim), 1],
            )
        };
        let qo = Layout::bshd(Dtype::Bf16, batch, local, heads, head_dim);
        let kv = layout(kv_heads);
        let mut options = ParallelOptions::default();
        if any(&[0, 1]) == 0 {
            options = options.groups(any(&sizes));
        }
        if any(&[0, 1]) == 0 {
            options = options.workspace_limit_bytes(any(&sizes) as u64);
        }
        let sharded = Sharded::new(&Forward::new(qo, kv, kv, qo, mask).with_lse(), shards);
        let rank = any(&[0, 1, 2]);
        // Programs are as long as they have heads and entries: those are not drawn up here.
        if batch.saturating_mul(kv_heads.max(heads)) > 1 << 8 && rows <= 1 << 40 {
            continue;
        }
        let plan = ParallelPlan::new(&sharded, rank, &DeviceFacts::h200(), &options);
        planned += usize::from(plan.is_ok_and(|plan| !plan.to_string().is_empty()));
    }
    assert!(planned > 20, "{planned}");
}
