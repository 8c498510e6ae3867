//! Words of BMCs beyond power: what they are, their light, their boot device, their password; and of the site's settings.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use picket_common::id::{HostId, RackId};

use super::pair;

/// `bmc …`.
#[derive(Debug, Subcommand)]
pub enum BmcCommand {
    /// Log in anew, and say what the BMC is and can do.
    Test {
        /// Of which hosts: host sets; `-` reads them from stdin.
        #[arg(required = true)]
        hosts: Vec<String>,
        /// Common to all orders.
        #[command(flatten)]
        order: OrderArgs,
    },
    /// What is known of the BMCs, without asking them.
    Facts {
        /// Of which hosts: host sets; `-` reads them from stdin.
        #[arg(required = true)]
        hosts: Vec<String>,
    },
    /// Put the identify light on.
    Identify {
        /// Of which hosts: host sets; `-` reads them from stdin.
        #[arg(required = true)]
        hosts: Vec<String>,
        /// For how long, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=255))]
        seconds: u16,
        /// Put it out.
        #[arg(long, conflicts_with = "seconds")]
        off: bool,
        /// Common to all orders.
        #[command(flatten)]
        order: OrderArgs,
    },
    /// Choose what the hosts boot from.
    Bootdev {
        /// From what; `none` is what their own settings say.
        #[arg(value_parser = ["none", "pxe", "disk", "bios"])]
        device: String,
        /// Which hosts: host sets; `-` reads them from stdin.
        #[arg(required = true)]
        hosts: Vec<String>,
        /// Until it is changed; otherwise for the next boot only.
        #[arg(long)]
        persistent: bool,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
        /// Common to all orders.
        #[command(flatten)]
        order: OrderArgs,
    },
    /// Set a new password at the BMCs; without one, each gets its own, made at random.
    ChangePassword {
        /// Of which hosts: host sets; `-` reads them from stdin.
        #[arg(required = true)]
        hosts: Vec<String>,
        /// File with the new password, one line.
        #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
        password_file: Option<PathBuf>,
        /// Read the new password from stdin, one line.
        #[arg(long)]
        password_stdin: bool,
        /// Show the passwords made: they can never be read again.
        #[arg(long, conflicts_with_all = ["password_file", "password_stdin"])]
        show: bool,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
        /// Common to all orders.
        #[command(flatten)]
        order: OrderArgs,
    },
    /// Say which password is in force after a change that ended without anybody knowing.
    ResolvePassword {
        /// Of which host.
        host: HostId,
        /// The `new` or the `old` one.
        #[arg(value_parser = ["new", "old"])]
        in_force: String,
    },
    /// Take the machines that answer now for the right ones.
    Repin {
        /// Which hosts: host sets; `-` reads them from stdin.
        #[arg(required = true)]
        hosts: Vec<String>,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
}

/// What all orders take.
#[derive(Debug, Default, Args)]
pub struct OrderArgs {
    /// Time it may take, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: Option<u64>,
    /// Why, for the history.
    #[arg(long)]
    pub reason: Option<String>,
}

/// `settings …`.
#[derive(Debug, Subcommand)]
pub enum SettingsCommand {
    /// Show the settings in force, and who set them.
    Show,
    /// Change settings; they go before the aggregator's file.
    Set {
        /// `sync_interval=30`; may be given again.
        #[arg(value_name = "NAME=VALUE", value_parser = pair, required_unless_present = "unset")]
        values: Vec<(String, String)>,
        /// Back to the file's value, or the default; may be given again.
        #[arg(long, value_name = "NAME")]
        unset: Vec<String>,
    },
}

/// `drivers …`.
#[derive(Debug, Subcommand)]
pub enum DriverCommand {
    /// List drivers.
    List,
    /// Show a driver's options.
    Show { name: String },
}

/// `secrets …`.
#[derive(Debug, Subcommand)]
pub enum SecretCommand {
    /// Seal the stored BMC passwords of a rack anew, to the agent that took another's place. They are opened here, with the site's
    /// recovery key, and nowhere else.
    Reseal {
        /// Of which rack.
        rack: RackId,
        /// File with the site's recovery key, as `picket-aggregator init` made it.
        #[arg(long, value_name = "FILE")]
        recovery_key_file: PathBuf,
    },
}
