//! How exactly a forward call is computed.

/// The element types in which a [`Forward`](crate::Forward) call multiplies, where these are not
/// the tensors' own.
///
/// ```
/// use fulgurite::{DeviceFacts, Dtype, Forward, Layout, Mask, Plan, Precision};
/// let layout = Layout::bshd(Dtype::Bf16, 2, 4096, 16, 128); // batch, rows, heads, head_dim
/// let forward = Forward::new(layout, layout, layout, layout, Mask::Causal);
/// let plan = Plan::new(&forward.precision(Precision::S8E4m3), &DeviceFacts::h200())?;
/// assert_eq!(plan.launches().len(), 4); // three of the quantiser, then the forward
/// assert!(plan.workspace_bytes() > 0); // where they leave q, k and v of 8 bits
/// # Ok::<(), fulgurite::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Precision {
    /// The tensors' own types: nothing is quantised.
    #[default]
    Given,
    /// The better one of the next for the head dim: [`S8x16`](Self::S8x16) up to 64, where
    /// exponentials take more time than products, and [`S8E4m3`](Self::S8E4m3) above.
    Bits8,
    /// q and k as signed integers of 8 bits, v and the probabilities as e4m3. The tensors are bf16
    /// or f16, of a head dim that is a multiple of 16, and are quantised by each launch, in its
    /// [`Workspace`](crate::Workspace).
    ///
    /// *What is computed*: K less its mean over all keys and Q are rotated by one orthogonal matrix
    /// (signs and Hadamard blocks), which changes no softmax and spreads outliers over the columns;
    /// then each row of q and each KV tile of k is rounded to integers by a scale of its own. V
    /// less the mean of each column is rounded to e4m3 by one scale for each KV head of a batch
    /// entry. The mean comes back to the output, and what K's mean took to the log-sum-exp.
    ///
    /// *Error*: mostly that of the three mantissa bits of v. For normal inputs with one outlier of
    /// ten times their size in a thousand (2048 keys, head dim 128) the root mean square is
    /// 0.0053, where one e4m3 scale for each head of q, k and v gives 0.015 and bf16 0.001.
    ///
    /// *What later keys change*: scales and means depend on all keys of a KV head. So under a
    /// causal mask a key changes rows in front of it too, by rounding; a row's bits depend on all
    /// keys and values of its KV head, and on the number of keys.
    ///
    /// *Inputs that are not finite*: a NaN or infinity in a row of q makes that row NaN and no
    /// other; in k, the rows that see a key of its KV tile; in v, its column of the rows that see
    /// it or are computed with such rows. Scales are those of the numbers, and from a column with
    /// one that is none no mean is subtracted.
    S8E4m3,
    /// q and k as signed integers of 8 bits, as with [`S8E4m3`](Self::S8E4m3); v and the
    /// probabilities as they are, in the tensors' own type of 16 bits. The workspace holds no v.
    ///
    /// *Error*: on the same data 0.0015, a tenth of that of e4m3 in all three tensors.
    S8x16,
}

impl Precision {
    /// The name in texts and records.
    pub const fn name(self) -> &'static str {
        match self {
            Precision::Given => "given",
            Precision::Bits8 => "bits8",
            Precision::S8E4m3 => "s8e4m3",
            Precision::S8x16 => "s8x16",
        }
    }

    /// The element types of a call of this head dim, where that is to be chosen.
    pub(crate) const fn chosen(self, head_dim: usize) -> Precision {
        match self {
            Precision::Bits8 if head_dim <= 64 => Precision::S8x16,
            Precision::Bits8 => Precision::S8E4m3,
            other => other,
        }
    }
}
