//! What to do, where that depends on what was found.

/// What to do about kernels that are not there: a package of a registry has all of them, or was
/// published by mistake; in a checkout they are built.
pub(super) fn remedy_of_missing(packaged: bool) -> &'static str {
    if packaged {
        "this package was published without it; please report it, and use another version until \
         there is a new one"
    } else {
        "run `cargo xtask build`, then build again"
    }
}

/// What to say about an ordinal beyond the devices there are.
pub(super) fn devices_shown(count: usize) -> String {
    match count {
        0 => "the driver is there, but shows no GPU: see that `nvidia-smi` lists one, that \
              CUDA_VISIBLE_DEVICES names it, and that a container was started with `--gpus all` \
              (Docker) and may open /dev/nvidia*"
            .to_owned(),
        _ => format!(
            "this machine shows {count} (see CUDA_VISIBLE_DEVICES); ordinals start at 0, so use \
             one below {count}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::remedy_of_missing;
    use crate::Error;

    #[test]
    fn missing_kernels_are_built_in_a_checkout_only() {
        let error = Error::NotBuilt { entry: "fwd_x".to_owned() }.to_string();
        let here = "the kernel fwd_x is not in this build: run `cargo xtask build`";
        assert!(cfg!(packaged) || error.starts_with(here), "{error}");
        let text = remedy_of_missing(true);
        assert!(text.contains("please report it") && !text.contains("xtask"), "{text}");
    }
}
