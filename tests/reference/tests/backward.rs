//! The reference's gradients against finite differences and answers that are known without them,
//! and the model's against the reference.

use fulgurite::{Dtype, Layout, Mask};
use reference::backward::lowprec::{self, Stored};
use reference::backward::oracle::gradients;
use reference::forward::lowprec::{Arithmetic, attention as modelled};
use reference::forward::oracle::{Problem, attention};
use reference::random::{draw, normal};
use reference::tensor::{Elements, Tensor, View, decode};

/// Batch, query heads, KV heads, query rows, keys, head dim.
type Sizes = [usize; 6];

/// Numbers of few bits, so that small steps from them are exact in float32.
fn numbers(stream: u64, count: usize) -> Vec<f32> {
    draw(7, stream, count, |random| (normal(random) * 64.0).round() / 64.0)
}

/// Q, K, V and dO, and the gradient of the log-sum-exp.
struct Given {
    layouts: [Layout; 4],
    numbers: [Vec<f32>; 4],
    d_lse: Vec<f32>,
}

impl Given {
    fn new([batch, heads, kv_heads, rows, keys, head_dim]: Sizes) -> Given {
        let layout = |heads, rows| Layout::bhsd(Dtype::Bf16, batch, heads, rows, head_dim);
        let (q, kv) = (layout(heads, rows), layout(kv_heads, keys));
        let layouts = [q, kv, kv, q];
        let mut stream = 0;
        let numbers = layouts.map(|layout| {
            stream += 1;
            numbers(stream, layout.shape.iter().product())
        });
        let d_lse = self::numbers(stream + 1, batch * heads * rows);
        Given { layouts, numbers, d_lse }
    }

    fn view(&self, which: usize) -> View<'_> {
        View { layout: &self.layouts[which], elements: Elements::Numbers(&self.numbers[which]) }
    }

    fn problem(&self, mask: Mask) -> Problem<'_> {
        let [q, k, v] = [0, 1, 2].map(|which| self.view(which));
        Problem { q, k, v, mask, scale: 0.3 }
    }

    /// The sum whose gradients are asked for.
    fn loss(&self, mask: Mask) -> f64 {
        let problem = self.problem(mask);
        let attention = attention(&problem, &problem.rows());
        let sum = |results: &[f64], factors: &[f32]| -> f64 {
            let parts = results.iter().zip(factors).filter(|(result, _)| result.is_finite());
            parts.map(|(result, factor)| result * f64::from(*factor)).sum()
        };
        sum(&attention.out, &self.numbers[3]) + sum(&attention.lse, &self.d_lse)
    }

    /// The loss after a step along a direction of one tensor.
    fn stepped(&mut self, which: usize, direction: &[f32], step: f32, mask: Mask) -> f64 {
        let before = self.numbers[which].clone();
        self.numbers[which].iter_mut().zip(direction).for_each(|(x, d)| *x += step * d);
        let loss = self.loss(mask);
        self.numbers[which] = before;
        loss
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let window = |left, right| Mask::Window { left, right };
    let cases: [(Sizes, Mask); 8] = [
        ([1, 2, 1, 5, 7, 8], Mask::Full),
        ([2, 2, 2, 6, 6, 16], Mask::Causal),
        ([1, 4, 2, 3, 9, 8], Mask::Causal),
        ([1, 2, 2, 9, 4, 8], Mask::Causal),
        ([1, 3, 1, 1, 1, 8], Mask::Full),
        ([1, 2, 1, 6, 7, 8], window(Some(2), Some(1))),
        ([1, 1, 1, 9, 5, 8], window(Some(1), None)),
        ([1, 2, 2, 5, 9, 8], window(Some(3), Some(-1))),
    ];
    for (sizes, mask) in cases {
        let mut given = Given::new(sizes);
        let exact = gradients(&given.problem(mask), given.view(3), Some(&given.d_lse));
        for (which, (name, gradient)) in exact.named().into_iter().enumerate() {
            for seed in 0..3 {
                let direction = draw(seed, 99, gradient.len(), |random| normal(random).signum());
                let pairs = gradient.iter().zip(&direction);
                let analytic: f64 = pairs.map(|(g, d)| g * f64::from(*d)).sum();
                let mut central = |step: f32| {
                    let [up, down] =
                        [step, -step].map(|step| given.stepped(which, &direction, step, mask));
                    (up - down) / (2.0 * f64::from(step))
                };
                // Richardson: what is left is of the fourth order.
                let step = 2f32.powi(-10);
                let numeric = (4.0 * central(step) - central(2.0 * step)) / 3.0;
                let size = 1.0 + analytic.abs();
                let off = (analytic - numeric).abs() / size;
                assert!(off < 1e-7, "{sizes:?} {mask:?} {name}: {analytic} and {numeric}");
            }
        }
    }
}

#[test]
fn a_single_key_gets_all_and_shows_nothing() {
    let given = Given::new([1, 4, 2, 3, 1, 8]);
    let exact = gradients(&given.problem(Mask::Full), given.view(3), None);
    assert!(exact.q.iter().chain(&exact.k).all(|x| x.abs() < 1e-15));
    for (index, got) in exact.v.iter().enumerate() {
        let (kv_head, column) = (index / 8, index % 8);
        let rows = 2 * kv_head * 3..2 * (kv_head + 1) * 3;
        let want: f64 = rows.map(|row| f64::from(given.numbers[3][row * 8 + column])).sum();
        assert!((got - want).abs() < 1e-12);
    }
}

#[test]
fn constant_values_show_nothing_and_rows_without_keys_have_no_part() {
    let mut given = Given::new([1, 1, 1, 6, 4, 8]);
    given.numbers[2].fill(1.5);
    let exact = gradients(&given.problem(Mask::Causal), given.view(3), None);
    assert!(exact.q.iter().chain(&exact.k).all(|x| x.abs() < 1e-12));
    // The first two rows see no key.
    let (layouts, numbers) = (given.layouts, given.numbers.clone());
    let mut others = Given { layouts, numbers, d_lse: Vec::new() };
    others.numbers[0][..16].fill(f32::NAN);
    others.numbers[3][..16].fill(f32::NAN);
    assert_eq!(gradients(&others.problem(Mask::Causal), others.view(3), None), exact);
}

#[test]
fn the_model_has_the_error_of_16_bits() {
    for (dtype, least, most) in [(Dtype::Bf16, 1.5e-3, 6e-3), (Dtype::F16, 2e-4, 8e-4)] {
        let shape = [1, 2, 192, 64];
        let tensor = |stream| {
            Tensor::new(dtype, shape, draw(3, stream, shape.iter().product(), normal).into_iter())
        };
        let [q, k, v, d_out] = [0, 1, 2, 3].map(tensor);
        let (mask, scale) = (Mask::Causal, 0.125);
        let problem = Problem { q: q.view(), k: k.view(), v: v.view(), mask, scale };
        let forward = modelled(&problem, &problem.rows(), Arithmetic::PEER);
        let out = Tensor::from_bits(dtype, shape, forward.out);
        let stored = Stored { out: out.view(), lse: &forward.lse, d_lse: None };
        let model = lowprec::gradients(&problem, stored, d_out.view());
        let exact = gradients(&problem, d_out.view(), None);
        for ((name, want), (_, got)) in exact.named().into_iter().zip(model.named()) {
            let error: f64 = want
                .iter()
                .zip(got)
                .map(|(want, got)| (want - f64::from(decode(dtype, *got))).powi(2))
                .sum();
            let relative = (error / want.iter().map(|x| x * x).sum::<f64>()).sqrt();
            assert!((least..most).contains(&relative), "{} {name}: {relative:.3e}", dtype.name());
        }
    }
}
