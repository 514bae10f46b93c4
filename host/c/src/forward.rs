//! The forward call: its structs of the header and what they mean.

use std::ffi::c_void;

use fulgurite::{Forward, Mask, Raw};

use crate::descale::{self, Descale};
use crate::grown::Grown;
use crate::layout::{Layout, MASKS, PRECISIONS, WINDOW_ENDS, choose, flag};
use crate::operation::{Operation, functions};
use crate::outcome::Failure;
use crate::plan::raw_workspace;

/// `fulgurite_forward_request` of the header.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ForwardRequest {
    /// Bytes of this struct.
    pub size_bytes: u64,
    /// Ordinal of the GPU.
    pub device: u32,
    /// Which keys a row sees: one of `FULGURITE_MASK_FULL` and so on.
    pub mask: u32,
    /// 1 if launches write the log-sum-exp, else 0.
    pub with_lse: u32,
    /// Factor of the scores; 0: `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Queries.
    pub q: Layout,
    /// Keys.
    pub k: Layout,
    /// Values.
    pub v: Layout,
    /// The output.
    pub out: Layout,
    /// How exactly it is computed: one of `FULGURITE_PRECISION_GIVEN` and so on; 0: as given.
    pub precision: u32,
    /// Which ends a window has: `FULGURITE_WINDOW_LEFT`, `FULGURITE_WINDOW_RIGHT`, both or 0.
    pub window_ends: u32,
    /// What the stored numbers of q are multiplied with, if they have 8 bits.
    pub descale_q: Descale,
    /// The same of k.
    pub descale_k: Descale,
    /// The same of v.
    pub descale_v: Descale,
    /// Keys before a row's position that it sees, if the window ends there; else 0.
    pub window_left: i32,
    /// Keys behind it, likewise.
    pub window_right: i32,
}

// SAFETY: `#[repr(C)]`; numbers, and structs of numbers, that fill it.
unsafe impl Grown for ForwardRequest {
    const NAME: &'static str = "fulgurite_forward_request";
    const RELEASED_BYTES: &'static [usize] = &[344, 352, 424, 432];
}

/// `fulgurite_forward_args` of the header.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ForwardArgs {
    /// Bytes of this struct.
    pub size_bytes: u64,
    /// Queries.
    pub q: *const c_void,
    /// Keys.
    pub k: *const c_void,
    /// Values.
    pub v: *const c_void,
    /// The output.
    pub out: *mut c_void,
    /// The log-sum-exp; null: none.
    pub lse: *mut c_void,
    /// The workspace; null: none.
    pub workspace: *mut c_void,
    /// Bytes of the workspace.
    pub workspace_bytes: u64,
    /// What the stored numbers of q are multiplied with; null: none.
    pub descale_q: *const c_void,
    /// The same of k.
    pub descale_k: *const c_void,
    /// The same of v.
    pub descale_v: *const c_void,
}

// SAFETY: `#[repr(C)]`; numbers and raw pointers that fill it.
unsafe impl Grown for ForwardArgs {
    const NAME: &'static str = "fulgurite_forward_args";
    const RELEASED_BYTES: &'static [usize] = &[64, 88];
}

impl ForwardRequest {
    /// The request in the words of the host crate.
    pub(crate) fn forward(&self) -> Result<Forward, Failure> {
        let mask = self.mask()?;
        let forward = Forward::new(
            self.q.meaning("request.q")?,
            self.k.meaning("request.k")?,
            self.v.meaning("request.v")?,
            self.out.meaning("request.out")?,
            mask,
        );
        // Only +0 stands for the default: -0 is no scale, as in Rust.
        let forward = match self.scale.to_bits() {
            0 => forward,
            _ => forward.scale(self.scale),
        };
        let forward = match self.precision {
            0 => forward,
            number => forward.precision(choose("request.precision", number, PRECISIONS)?),
        };
        let forward = match descale::meaning([&self.descale_q, &self.descale_k, &self.descale_v])? {
            Some([q, k, v]) => forward.descale(q, k, v),
            None => forward,
        };
        Ok(if flag("request.with_lse", self.with_lse)? { forward.with_lse() } else { forward })
    }

    /// The mask, a window with its ends.
    fn mask(&self) -> Result<Mask, Failure> {
        let mask = choose("request.mask", self.mask, MASKS)?;
        let is_window = matches!(mask, Mask::Window { .. });
        let got = self.window_ends;
        if !is_window && got != 0 || got > 3 {
            let [(left, _), (right, _)] = WINDOW_ENDS;
            return Err(Failure::argument(format!(
                "request.window_ends is {got}: it must be {left} (1), {right} (2), both (3) or 0 \
                 with FULGURITE_MASK_WINDOW, else 0"
            )));
        }
        let fields = [("window_left", self.window_left), ("window_right", self.window_right)];
        let mut ends = [None; 2];
        for ((end, (field, number)), (bit_name, bit)) in
            ends.iter_mut().zip(fields).zip(WINDOW_ENDS)
        {
            if got & bit != 0 {
                *end = Some(number);
            } else if number != 0 {
                return Err(Failure::argument(format!(
                    "request.{field} is {number}, but request.window_ends lacks {bit_name} \
                     ({bit}): set the bit, or the field to 0"
                )));
            }
        }
        let [left, right] = ends;
        Ok(if is_window { Mask::Window { left, right } } else { mask })
    }
}

impl ForwardArgs {
    /// The arguments in the words of the host crate.
    fn meaning(&self) -> fulgurite::ForwardArgs<Raw> {
        let [q, k, v] = [self.q, self.k, self.v].map(|pointer| pointer.addr() as u64);
        let [out, lse] = [self.out, self.lse].map(|pointer| pointer.addr() as u64);
        let mut args = fulgurite::ForwardArgs::new(q, k, v, out);
        if lse != 0 {
            args = args.lse(lse);
        }
        let descales = [self.descale_q, self.descale_k, self.descale_v];
        let [descale_q, descale_k, descale_v] = descales.map(|pointer| pointer.addr() as u64);
        if descale_q != 0 {
            args = args.descale_q(descale_q);
        }
        if descale_k != 0 {
            args = args.descale_k(descale_k);
        }
        if descale_v != 0 {
            args = args.descale_v(descale_v);
        }
        match raw_workspace(self.workspace, self.workspace_bytes) {
            Some(workspace) => args.workspace(workspace),
            None => args,
        }
    }
}

impl Operation for ForwardRequest {
    type Host = Forward;
    type Args = ForwardArgs;

    unsafe fn meaning(&self) -> Result<(u32, Forward), Failure> {
        Ok((self.device, self.forward()?))
    }

    fn arguments(args: &ForwardArgs) -> fulgurite::ForwardArgs<Raw> {
        args.meaning()
    }
}

functions! {
    ForwardRequest, ForwardArgs: fulgurite_plan_forward, fulgurite_launch_forward,
    fulgurite_forward, fulgurite_preload_forward
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;
    use std::ptr::{null, null_mut};

    use fulgurite::{DeviceFacts, Dtype, Error};

    use super::*;

    /// Where each buffer of the arguments stands, by the name it has in Rust.
    const PLACES: &[(&str, usize)] = &[
        ("q", offset_of!(ForwardArgs, q)),
        ("k", offset_of!(ForwardArgs, k)),
        ("v", offset_of!(ForwardArgs, v)),
        ("out", offset_of!(ForwardArgs, out)),
        ("descale_q", offset_of!(ForwardArgs, descale_q)),
        ("descale_k", offset_of!(ForwardArgs, descale_k)),
        ("descale_v", offset_of!(ForwardArgs, descale_v)),
        ("lse", offset_of!(ForwardArgs, lse)),
    ];

    /// A plan that has a use for every buffer.
    fn plan() -> fulgurite::Plan<Forward> {
        let layout = fulgurite::Layout::bshd(Dtype::E4m3, 1, 9, 2, 64);
        let out = fulgurite::Layout::bshd(Dtype::Bf16, 1, 9, 2, 64);
        let one = fulgurite::Descale::PerTensor;
        let forward = Forward::new(layout, layout, layout, out, Mask::Full).with_lse();
        let forward = forward.descale(one, one, one);
        fulgurite::Plan::new(&forward, &DeviceFacts::h200()).expect("a valid request")
    }

    /// Arguments in which every buffer is at 0x1000, but the one at byte `place` at `address`.
    fn args(place: usize, address: u64) -> fulgurite::ForwardArgs<Raw> {
        let mut args = ForwardArgs {
            size_bytes: size_of::<ForwardArgs>() as u64,
            q: null(),
            k: null(),
            v: null(),
            out: null_mut(),
            lse: null_mut(),
            // As large as any, so that addresses are all that may be wrong.
            workspace: std::ptr::without_provenance_mut(0x1000),
            workspace_bytes: 1 << 30,
            descale_q: null(),
            descale_k: null(),
            descale_v: null(),
        };
        let words = (&raw mut args).cast::<u64>();
        for (at, address) in PLACES.iter().map(|(_, at)| (*at, 0x1000)).chain([(place, address)]) {
            // SAFETY: a word of the struct, which is made of such.
            unsafe { words.byte_add(at).write(address) };
        }
        args.meaning()
    }

    #[test]
    fn every_argument_of_the_host_crate_has_a_field() {
        let names: Vec<&str> =
            fulgurite::Plan::<Forward>::fields().iter().map(|it| it.name).collect();
        assert_eq!(names, PLACES.iter().map(|place| place.0).collect::<Vec<_>>());
        for (name, place) in PLACES {
            assert_eq!(plan().check_addresses(args(*place, 0x2000)), Ok(()));
            match plan().check_addresses(args(*place, 0x2001)) {
                Err(Error::Misaligned { buffer, address: 0x2001, .. }) => assert_eq!(buffer, *name),
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}
