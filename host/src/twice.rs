//! A request of two launches of one kernel with a workspace between them, to test the core on the
//! sample kernel alone: `out = attention(attention(q, k, v), k, v)`.

use std::fmt;

use crate::args::{Args, args};
use crate::place::{Place, Raw};
use crate::request::{Decide, PlanOptions};
use crate::work::{Memory, Slot, Work};
use crate::{DeviceFacts, Dtype, Error, Forward, Layout, Mask, Plan, Request, Workspace};

/// Where the first launch's output lies in the workspace.
const BETWEEN: u64 = Workspace::HEAD_BYTES as u64;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Twice(pub(crate) Forward);

args! {
    /// The buffers of [`Twice`].
    TwiceArgs {
        read q, k, v;
        write out;
        optional read ;
        optional write ;
    }
}

impl Request for Twice {
    type Args<P: Place> = TwiceArgs<P>;
    const NAME: &'static str = "twice";
}

impl Decide for Twice {
    fn decide(&self, device: &DeviceFacts, options: &PlanOptions) -> Result<Work, Error> {
        let work = Plan::with(&self.0, device, options)?.work;
        let mut first = work.launches[0].clone();
        let mut second = first.clone();
        let in_workspace = |slots: &mut [Slot], place: usize| {
            for slot in slots {
                let (Slot::Address(_, memory) | Slot::Map(_, memory, _)) = slot;
                if *memory == Memory::Place(place) {
                    *memory = Memory::Workspace(BETWEEN);
                }
            }
        };
        in_workspace(&mut first.slots, 3);
        in_workspace(&mut second.slots, 0);
        let bytes = 2 * self.0.q.span_elements().unwrap_or(0) as u64;
        let fields = <TwiceArgs<Raw> as Args<Raw>>::FIELDS;
        Ok(Work::new(fields, work.buffers, vec![first, second], BETWEEN + bytes))
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.describe(f)
    }
}

/// 1 batch entry, 70 rows, 2 heads, head dim 64.
pub(crate) fn request() -> Twice {
    let layout = Layout::bshd(Dtype::Bf16, 1, 70, 2, 64);
    Twice(Forward::new(layout, layout, layout, layout, Mask::Causal))
}

#[test]
fn limits_of_a_workspace_are_checked() {
    let plan = Plan::new(&request(), &DeviceFacts::h200()).expect("a valid request");
    let want = BETWEEN + 2 * 70 * 2 * 64;
    assert_eq!((plan.launches().len(), plan.workspace_bytes()), (2, want));
    let check = |address, bytes| {
        let workspace = crate::RawWorkspace { address, bytes };
        let args = TwiceArgs::new(16_u64, 16_u64, 16_u64, 16_u64);
        plan.check_addresses(args.workspace(workspace))
    };
    assert_eq!(check(0x1000, want), Ok(()));
    assert_eq!(check(0x1000, want - 1), Err(Error::WorkspaceShort { got: want - 1, want }));
    let misaligned = Error::Misaligned { buffer: "workspace", address: 0x1080, want: 256 };
    assert_eq!(check(0x1080, want), Err(misaligned));
    let none = plan.check_addresses(TwiceArgs::new(16_u64, 16_u64, 16_u64, 16_u64));
    assert_eq!(none, Err(Error::WorkspaceShort { got: 0, want }));

    let within = |bytes| {
        let options = PlanOptions::default().workspace_limit_bytes(bytes);
        Plan::with(&request(), &DeviceFacts::h200(), &options)
    };
    assert!(within(want).is_ok());
    let refused = within(want - 1);
    assert_eq!(refused.err(), Some(Error::Limit { got: want, limit: want - 1 }));
}

#[cfg(feature = "emulator")]
#[test]
fn two_launches_are_as_two_calls() {
    use crate::{Emulator, ForwardArgs};
    use half::bf16;

    let Twice(forward) = request();
    let emulator = Emulator::new();
    let number = |index: usize| bf16::from_f32((index * 37 % 101) as f32 / 50.0 - 1.0);
    let q: Vec<bf16> = (0..70 * 2 * 64).map(number).collect();
    let k: Vec<bf16> = q.iter().rev().copied().collect();
    let (mut once, mut twice) = (vec![bf16::ZERO; q.len()], vec![bf16::ZERO; q.len()]);
    let plan = emulator.plan(&forward).expect("a valid request");
    emulator.launch(&plan, ForwardArgs::new(&q, &k, &q, &mut once)).expect("no fault");
    emulator.launch(&plan, ForwardArgs::new(&once, &k, &q, &mut twice)).expect("no fault");

    let mut out = vec![bf16::ZERO; q.len()];
    let plan = emulator.plan(&request()).expect("a valid request");
    let ran = emulator.launch(&plan, TwiceArgs::new(&q, &k, &q, &mut out)).expect("no fault");
    assert!(ran.stats.products > 0);
    assert_eq!(out, twice);
    assert_ne!(out, once);
}
