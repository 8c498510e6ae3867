//! Words of logins, agents and consumers.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use picket_common::id::{AgentId, ClusterId, ConsumerId, HostId, RackId, ZoneId};

use super::seconds;

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

/// `context …`.
#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// List stored logins.
    List,
    /// Use this login from now on.
    Use { name: String },
    /// Show a login; without a name the one in use.
    Show { name: Option<String> },
    /// Forget a login, and its token.
    Rm { name: String },
}

/// `agents …`.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// List agents, and whether they are heard.
    List,
    /// Show an agent.
    Show { id: AgentId },
    /// Make the line that joins an agent, to paste on a rack controller; or a host's witness, to paste on the host.
    Token {
        /// The rack it will guard.
        #[arg(long, required_unless_present = "host")]
        rack: Option<RackId>,
        /// The host whose witness it will be, in place of a rack.
        #[arg(long, conflicts_with_all = ["rack", "zone", "agent"])]
        host: Option<HostId>,
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

/// `tokens …`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// List the tokens that one may see.
    List,
    /// Show a token's name, role and scope.
    Show { id: String },
    /// Make a token; it is shown once, and kept nowhere.
    Add {
        /// Whose it is, for histories and the audit log.
        name: String,
        /// What it may do.
        #[arg(long, value_parser = ["viewer", "operator", "fencer", "admin", "auditor"])]
        role: String,
        /// Only in this zone; may be given again. Without any scope: everywhere.
        #[arg(long)]
        zone: Vec<ZoneId>,
        /// Only in this cluster; may be given again.
        #[arg(long)]
        cluster: Vec<ClusterId>,
        /// Only these hosts: host sets; may be given again.
        #[arg(long, value_name = "HOSTS")]
        hosts: Vec<String>,
        /// How long it may be used: `90s`, `30m`, `1h`, `7d`; absent = as long as one's own.
        #[arg(long, value_parser = seconds)]
        ttl: Option<u64>,
        /// Write it to this new file, for its owner alone, instead of printing it.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Revoke a token.
    Rm { id: String },
}
