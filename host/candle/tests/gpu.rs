//! The kernels behind candle's tensors, against attention in f64. Needs a GPU: says so without one,
//! and fails instead if `FULGURITE_REQUIRE_GPU` is set.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{assert_near, elements, reference, tensor};
use fulgurite_candle::flash_attn_with_lse;

fn device() -> Option<Device> {
    match Device::new_cuda(0) {
        Ok(device) => Some(device),
        Err(error) if std::env::var_os("FULGURITE_REQUIRE_GPU").is_none() => {
            eprintln!("skipped, there is no GPU: {error}");
            None
        }
        Err(error) => panic!("a GPU is required: {error}"),
    }
}

/// No kernel of candle's is used here: casts and changes of layout happen on the CPU.
#[test]
fn output_and_lse_are_those_of_the_definition() {
    let Some(device) = device() else { return };
    for (dtype, causal) in [(DType::BF16, false), (DType::BF16, true), (DType::F16, true)] {
        for [rows, keys, heads, kv_heads, head_dim] in
            [[100, 300, 4, 2, 64], [300, 100, 2, 2, 128], [1, 77, 8, 1, 40], [64, 0, 2, 1, 64]]
        {
            let host = [
                tensor((2, rows, heads, head_dim), dtype, 1),
                tensor((2, keys, kv_heads, head_dim), dtype, 2),
                tensor((2, keys, kv_heads, head_dim), dtype, 3),
            ];
            let (want, want_lse) = reference(&host[0], &host[1], &host[2], 0.2, causal).unwrap();
            let [q, k, v] = host.map(|it| it.to_device(&device).unwrap());
            let (out, lse) = flash_attn_with_lse(&q, &k, &v, 0.2, causal).unwrap();
            assert_near(&elements(&out), &want, 2e-2);
            assert_near(&elements(&lse), &want_lse, 1e-4);
        }
    }
}

#[test]
fn views_of_a_packed_tensor_are_read_where_they_lie() {
    let Some(device) = device() else { return };
    let packed = tensor((2, 50, 12, 64), DType::BF16, 1);
    let part = |of: &Tensor, index: usize| of.narrow(2, 4 * index, 4).unwrap();
    let (want, _) =
        reference(&part(&packed, 0), &part(&packed, 1), &part(&packed, 2), 0.125, true).unwrap();
    let on_device = packed.to_device(&device).unwrap();
    let [q, k, v] = [0, 1, 2].map(|index| part(&on_device, index));
    let (out, _) = flash_attn_with_lse(&q, &k, &v, 0.125, true).unwrap();
    assert_near(&elements(&out), &want, 2e-2);
}
