//! Words of gates, power and operations.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use picket_common::id::OperationId;
use picket_common::power::PowerOperation;

/// `oobm …`.
#[derive(Debug, Subcommand)]
pub enum OobmCommand {
    /// Allow out-of-band management: polling begins where host, cluster and zone allow it.
    Enable(Gate),
    /// Forbid it: nothing is polled or switched any more.
    Disable(Gate),
}

/// A gate.
#[derive(Debug, Args)]
pub struct Gate {
    /// Of what.
    #[arg(value_enum)]
    pub scope: GateScope,
    /// Which; hosts are host sets, `-` reads them from stdin.
    #[arg(required = true)]
    pub ids: Vec<String>,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
}

/// What has a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GateScope {
    /// A host.
    Host,
    /// A cluster.
    Cluster,
    /// A zone.
    Zone,
}

/// `power …`.
#[derive(Debug, Args)]
pub struct Power {
    /// What to do.
    #[arg(value_parser = operation())]
    pub operation: PowerOperation,
    /// Which: host sets, `r07n[01-08],r08n01`, `@rack:r07`; `-` reads them from stdin.
    #[arg(required = true)]
    pub hosts: Vec<String>,
    /// Wait until it is verified by reading back (the default on a terminal, and for status).
    #[arg(long, overrides_with = "no_wait")]
    pub wait: bool,
    /// Print the operation's id and leave.
    #[arg(long)]
    pub no_wait: bool,
    /// Time it may take, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: Option<u64>,
    /// Pause between the starts of two hosts, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=3600))]
    pub stagger: Option<u64>,
    /// Why, for the history.
    #[arg(long)]
    pub reason: Option<String>,
    /// Only say what would happen.
    #[arg(long)]
    pub dry_run: bool,
    /// For cycle and reset of a host that is off: switch it on.
    #[arg(long)]
    pub on_if_off: bool,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    /// With status: exit with 0 on, 2 off, 3 unknown.
    #[arg(long, conflicts_with_all = ["no_wait", "dry_run"])]
    pub exit_state: bool,
}

/// The operations by name, so that shells can complete them.
fn operation() -> impl TypedValueParser<Value = PowerOperation> {
    let names = ["on", "off", "soft", "cycle", "reset", "status", "diag"];
    PossibleValuesParser::new(names).try_map(|name| name.parse::<PowerOperation>())
}

/// `pm …`: the words of powerman 2.4, and `-Q` of 2.3.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("command").required(true))]
pub struct Pm {
    /// Switch on.
    #[arg(short = '1', long, group = "command", requires = "hosts")]
    pub on: bool,
    /// Switch off.
    #[arg(short = '0', long, group = "command", requires = "hosts")]
    pub off: bool,
    /// Off, then on.
    #[arg(short = 'c', long, group = "command", requires = "hosts")]
    pub cycle: bool,
    /// Hardware reset.
    #[arg(short = 'r', long, group = "command", requires = "hosts")]
    pub reset: bool,
    /// Put the identify light on, for the longest time a BMC can be told.
    #[arg(short = 'f', long, group = "command", requires = "hosts")]
    pub flash: bool,
    /// Put the identify light out.
    #[arg(short = 'u', long, group = "command", requires = "hosts")]
    pub unflash: bool,
    /// Read the power of the hosts, or of all.
    #[arg(short = 'q', long = "query-all", visible_alias = "query", group = "command")]
    pub query_all: bool,
    /// Read the power of the hosts.
    #[arg(short = 'Q', group = "command", requires = "hosts")]
    pub query: bool,
    /// Names of all hosts.
    #[arg(short = 'l', long, group = "command", conflicts_with = "hosts")]
    pub list: bool,
    /// One line for each host.
    #[arg(short = 'x', long)]
    pub exprange: bool,
    /// Which: host sets; `-` reads them from stdin.
    pub hosts: Vec<String>,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
}

/// `op …`.
#[derive(Debug, Subcommand)]
pub enum OpCommand {
    /// List the last operations, newest first.
    List,
    /// Show an operation, host by host.
    Show { id: OperationId },
    /// Wait until an operation is done.
    Wait {
        id: OperationId,
        /// At most so many seconds.
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<u64>,
    },
    /// Cancel an operation, as far as it has not begun.
    Cancel { id: OperationId },
}
