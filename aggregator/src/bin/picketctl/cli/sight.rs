//! Words of what there is to see, and of the API as it is.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use picket_common::id::HostId;

/// `alerts`.
#[derive(Debug, Args)]
pub struct Alerts {
    /// `list`, which is also what happens without it.
    #[arg(value_parser = ["list"])]
    pub list: Option<String>,
    /// Resolved ones too.
    #[arg(long)]
    pub all: bool,
}

/// `events …`.
#[derive(Debug, Subcommand)]
pub enum EventCommand {
    /// Follow them, over broken connections too.
    Tail {
        /// Only of this host.
        #[arg(long)]
        host: Option<HostId>,
        /// Only of this kind: `power.changed`.
        #[arg(long)]
        kind: Option<String>,
        /// Leave after so many.
        #[arg(long)]
        count: Option<u64>,
    },
}

/// `history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Which host.
    pub host: HostId,
    /// At most so many lines.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub limit: u64,
}

/// `api`.
#[derive(Debug, Args)]
pub struct ApiArgs {
    /// GET, PUT, POST, PATCH or DELETE.
    #[arg(value_parser = ["GET", "PUT", "POST", "PATCH", "DELETE"], ignore_case = true)]
    pub method: String,
    /// `/v1/…`.
    pub path: String,
    /// File with the body; `-` is stdin.
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
}
