//! The cases of gradients: what every kernel is checked with. One call runs the kernels of all
//! parts; it is a case of the kernel of keys and values, but for calls without keys.

use std::sync::Arc;

use fulgurite::internals::{BACKWARD, BackwardRow, BackwardTile, MaskClass, Part};
use fulgurite::{Dtype, Mask};
use reference::backward::lowprec::{self, Stored};
use reference::backward::oracle;
use reference::forward::lowprec::{Arithmetic, attention};
use reference::forward::oracle::Problem;
use reference::forward::values::Values;
use reference::random::{draw, normal};
use reference::tensor::{Tensor, encode};

use super::call::{BackwardCall, Given};
use super::compare::Compared;
use crate::call::Launch;
use crate::case::{Case, Job, Needs};
use crate::memory::Arrangement;
use crate::rules::{Finding, Gradient, Rule};

/// One backward to check.
#[derive(Clone, Debug)]
pub struct BackwardCase {
    /// What is special about it.
    pub what: &'static str,
    /// The same, and its sizes; unique among the cases of a kernel.
    pub name: String,
    /// The kernel.
    pub entry: &'static str,
    /// Batch entries.
    pub batch: usize,
    /// Query heads and KV heads.
    pub heads: (usize, usize),
    /// Query rows and keys.
    pub lengths: (usize, usize),
    /// Columns of a head.
    pub head_dim: usize,
    /// Element type.
    pub dtype: Dtype,
    /// Which keys a row sees.
    pub mask: Mask,
    /// Softmax scale; `None`: the default.
    pub scale: Option<f32>,
    /// How the tensors lie in memory.
    pub arrangement: Arrangement,
    /// What q, k and v hold.
    pub values: Values,
    /// What the output's gradient is multiplied with.
    pub d_out_factor: f32,
    /// Whether the log-sum-exp has a gradient too.
    pub d_lse: bool,
    /// What is planted.
    pub poison: Option<Poison>,
    /// Whether it runs twice, for the same bits.
    pub twice: bool,
    /// Who runs it.
    pub needs: Needs,
}

/// A NaN in column 1 of the last row, or key, of head 0 of batch entry 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poison {
    /// In the queries.
    Query,
    /// In the keys.
    Key,
    /// In the values.
    Value,
    /// In the output's gradient.
    DOut,
}

impl BackwardCase {
    /// A plain case: `[batch, row, head, head dim]`, N(0, 1), default scale.
    fn new(
        what: &'static str,
        row: &BackwardRow,
        batch: usize,
        heads: (usize, usize),
        lengths: (usize, usize),
    ) -> BackwardCase {
        let case = BackwardCase {
            what,
            name: String::new(),
            entry: row.entry,
            batch,
            heads,
            lengths,
            head_dim: row.head_dim as usize,
            dtype: row.dtype,
            mask: row.mask.example(),
            scale: None,
            arrangement: Arrangement::Bshd,
            values: Values::Normal,
            d_out_factor: 1.0,
            d_lse: false,
            poison: None,
            twice: false,
            needs: Needs::Nothing,
        };
        case.with(|_| {})
    }

    fn with(mut self, change: impl FnOnce(&mut BackwardCase)) -> BackwardCase {
        change(&mut self);
        let what = self.what;
        let BackwardCase { batch, heads: (of_q, of_kv), lengths: (rows, keys), head_dim, .. } =
            self;
        self.name = format!("gradients, {what} b{batch} h{of_q}/{of_kv} {rows}x{keys} d{head_dim}");
        self
    }

    fn shapes(&self) -> ([usize; 4], [usize; 4]) {
        let BackwardCase { batch, heads, lengths, head_dim, .. } = *self;
        ([batch, heads.0, lengths.0, head_dim], [batch, heads.1, lengths.1, head_dim])
    }

    /// The seed of its numbers: the same for every run, another for every case.
    fn seed(&self) -> u64 {
        let text = format!("backward {} {} {:?}", self.name, self.dtype.name(), self.mask);
        text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }

    /// What it reads; output and log-sum-exp are those of the model of a good forward.
    fn given(&self, is_planted: bool) -> Given {
        let (q_shape, kv_shape) = self.shapes();
        let mut inputs = self.values.inputs(self.dtype, q_shape, kv_shape, self.seed());
        if self.arrangement == Arrangement::Shared {
            for tensor in [&mut inputs.k, &mut inputs.v] {
                let entry = tensor.bits.len() / self.batch;
                tensor.bits = tensor.bits[..entry].repeat(self.batch);
            }
        }
        let numbers = draw(self.seed(), 20, q_shape.iter().product(), normal);
        let numbers = numbers.into_iter().map(|x| x * self.d_out_factor);
        let mut d_out = Tensor::new(self.dtype, q_shape, numbers);
        if let Some(poison) = self.poison.filter(|_| is_planted) {
            let tensor = match poison {
                Poison::Query => &mut inputs.q,
                Poison::Key => &mut inputs.k,
                Poison::Value => &mut inputs.v,
                Poison::DOut => &mut d_out,
            };
            let last = tensor.layout.shape[2] - 1;
            tensor.row_mut([0, 0, last])[1] = encode(self.dtype, f64::NAN);
        }
        let (q, k, v) = (inputs.q, inputs.k, inputs.v);
        let scale = self.scale.map_or_else(|| 1.0 / (self.head_dim as f64).sqrt(), f64::from);
        let problem = Problem { q: q.view(), k: k.view(), v: v.view(), mask: self.mask, scale };
        let forward = attention(&problem, &problem.rows(), Arithmetic::PEER);
        let out = Tensor::from_bits(self.dtype, q_shape, forward.out);
        let d_lse = self.d_lse.then(|| draw(self.seed(), 21, forward.lse.len(), normal));
        Given { q, k, v, out, d_out, lse: forward.lse, d_lse }
    }

    fn launch(&self, given: &Given) -> Launch {
        BackwardCall::on(self.arrangement, given, self.mask, self.scale)
    }

    /// A batch entry of a launch of this case, alone and contiguous.
    pub fn entry_alone(&self, launch: &Launch, entry: usize) -> Launch {
        let Given { q, k, v, out, d_out, lse, d_lse } = Given::of(&launch.memory);
        let part = |tensor: Tensor| {
            let [batch, heads, rows, head_dim] = tensor.layout.shape;
            let size = tensor.bits.len() / batch;
            let bits = tensor.bits[entry * size..(entry + 1) * size].to_vec();
            Tensor::from_bits(self.dtype, [1, heads, rows, head_dim], bits)
        };
        let rows = lse.len() / self.batch;
        let [lse, d_lse] =
            [Some(lse), d_lse].map(|all| all.map(|all| all[entry * rows..][..rows].to_vec()));
        let lse = lse.unwrap_or_default();
        let [q, k, v, out, d_out] = [q, k, v, out, d_out].map(part);
        let given = Given { q, k, v, out, d_out, lse, d_lse };
        BackwardCall::on(Arrangement::Bhsd, &given, self.mask, self.scale)
    }

    /// Rows of each gradient, as bits, that nothing planted may change: those of other KV heads.
    fn untouched(&self, launch: &Launch, gradient: Gradient) -> Vec<u16> {
        let tensor = launch.memory.tensor(gradient.name());
        let [_, heads, rows, head_dim] = tensor.layout.shape;
        let touched_heads = heads / self.heads.1;
        tensor.bits[touched_heads * rows * head_dim..].to_vec()
    }
}

impl Case for BackwardCase {
    fn name(&self) -> &str {
        &self.name
    }

    fn entry(&self) -> &'static str {
        self.entry
    }

    fn needs(&self) -> Needs {
        self.needs
    }

    fn products(&self) -> usize {
        self.blank().call.products()
    }

    fn blank(&self) -> Launch {
        let (q_shape, kv_shape) = self.shapes();
        let blank = |shape: [usize; 4]| {
            Tensor::from_bits(self.dtype, shape, vec![0; shape.iter().product()])
        };
        let [q, out, d_out] = [0; 3].map(|_| blank(q_shape));
        let [k, v] = [0; 2].map(|_| blank(kv_shape));
        let lse = vec![0.0; q_shape[..3].iter().product()];
        let d_lse = self.d_lse.then(|| lse.clone());
        self.launch(&Given { q, k, v, out, d_out, lse, d_lse })
    }

    /// Where something is planted: without it, and with it.
    fn launches(&self) -> Vec<Launch> {
        if self.twice {
            let launch = self.launch(&self.given(false));
            return vec![launch.clone(), launch];
        }
        let planted = self.poison.map(|_| self.launch(&self.given(true)));
        [self.launch(&self.given(false))].into_iter().chain(planted).collect()
    }

    fn judge(&self, ran: &[Launch]) -> Vec<Finding> {
        let mut findings = self.compare(&ran[0]);
        match ran {
            [one, other] if self.twice => {
                let differ = one.memory.written_bits() != other.memory.written_bits();
                let (rule, value, limit) = (Rule::Untouched, f64::from(u8::from(differ)), 0.0);
                findings.push(Finding { rule, value, limit, row: None });
            }
            [clean, planted] => findings.extend(self.compare_planted(clean, planted)),
            _ => {}
        }
        findings
    }
}

impl BackwardCase {
    fn compare(&self, launch: &Launch) -> Vec<Finding> {
        let Some(call) = launch.call_of::<BackwardCall>() else { return Vec::new() };
        let given = Given::of(&launch.memory);
        let problem = call.problem(&given);
        let d_lse = given.d_lse.as_deref();
        let reference = oracle::gradients(&problem, given.d_out.view(), d_lse);
        let stored = Stored { out: given.out.view(), lse: &given.lse, d_lse };
        let model = lowprec::gradients(&problem, stored, given.d_out.view());
        let mut is_seen = vec![false; self.lengths.1];
        (0..self.lengths.0).for_each(|row| is_seen[problem.kept_keys(row)].fill(true));
        let all = Gradient::ALL.into_iter().zip(reference.named()).zip(model.named());
        let findings = all.map(|((gradient, (_, reference)), (_, model))| {
            let got = launch.memory.tensor(gradient.name());
            let (dtype, shape) = (self.dtype, got.layout.shape);
            let alone = |row: usize| match gradient {
                Gradient::Dq => problem.kept_keys(row).is_empty(),
                _ => !is_seen[row],
            };
            let got = &got.bits;
            Compared { gradient, dtype, shape, reference, model, got, alone: &alone }.findings()
        });
        findings.flatten().collect()
    }

    /// What a NaN may and must do: it shows in its own row's gradients, and no bit of other heads
    /// changes.
    fn compare_planted(&self, clean: &Launch, planted: &Launch) -> Vec<Finding> {
        let changed = |gradient: &Gradient| {
            self.untouched(clean, *gradient) != self.untouched(planted, *gradient)
        };
        let changed = Gradient::ALL.iter().filter(|gradient| changed(gradient)).count();
        let shown = match self.poison {
            Some(Poison::Query | Poison::DOut) => Gradient::Dq,
            Some(Poison::Key) => Gradient::Dk,
            _ => Gradient::Dv,
        };
        // dv of a key does not depend on its value, but on its row's dq everything does.
        let shown = if self.poison == Some(Poison::Value) { Gradient::Dk } else { shown };
        let tensor = planted.memory.tensor(shown.name());
        let last = tensor.layout.shape[2] - 1;
        let is_shown = tensor.view().row([0, 0, last]).any(f32::is_nan);
        let finding = |value: usize| Finding {
            rule: Rule::Untouched,
            value: value as f64,
            limit: 0.0,
            row: None,
        };
        vec![finding(changed), finding(usize::from(!is_shown))]
    }
}

/// The cases of every kernel, of a list.
pub fn every(list: fn(&BackwardRow) -> Vec<BackwardCase>) -> Vec<Job> {
    BACKWARD.iter().flat_map(list).map(|case| Arc::new(case) as Job).collect()
}

/// Every case of a kernel.
pub fn cases(row: &BackwardRow) -> Vec<BackwardCase> {
    let mut all = match row.part {
        Part::Dq => without_keys(row),
        Part::DkDv => [lengths(row), windows(row), others(row)].concat(),
    };
    all.retain(|case| is_own(row, case));
    all
}

/// Whether a case needs this row's mask: windows as wide as the call are computed without one.
fn is_own(row: &BackwardRow, case: &BackwardCase) -> bool {
    let (rows, keys) = case.lengths;
    case.mask.simplest(rows, keys).class() == row.mask
        && (row.mask != MaskClass::Window || keys > 0)
}

/// Windows smaller and larger than a tile, on both sides, with rows that see no key and keys that
/// no row sees at both ends of a call.
fn windows(row: &BackwardRow) -> Vec<BackwardCase> {
    if row.mask != MaskClass::Window {
        return Vec::new();
    }
    let ends = [
        (Some(0), Some(0)),
        (Some(63), Some(0)),
        (Some(64), Some(0)),
        (Some(200), Some(7)),
        (Some(3), Some(190)),
        (Some(40), None),
        (None, Some(9)),
        (None, Some(-1)),
        (Some(-2), Some(40)),
        (Some(-150), Some(250)),
        (Some(-150), None),
        (Some(250), Some(-150)),
    ];
    let lengths = [(300, 420), (520, 130), (90, 700), (1, 500)];
    let case = |(left, right), lengths| {
        let end = |end: Option<i32>| end.map_or("all".to_owned(), |end| end.to_string());
        let mut case = BackwardCase::new("window", row, 1, (2, 1), lengths);
        case.mask = Mask::Window { left, right };
        case.name += &format!(" {} to {}", end(left), end(right));
        case
    };
    ends.into_iter().flat_map(|ends| lengths.map(|lengths| case(ends, lengths))).collect()
}

/// Calls without keys have no kernel of keys and values.
fn without_keys(row: &BackwardRow) -> Vec<BackwardCase> {
    let lengths = [(1, 0), (300, 0)];
    lengths.map(|lengths| BackwardCase::new("no keys", row, 2, (2, 1), lengths)).into()
}

fn lengths(row: &BackwardRow) -> Vec<BackwardCase> {
    const LENGTHS: &[(usize, usize)] = &[
        (1, 1),
        (1, 2),
        (2, 1),
        (0, 130),
        (1, 1000),
        (63, 64),
        (64, 63),
        (65, 65),
        (127, 129),
        (129, 128),
        (191, 193),
        (255, 257),
        (384, 384),
        (385, 383),
        (100, 1000),
        (700, 90),
        (1023, 1023),
    ];
    let all = LENGTHS.iter();
    all.map(|&lengths| BackwardCase::new("length", row, 1, (2, 2), lengths)).collect()
}

fn others(row: &BackwardRow) -> Vec<BackwardCase> {
    let case = |what, batch, heads, lengths| BackwardCase::new(what, row, batch, heads, lengths);
    let laid = |what, arrangement, heads, lengths| {
        case(what, 2, heads, lengths).with(|case| case.arrangement = arrangement)
    };
    let valued = |what, values| case(what, 1, (2, 2), (300, 400)).with(|case| case.values = values);
    let planted =
        |what, poison| case(what, 2, (4, 2), (200, 200)).with(|case| case.poison = Some(poison));
    let mut all = vec![
        case("odd heads", 3, (5, 5), (70, 130)),
        case("grouped heads", 2, (8, 2), (200, 300)),
        case("twice", 2, (4, 2), (300, 280)).with(|case| case.twice = true),
        case("one kv head", 1, (8, 1), (130, 260)),
        case("three to one", 2, (6, 2), (1, 333)),
        laid("bhsd", Arrangement::Bhsd, (3, 3), (150, 210)),
        laid("sbhd", Arrangement::Sbhd, (3, 3), (150, 210)),
        laid("packed", Arrangement::Packed, (4, 2), (190, 190)),
        laid("sliced head dim", Arrangement::SlicedHeadDim, (2, 2), (150, 210)),
        laid("padded", Arrangement::Padded, (2, 2), (150, 210)),
        laid("shared keys and values", Arrangement::Shared, (4, 2), (150, 210)),
        case("scale 0.5", 1, (2, 2), (140, 280)).with(|case| case.scale = Some(0.5)),
        case("scale 1e-4", 1, (2, 2), (140, 280)).with(|case| case.scale = Some(1e-4)),
        valued("large logits", Values::LargeLogits),
        valued("dominant key", Values::DominantKey),
        valued("outliers", Values::Outliers),
        valued("q all 0", Values::ZeroQ),
        case("d_out all 0", 1, (2, 1), (130, 140)).with(|case| case.d_out_factor = 0.0),
        case("large d_out", 1, (2, 1), (130, 140)).with(|case| case.d_out_factor = 100.0),
        case("gradient of the lse", 2, (4, 2), (150, 210)).with(|case| case.d_lse = true),
        planted("nan in q", Poison::Query),
        planted("nan in k", Poison::Key),
        planted("nan in v", Poison::Value),
        planted("nan in d_out", Poison::DOut),
        case("many rows", 2, (8, 4), (512, 640)).with(|case| case.needs = Needs::Speed),
        case("many jobs, twice", 4, (16, 4), (260, 290))
            .with(|case| (case.twice, case.needs) = (true, Needs::Gpu)),
    ];
    all.extend(head_dims(row));
    if row.head_dim == 64 {
        let many = case("many heads", 16_500, (4, 2), (3, 5));
        all.push(many.with(|case| (case.head_dim, case.needs) = (8, Needs::Speed)));
    }
    if row.head_dim == 128 {
        all.push(laid("offsets beyond 2^31", Arrangement::HugeBatchStride, (2, 2), (150, 210)));
    }
    all
}

/// Head dims that the kernel pads: the smallest it takes, one in between, the next to its own.
fn head_dims(row: &BackwardRow) -> Vec<BackwardCase> {
    let narrower = BACKWARD.iter().map(|other| other.head_dim).filter(|&it| it < row.head_dim);
    let least = narrower.max().unwrap_or(0) as usize + 8;
    let most = row.head_dim as usize - 8;
    let mut dims = vec![least, (least + most) / 16 * 8, most];
    dims.dedup();
    let case = |head_dim| {
        BackwardCase::new("head dim", row, 1, (2, 1), (150, 210))
            .with(|case| case.head_dim = head_dim)
    };
    dims.into_iter().map(case).collect()
}

/// The cases for the emulator, small but with every branch: one row, partial tiles, more queries
/// than keys, steps enough that the rings go round, grouped heads, padding, every arrangement of
/// rows that see nothing.
pub fn emulated_cases(row: &BackwardRow) -> Vec<BackwardCase> {
    let case = |what, batch, heads, lengths| BackwardCase::new(what, row, batch, heads, lengths);
    if row.part == Part::Dq {
        let mut all = vec![case("no keys", 1, (2, 1), (130, 0))];
        all.retain(|case| is_own(row, case));
        return all;
    }
    let tile = BackwardTile::of(row);
    let (held, walked) = (tile.held_rows() as usize, tile.walked_rows as usize);
    let mut all = vec![
        case("one row", 1, (1, 1), (1, 1)),
        case("partial tiles", 1, (1, 1), (walked + 3, held - 5)),
        case("several tiles", 1, (2, 1), (2 * walked + 5, held + 70)),
        case("round the rings", 1, (1, 1), (7 * walked - 3, 70)),
        case("more queries than keys", 1, (1, 1), (200, 40)),
        case("no queries", 1, (1, 1), (0, 70)),
        case("grouped heads, padded, sliced", 2, (4, 2), (66, 72)).with(|case| {
            case.head_dim -= 8;
            case.arrangement = Arrangement::SlicedHeadDim;
            case.d_lse = true;
        }),
        case("shared keys and values", 2, (2, 1), (70, 66))
            .with(|case| case.arrangement = Arrangement::Shared),
        case("nan in v", 1, (2, 2), (70, 140)).with(|case| case.poison = Some(Poison::Value)),
    ];
    if row.mask == MaskClass::Window {
        let far = case("window behind", 1, (2, 1), (3 * walked + 5, 2 * held + 9));
        let mask = Mask::Window { left: Some(-70), right: Some(held as i32 + 75) };
        all.push(far.with(|case| case.mask = mask));
    }
    all.retain(|case| is_own(row, case));
    all
}

/// The cases for planted errors: each ring gone round several times, several heads of a group,
/// tiles that some steps mask.
pub fn mutation_cases(row: &BackwardRow) -> Vec<BackwardCase> {
    let tile = BackwardTile::of(row);
    let (held, walked) = (tile.held_rows() as usize, tile.walked_rows as usize);
    let case = |heads, lengths| BackwardCase::new("mutants", row, 1, heads, lengths);
    vec![case((2, 1), (4 * walked - 3, held + 5)), case((1, 1), (walked + 7, 5 * 64 - 9))]
}
