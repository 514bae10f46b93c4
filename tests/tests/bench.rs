//! What surrounds the measuring: grid, peers' CSV, record, picture.

use fulgurite::{DeviceFacts, Dtype, Plan};
use tests::bench::grid::{Cell, HIDDEN, Measurement, TOKENS};
use tests::bench::variants::record as variants;
use tests::bench::{peers, plot, record};

const PEERS: &str = "\
# a comment
peer,kind,dtype,hd,causal,batch,seqlen,heads,ms,tflops,gbps
fa3,fwd,bf16,128,0,16,1024,16,0.1100,624.7,
skip,fa3,fwd hd=64,,,,,,,out of memory
sdpa-cudnn,fwd,bf16,128,0,16,1024,16,0.1080,636.3,
fa3,bwd,bf16,128,0,16,1024,16,0.3000,500.0,
fa3,decode,bf16,128,0,1,8192,32,0.0200,6.7,1550.0
fa3-fp8,fwd,fp8,128,0,16,1024,16,0.0800,859.0,
";

#[test]
fn the_grid_is_that_of_the_peers() {
    let grid = Cell::grid(false);
    assert_eq!(grid.len(), 36);
    assert_eq!(Cell::grid(true).len(), 18);
    for cell in grid {
        assert_eq!(cell.batch() * cell.length, TOKENS);
        assert_eq!(cell.heads() * cell.head_dim, HIDDEN);
        let request = cell.request(Dtype::Bf16);
        assert_eq!(request.q.shape, [cell.batch(), cell.heads(), cell.length, cell.head_dim]);
        assert_eq!(request.q.strides[3], 1);
        assert_eq!(request.q.strides[1], cell.head_dim);
    }
}

#[test]
fn speed_counts_half_of_a_causal_square() {
    let full = Cell { head_dim: 128, causal: false, length: 4096 };
    assert_eq!(full.flops(), 4.0 * 4.0 * 16.0 * 4096.0 * 4096.0 * 128.0);
    let causal = Cell { causal: true, ..full };
    assert_eq!(causal.flops() * 2.0, full.flops());
    assert_eq!(Measurement::ours(&full, Dtype::Bf16, 1.0).tflops, 549.8);
}

#[test]
fn the_best_peer_of_a_cell_is_found() {
    let all = peers::parse(PEERS).expect("it is well formed");
    assert_eq!(all.len(), 5);
    let best = peers::best(&all, "bf16");
    let cell = Cell { head_dim: 128, causal: false, length: 1024 };
    assert_eq!(best.len(), 1);
    assert_eq!(best[&cell].peer, "sdpa-cudnn");
    let error = peers::parse("fa3,fwd,bf16,128,zero,16,1024,16,0.11,624.7,").unwrap_err();
    assert!(error.contains("is no line of a benchmark"), "{error}");
}

#[test]
fn peers_with_another_mask_are_left_out() {
    let text = "fa3,fwd,bf16,128,1,16,1024,16,0.1447,474.9,\n\
                fa3-win1024,fwd,bf16,128,1,16,1024,16,0.1437,478.5,\n";
    let read = peers::parse(text).unwrap();
    assert_eq!(read.iter().map(|line| line.peer.as_str()).collect::<Vec<_>>(), ["fa3"]);
}

#[test]
fn ratios_are_summed_up() {
    let all = peers::sum_up(&[0.5, 2.0, 1.0]).expect("three ratios");
    assert!((all.geometric_mean - 1.0).abs() < 1e-12);
    assert_eq!((all.least, all.cells), (0.5, 3));
    assert_eq!(peers::sum_up(&[]), None);
}

#[test]
fn a_record_is_written_read_and_drawn() {
    let directory = std::env::temp_dir().join(format!("fulgurite-bench-{}", std::process::id()));
    let cells = Cell::grid(false);
    let times = |factor: f64| -> Vec<Measurement> {
        cells.iter().map(|c| Measurement::ours(c, Dtype::Bf16, c.flops() / factor / 1e12)).collect()
    };
    let rename = |mut row: Measurement| {
        row.peer = "fa3".to_owned();
        row
    };
    let (ours, theirs) = (times(0.6), times(0.5).into_iter().map(rename).collect::<Vec<_>>());
    let origin = record::Origin {
        date: record::today(),
        commit: "0123abc".to_owned(),
        gpu: "a GPU, with a comma".to_owned(),
        driver: record::driver_version(),
    };
    let lines = record::lines(&origin, &ours, &peers::best(&theirs, "bf16"));
    let path = record::write(&directory, &origin, &lines).expect("it can be written");
    let text = std::fs::read_to_string(&path).expect("it is there");
    assert!(text.starts_with(
        "date,commit,gpu,driver,kind,dtype,head_dim,mask,batch,seqlen,heads_q,heads_kv,ms,tflops,\
         peer,peer_tflops,ratio\n"
    ));
    assert!(text.lines().nth(1).expect("a line").ends_with(",fa3,500.0,1.2"), "{text}");
    let back = record::read(&path).expect("it can be read");
    assert_eq!(back.len(), 72);
    let pictures = plot::draw(&directory.join("picture"), "title", &back).expect("it is drawn");
    for picture in &pictures {
        assert!(std::fs::metadata(picture).expect("it is there").len() > 10_000);
    }
    assert!(plot::draw(&directory.join("empty"), "title", &[]).is_err());
    std::fs::remove_dir_all(&directory).expect("it can be removed");
}

/// The columns that `cargo xtask tiles` writes, of one candidate that is built and one that is not.
const CANDIDATES: &str = "\
entry,dtype,head_dim,mask,q_rows,kv_rows,q_parts,kv_stages,smem_bytes,current,\
registers,spill_bytes,left_out
fwd_a,bf16,192,full,128,112,2,2,221280,1,168,0,
fwd_b,bf16,192,full,128,96,3,2,221296,0,168,0,
fwd_c,bf16,192,full,192,48,6,2,221344,0,128,24,12 bytes of spill stores
fwd_d,bf16,192,full,192,64,6,2,221344,0,,,uses local memory
";

#[test]
fn the_record_of_tile_shapes_marks_the_best() {
    let file = std::env::temp_dir().join(format!("fulgurite-tiles-{}.csv", std::process::id()));
    std::fs::write(&file, CANDIDATES).expect("a file of our own");
    let rows = variants::read_candidates(&file).expect("candidates");
    std::fs::remove_file(&file).expect("a file of our own");
    assert_eq!((rows[0].kv_rows, rows[0].current, rows[3].registers), (112, 1, None));

    let tflops = vec![
        vec![Some(400.0), Some(600.0)],
        vec![Some(500.0), Some(590.0)],
        vec![None, None],
        vec![None, None],
    ];
    let times = variants::Times { lengths: vec![1024, 4096], rows, tflops };
    assert_eq!(times.best(), Some(1));
    assert!((times.mean(0) - 489.9).abs() < 0.1, "the geometric mean");
    let origin = record::Origin {
        date: "2026-08-01".to_owned(),
        commit: "abc1234".to_owned(),
        gpu: "NVIDIA H200".to_owned(),
        driver: "580.1".to_owned(),
    };
    let text = variants::text(&origin, &[times]).expect("a record");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].ends_with("tflops_1024,tflops_4096,tflops_mean,best,fastest_at,left_out"));
    let shared = "2026-08-01,abc1234,NVIDIA H200,580.1,fwd,bf16,192,full";
    assert_eq!(
        lines[1..],
        [
            format!("{shared},128,112,2,2,221280,168,0,1,400.0,600.0,489.9,0,4096,"),
            format!("{shared},128,96,3,2,221296,168,0,0,500.0,590.0,543.1,1,1024,"),
            format!("{shared},192,48,6,2,221344,128,24,0,,,,0,,12 bytes of spill stores"),
            format!("{shared},192,64,6,2,221344,,,0,,,,0,,uses local memory"),
        ]
    );
}

#[test]
fn all_built_variants_can_be_measured_in_turn() {
    for row in variants::Row::built_in() {
        let variant = fulgurite::VARIANTS.iter().find(|variant| variant.entry == row.entry);
        let variant = variant.expect("a variant of this build");
        for cell in Cell::lengths(row.head_dim, row.mask == "causal", false) {
            assert!(cell.batch() * cell.length * cell.heads() * cell.head_dim <= TOKENS * HIDDEN);
            Plan::with_variant(&cell.request(variant.dtype), &DeviceFacts::h200(), variant)
                .expect("the variant computes the cell");
        }
    }
}
