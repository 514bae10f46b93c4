//! One test per error of a launch: that it is found before anything is touched, and that its
//! message says what was got, what is allowed and what to do.

use fulgurite::{
    DeviceFacts, Dtype, Error, ErrorClass, Forward, ForwardArgs, Layout, Mask, Plan, Raw,
};

#[track_caller]
fn says(error: &Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

/// 2 batch entries, 100 queries, 200 keys, 8 heads on 2, head dim 64.
fn plan_with_lse(lse: bool) -> Plan<Forward> {
    let q = Layout::bshd(Dtype::Bf16, 2, 100, 8, 64);
    let kv = Layout::bshd(Dtype::Bf16, 2, 200, 2, 64);
    let request = Forward::new(q, kv, kv, q, Mask::Causal);
    let request = if lse { request.with_lse() } else { request };
    Plan::new(&request, &DeviceFacts::h200()).unwrap()
}

/// What the plan asks for.
fn enough(plan: &Plan<Forward>) -> Vec<(&'static str, Dtype, usize)> {
    plan.buffers().iter().map(|need| (need.name, need.dtype, need.elements)).collect()
}

#[test]
fn buffer_dtype() {
    let plan = plan_with_lse(true);
    for (index, (buffer, want, _)) in enough(&plan).into_iter().enumerate() {
        let mut offered = enough(&plan);
        offered[index].1 = Dtype::F16;
        let error = plan.check_buffers(&offered).unwrap_err();
        assert_eq!(error, Error::BufferDtype { buffer, got: Dtype::F16, want });
        says(&error, &[&format!("buffer of {buffer} holds f16"), want.name(), "plan again"]);
    }
}

#[test]
fn buffer_too_short() {
    let plan = plan_with_lse(true);
    plan.check_buffers(&enough(&plan)).unwrap();
    let (q, kv, lse) = (2 * 100 * 8 * 64, 2 * 200 * 2 * 64, 2 * 8 * 100);
    for (index, (buffer, want)) in
        [("q", q), ("k", kv), ("v", kv), ("out", q), ("lse", lse)].into_iter().enumerate()
    {
        let mut offered = enough(&plan);
        assert_eq!((offered[index].0, offered[index].2), (buffer, want));
        offered[index].2 -= 1;
        let error = plan.check_buffers(&offered).unwrap_err();
        assert_eq!(error, Error::BufferTooShort { buffer, got: want - 1, want });
        assert_eq!(error.class(), ErrorClass::Buffer);
        says(&error, &[&format!("{buffer} has {} elements", want - 1), "longer buffer"]);
    }
}

/// Addresses as good as any for checks that never follow them.
const ADDRESSES: [u64; 5] = [0x1000, 0x2000, 0x3000, 0x4000, 0x5004];

/// The buffers at these places, the log-sum-exp too.
fn args([q, k, v, out, lse]: [u64; 5]) -> ForwardArgs<Raw> {
    ForwardArgs::new(q, k, v, out).lse(lse)
}

#[test]
fn null_pointer() {
    let plan = plan_with_lse(true);
    plan.check_addresses(args(ADDRESSES)).unwrap();
    for (index, buffer) in ["q", "k", "v", "out", "lse"].into_iter().enumerate() {
        let mut addresses = ADDRESSES;
        addresses[index] = 0;
        let error = plan.check_addresses(args(addresses)).unwrap_err();
        assert_eq!(error, Error::NullPointer { buffer });
        says(&error, &[&format!("address of {buffer} is null"), "device address"]);
    }
}

#[test]
fn misaligned() {
    let plan = plan_with_lse(true);
    for (index, (buffer, address, want)) in [
        ("q", 0x1008, 16),
        ("k", 0x2002, 16),
        ("v", 0x3001, 16),
        ("out", 0x4008, 16),
        ("lse", 0x5002, 4),
    ]
    .into_iter()
    .enumerate()
    {
        let mut addresses = ADDRESSES;
        addresses[index] = address;
        let error = plan.check_addresses(args(addresses)).unwrap_err();
        assert_eq!(error, Error::Misaligned { buffer, address, want });
        says(&error, &[&format!("{buffer} is {address:#x}"), &format!("multiple of {want} bytes")]);
    }
}

#[test]
fn missing() {
    let plan = plan_with_lse(true);
    let [q, k, v, out, _] = ADDRESSES;
    let without = &enough(&plan)[..4];
    for error in [
        plan.check_addresses(ForwardArgs::new(q, k, v, out)).unwrap_err(),
        plan.check_buffers(without).unwrap_err(),
    ] {
        assert_eq!(error, Error::Missing { buffer: "lse", dtype: Dtype::F32, elements: 1600 });
        says(&error, &["no buffer for lse", "1600 f32", "does without"]);
    }
}

#[test]
fn unexpected() {
    let plan = plan_with_lse(false);
    let mut with = enough(&plan);
    with.push(("lse", Dtype::F32, 1600));
    for error in
        [plan.check_addresses(args(ADDRESSES)).unwrap_err(), plan.check_buffers(&with).unwrap_err()]
    {
        assert_eq!(error, Error::Unexpected { buffer: "lse" });
        says(&error, &["buffer for lse", "no use for", "with_lse"]);
    }
}
