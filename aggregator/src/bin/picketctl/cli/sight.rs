//! Words of what there is to see, and of the API as it is.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use picket_common::alert::{AlertKind, Matcher};
use picket_common::id::{ClusterId, HostId, ReceiverId, ZoneId};

use super::seconds;

/// `alerts …`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Alerts {
    /// What to do with them; without a word they are listed.
    #[command(subcommand)]
    pub command: Option<AlertCommand>,
    /// Which ones.
    #[command(flatten)]
    pub filter: AlertFilter,
}

/// See [`Alerts::command`].
#[derive(Debug, Subcommand)]
pub enum AlertCommand {
    /// List what is wrong now.
    List(AlertFilter),
    /// Show an alert.
    Show { id: String },
    /// Take note of alerts: they are not repeated any more.
    Ack {
        /// Which.
        #[arg(required = true)]
        ids: Vec<String>,
        /// For the others.
        #[arg(long)]
        comment: Option<String>,
    },
    /// Say nothing more of some alerts for a while.
    Silence {
        /// Which.
        #[arg(required = true)]
        ids: Vec<String>,
        /// For how long: `90s`, `30m`, `1h`, `7d`.
        #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
        duration: u64,
        /// Why.
        #[arg(long)]
        comment: Option<String>,
    },
    /// Who is told of them, and how that goes.
    Receivers,
    /// Send something that is no alert to a receiver, to see whether it arrives.
    Test {
        /// Which receiver.
        receiver: ReceiverId,
    },
}

/// Which alerts.
#[derive(Debug, Default, Args)]
pub struct AlertFilter {
    /// Pending and resolved ones too.
    #[arg(long)]
    pub all: bool,
    /// Only of this kind: `bmc-lost`.
    #[arg(long)]
    pub kind: Option<AlertKind>,
    /// Only as grave.
    #[arg(long, value_parser = ["info", "warning", "critical"])]
    pub severity: Option<String>,
    /// Only of this host.
    #[arg(long)]
    pub host: Option<HostId>,
    /// Only of this cluster.
    #[arg(long)]
    pub cluster: Option<ClusterId>,
    /// Only of this zone.
    #[arg(long)]
    pub zone: Option<ZoneId>,
}

/// `silences …`.
#[derive(Debug, Subcommand)]
pub enum SilenceCommand {
    /// List silences that hold or will.
    List {
        /// Those that are over too.
        #[arg(long)]
        all: bool,
    },
    /// Make a silence.
    Add {
        /// What it covers: `host=r07n*`, `kind=bmc-lost|agent-lost`, `cluster!=c1`; all must match.
        #[arg(required = true, value_name = "LABEL=VALUE")]
        matchers: Vec<Matcher>,
        /// For how long: `90s`, `30m`, `1h`, `7d`.
        #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
        duration: u64,
        /// Why.
        #[arg(long)]
        comment: Option<String>,
    },
    /// End a silence now.
    Rm { id: String },
}

/// `audit …`.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// List what was done and refused, oldest first.
    List {
        /// At most so many lines.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
        limit: u64,
    },
    /// Check that nothing was changed or removed: at the aggregator, or of an export here.
    Verify {
        /// An export to check here instead: what `audit list -o jsonl` printed; `-` is stdin.
        #[arg(value_name = "FILE")]
        export: Option<PathBuf>,
    },
}

/// `events …`.
#[derive(Debug, Subcommand)]
pub enum EventCommand {
    /// Follow events as they happen, over broken connections too.
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
