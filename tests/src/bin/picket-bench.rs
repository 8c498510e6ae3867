//! `picket-bench`: figures of the daemons beside it, against their peers. `tests/bench` builds all and runs it.

use clap::{Parser, Subcommand};
use picket_tests::bench::{fence, isolation, poll};

/// Measures whole processes over real sockets against their peers in the same run.
#[derive(Debug, Parser)]
#[command(name = "picket-bench", version)]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// CPU and wall time of a status poll: picket-agent, ipmitool and ipmipower on the same simulated BMCs
    Poll(poll::Options),
    /// Status reads of a healthy BMC beside a hundred that hang, against the same beside a hundred that are well
    Isolation(isolation::Options),
    /// Where the time of a fence goes, with all defaults, and `fence_ipmilan` beside it
    Fence(fence::Options),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().bench {
        Bench::Poll(options) => poll::run(&options),
        Bench::Isolation(options) => isolation::run(&options),
        Bench::Fence(options) => fence::run(&options),
    }
}
