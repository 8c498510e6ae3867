//! Words of host-HA and fencing.

use clap::{Args, Subcommand, ValueEnum};

use super::power::Gate;
use super::{pair, seconds};

/// `ha …`.
#[derive(Debug, Subcommand)]
pub enum HaCommand {
    /// Open the gates of host-HA: a host is watched over where host, cluster and zone allow it.
    Enable(Gate),
    /// Close them: nobody watches over the hosts any more.
    Disable(Gate),
    /// Show where hosts stand.
    Show {
        /// Which: host sets; `-` reads them from stdin.
        #[arg(required = true)]
        hosts: Vec<String>,
    },
    /// Say why a host stands where it does, what would end it, and what the gates said last.
    Explain {
        /// Which: host sets; `-` reads them from stdin.
        #[arg(required = true)]
        hosts: Vec<String>,
    },
    /// Change settings: `policy=reboot health=tcp:{host}:22`.
    #[command(after_help = SETTINGS)]
    Set {
        /// Of what.
        #[arg(value_enum)]
        scope: HaScope,
        /// Which; hosts are host sets.
        id: String,
        /// Name and value; a list takes one value for each time it is given, or all as JSON.
        #[arg(value_name = "NAME=VALUE", value_parser = pair, required = true)]
        values: Vec<(String, String)>,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
    /// Take settings back: they are inherited from then on.
    Unset {
        /// Of what.
        #[arg(value_enum)]
        scope: HaScope,
        /// Which; hosts are host sets.
        id: String,
        /// Names.
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
    /// For a while, switch nothing off and reset nothing there.
    Pause {
        /// Of what.
        #[arg(value_enum)]
        scope: HaScope,
        /// Which; hosts are host sets.
        id: String,
        /// For how long: `30m`, `2h`.
        #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
        duration: u64,
        /// Why.
        #[arg(long)]
        reason: Option<String>,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
    /// End a pause before its time.
    Unpause {
        /// Of what.
        #[arg(value_enum)]
        scope: HaScope,
        /// Which; hosts are host sets.
        id: String,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
    /// Forget what was counted of hosts, and the power-downs of their clusters that their agent counted.
    ResetCounters(Said),
    /// Go on after the sudden loss of many hosts of a rack, which somebody looked at; named by one of its hosts.
    EndCliff(Said),
}

const SETTINGS: &str = "\
Settings: policy=power-off|reboot|nothing|blink mode=act|observe health= activity= nothing_to_check=assume-active|assume-inactive
health_interval= health_timeout= failures= activity_interval= activity_timeout= samples= recheck= recovery_attempts= boot_wait=
stable= fence_attempts= fence_retry= settle= confirmations= confirm_within= startup_quiet= identity_waived= fence_on_return=
Of a cluster besides: cap= cap_window= storm_rack= storm_cluster= storm_zone= cool_down= cliff= somewhere_to_go= isolation=
Times are in seconds, shares in percent.

Health checks: tcp:ADDRESS:PORT http://… https://… icmp:ADDRESS witness:ADDRESS[:PORT] exec:NAME
Activity checks: files:/path,/path heartbeat:/path witness:/path,/path exec:NAME
`{host}` in them is the host's id. An empty value is no check at all.";

/// Of what there are settings of host-HA, and what can be paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HaScope {
    /// Hosts.
    Host,
    /// A cluster.
    Cluster,
}

/// `fence …`.
#[derive(Debug, Args)]
#[command(subcommand_negates_reqs = true, subcommand_precedence_over_arg = true)]
pub struct Fence {
    /// Without a verb, the hosts are fenced: switched off, and proven off.
    #[command(subcommand)]
    pub verb: Option<FenceVerb>,
    /// Which: host sets, `r07n[01-08]`, `@rack:r07`; `-` reads them from stdin.
    #[arg(required = true)]
    pub hosts: Vec<String>,
    /// Why; for the history and the audit.
    #[arg(long, required = true)]
    pub reason: Option<String>,
    /// A gate that the order overrides; may be given again.
    #[arg(long = "override", value_name = "GATE")]
    pub overrides: Vec<String>,
    /// How it is followed.
    #[command(flatten)]
    pub follow: Follow,
}

/// What is said of fences.
#[derive(Debug, Subcommand)]
pub enum FenceVerb {
    /// Ask all gates, and send nothing.
    Plan {
        /// Which: host sets; `-` reads them from stdin.
        #[arg(required = true)]
        hosts: Vec<String>,
        /// Time it may take, in seconds.
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
        timeout: Option<u64>,
    },
    /// Vouch for hosts being off: they are taken for fenced.
    Confirm {
        /// What is said of which hosts.
        #[command(flatten)]
        said: Said,
        /// Although the BMC reads On, or the host answers.
        #[arg(long)]
        force: bool,
    },
    /// End fences under way; the hosts are not switched off, if that has not happened.
    Abort(Said),
    /// Take note of hosts that are known to be broken: they do not count in a storm any more.
    Ack(Said),
    /// Let fenced hosts live again.
    Release(Said),
}

/// A word about hosts.
#[derive(Debug, Args)]
pub struct Said {
    /// Which: host sets; `-` reads them from stdin.
    #[arg(required = true)]
    pub hosts: Vec<String>,
    /// Why; for the history and the audit.
    #[arg(long)]
    pub reason: String,
    /// How it is followed.
    #[command(flatten)]
    pub follow: Follow,
}

/// How an order is followed.
#[derive(Debug, Default, Args)]
pub struct Follow {
    /// Wait until it is done (the default on a terminal).
    #[arg(long, overrides_with = "no_wait")]
    pub wait: bool,
    /// Print the operation's id and leave.
    #[arg(long)]
    pub no_wait: bool,
    /// Time it may take, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: Option<u64>,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
}
