//! The case list: complete, plannable, laid out as it says.

use std::collections::HashSet;
use std::io::Write;

use check::forward::call::{self, ForwardCall};
use check::forward::cases::cases;
use check::forward::judge::results;
use check::memory::{Arrangement, UNWRITTEN};
use check::verify::{every_case, ptx_faults, static_checks};
use fulgurite::Arch;
use fulgurite::internals::{Tile, VARIANTS};

#[test]
fn names_are_unique_and_every_variant_has_every_kind() {
    for variant in VARIANTS {
        let all = cases(variant);
        let names: HashSet<&str> = all.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names.len(), all.len(), "{}", variant.entry);
        let tile = Tile::of(variant);
        let some = |what: &str, found: bool| assert!(found, "{}: no case {what}", variant.entry);
        let (q_rows, kv_rows) = (tile.q_rows() as usize, tile.kv_rows as usize);
        some("of one row", all.iter().any(|c| (c.q_len, c.kv_len) == (1, 1)));
        some("of whole tiles", all.iter().any(|c| (c.q_len, c.kv_len) == (q_rows, kv_rows)));
        some("of many KV tiles", all.iter().any(|c| c.kv_len > 5 * kv_rows));
        some("with more queries than keys", all.iter().any(|c| c.q_len > c.kv_len));
        some("with grouped heads", all.iter().any(|c| c.heads.0 == 4 * c.heads.1));
        some("with one KV head", all.iter().any(|c| c.heads.0 > 1 && c.heads.1 == 1));
        some("of a padded head dim", all.iter().any(|c| c.head_dim < variant.head_dim as usize));
        some("with a scale", all.iter().any(|c| c.scale.is_some()));
        some("without lse", all.iter().any(|c| !c.lse));
        some("with poison", all.iter().any(|c| c.poison.is_some()));
    }
    let all: Vec<_> = VARIANTS.iter().flat_map(cases).collect();
    assert!(all.iter().any(|case| case.batch * case.heads.0 > 65_535));
    assert!(all.iter().any(|case| case.arrangement == Arrangement::HugeBatchStride));
}

#[test]
fn plans_and_reference_are_right_without_a_gpu() {
    let mut jobs = every_case(Arch::Sm90);
    // Those of many heads take much memory.
    jobs.retain(|job| !job.name().starts_with("many heads"));
    for (name, result) in static_checks(&jobs) {
        // A build without kernels is a right build; the two commands of the README build them.
        match result {
            Err(reason) if reason.contains("run `cargo xtask build`") => {
                // Past the test harness, which shows nothing of tests that pass.
                let _ = writeln!(std::io::stderr(), "SKIPPED: {name}: {reason}");
            }
            other => assert_eq!(other, Ok(()), "{name}"),
        }
    }
}

#[test]
fn memory_holds_what_the_case_says() {
    let variant = &VARIANTS[0];
    for case in cases(variant).iter().filter(|case| case.batch < 1000) {
        let inputs = case.clean_inputs();
        let mut launch = case.launch(&inputs);
        let memory = &mut launch.memory;
        assert_eq!(call::inputs(memory), [inputs.q, inputs.k, inputs.v], "{}", case.name);
        assert!(memory.check_written().unwrap_err().contains("out was left unwritten"));
        let rows = case.batch * case.heads.0 * case.q_len;
        memory.store("out", vec![0; rows * case.head_dim]);
        memory.store_numbers("lse", &vec![0.0; rows]);
        memory.check_written().expect("all is written");
        let (out, lse) = results(memory);
        assert!(out.bits.iter().all(|&bits| bits == 0));
        assert_eq!(lse.is_some(), case.lse);
        assert_eq!(launch.call_of::<ForwardCall>().expect("attention").mask, case.mask);
    }
}

#[test]
fn offsets_beyond_32_bits_are_there() {
    let variant = VARIANTS.iter().find(|v| v.head_dim == 128).expect("head dim 128");
    let all = cases(variant);
    let case = all.iter().find(|case| case.arrangement == Arrangement::HugeBatchStride);
    let launch = case.expect("the case").launch(&case.expect("the case").clean_inputs());
    let memory = &launch.memory;
    for place in ["q", "k", "v", "out"].map(|name| memory.place(name)) {
        let last = place.row_starts().last().expect("rows");
        assert!(last > 1 << 31);
        assert!(last < memory.allocations[place.allocation].len);
    }
    let held: usize =
        memory.allocations.iter().flat_map(|a| &a.regions).map(|r| r.bits.len()).sum();
    assert!(held < 1 << 22, "only the pieces that matter are held");
    let guard = &memory.allocations[memory.place("out").allocation].regions[1].bits[..8];
    assert_eq!(guard, [UNWRITTEN; 8]);
}

#[test]
fn faults_in_ptx_are_seen() {
    let variant = &VARIANTS[0];
    let kernel = &variant.kernel();
    let (entry, size) = (variant.entry, size_of::<fulgurite::internals::FwdParams>());
    let good = format!(
        ".target sm_90a\n.visible .entry {entry}(\n\
         .param .align 64 .b8 {entry}_param_0[{size}]\n)\n\
         .maxntid 384, 1, 1\n{{ wgmma.mma_async }}"
    );
    assert_eq!(ptx_faults(kernel, &good), Vec::<String>::new());
    for (from, to) in [
        ("sm_90a", "sm_90"),
        (".align 64", ".align 16"),
        ("_param_0[", "_param_0[1"),
        (".maxntid 384", ".maxntid 512"),
        ("wgmma", "mma"),
        (".entry ", ".func "),
        (".entry fwd", ".entry other"),
        ("{ ", "{ .local .b8 depot[4]; "),
    ] {
        let bad = good.replace(from, to);
        assert!(!ptx_faults(kernel, &bad).is_empty(), "{from} -> {to}");
    }
}
