//! Words of zones, clusters, racks and hosts.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use picket_common::ha::{HaName, HostStatus};
use picket_common::id::{ClusterId, HostId, RackId, ZoneId};

use super::pair;

/// `zones …`.
#[derive(Debug, Subcommand)]
pub enum ZoneCommand {
    /// Make a zone.
    Add { id: ZoneId },
    /// List all zones.
    List,
    /// Show a zone.
    Show { id: ZoneId },
    /// Remove a zone that has neither clusters nor racks.
    Rm { id: ZoneId },
}

/// `clusters …`.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Make a cluster, or change where it lies and its times.
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
    /// Change what is given, also what its hosts inherit: driver, login, options.
    Set {
        id: ClusterId,
        /// Its settings.
        #[command(flatten)]
        settings: Box<ClusterSettings>,
    },
    /// List clusters.
    List {
        /// Only of this zone.
        #[arg(long)]
        zone: Option<ZoneId>,
    },
    /// Show a cluster, with what its hosts inherit.
    Show { id: ClusterId },
    /// Remove a cluster that has no hosts.
    Rm { id: ClusterId },
}

/// `racks …`.
#[derive(Debug, Subcommand)]
pub enum RackCommand {
    /// Make a rack, or change where it stands.
    Add {
        id: RackId,
        /// The zone it stands in.
        #[arg(long)]
        zone: ZoneId,
    },
    /// List racks and their agents.
    List {
        /// Only of this zone.
        #[arg(long)]
        zone: Option<ZoneId>,
    },
    /// Show a rack.
    Show { id: RackId },
    /// Remove a rack that has no hosts, and its agent with it.
    Rm { id: RackId },
}

/// `hosts …`.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// Make a host.
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
    /// List all hosts, or some.
    List {
        /// Only these: host sets.
        hosts: Vec<String>,
        /// And only such.
        #[command(flatten)]
        filter: HostFilter,
    },
    /// Show hosts in full, with where each setting comes from.
    Show {
        /// Which: host sets; `-` reads them from stdin.
        #[arg(required = true)]
        hosts: Vec<String>,
    },
    /// Change what is given, of one host or many.
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
    /// Remove hosts, and their history.
    Rm {
        /// Which: host sets; `-` reads them from stdin.
        #[arg(required = true)]
        hosts: Vec<String>,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
    /// Make or change many, from a file of CSV or JSON.
    Import(ImportArgs),
    /// Write hosts as they are set, without passwords, for `hosts import`.
    Export(ExportArgs),
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
    /// Only in this state of host-HA.
    #[arg(long, value_parser = HaName::ALL.map(HaName::as_str))]
    pub ha: Option<String>,
    /// Only with this host status.
    #[arg(long, value_parser = HostStatus::ALL.map(HostStatus::as_str))]
    pub status: Option<String>,
}

/// Settings that a host may have of its own, and that a cluster's hosts inherit.
#[derive(Debug, Default, Args)]
pub struct SharedSettings {
    /// The driver, as `picketctl drivers list` names it.
    #[arg(long)]
    pub driver: Option<String>,
    /// Port of the BMC, if not the driver's usual one.
    #[arg(long)]
    pub port: Option<u16>,
    /// Login name at the BMC.
    #[arg(long)]
    pub username: Option<String>,
    /// File with the login's password, one line.
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    pub password_file: Option<PathBuf>,
    /// Read the login's password from stdin, one line.
    #[arg(long)]
    pub password_stdin: bool,
    /// An option of the driver, `key=value`; may be given again. With `set`, `key=` takes it away and others stay.
    #[arg(long = "option", value_name = "K=V", value_parser = pair)]
    pub options: Vec<(String, String)>,
    /// Poll interval, in seconds.
    #[arg(long, value_name = "SECONDS")]
    pub poll_interval: Option<u64>,
    /// Time an operation may take, in seconds.
    #[arg(long, value_name = "SECONDS")]
    pub action_timeout: Option<u64>,
}

/// Settings of a host.
#[derive(Debug, Default, Args)]
pub struct HostSettings {
    /// IP address or name of the BMC.
    #[arg(long)]
    pub address: Option<String>,
    /// What it may also inherit.
    #[command(flatten)]
    pub shared: SharedSettings,
    /// A label, `key=value`; may be given again. With `set`, `key=` takes it away and others stay.
    #[arg(long = "label", value_name = "K=V", value_parser = pair)]
    pub labels: Vec<(String, String)>,
    /// Whether people work on it.
    #[arg(long, value_name = "BOOL")]
    pub maintenance: Option<bool>,
}

/// What a cluster's hosts inherit.
#[derive(Debug, Default, Args)]
pub struct ClusterSettings {
    /// The zone it lies in; changes only while it has no hosts.
    #[arg(long)]
    pub zone: Option<ZoneId>,
    /// Its hosts' settings.
    #[command(flatten)]
    pub shared: SharedSettings,
    /// Back to nothing; may be given again.
    #[arg(long, value_name = "FIELD", value_enum)]
    pub unset: Vec<Unset>,
}

/// `hosts import`.
#[derive(Debug, Args)]
#[command(after_help = FILES)]
pub struct ImportArgs {
    /// The file; `-` is stdin.
    pub file: PathBuf,
    /// Its form, if neither its name nor its first character says so.
    #[arg(long, value_enum)]
    pub format: Option<ImportFormat>,
    /// Only say what would come of it; the aggregator checks it all the same.
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Import the lines that are right although others are wrong.
    #[arg(long)]
    pub partial: bool,
    /// Cluster of hosts that name none.
    #[arg(long)]
    pub cluster: Option<ClusterId>,
    /// Rack of hosts that name none.
    #[arg(long)]
    pub rack: Option<RackId>,
}

const FILES: &str = "\
Nothing of a file is imported while one line of it is wrong, unless --partial is given.

CSV: the first line names the columns, in any order: id, zone, cluster, rack, oobm_enabled, driver, address, port, username,
password, options, maintenance, poll_interval, action_timeout, labels. Needed are id, cluster and rack (or --cluster, --rack). What is
empty is inherited. Options and labels are written key=value;key=value, with a backslash before a ; that belongs to a value.

JSON: one object a line, or an array of objects: {\"id\":\"r07n01\",\"cluster\":\"c1\",\"rack\":\"r07\",\"bmc\":{\"driver\":\"ipmi\",\"address\":…}}.

obm: JSON with HIL's form of a BMC: {\"node\":\"n1\",\"obm\":{\"type\":\"…/obm/ipmi\",\"host\":…,\"user\":…,\"password\":…}}.

A file that holds passwords is yours to protect; `hosts export` never writes one.";

/// Forms of a file of hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ImportFormat {
    /// Comma-separated values (RFC 4180).
    Csv,
    /// JSON: one host a line, or an array of hosts.
    #[value(alias = "json", alias = "jsonl")]
    Ndjson,
    /// JSON, with the BMC as HIL (MOC, HaaS) writes it.
    Obm,
}

/// `hosts export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Only these: host sets; `-` reads them from stdin.
    pub hosts: Vec<String>,
    /// And only such.
    #[command(flatten)]
    pub filter: HostFilter,
    /// The form to write.
    #[arg(long, value_enum, default_value_t = ExportFormat::Csv)]
    pub format: ExportFormat,
}

/// Forms of a file of hosts that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// Comma-separated values (RFC 4180).
    Csv,
    /// JSON, one host a line.
    #[value(alias = "json", alias = "jsonl")]
    Ndjson,
}
