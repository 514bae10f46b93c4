//! Plans for GPUs other than Hopper, without one: which kernel they get, and what they are told.

use fulgurite::internals::{VARIANTS_SM80, Variant};
use fulgurite::{
    Arch, Descale, DeviceFacts, Dtype, Error, Forward, Layout, Mask, Plan, PlanOptions, Precision,
};

fn others() -> [DeviceFacts; 6] {
    [
        DeviceFacts::a100(),
        DeviceFacts::rtx3090(),
        DeviceFacts::rtx4090(),
        DeviceFacts::l4(),
        DeviceFacts::rtx5090(),
        DeviceFacts::b200(),
    ]
}

fn request(dtype: Dtype, head_dim: usize, mask: Mask) -> Forward {
    let layout = Layout::bshd(dtype, 2, 1000, 8, head_dim);
    Forward::new(layout, layout, layout, layout, mask)
}

fn variant(request: &Forward, device: &DeviceFacts) -> &'static Variant {
    let plan = Plan::new(request, device).unwrap_or_else(|error| panic!("{device:?}: {error}"));
    plan.variant().expect("there is work")
}

#[test]
fn every_device_gets_a_kernel_that_fits() {
    for device in others() {
        for dtype in [Dtype::Bf16, Dtype::F16] {
            for head_dim in (8..=256).step_by(8) {
                for mask in [Mask::Full, Mask::Causal] {
                    let row = variant(&request(dtype, head_dim, mask), &device);
                    let place = format!("{}: {}", device.name, row.entry);
                    assert_eq!((row.arch, row.dtype), (Arch::Sm80, dtype), "{place}");
                    let least = VARIANTS_SM80.iter().map(|row| row.head_dim as usize);
                    let least = least.filter(|width| *width >= head_dim).min();
                    assert_eq!(Some(row.head_dim as usize), least, "{place}");
                    let launch = row.launch();
                    assert!(launch.smem_bytes <= device.smem_optin_bytes, "{place}");
                    assert!(device.holds(&row.kernel()), "{place}");
                }
            }
        }
    }
}

#[test]
fn shared_memory_decides_between_the_tiles() {
    let causal = |head_dim| request(Dtype::Bf16, head_dim, Mask::Causal);
    for (device, head_dim, entry) in [
        (DeviceFacts::a100(), 64, "fwd_sm80_bf16_d64_causal"),
        (DeviceFacts::a100(), 128, "fwd_sm80_bf16_d128_causal"),
        (DeviceFacts::a100(), 256, "fwd_sm80_bf16_d256_causal_100k"),
        (DeviceFacts::b200(), 256, "fwd_sm80_bf16_d256_causal"),
        (DeviceFacts::rtx4090(), 64, "fwd_sm80_bf16_d64_causal_100k"),
        (DeviceFacts::rtx3090(), 128, "fwd_sm80_bf16_d128_causal_100k"),
        (DeviceFacts::rtx5090(), 192, "fwd_sm80_bf16_d192_causal_100k"),
    ] {
        assert_eq!(variant(&causal(head_dim), &device).entry, entry, "{}", device.name);
    }
}

#[test]
fn each_query_tile_has_a_block() {
    let q = Layout::bshd(Dtype::F16, 3, 1000, 8, 128);
    let k = Layout::bshd(Dtype::F16, 3, 300, 2, 128);
    for mask in [Mask::Full, Mask::Causal] {
        let plan = Plan::new(&Forward::new(q, k, k, q, mask), &DeviceFacts::a100()).unwrap();
        let order = plan.scalars().unwrap().order;
        assert_eq!(plan.launches()[0].grid(), 3 * 8 * 8, "{mask:?}");
        assert_eq!(order.keyless_q_tiles, if mask == Mask::Full { 0 } else { 5 });
        assert_eq!(order.job_count() + order.keyless_q_tiles * 24, 3 * 8 * 8);
        assert_eq!(plan.launches()[0].tensor_maps().count(), 0);
    }
    // Sections of heads whose K and V lie in L2: of 6 MiB fewer than of 40.
    let layout = Layout::bshd(Dtype::Bf16, 1, 8192, 16, 64);
    let request = Forward::new(layout, layout, layout, layout, Mask::Causal);
    let section = |device| {
        let plan = Plan::new(&request, &device).expect("a valid request");
        plan.scalars().expect("there is work").order.section_heads
    };
    assert_eq!([section(DeviceFacts::rtx3090()), section(DeviceFacts::a100())], [2, 13]);
}

#[test]
fn hopper_keeps_its_own_kernels_unless_asked() {
    let (device, request) = (DeviceFacts::h200(), request(Dtype::Bf16, 128, Mask::Causal));
    assert_eq!(variant(&request, &device).arch, Arch::Sm90);
    let options = PlanOptions::default().arch(Arch::Sm80);
    let plan = Plan::with(&request, &device, &options).expect("it runs there");
    assert_eq!(plan.variant().expect("there is work").entry, "fwd_sm80_bf16_d128_causal");
}

/// What a request is told on a device.
fn refusal(request: &Forward, device: &DeviceFacts) -> (Error, String) {
    let error = Plan::new(request, device).expect_err("it is refused");
    let text = error.to_string();
    (error, text)
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    let window = Mask::Window { left: Some(100), right: Some(0) };
    let windowed = request(Dtype::Bf16, 128, window);
    let quantised = request(Dtype::Bf16, 128, Mask::Full).precision(Precision::S8E4m3);
    let e4m3 = Layout::bshd(Dtype::E4m3, 2, 1000, 8, 128);
    let out = Layout::bshd(Dtype::Bf16, 2, 1000, 8, 128);
    let given = Forward::new(e4m3, e4m3, e4m3, out, Mask::Full);
    let given = given.descale(Descale::One, Descale::One, Descale::One);
    for device in others() {
        for (request, name) in [(&windowed, "window"), (&quantised, "s8e4m3"), (&given, "e4m3")] {
            let (error, text) = refusal(request, &device);
            assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
            let (major, minor) = device.compute_capability;
            let has = format!("{} has {major}.{minor}", device.name);
            for word in [&format!("{name} is there for"), "use a Hopper GPU", &has] {
                assert!(text.contains(word), "`{word}` is not in: {text}");
            }
        }
    }
    // A window as wide as the call is none.
    let wide = request(Dtype::Bf16, 128, Mask::Window { left: None, right: Some(0) });
    assert_eq!(variant(&wide, &DeviceFacts::a100()).entry, "fwd_sm80_bf16_d128_causal");
}

#[test]
fn older_devices_are_told_what_is_needed() {
    let (error, text) = refusal(&request(Dtype::F16, 64, Mask::Full), &DeviceFacts::t4());
    assert!(matches!(error, Error::Architecture { got: (7, 5), .. }), "{error:?}");
    assert!(text.contains("8.0 or more"), "{text}");
}
