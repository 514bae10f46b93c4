//! What a call costs by a model: to choose how it is shared, and to see what hides what.

use crate::scheme::Scheme;

/// Speeds of GPUs and of what joins them.
///
/// The defaults are those of H100 and H200 with NVLink and one 400 Gbit/s adapter a GPU. Bandwidths
/// are in bytes a second and one direction.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Links {
    /// Floating point operations a second that the kernels do.
    pub flops: f64,
    /// Between two GPUs of one host.
    pub host_bytes: f64,
    /// Ranks of one host, which are neighbours.
    pub host_ranks: usize,
    /// Of one GPU to other hosts.
    pub network_bytes: f64,
}

impl Default for Links {
    fn default() -> Self {
        Links { flops: 650e12, host_bytes: 370e9, host_ranks: 8, network_bytes: 45e9 }
    }
}

/// Times of a call by the model, in seconds, those of the rank with the most.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Cost {
    /// Launches.
    pub compute: f64,
    /// Transfers, those behind the launches included.
    pub transfer: f64,
    /// From the first transfer to the last launch or transfer.
    pub total: f64,
    /// The time of all work shared evenly and without transfers, over `total`.
    pub efficiency: f64,
    /// Bytes that a rank receives at most.
    pub received_bytes: u64,
}

impl Cost {
    /// The cost of a way to share a call of `world` ranks; `flops_each` for a pair of a query and a
    /// key.
    pub(crate) fn of(scheme: &dyn Scheme, world: usize, flops_each: f64, links: &Links) -> Cost {
        let mut cost = Cost::default();
        let (mut before, mut behind) = (0.0_f64, 0.0_f64);
        let mut work = 0.0;
        for rank in 0..world {
            let flops = scheme.pairs(rank) * flops_each;
            work += flops;
            cost.compute = cost.compute.max(flops / links.flops);
            let in_host = |peer| peer / links.host_ranks.max(1) == rank / links.host_ranks.max(1);
            let mut bytes = [[0; 2]; 2];
            for peer in (0..world).filter(|peer| *peer != rank) {
                for (sum, got) in
                    bytes[usize::from(in_host(peer))].iter_mut().zip(scheme.bytes(peer, rank))
                {
                    *sum += got;
                }
            }
            let seconds = |way: usize| {
                let network = bytes[0][way] as f64 / links.network_bytes;
                network.max(bytes[1][way] as f64 / links.host_bytes)
            };
            before = before.max(seconds(0));
            behind = behind.max(seconds(1));
            let received = bytes.iter().flatten().sum();
            cost.received_bytes = cost.received_bytes.max(received);
        }
        cost.transfer = before + behind;
        // The first group's transfer and the last one's computation have nothing to hide behind.
        let groups = scheme.groups().max(1) as f64;
        let middle = cost.compute.max(cost.transfer) * (groups - 1.0);
        cost.total = (cost.transfer + middle + cost.compute) / groups;
        let ideal = work / world as f64 / links.flops;
        cost.efficiency = if cost.total > 0.0 { ideal / cost.total } else { 1.0 };
        cost
    }
}
