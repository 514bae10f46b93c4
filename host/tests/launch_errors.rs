//! One test per error of a launch: that it is found before anything is touched, and that its
//! message says what was got, what is allowed and what to do.

use fulgurite::{BufferLengths, DeviceFacts, Dtype, Error, Forward, Layout, Mask, Plan, Pointers};

#[track_caller]
fn says(error: &Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

/// 2 batch entries, 100 queries, 200 keys, 8 heads on 2, head dim 64.
fn plan_with_lse(lse: bool) -> Plan {
    let q = Layout::bshd(Dtype::Bf16, 2, 100, 8, 64);
    let kv = Layout::bshd(Dtype::Bf16, 2, 200, 2, 64);
    let request = Forward { q, k: kv, v: kv, out: q, mask: Mask::Causal, scale: None, lse };
    Plan::new(&request, &DeviceFacts::h200()).unwrap()
}

fn lengths(plan: &Plan) -> BufferLengths {
    let [q, k, v, out] = plan.buffer_elements();
    let lse = plan.request().lse.then(|| plan.lse_elements());
    BufferLengths { q, k, v, out, lse }
}

#[test]
fn buffer_dtype() {
    let plan = plan_with_lse(false);
    let error = plan.check_buffers(Dtype::F16, &lengths(&plan)).unwrap_err();
    assert_eq!(error, Error::BufferDtype { got: Dtype::F16, want: Dtype::Bf16 });
    says(&error, &["buffers hold f16", "plan is for bf16", "plan again"]);
}

#[test]
fn buffer_too_short() {
    let plan = plan_with_lse(true);
    let enough = lengths(&plan);
    plan.check_buffers(Dtype::Bf16, &enough).unwrap();
    let (q, kv, lse) = (2 * 100 * 8 * 64, 2 * 200 * 2 * 64, 2 * 8 * 100);
    for (tensor, lengths, want) in [
        ("q", BufferLengths { q: q - 1, ..enough }, q),
        ("k", BufferLengths { k: kv - 1, ..enough }, kv),
        ("v", BufferLengths { v: kv - 1, ..enough }, kv),
        ("out", BufferLengths { out: q - 1, ..enough }, q),
        ("lse", BufferLengths { lse: Some(lse - 1), ..enough }, lse),
    ] {
        let error = plan.check_buffers(Dtype::Bf16, &lengths).unwrap_err();
        assert_eq!(error, Error::BufferTooShort { tensor, got: want - 1, want });
        says(&error, &[&format!("{tensor} has {} elements", want - 1), "longer buffer"]);
    }
}

/// Addresses as good as any for checks that never follow them.
const POINTERS: Pointers =
    Pointers { q: 0x1000, k: 0x2000, v: 0x3000, out: 0x4000, lse: Some(0x5004) };

#[test]
fn null_pointer() {
    let plan = plan_with_lse(true);
    plan.check_pointers(&POINTERS).unwrap();
    for (tensor, pointers) in [
        ("q", Pointers { q: 0, ..POINTERS }),
        ("k", Pointers { k: 0, ..POINTERS }),
        ("v", Pointers { v: 0, ..POINTERS }),
        ("out", Pointers { out: 0, ..POINTERS }),
        ("lse", Pointers { lse: Some(0), ..POINTERS }),
    ] {
        let error = plan.check_pointers(&pointers).unwrap_err();
        assert_eq!(error, Error::NullPointer { tensor });
        says(&error, &[&format!("address of {tensor} is null"), "device address"]);
    }
}

#[test]
fn misaligned() {
    let plan = plan_with_lse(true);
    for (tensor, pointers, address, want) in [
        ("q", Pointers { q: 0x1008, ..POINTERS }, 0x1008, 16),
        ("k", Pointers { k: 0x2002, ..POINTERS }, 0x2002, 16),
        ("v", Pointers { v: 0x3001, ..POINTERS }, 0x3001, 16),
        ("out", Pointers { out: 0x4008, ..POINTERS }, 0x4008, 16),
        ("lse", Pointers { lse: Some(0x5002), ..POINTERS }, 0x5002, 4),
    ] {
        let error = plan.check_pointers(&pointers).unwrap_err();
        assert_eq!(error, Error::Misaligned { tensor, address, want });
        says(&error, &[&format!("{tensor} is {address:#x}"), &format!("multiple of {want} bytes")]);
    }
}

#[test]
fn lse_missing() {
    let plan = plan_with_lse(true);
    let pointers = Pointers { lse: None, ..POINTERS };
    let without = BufferLengths { lse: None, ..lengths(&plan) };
    for error in [
        plan.check_pointers(&pointers).unwrap_err(),
        plan.check_buffers(Dtype::Bf16, &without).unwrap_err(),
    ] {
        assert_eq!(error, Error::LseMissing { want: 1600 });
        says(&error, &["no lse buffer", "1600 f32", "lse = false"]);
    }
}

#[test]
fn lse_unexpected() {
    let plan = plan_with_lse(false);
    let with = BufferLengths { lse: Some(1600), ..lengths(&plan) };
    for error in [
        plan.check_pointers(&POINTERS).unwrap_err(),
        plan.check_buffers(Dtype::Bf16, &with).unwrap_err(),
    ] {
        assert_eq!(error, Error::LseUnexpected);
        says(&error, &["plan has lse = false", "pass None"]);
    }
}
