//! The gradients of a forward call: their structs of the header and what they mean.

use std::ffi::c_void;

use fulgurite::{Backward, Raw};

use crate::forward::ForwardRequest;
use crate::grown::{self, Grown};
use crate::layout::{Layout, flag};
use crate::operation::{Operation, functions};
use crate::outcome::Failure;
use crate::plan::raw_workspace;

/// `fulgurite_backward_request` of the header.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct BackwardRequest {
    /// Bytes of this struct.
    pub size_bytes: u64,
    /// The forward call, which also names the GPU.
    pub forward: *const ForwardRequest,
    /// Gradient of the output.
    pub d_out: Layout,
    /// Gradient of the queries.
    pub dq: Layout,
    /// Gradient of the keys.
    pub dk: Layout,
    /// Gradient of the values.
    pub dv: Layout,
    /// 1 if launches bring the gradient of the log-sum-exp, else 0.
    pub with_d_lse: u32,
    /// 0.
    pub reserved: u32,
}

// SAFETY: `#[repr(C)]`; numbers, structs of numbers and a raw pointer that fill it.
unsafe impl Grown for BackwardRequest {
    const NAME: &'static str = "fulgurite_backward_request";
    const RELEASED_BYTES: &'static [usize] = &[344];
}

/// `fulgurite_backward_args` of the header.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct BackwardArgs {
    /// Bytes of this struct.
    pub size_bytes: u64,
    /// Queries.
    pub q: *const c_void,
    /// Keys.
    pub k: *const c_void,
    /// Values.
    pub v: *const c_void,
    /// The output, as the forward left it.
    pub out: *const c_void,
    /// The log-sum-exp, likewise.
    pub lse: *const c_void,
    /// Gradient of the output.
    pub d_out: *const c_void,
    /// Gradient of the queries.
    pub dq: *mut c_void,
    /// Gradient of the keys.
    pub dk: *mut c_void,
    /// Gradient of the values.
    pub dv: *mut c_void,
    /// Gradient of the log-sum-exp; null: none.
    pub d_lse: *const c_void,
    /// The workspace; null: none.
    pub workspace: *mut c_void,
    /// Bytes of the workspace.
    pub workspace_bytes: u64,
}

// SAFETY: `#[repr(C)]`; numbers and raw pointers that fill it.
unsafe impl Grown for BackwardArgs {
    const NAME: &'static str = "fulgurite_backward_args";
    const RELEASED_BYTES: &'static [usize] = &[104];
}

impl Operation for BackwardRequest {
    type Host = Backward;
    type Args = BackwardArgs;

    unsafe fn meaning(&self) -> Result<(u32, Backward), Failure> {
        // SAFETY: null or a request, by this function's contract.
        let forward = unsafe { grown::read(self.forward, "request.forward") }?;
        let backward = Backward::new(
            &forward.forward()?,
            self.d_out.meaning("request.d_out")?,
            self.dq.meaning("request.dq")?,
            self.dk.meaning("request.dk")?,
            self.dv.meaning("request.dv")?,
        );
        if self.reserved != 0 {
            let got = self.reserved;
            return Err(Failure::argument(format!("request.reserved is {got}: it must be 0")));
        }
        let with_d_lse = flag("request.with_d_lse", self.with_d_lse)?;
        let backward = if with_d_lse { backward.with_d_lse() } else { backward };
        Ok((forward.device, backward))
    }

    fn arguments(args: &BackwardArgs) -> fulgurite::BackwardArgs<Raw> {
        let BackwardArgs { q, k, v, out, lse, d_out, dq, dk, dv, .. } = *args;
        let [q, k, v, out, lse, d_out] =
            [q, k, v, out, lse, d_out].map(|pointer| pointer.addr() as u64);
        let [dq, dk, dv] = [dq, dk, dv].map(|pointer| pointer.addr() as u64);
        let mut meaning = fulgurite::BackwardArgs::new(q, k, v, out, lse, d_out, dq, dk, dv);
        if !args.d_lse.is_null() {
            meaning = meaning.d_lse(args.d_lse.addr() as u64);
        }
        match raw_workspace(args.workspace, args.workspace_bytes) {
            Some(workspace) => meaning.workspace(workspace),
            None => meaning,
        }
    }
}

functions! {
    BackwardRequest, BackwardArgs: fulgurite_plan_backward, fulgurite_launch_backward,
    fulgurite_backward, fulgurite_preload_backward
}
