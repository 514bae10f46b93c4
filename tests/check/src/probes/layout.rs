//! Where the elements of a box lie, element by element.

use fulgurite_gpu::emu::{MapFields, Swizzle};

use super::Tensor;

/// Calls `each` with every element's place in shared memory and, if it is inside of the tensor, in
/// global memory, in bytes from the box's and from the tensor's start. Rows end after `columns`.
fn elements(
    map: &MapFields,
    at: [u32; 4],
    columns: u64,
    mut each: impl FnMut(usize, Option<usize>),
) {
    let dims = [columns, map.dims[1], map.dims[2], map.dims[3]];
    let span = match map.swizzle {
        Swizzle::None => 1,
        Swizzle::Bytes32 => 2,
        Swizzle::Bytes64 => 4,
        Swizzle::Bytes128 => 8,
    };
    let [width, rows, heads, _] = map.box_dims;
    for index in 0..map.box_dims.iter().product::<u32>() {
        let inside = [
            index % width,
            index / width % rows,
            index / width / rows % heads,
            index / width / rows / heads,
        ];
        let plain = (index * map.element_bytes) as usize;
        // Units of 16 bytes are permuted by the 128-byte line that they lie in.
        let unit = (plain / 16) ^ (plain / 128 % span);
        let axis = |n: usize| i64::from(at[n] as i32) + i64::from(inside[n]);
        let stride = |n: usize| match n {
            0 => i64::from(map.element_bytes),
            _ => map.stride_bytes[n - 1] as i64,
        };
        let is_inside = (0..4).all(|n| (0..dims[n] as i64).contains(&axis(n)));
        let place = (0..4).map(|n| axis(n) * stride(n)).sum::<i64>() as usize;
        each(unit * 16 + plain % 16, is_inside.then_some(place));
    }
}

/// The box at `at` as it lies in shared memory, zeros where the tensor ends.
pub fn image(tensor: &Tensor, at: [u32; 4]) -> Vec<u8> {
    let size = tensor.map.element_bytes as usize;
    let mut image = vec![0; tensor.map.box_dims.iter().product::<u32>() as usize * size];
    elements(&tensor.map, at, tensor.map.dims[0], |smem, place| {
        if let Some(place) = place {
            image[smem..smem + size].copy_from_slice(&tensor.bytes[place..place + size]);
        }
    });
    image
}

/// Writes the box at `at` from how it lies in shared memory, in whole units of 16 bytes: beyond the
/// end of a row too, up to the end of its last unit.
pub fn put(tensor: &mut Tensor, at: [u32; 4], image: &[u8]) {
    let (map, size) = (tensor.map, tensor.map.element_bytes as usize);
    let columns = map.dims[0].next_multiple_of(16 / u64::from(map.element_bytes));
    elements(&map, at, columns, |smem, place| {
        if let Some(place) = place {
            tensor.bytes[place..place + size].copy_from_slice(&image[smem..smem + size]);
        }
    });
}
