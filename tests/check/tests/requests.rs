//! Requests of odd shapes on the emulator: tensors that share memory give the bits of copies, and
//! calls without keys zeros and -inf.

use check::forward::call::ForwardCall;
use fulgurite::emulator::Options;
use fulgurite::{Dtype, Emulator, Forward, ForwardArgs, Layout, Mask, Plan};
use half::{bf16, f16};
use reference::random::normal_bits;

/// Batch, query rows, keys, query heads, columns.
const SIZES: [usize; 5] = [2, 70, 150, 4, 64];

fn random(stream: u64, count: usize) -> Vec<bf16> {
    normal_bits(1, stream, count, Dtype::Bf16).into_iter().map(bf16::from_bits).collect()
}

fn elements(plan: &Plan<Forward>, name: &str) -> usize {
    plan.buffer(name).map_or(0, |need| need.elements)
}

/// Output and log-sum-exp, as bits.
fn run(request: &Forward, [q, k, v]: [&[bf16]; 3]) -> (Vec<u16>, Vec<u32>) {
    let emulator = Emulator::new();
    let plan = emulator.plan(request).expect("a valid request");
    let mut out = vec![bf16::NAN; elements(&plan, "out")];
    let mut lse = vec![f32::NAN; elements(&plan, "lse")];
    let args = ForwardArgs::new(q, k, v, &mut out).lse(&mut lse);
    emulator.launch(&plan, args).expect("no rule is broken");
    let bits = out.iter().map(|x| x.to_bits()).collect();
    (bits, lse.iter().map(|x| x.to_bits()).collect())
}

/// A tensor of stride 0 along some axes, and the same with memory for each index.
struct Expanded {
    shared: Layout,
    shared_values: Vec<bf16>,
    copied: Layout,
    copied_values: Vec<bf16>,
}

impl Expanded {
    /// `axes`: those of stride 0.
    fn new(stream: u64, shape: [usize; 4], axes: &[usize]) -> Expanded {
        let mut small = shape;
        axes.iter().for_each(|&axis| small[axis] = 1);
        let [batch, heads, rows, head_dim] = small;
        let mut shared = Layout::bshd(Dtype::Bf16, batch, rows, heads, head_dim);
        shared.shape = shape;
        axes.iter().for_each(|&axis| shared.strides[axis] = 0);
        let shared_values = random(stream, small.iter().product());
        let [batch, heads, rows, head_dim] = shape;
        let copied = Layout::bhsd(Dtype::Bf16, batch, heads, rows, head_dim);
        let mut copied_values = Vec::new();
        for index in 0..batch * heads * rows {
            let place = [index / (heads * rows), index / rows % heads, index % rows];
            let start: usize = place.iter().zip(shared.strides).map(|(i, s)| i * s).sum();
            copied_values.extend(&shared_values[start..start + head_dim]);
        }
        Expanded { shared, shared_values, copied, copied_values }
    }
}

#[test]
fn broadcast_tensors_give_the_bits_of_their_copies() {
    let [batch, q_len, kv_len, heads, head_dim] = SIZES;
    let out = Layout::bshd(Dtype::Bf16, batch, q_len, heads, head_dim);
    let axes: [[&[usize]; 3]; 5] = [
        [&[], &[1], &[1]],
        [&[], &[0], &[0]],
        [&[], &[0], &[]],
        [&[], &[], &[0]],
        [&[], &[0, 1], &[0, 1]],
    ];
    for (mask, axes) in [Mask::Full, Mask::Causal].into_iter().flat_map(|m| axes.map(|a| (m, a))) {
        for kv_heads in [2, 4] {
            let kv_shape = [batch, kv_heads, kv_len, head_dim];
            let q = Expanded::new(0, out.shape, axes[0]);
            let k = Expanded::new(1, kv_shape, axes[1]);
            let v = Expanded::new(2, kv_shape, axes[2]);
            let call = |[q, k, v]: [Layout; 3]| {
                let plain = ForwardCall::plain(out, k, mask);
                ForwardCall { q, v, lse: true, ..plain }.request()
            };
            let shared = run(
                &call([q.shared, k.shared, v.shared]),
                [&q.shared_values, &k.shared_values, &v.shared_values],
            );
            let copied = run(
                &call([q.copied, k.copied, v.copied]),
                [&q.copied_values, &k.copied_values, &v.copied_values],
            );
            assert_eq!(shared, copied, "{mask:?}, {kv_heads} KV heads, stride 0 along {axes:?}");
            assert!(!shared.1.contains(&f32::NAN.to_bits()));
        }
    }
}

#[test]
fn without_keys_there_are_zeros() {
    for (head_dim, q_len, seed) in [(64, 1, 0), (64, 450, 1), (96, 63, 2), (128, 64, 0)]
        .into_iter()
        .chain([(120, 129, 1), (192, 65, 2), (256, 191, 1), (248, 500, 2)])
    {
        let emulator = Emulator::new().with_options(Options { seed, ..Options::default() });
        let q = Layout::bshd(Dtype::F16, 2, q_len, 3, head_dim);
        // Rows of the output are further apart than they are long.
        let wide = head_dim + 16;
        let strides = [q_len * 3 * wide, wide, 3 * wide, 1];
        let out_layout = Layout::strided(Dtype::F16, q.shape, strides);
        let none = Layout::bshd(Dtype::F16, 2, 0, 1, head_dim);
        for (mask, lse) in
            [Mask::Full, Mask::Causal].map(|mask| [(mask, true), (mask, false)]).concat()
        {
            let plain = ForwardCall::plain(q, none, mask);
            let request = ForwardCall { out: out_layout, lse, ..plain }.request();
            let plan = emulator.plan(&request).expect("a valid request");
            // Not even a NaN in q is seen. Behind the tensors nothing may be written.
            let queries = vec![f16::NAN; elements(&plan, "q")];
            let mut out = vec![f16::ONE; elements(&plan, "out") + 64 * 3 * wide];
            let mut sums = vec![1.0_f32; elements(&plan, "lse") + 64];
            let args = ForwardArgs::new(&queries, &[f16::NAN; 0], &[f16::NAN; 0], &mut out);
            let args = if lse { args.lse(&mut sums) } else { args };
            emulator
                .launch(&plan, args)
                .unwrap_or_else(|error| panic!("{head_dim}, {q_len}: {error}"));
            for (index, x) in out.iter().enumerate() {
                let inside = index < 2 * 3 * q_len * wide && index % wide < head_dim;
                let want = if inside { f16::ZERO } else { f16::ONE };
                assert_eq!(*x, want, "{head_dim}, {q_len}: {index}");
            }
            let (sums, rest) = sums.split_at(elements(&plan, "lse"));
            let want = if lse { f32::NEG_INFINITY } else { 1.0 };
            assert!(sums.iter().all(|sum| *sum == want) && rest.iter().all(|x| *x == 1.0));
        }
    }
}
