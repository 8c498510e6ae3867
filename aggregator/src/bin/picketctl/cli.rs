//! The grammar of the command line. Only words: what they do is elsewhere.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use picket_common::id::{AgentId, ClusterId, ConsumerId, HostId, OperationId, RackId, ZoneId};
use picket_common::power::PowerOperation;

/// Out-of-band power management of a fleet of hosts.
#[derive(Debug, Parser)]
#[command(name = "picketctl", version, after_help = EXAMPLES)]
pub struct Cli {
    /// Flags that every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  picketctl login https://aggr.example:8443 --token-file token --ca-hash HEX
  picketctl hosts list --state off
  picketctl power off 'r07n[01-08]' --reason 'PDU swap'
  picketctl events tail

Exit codes: 0 all ok, 1 some failed, 2 usage, 3 none succeeded, 4 not allowed, 5 timed out or outcome unknown,
6 refused by policy, 7 aggregator unreachable, 8 not found";

/// Flags that every command takes.
#[derive(Debug, Default, Args)]
pub struct Global {
    /// The aggregator, instead of the stored context's.
    #[arg(long, global = true, env = "PICKET_URL")]
    pub url: Option<String>,
    /// File with the CA certificate (PEM) to trust.
    #[arg(long, global = true, env = "PICKET_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// File with the token, one line.
    #[arg(long, global = true, env = "PICKET_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Which stored login.
    #[arg(long, global = true, env = "PICKET_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// How results are shown.
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub output: Format,
}

/// How results are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For people with wide screens.
    Wide,
    /// One JSON document.
    Json,
    /// One JSON document a line.
    Jsonl,
    /// Names only.
    Name,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Store how to reach an aggregator.
    Login(Login),
    /// Zones: the largest places.
    #[command(subcommand)]
    Zones(ZoneCommand),
    /// Clusters of hosts; each lies in one zone.
    #[command(subcommand)]
    Clusters(ClusterCommand),
    /// Racks; one agent guards each.
    #[command(subcommand)]
    Racks(RackCommand),
    /// Hosts and their BMCs.
    #[command(subcommand)]
    Hosts(HostCommand),
    /// Open or close the gates of out-of-band management.
    #[command(subcommand)]
    Oobm(OobmCommand),
    /// Switch hosts on and off, or read their state now.
    Power(Power),
    /// Operations under way and done.
    #[command(subcommand)]
    Op(OpCommand),
    /// Agents at the racks.
    #[command(subcommand)]
    Agents(AgentCommand),
    /// Consumers of the public MQTT tree.
    #[command(subcommand)]
    Consumers(ConsumerCommand),
    /// What is wrong now.
    Alerts(Alerts),
    /// What happens.
    #[command(subcommand)]
    Events(EventCommand),
    /// What happened to a host, newest first.
    History(HistoryArgs),
    /// Hosts by state, zone, cluster and rack.
    Summary,
    /// Call the API as it is.
    Api(ApiArgs),
}

/// `login`.
#[derive(Debug, Args)]
pub struct Login {
    /// `https://host:port`.
    #[arg(value_name = "URL")]
    pub server: String,
    /// Read the token from stdin (one line).
    #[arg(long, conflicts_with = "token_file")]
    pub token_stdin: bool,
    /// File with the token, one line.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// File with the CA certificate (PEM) to trust.
    #[arg(long, value_name = "FILE", conflicts_with = "ca_hash")]
    pub ca: Option<PathBuf>,
    /// SHA-256 of the CA's public key (hex), as `picket-aggregator init` prints it: the CA itself is fetched and checked.
    #[arg(long, value_name = "HEX")]
    pub ca_hash: Option<String>,
}

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
    List(HostFilter),
    /// One.
    Show { id: HostId },
    /// Change what is given.
    Set {
        id: HostId,
        /// Its cluster.
        #[arg(long)]
        cluster: Option<ClusterId>,
        /// Its rack.
        #[arg(long)]
        rack: Option<RackId>,
        /// Its settings.
        #[command(flatten)]
        settings: Box<HostSettings>,
    },
    /// Remove one.
    Rm { id: HostId },
    /// Make or change many: NDJSON or a JSON array, each the body of a host with its `id`; `-` is stdin.
    Import { file: PathBuf },
    /// Write a host set out, one name a line.
    Expand { hosts: Vec<String> },
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
    /// `ipmi`, `redfish` or `null`.
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
    /// An option of the driver, `key=value`; may be given again. All options are replaced.
    #[arg(long = "option", value_name = "K=V", value_parser = pair)]
    pub options: Vec<(String, String)>,
    /// A label, `key=value`; may be given again. All labels are replaced.
    #[arg(long = "label", value_name = "K=V", value_parser = pair)]
    pub labels: Vec<(String, String)>,
    /// Whether people work on it.
    #[arg(long, value_name = "BOOL")]
    pub maintenance: Option<bool>,
    /// Poll interval, in seconds.
    #[arg(long, value_name = "SECONDS")]
    pub poll_interval: Option<u64>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or("write it as key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// `oobm …`.
#[derive(Debug, Subcommand)]
pub enum OobmCommand {
    /// Allow out-of-band management.
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
    /// Which.
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
    /// on, off, soft, cycle, reset or status.
    pub operation: PowerOperation,
    /// Names, lists and ranges: `r07n[01-08],r08n01`; `-` reads them from stdin.
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

/// `op …`.
#[derive(Debug, Subcommand)]
pub enum OpCommand {
    /// The last ones, newest first.
    List,
    /// One.
    Show { id: OperationId },
    /// Wait until one is done.
    Wait {
        id: OperationId,
        /// At most so many seconds.
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<u64>,
    },
    /// Take back what was not begun.
    Cancel { id: OperationId },
}

/// `agents …`.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// All of them.
    List,
    /// One.
    Show { id: AgentId },
    /// Make the line to paste on a rack controller.
    Token {
        /// The rack it will guard.
        #[arg(long)]
        rack: RackId,
        /// Make the rack in this zone if it is new.
        #[arg(long)]
        zone: Option<ZoneId>,
        /// Agent id; by default the rack's.
        #[arg(long)]
        agent: Option<AgentId>,
        /// How long it may be used: `90s`, `30m`, `1h`, `7d`.
        #[arg(long, default_value = "1h", value_parser = seconds)]
        ttl: u64,
    },
}

fn seconds(text: &str) -> Result<u64, String> {
    let bad = || "write it as 90s, 30m, 1h or 7d".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(bad)?;
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(bad()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(bad)
}

/// `consumers …`.
#[derive(Debug, Subcommand)]
pub enum ConsumerCommand {
    /// Make a certificate: NAME.pem, NAME.key and ca.pem.
    Issue {
        name: ConsumerId,
        /// Directory to write to; made if it is new.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// How long it is good.
        #[arg(long)]
        days: Option<u32>,
    },
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_parses_and_what_does_not() {
        for good in [
            "zones add z1",
            "clusters add c1 --zone z1 --poll-interval 5",
            "hosts add h1 --cluster c1 --rack r1 --driver ipmi --address 10.0.0.1 --username a --password-file f --option k=v --option l=w",
            "hosts list --zone z1 --state off -o jsonl",
            "hosts set h1 --maintenance true",
            "hosts import -",
            "oobm disable cluster c1",
            "power off r07n[01-48] --no-wait --reason x --yes",
            "power status h1 --exit-state",
            "op wait 0190b7a0-0000-7000-8000-000000000000",
            "agents token --rack r1 --zone z1 --ttl 30m",
            "consumers issue nagios --out d",
            "alerts",
            "alerts list",
            "events tail --host h1 -o jsonl",
            "api get /v1/summary",
            "--url https://a --ca f --token-file t summary",
            "login https://a --token-stdin --ca-hash ab",
        ] {
            assert!(Cli::try_parse_from(std::iter::once("picketctl").chain(good.split(' '))).is_ok(), "{good}");
        }
        for bad in [
            "zones add Z1",
            "clusters add c1",
            "hosts add h1 --cluster c1",
            "hosts add h1 --cluster c1 --rack r1 --password x",
            "hosts add h1 --cluster c1 --rack r1 --option k",
            "hosts list --state onn",
            "power explode h1",
            "power on",
            "power on h1 --timeout 0",
            "power status h1 --exit-state --no-wait",
            "oobm enable rack r1",
            "agents token --rack r1 --ttl 1y",
            "api BREW /v1",
            "summary -o yaml",
        ] {
            let error = Cli::try_parse_from(std::iter::once("picketctl").chain(bad.split(' '))).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn spans_of_time() {
        for (text, wanted) in [("90s", Some(90)), ("30m", Some(1800)), ("1h", Some(3600)), ("7d", Some(604_800))] {
            assert_eq!(seconds(text).ok(), wanted);
        }
        for bad in ["", "h", "1", "1y", "-1h", "1é", "99999999999999999999d"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
