//! `fulgurite_descale`: what stored numbers of 8-bit tensors are multiplied with.

use crate::layout::{Numbers, choose, size};
use crate::outcome::Failure;

/// The header's numbers, with the strides of [`fulgurite::Descale::PerHead`] still to be given.
pub(crate) const DESCALES: &Numbers<fulgurite::Descale> = &[
    ("FULGURITE_DESCALE_ONE", fulgurite::Descale::One),
    ("FULGURITE_DESCALE_PER_TENSOR", fulgurite::Descale::PerTensor),
    ("FULGURITE_DESCALE_PER_HEAD", fulgurite::Descale::PerHead { strides: [0; 2] }),
    ("FULGURITE_DESCALE_PER_ROW", fulgurite::Descale::PerRow),
];

/// `fulgurite_descale` of the header.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descale {
    /// What has a number of its own: one of `FULGURITE_DESCALE_ONE` and so on; 0: not said.
    pub kind: u32,
    /// 0: it fills the struct up.
    pub reserved: u32,
    /// Per head: numbers from one batch entry to the next, and from one KV head to the next.
    pub strides: [u64; 2],
}

impl Descale {
    /// The descale in the words of the host crate; `field` is where it stands.
    fn meaning(&self, field: &str) -> Result<fulgurite::Descale, Failure> {
        if self.reserved != 0 {
            let got = self.reserved;
            return Err(Failure::argument(format!("{field}.reserved is {got}: set it to 0")));
        }
        let kind = choose(&format!("{field}.kind"), self.kind, DESCALES)?;
        let [batch, head] = self.strides;
        match kind {
            fulgurite::Descale::PerHead { .. } => {
                Ok(fulgurite::Descale::PerHead { strides: [size(batch)?, size(head)?] })
            }
            _ if [batch, head] == [0, 0] => Ok(kind),
            _ => Err(Failure::argument(format!(
                "{field}.strides is {{{batch}, {head}}}, but {field}.kind is not \
                 FULGURITE_DESCALE_PER_HEAD: set them to 0"
            ))),
        }
    }
}

/// Those of q, k and v, as the request's fields; `None` if nothing is said of any.
pub(crate) fn meaning(all: [&Descale; 3]) -> Result<Option<[fulgurite::Descale; 3]>, Failure> {
    if all.iter().all(|descale| **descale == Descale::default()) {
        return Ok(None);
    }
    let [q, k, v] = all;
    Ok(Some([
        q.meaning("request.descale_q")?,
        k.meaning("request.descale_k")?,
        v.meaning("request.descale_v")?,
    ]))
}
