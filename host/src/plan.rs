//! From a request and the facts of a device to everything a launch needs, or an error. Pure: no
//! driver, no GPU.

use fulgurite_spec::{
    Divisor, FORWARD as VARIANTS, ForwardRow as Variant, FwdParams, FwdScalars, JobOrder,
    LaunchSpec, TensorMap, Tile,
};

use crate::check::{
    accepts, check_address, check_device, check_dtypes, check_shapes, check_sizes, lse_elements,
    scale_log2, select, tensors,
};
use crate::jobs::job_order;
use crate::{DeviceFacts, Dtype, Error, Forward, Layout, Mask, Pointers, TensorMapSpec};

/// Alignment of q, k, v and out in bytes, asked for by TMA and by 16-byte stores.
const TENSOR_ALIGNMENT_BYTES: u64 = 16;

/// The decision for one request: which kernel, which grid, which parameters.
///
/// A plan holds no addresses: it serves any number of launches on buffers of the same layout.
///
/// ```
/// use fulgurite::{DeviceFacts, Dtype, Forward, Layout, Mask, Plan};
/// let qo = Layout::bshd(Dtype::Bf16, 2, 4096, 32, 128);
/// let kv = Layout::bshd(Dtype::Bf16, 2, 4096, 8, 128); // 4 query heads share a KV head
/// let request =
///     Forward { q: qo, k: kv, v: kv, out: qo, mask: Mask::Causal, scale: None, lse: false };
/// let plan = Plan::new(&request, &DeviceFacts::h200())?;
/// assert_eq!(plan.variant().entry, "fwd_sm90_bf16_d128_causal");
/// assert_eq!(plan.cta_count(), 132);
/// # Ok::<(), fulgurite::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    request: Forward,
    variant_index: usize,
    cta_count: u32,
    maps: [TensorMapSpec; 3],
    /// Complete but for the two addresses.
    scalars: FwdScalars,
    /// Elements that the buffers of q, k, v and out need.
    spans: [usize; 4],
    lse_elements: usize,
}

impl Plan {
    /// Decides how to run `request` on a device.
    ///
    /// # Errors
    /// Every [`Error`] about types, shapes, strides, sizes and scale, and
    /// [`Error::Architecture`] or [`Error::SharedMemory`] if the device cannot run the kernel.
    pub fn new(request: &Forward, device: &DeviceFacts) -> Result<Plan, Error> {
        Plan::checked(request, device, select)
    }

    /// As [`Plan::new`] with a kernel of the caller's choice, to measure or test it.
    ///
    /// # Errors
    /// Those of [`Plan::new`]; [`Error::WrongVariant`] if the kernel cannot compute the request.
    pub fn with_variant(
        request: &Forward,
        device: &DeviceFacts,
        variant: &Variant,
    ) -> Result<Plan, Error> {
        Plan::checked(request, device, |reduced| {
            if !accepts(variant, reduced) {
                return Err(wrong(variant, request));
            }
            let place = VARIANTS.iter().position(|row| row == variant);
            place.ok_or(Error::NotBuilt { entry: variant.entry })
        })
    }

    fn checked(
        request: &Forward,
        device: &DeviceFacts,
        select: impl FnOnce(&Forward) -> Result<usize, Error>,
    ) -> Result<Plan, Error> {
        check_dtypes(request)?;
        check_shapes(request)?;
        check_sizes(request)?;
        let given = request;
        let request = &reduced(given);
        for (tensor, layout) in tensors(request) {
            layout.check(tensor)?;
        }
        request.out.check_no_overlap()?;
        let scale_log2 = scale_log2(request)?;
        let variant_index = select(request)?;
        let variant = &VARIANTS[variant_index];
        check_device(variant, device)?;

        let tile = Tile::of(variant);
        let (cta_count, order) = job_order(request, variant, device)?;
        // Both were found to fit when their tensors were checked.
        let lse_elements = lse_elements(&request.q)?;
        let spans = tensors(request).map(|(_, layout)| layout.span_elements().unwrap_or(0));
        Ok(Plan {
            request: *given,
            variant_index,
            cta_count,
            maps: [
                TensorMapSpec::q(&request.q),
                TensorMapSpec::kv(&request.k, &tile),
                TensorMapSpec::kv(&request.v, &tile),
            ],
            scalars: scalars(request, scale_log2, order),
            spans,
            lse_elements,
        })
    }

    /// The request this plan answers.
    pub fn request(&self) -> &Forward {
        &self.request
    }

    /// The kernel.
    pub fn variant(&self) -> &'static Variant {
        &VARIANTS[self.variant_index]
    }

    /// The kernel's tile.
    pub fn tile(&self) -> Tile {
        Tile::of(self.variant())
    }

    /// Block size, shared memory and registers of the kernel.
    pub fn launch_spec(&self) -> LaunchSpec {
        self.variant().launch()
    }

    /// Blocks of the grid (along x); 0 for a plan without work.
    pub fn cta_count(&self) -> u32 {
        self.cta_count
    }

    /// Whether there is nothing to compute (batch 0 or no query rows): a launch returns at once
    /// and writes nothing.
    pub fn is_noop(&self) -> bool {
        self.cta_count == 0
    }

    /// The tensor maps of q, k and v, yet without addresses.
    pub fn tensor_maps(&self) -> &[TensorMapSpec; 3] {
        &self.maps
    }

    /// The addresses that the maps of q, k and v are encoded for, with tensors at `pointers`: the
    /// output's for an empty tensor, whose own may be null.
    pub fn map_addresses(&self, pointers: &Pointers) -> [u64; 3] {
        let Pointers { q, k, v, out, .. } = *pointers;
        let address = |(address, span)| if span == 0 { out } else { address };
        let [q_span, k_span, v_span, _] = self.spans;
        [(q, q_span), (k, k_span), (v, v_span)].map(address)
    }

    /// Elements that the buffers of q, k, v and out must have at least, from the tensor's first
    /// element on.
    pub fn buffer_elements(&self) -> [usize; 4] {
        self.spans
    }

    /// Elements of the log-sum-exp: batch × heads × q_len.
    pub fn lse_elements(&self) -> usize {
        self.lse_elements
    }

    /// The kernel's parameter for tensors at `pointers`, with the maps of q, k and v encoded for
    /// [`map_addresses`](Self::map_addresses) (by [`TensorMapSpec::encode`] or by an emulator).
    pub fn params(&self, pointers: &Pointers, maps: [TensorMap; 3]) -> FwdParams {
        let [q, k, v] = maps;
        let lse = pointers.lse.unwrap_or(0);
        FwdParams { q, k, v, scalars: FwdScalars { out: pointers.out, lse, ..self.scalars } }
    }

    /// Checks the addresses of a launch: none null, all aligned, but those of empty tensors, which
    /// are not looked at; `lse` given exactly if planned.
    ///
    /// # Errors
    /// [`Error::NullPointer`], [`Error::Misaligned`], [`Error::LseMissing`],
    /// [`Error::LseUnexpected`].
    pub fn check_pointers(&self, pointers: &Pointers) -> Result<(), Error> {
        self.check_lse(pointers.lse.is_some())?;
        let Pointers { q, k, v, out, lse } = *pointers;
        let addresses = [("q", q), ("k", k), ("v", v), ("out", out)];
        for ((tensor, address), span) in addresses.into_iter().zip(self.spans) {
            if span > 0 {
                check_address(tensor, address, TENSOR_ALIGNMENT_BYTES)?;
            }
        }
        lse.map_or(Ok(()), |address| check_address("lse", address, size_of::<f32>() as u64))
    }

    /// Checks that a log-sum-exp buffer is offered exactly if the plan writes one.
    ///
    /// # Errors
    /// [`Error::LseMissing`], [`Error::LseUnexpected`].
    pub fn check_lse(&self, offered: bool) -> Result<(), Error> {
        match (self.request.lse, offered) {
            (true, false) => Err(Error::LseMissing { want: self.lse_elements }),
            (false, true) => Err(Error::LseUnexpected),
            _ => Ok(()),
        }
    }

    /// Checks the buffers' element type and lengths (in elements) against the plan.
    ///
    /// # Errors
    /// [`Error::BufferDtype`], [`Error::BufferTooShort`], [`Error::LseMissing`],
    /// [`Error::LseUnexpected`].
    pub fn check_buffers(&self, dtype: Dtype, lengths: &BufferLengths) -> Result<(), Error> {
        if dtype != self.request.q.dtype {
            return Err(Error::BufferDtype { got: dtype, want: self.request.q.dtype });
        }
        self.check_lse(lengths.lse.is_some())?;
        let BufferLengths { q, k, v, out, lse } = *lengths;
        let [q_want, k_want, v_want, out_want] = self.spans;
        for (tensor, got, want) in [
            ("q", q, q_want),
            ("k", k, k_want),
            ("v", v, v_want),
            ("out", out, out_want),
            ("lse", lse.unwrap_or(self.lse_elements), self.lse_elements),
        ] {
            if got < want {
                return Err(Error::BufferTooShort { tensor, got, want });
            }
        }
        Ok(())
    }
}

/// Lengths in elements of the buffers of one launch, each from the tensor's first element on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferLengths {
    /// Buffer of the queries.
    pub q: usize,
    /// Buffer of the keys.
    pub k: usize,
    /// Buffer of the values.
    pub v: usize,
    /// Buffer of the output.
    pub out: usize,
    /// Buffer of the log-sum-exp, if there is one.
    pub lse: Option<usize>,
}

fn wrong(variant: &Variant, request: &Forward) -> Error {
    Error::WrongVariant {
        entry: variant.entry,
        dtype: request.q.dtype,
        mask: request.mask,
        head_dim: request.q.head_dim(),
    }
}

/// The same call in the words of the kernels.
///
/// TMA takes no stride of 0. If all heads of k and v lie at the same place, they are one: the
/// kernel finds it by the size of the groups alone. If all batch entries of k or v do, there is one
/// of them, and a mask makes the kernel take it for every entry of q. Without keys no row sees one
/// under any mask; kernels whose rows see the same keys have no code for such rows, and the causal
/// ones store them.
fn reduced(request: &Forward) -> Forward {
    let mut reduced = *request;
    let Forward { k, v, .. } = &mut reduced;
    if k.strides[1] == 0 && v.strides[1] == 0 {
        k.shape[1] = k.shape[1].min(1);
        v.shape[1] = v.shape[1].min(1);
    }
    for layout in [k, v] {
        if layout.strides[0] == 0 {
            layout.shape[0] = layout.shape[0].min(1);
        }
    }
    if request.k.rows() == 0 && !request.mask.rows_differ() {
        reduced.mask = Mask::Causal;
    }
    reduced
}

fn scalars(request: &Forward, scale_log2: f32, order: JobOrder) -> FwdScalars {
    let Forward { q, k, v, out, .. } = request;
    // One entry for several of q is the one for all.
    let batch_mask = |kv: &Layout| if kv.batch() < q.batch() { 0 } else { u32::MAX };
    let [out_batch_stride, out_head_stride, out_row_stride, _] =
        out.effective_strides().map(|stride| stride as u64);
    FwdScalars {
        out: 0,
        out_row_stride,
        out_head_stride,
        out_batch_stride,
        lse: 0,
        q_len: q.rows() as u32,
        kv_len: k.rows() as u32,
        head_dim: q.head_dim() as u32,
        head_count: Divisor::new(q.heads() as u32),
        group_size: Divisor::new((q.heads() / k.heads()) as u32),
        scale_log2,
        order,
        kv_batch_masks: [batch_mask(k), batch_mask(v)],
    }
}
