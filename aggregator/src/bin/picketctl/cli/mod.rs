//! The grammar of the command line. Only words: what they do is elsewhere.

mod access;
mod bmc;
mod ha;
mod inventory;
mod power;
mod program;
mod sight;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use access::{AgentCommand, ConsumerCommand, ContextCommand, Login, TokenCommand};
pub use bmc::{BmcCommand, DriverCommand, OrderArgs, SecretCommand, SettingsCommand};
pub use ha::{Fence, FenceVerb, Follow, HaCommand, HaScope, Said};
pub use inventory::{
    ClusterCommand, ClusterSettings, ExportArgs, ExportFormat, HostCommand, HostFilter, HostSettings, ImportArgs, ImportFormat,
    RackCommand, SharedSettings, Unset, ZoneCommand,
};
pub use power::{Gate, GateScope, OobmCommand, OpCommand, Pm, Power};
pub use program::{Man, Shell};
pub use sight::{AlertCommand, AlertFilter, Alerts, ApiArgs, AuditCommand, EventCommand, HistoryArgs, SilenceCommand};

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
  picketctl power status '@rack:r07!@state:off' -o folded
  picketctl events tail

Hosts are named by ClusterShell's host sets: r07n[01-48], steps [0-6/2], several dimensions dc[1-4]n[1-100], wildcards r07*,
groups @zone:z1 @cluster:c2 @rack:r07 @agent:a1 @state:off @label:key=value @all; from left to right ',' union, '!' without,
'&' in both, '^' in one of both; '-' reads them from stdin.

Exit codes: 0 all ok, 1 some failed, 2 usage, 3 none succeeded, 4 not allowed, 5 timed out or outcome unknown,
6 refused by policy, 7 aggregator unreachable, 8 not found";

/// Heading that keeps what every command takes apart from its own.
const EVERYWHERE: &str = "Options of every command";

/// Flags that every command takes.
#[derive(Debug, Default, Args)]
pub struct Global {
    /// The aggregator, instead of the stored context's.
    #[arg(long, global = true, help_heading = EVERYWHERE, env = "PICKET_URL")]
    pub url: Option<String>,
    /// File with the CA certificate (PEM) to trust.
    #[arg(long, global = true, help_heading = EVERYWHERE, env = "PICKET_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// File with the token, one line.
    #[arg(long, global = true, help_heading = EVERYWHERE, env = "PICKET_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Which stored login.
    #[arg(long, global = true, help_heading = EVERYWHERE, env = "PICKET_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// How results are shown.
    #[arg(short, long, global = true, help_heading = EVERYWHERE, value_enum, default_value_t)]
    pub output: Format,
    /// Only these columns, in this order: `host,power`. For table, wide and csv.
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "NAMES", value_delimiter = ',')]
    pub columns: Vec<String>,
    /// Tables and CSV without their first line.
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub no_header: bool,
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
    /// YAML: the same content as JSON.
    Yaml,
    /// Comma-separated values (RFC 4180), the columns of wide.
    Csv,
    /// Names only, one a line.
    Name,
    /// Names as one host set.
    Folded,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Store how to reach an aggregator.
    Login(Login),
    /// Stored logins.
    #[command(subcommand)]
    Context(ContextCommand),
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
    /// Watch over hosts: who is well, and what is done about who is not.
    #[command(subcommand)]
    Ha(HaCommand),
    /// Fence hosts: switch them off, and prove it.
    Fence(Fence),
    /// BMCs: what they are, their light, boot device and password.
    #[command(subcommand)]
    Bmc(BmcCommand),
    /// As powerman's `pm`: the same words, the same text, its exit codes 209, 210 and 211.
    Pm(Pm),
    /// Operations under way and done.
    #[command(subcommand)]
    Op(OpCommand),
    /// Agents at the racks.
    #[command(subcommand)]
    Agents(AgentCommand),
    /// Drivers and their options.
    #[command(subcommand)]
    Drivers(DriverCommand),
    /// Settings of the site.
    #[command(subcommand)]
    Settings(SettingsCommand),
    /// Stored BMC passwords.
    #[command(subcommand)]
    Secrets(SecretCommand),
    /// Consumers of the public MQTT tree.
    #[command(subcommand)]
    Consumers(ConsumerCommand),
    /// Tokens for the API: who may do what, and where.
    #[command(subcommand)]
    Tokens(TokenCommand),
    /// What is wrong now.
    Alerts(Alerts),
    /// What nobody is told of for a while.
    #[command(subcommand)]
    Silences(SilenceCommand),
    /// Who did what.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// What happens.
    #[command(subcommand)]
    Events(EventCommand),
    /// What happened to a host, newest first.
    History(HistoryArgs),
    /// Hosts by state, zone, cluster and rack.
    Summary,
    /// Call the API as it is.
    Api(ApiArgs),
    /// Print what makes a shell complete these words.
    Completion {
        /// Which shell.
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write the manual pages.
    Man(Man),
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or("write it as key=value")?;
    Ok((key.to_owned(), value.to_owned()))
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
            "hosts import hosts.txt --format obm --cluster c1 --rack r1 --dry-run",
            "hosts import hosts.csv --partial",
            "hosts export",
            "hosts export @rack:r07 --zone z1 --format ndjson",
            "oobm disable cluster c1",
            "power off r07n[01-48] --no-wait --reason x --yes",
            "power status h1 --exit-state",
            "op wait 0190b7a0-0000-7000-8000-000000000000",
            "agents token --rack r1 --zone z1 --ttl 30m",
            "agents token --host h1",
            "consumers issue nagios --out d",
            "alerts",
            "alerts list --all",
            "alerts --kind bmc-lost",
            "alerts ack bmc-lost.h1 --comment looking",
            "alerts silence bmc-lost.h1 --for 2h",
            "silences add host=r07n* kind!=agent-lost --for 1h",
            "tokens add ci --role operator --cluster c1 --hosts r07n[01-04] --ttl 7d",
            "audit verify",
            "bmc test r07n[01-08]",
            "bmc identify r07n01 --off",
            "bmc bootdev pxe r07n01 --persistent --yes",
            "bmc change-password r07n[01-02] --show --yes",
            "bmc resolve-password r07n01 new",
            "settings set sync_interval=30 --unset action_timeout",
            "drivers show ipmi",
            "secrets reseal r07 --recovery-key-file key",
            "clusters set c1 --username admin --password-stdin --unset port",
            "power off r07n[01-48] --stagger 2",
            "events tail --host h1 -o jsonl",
            "api get /v1/summary",
            "--url https://a --ca f --token-file t summary",
            "login https://a --token-stdin --ca-hash ab",
            "context use site2",
            "hosts list r07n[01-08]!@state:off -o csv --columns host,power --no-header",
            "hosts rm @rack:r07 --yes",
            "hosts set h[1-2] --unset port --unset options --option k=",
            "hosts fold -",
            "power diag h1",
            "ha enable host h[1-2]",
            "ha set cluster c1 policy=reboot health=tcp:{host}:22 health=icmp:{host} cap=5",
            "ha unset host h1 policy",
            "ha pause cluster c1 --for 2h --reason PDU",
            "ha unpause cluster c1",
            "ha reset-counters h1 --reason x",
            "ha end-cliff h1 --reason looked",
            "fence h1 --reason x",
            "fence r07n[01-02] --reason x --override storm --override cap --yes --no-wait",
            "fence --reason x h1 h2",
            "fence plan h1 --timeout 9",
            "--url https://a fence plan h1",
            "fence confirm h1 --reason x --force",
            "fence abort h1 --reason x",
            "fence ack h1 h2 --reason x",
            "fence release h1 --reason x --no-wait",
            "pm -0 r07n[01-03] r08n01 -y",
            "pm -q",
            "pm -l -x",
            "completion bash",
            "man out",
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
            "hosts import",
            "hosts import x --format xml",
            "hosts export --format obm",
            "power explode h1",
            "fence h1",
            "fence --reason x",
            "fence confirm h1",
            "ha set zone z1 policy=reboot",
            "ha set host h1",
            "ha pause host h1 --reason x",
            "power on",
            "power on h1 --timeout 0",
            "power status h1 --exit-state --no-wait",
            "oobm enable rack r1",
            "agents token --rack r1 --ttl 1y",
            "agents token",
            "agents token --rack r1 --host h1",
            "api BREW /v1",
            "summary -o xml",
            "pm h1",
            "pm -1 -0 h1",
            "completion tcsh",
            "alerts ack",
            "alerts --kind nonsense",
            "silences add colour=red --for 1h",
            "tokens add ci",
            "tokens add ci --role king",
            "bmc identify h1 --seconds 5 --off",
            "bmc bootdev floppy h1",
            "bmc change-password h1 --password x",
            "settings set",
            "secrets reseal r07",
            "hosts set h1 --unset cluster",
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
