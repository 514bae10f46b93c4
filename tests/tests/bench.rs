//! What surrounds the measuring: grid, peers' CSV, record, picture.

use fulgurite::Dtype;
use tests::bench::grid::{Cell, HIDDEN, Measurement, TOKENS};
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
