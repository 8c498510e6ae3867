//! Words of zones, clusters, racks and hosts.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use picket_common::id::{ClusterId, HostId, RackId, ZoneId};

use super::pair;

/// `zones …`.
#[derive(Debug, Subcommand)]
pub enum ZoneCommand {
    /// Make one.
    Add { id: ZoneId },
    /// All of them.
    List,
    /// One.
    Show { id: ZoneId },
    /// Remove an empty one.
    Rm { id: ZoneId },
}

/// `clusters …`.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Make or change one.
    Add {
        id: ClusterId,
        /// The zone it lies in.
        #[arg(long)]
        zone: ZoneId,
        /// Poll interval of its hosts, in seconds.
        #[arg(long, value_name = "SECONDS")]
        poll_interval: Option<u64>,
        /// Time an operation may take, in seconds.
        #[arg(long, value_name = "SECONDS")]
        action_timeout: Option<u64>,
    },
    /// Change what is given.
    Set {
        id: ClusterId,
        /// Its settings.
        #[command(flatten)]
        settings: Box<ClusterSettings>,
    },
    /// All of them.
    List {
        /// Only of this zone.
        #[arg(long)]
        zone: Option<ZoneId>,
    },
    /// One.
    Show { id: ClusterId },
    /// Remove an empty one.
    Rm { id: ClusterId },
}

/// `racks …`.
#[derive(Debug, Subcommand)]
pub enum RackCommand {
    /// Make or change one.
    Add {
        id: RackId,
        /// The zone it stands in.
        #[arg(long)]
        zone: ZoneId,
    },
    /// All of them.
    List {
        /// Only of this zone.
        #[arg(long)]
        zone: Option<ZoneId>,
    },
    /// One.
    Show { id: RackId },
    /// Remove an empty one.
    Rm { id: RackId },
}

/// `hosts …`.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// Make one.
    Add {
        id: HostId,
        /// Its cluster.
        #[arg(long)]
        cluster: ClusterId,
        /// Its rack.
        #[arg(long)]
        rack: RackId,
        /// Its settings.
        #[command(flatten)]
        settings: Box<HostSettings>,
    },
    /// All of them, or some.
    List {
        /// Only these: host sets.
        hosts: Vec<String>,
        /// And only such.
        #[command(flatten)]
        filter: HostFilter,
    },
    /// Some, in full.
    Show {
        /// Which: host sets; `-` reads them from stdin.
        #[arg(required = true)]
        hosts: Vec<String>,
    },
    /// Change what is given, of one or many.
    Set {
        /// Which: host sets; `-` reads them from stdin.
        #[arg(required = true)]
        hosts: Vec<String>,
        /// Its cluster.
        #[arg(long)]
        cluster: Option<ClusterId>,
        /// Its rack.
        #[arg(long)]
        rack: Option<RackId>,
        /// Its settings.
        #[command(flatten)]
        settings: Box<HostSettings>,
        /// Back to the default; may be given again.
        #[arg(long, value_name = "FIELD", value_enum)]
        unset: Vec<Unset>,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
    /// Remove some.
    Rm {
        /// Which: host sets; `-` reads them from stdin.
        #[arg(required = true)]
        hosts: Vec<String>,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
    /// Make or change many: NDJSON or a JSON array, each the body of a host with its `id`; `-` is stdin.
    Import { file: PathBuf },
    /// Write a host set out, one name a line.
    Expand {
        /// Host sets; `-` reads them from stdin.
        #[arg(required = true)]
        hosts: Vec<String>,
    },
    /// Write names as one host set.
    Fold {
        /// Host sets; `-` reads them from stdin.
        #[arg(required = true)]
        hosts: Vec<String>,
        /// Fold along the last number of a name only, for programs that know no other sets.
        #[arg(long)]
        last: bool,
    },
    /// How many hosts a set has.
    Count {
        /// Host sets; `-` reads them from stdin.
        #[arg(required = true)]
        hosts: Vec<String>,
    },
}

/// What can be taken back: it is inherited from then on, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Unset {
    /// The driver.
    Driver,
    /// The BMC's address.
    Address,
    /// The BMC's port.
    Port,
    /// The login name, and with it the password.
    Username,
    /// The password.
    Password,
    /// All options of the driver.
    Options,
    /// All labels.
    Labels,
    /// The poll interval.
    PollInterval,
    /// The time an operation may take.
    ActionTimeout,
}

/// Which hosts.
#[derive(Debug, Default, Args)]
pub struct HostFilter {
    /// Only of this zone.
    #[arg(long)]
    pub zone: Option<ZoneId>,
    /// Only of this cluster.
    #[arg(long)]
    pub cluster: Option<ClusterId>,
    /// Only of this rack.
    #[arg(long)]
    pub rack: Option<RackId>,
    /// Only in this power state.
    #[arg(long, value_parser = ["on", "off", "unknown", "disabled"])]
    pub state: Option<String>,
}

/// Settings of a host.
#[derive(Debug, Default, Args)]
pub struct HostSettings {
    /// As `picketctl drivers list` names it.
    #[arg(long)]
    pub driver: Option<String>,
    /// IP address or name of the BMC.
    #[arg(long)]
    pub address: Option<String>,
    /// Its port, if not the usual one.
    #[arg(long)]
    pub port: Option<u16>,
    /// Login name at the BMC.
    #[arg(long)]
    pub username: Option<String>,
    /// File with the BMC's password, one line.
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    pub password_file: Option<PathBuf>,
    /// Read the BMC's password from stdin, one line.
    #[arg(long)]
    pub password_stdin: bool,
    /// An option of the driver, `key=value`; may be given again. With `set`, `key=` takes it away and others stay.
    #[arg(long = "option", value_name = "K=V", value_parser = pair)]
    pub options: Vec<(String, String)>,
    /// A label, `key=value`; may be given again. With `set`, `key=` takes it away and others stay.
    #[arg(long = "label", value_name = "K=V", value_parser = pair)]
    pub labels: Vec<(String, String)>,
    /// Whether people work on it.
    #[arg(long, value_name = "BOOL")]
    pub maintenance: Option<bool>,
    /// Poll interval, in seconds.
    #[arg(long, value_name = "SECONDS")]
    pub poll_interval: Option<u64>,
    /// Time an operation may take, in seconds.
    #[arg(long, value_name = "SECONDS")]
    pub action_timeout: Option<u64>,
}

/// What a cluster's hosts inherit.
#[derive(Debug, Default, Args)]
pub struct ClusterSettings {
    /// The zone it lies in; changes only while it has no hosts.
    #[arg(long)]
    pub zone: Option<ZoneId>,
    /// Poll interval of its hosts, in seconds.
    #[arg(long, value_name = "SECONDS")]
    pub poll_interval: Option<u64>,
    /// Time an operation may take, in seconds.
    #[arg(long, value_name = "SECONDS")]
    pub action_timeout: Option<u64>,
    /// Driver of hosts that name none.
    #[arg(long)]
    pub driver: Option<String>,
    /// Port of their BMCs.
    #[arg(long)]
    pub port: Option<u16>,
    /// Login name at their BMCs.
    #[arg(long)]
    pub username: Option<String>,
    /// File with the login's password, one line.
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    pub password_file: Option<PathBuf>,
    /// Read the login's password from stdin, one line.
    #[arg(long)]
    pub password_stdin: bool,
    /// An option of the driver, `key=value`; may be given again. `key=` takes it away, others stay.
    #[arg(long = "option", value_name = "K=V", value_parser = pair)]
    pub options: Vec<(String, String)>,
    /// Back to nothing; may be given again.
    #[arg(long, value_name = "FIELD", value_enum)]
    pub unset: Vec<Unset>,
}
