//! Structs of the header for the tests, and what the library says.

#![allow(dead_code, reason = "no test uses all of it")]

use std::ffi::CStr;
use std::ptr::{null, null_mut, without_provenance, without_provenance_mut};

use fulgurite_c::{
    BackwardArgs, BackwardRequest, Descale, ForwardArgs, ForwardRequest, Layout, PlanOptions,
    fulgurite_last_error,
};

/// `FULGURITE_BF16`.
pub const BF16: u32 = 1;
/// `FULGURITE_BATCHED`.
pub const BATCHED: u32 = 1;
/// `FULGURITE_MASK_CAUSAL`.
pub const CAUSAL: u32 = 2;

/// A contiguous bf16 tensor `[batch, rows, heads, head_dim]`.
pub fn bshd(batch: u64, rows: u64, heads: u64, head_dim: u64) -> Layout {
    let row = heads * head_dim;
    Layout {
        dtype: BF16,
        form: BATCHED,
        sequences: 0,
        shape: [batch, heads, rows, head_dim],
        strides: [rows * row, head_dim, row, 1],
    }
}

/// A causal call of 100 queries and 200 keys on device 0.
pub fn request() -> ForwardRequest {
    ForwardRequest {
        size_bytes: size_of::<ForwardRequest>() as u64,
        device: 0,
        mask: CAUSAL,
        with_lse: 0,
        scale: 0.0,
        q: bshd(2, 100, 8, 64),
        k: bshd(2, 200, 2, 64),
        v: bshd(2, 200, 2, 64),
        out: bshd(2, 100, 8, 64),
        precision: 0,
        window_ends: 0,
        descale_q: Descale::default(),
        descale_k: Descale::default(),
        descale_v: Descale::default(),
        window_left: 0,
        window_right: 0,
    }
}

/// Addresses for it that nobody may follow.
pub fn args() -> ForwardArgs {
    let [q, k, v] = [0x1000, 0x2000, 0x3000].map(without_provenance);
    ForwardArgs {
        size_bytes: size_of::<ForwardArgs>() as u64,
        q,
        k,
        v,
        out: without_provenance_mut(0x4000),
        lse: null_mut(),
        workspace: null_mut(),
        workspace_bytes: 0,
        descale_q: null(),
        descale_k: null(),
        descale_v: null(),
    }
}

/// The gradients of a forward call, contiguous.
pub fn backward(forward: &ForwardRequest) -> BackwardRequest {
    let like = |layout: &Layout| {
        let [batch, heads, rows, head_dim] = layout.shape;
        bshd(batch, rows, heads, head_dim)
    };
    BackwardRequest {
        size_bytes: size_of::<BackwardRequest>() as u64,
        forward,
        d_out: like(&forward.out),
        dq: like(&forward.q),
        dk: like(&forward.k),
        dv: like(&forward.v),
        with_d_lse: 0,
        reserved: 0,
    }
}

/// Addresses for it that nobody may follow.
pub fn backward_args() -> BackwardArgs {
    let [q, k, v, out, lse, d_out] = [1, 2, 3, 4, 5, 6].map(|it| without_provenance(it << 12));
    let [dq, dk, dv] = [7, 8, 9].map(|it| without_provenance_mut(it << 12));
    BackwardArgs {
        size_bytes: size_of::<BackwardArgs>() as u64,
        q,
        k,
        v,
        out,
        lse,
        d_out,
        dq,
        dk,
        dv,
        d_lse: null(),
        workspace: without_provenance_mut(10 << 12),
        workspace_bytes: 1 << 30,
    }
}

/// Options that say nothing.
pub fn options() -> PlanOptions {
    PlanOptions {
        size_bytes: size_of::<PlanOptions>() as u64,
        entry: null(),
        workspace_limit_bytes: 0,
        sm_limit: 0,
        arch: 0,
    }
}

/// What the last failure had to say.
pub fn said() -> String {
    // SAFETY: the string of this thread, valid until its next failure.
    unsafe { CStr::from_ptr(fulgurite_last_error()) }.to_string_lossy().into_owned()
}

/// The last failure's text has these parts.
#[track_caller]
pub fn says(parts: &[&str]) {
    let text = said();
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}
