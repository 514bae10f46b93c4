//! Errors for what the library cannot do yet.

use candle_core::{Error, Result};

/// Refuses ALiBi slopes.
pub(crate) fn alibi<T>(function: &str) -> Result<T> {
    refuse(function, "`alibi_slopes` are not supported yet: only a call without them is")
}

/// Refuses a softcap.
pub(crate) fn softcap<T>(function: &str, softcap: f32) -> Result<T> {
    let text = format!("`softcap` {softcap} is not supported yet: only 0, which is none, is");
    refuse(function, &text)
}

/// Refuses sequences of different lengths.
pub(crate) fn varlen<T>(function: &str) -> Result<T> {
    refuse(
        function,
        "`seqlens_q` and `seqlens_k` are not supported yet: call `flash_attn` for each sequence, \
         or for a batch of equal lengths",
    )
}

fn refuse<T>(function: &str, text: &str) -> Result<T> {
    Err(Error::msg(format!("fulgurite_candle::{function}: {text}")))
}
