//! `picket-aggregator`: the command line, the log, and the runtime around [`picket_aggregator::daemon`].

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use picket_aggregator::config::notify::Notify;
use picket_aggregator::config::{Config, DEFAULT_STATE_DIR};
use picket_aggregator::daemon::{self, Reload};
use picket_aggregator::fleet::effective::{DEFAULT_ACTION_TIMEOUT, DEFAULT_SYNC_INTERVAL};
use picket_aggregator::init::{self, Made, Options};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// Picket's central daemon: the global view, enablement, commands, MQTT and HTTP.
#[derive(Debug, Parser)]
#[command(name = "picket-aggregator", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    places: Places,
}

#[derive(Debug, Args)]
struct Places {
    /// Settings; `conf.d/*.toml` beside it is read too [default: /etc/picket/aggregator.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the state is kept
    #[arg(long, global = true, value_name = "DIR", default_value = DEFAULT_STATE_DIR)]
    state_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon (the default)
    Run,
    /// Read the settings, say what is wrong with them, and change nothing
    CheckConfig,
    /// Make the certificate authority, the keys and the first admin token; done once
    Init(InitArgs),
}

#[derive(Debug, Args)]
struct InitArgs {
    /// Another host name or IP address of this machine, for its certificate; may be given again
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Write the admin token into this new file (mode 0600) instead of showing it
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Write the recovery key into this new file (mode 0600) instead of showing it
    #[arg(long, value_name = "FILE")]
    recovery_key_file: Option<PathBuf>,
    /// Answer as JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    // Without a provider everything that speaks TLS panics; one that is installed already is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    let cli = Cli::parse();
    match work(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("picket-aggregator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn work(cli: Cli) -> anyhow::Result<()> {
    let config = Config::load(cli.places.config.as_deref())?;
    match cli.command {
        None | Some(Command::Run) => run(&config, cli.places),
        Some(Command::CheckConfig) => {
            println!("{}", effective(&config));
            unreadable(&config).iter().for_each(|warning| eprintln!("warning: {warning}"));
            Ok(())
        }
        Some(Command::Init(args)) => make(&config, &cli.places.state_dir, args),
    }
}

fn run(config: &Config, places: Places) -> anyhow::Result<()> {
    let Places { config: file, state_dir } = places;
    let log = log_to_where_it_is_read(&config.log)?;
    let reload = Reload {
        load: Box::new(move || Config::load(file.as_deref())),
        log: Box::new(move |directives| {
            let filter = filter(directives).map_err(|error| error.to_string())?;
            log.reload(filter).map_err(|error| error.to_string())
        }),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let ended = runtime.block_on(daemon::serve(config, &state_dir, reload));
    // What still runs after an orderly stop has nothing to lose.
    runtime.shutdown_background();
    Ok(ended?)
}

/// The router inside the broker says on `info` what only its authors need; a later directive for it wins.
fn filter(directives: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    format!("rumqttd=warn,{directives}").parse()
}

/// To journald with fields under systemd; else to standard error, compact on a terminal and JSON otherwise. What it gives back
/// changes the filter.
fn log_to_where_it_is_read(directives: &str) -> anyhow::Result<reload::Handle<EnvFilter, Registry>> {
    let (filter, handle) = reload::Layer::new(filter(directives).context("reading `log`")?);
    let registry = tracing_subscriber::registry().with(filter);
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    match journal {
        Some(journal) => registry.with(journal).init(),
        None => {
            let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
            if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
                registry.with(lines.compact()).init();
            } else {
                registry.with(lines.json().flatten_event(true)).init();
            }
        }
    }
    Ok(handle)
}

fn effective(config: &Config) -> String {
    let Config { site, listen, mqtt_listen, advertise, log, settings, notify } = config;
    let notify: String = notify.iter().map(receiver).collect();
    format!(
        "site = \"{site}\"\nlisten = \"{listen}\"\nmqtt_listen = \"{mqtt_listen}\"\nadvertise = \"{advertise}\"\nlog = \"{log}\"\n\n\
         [oobm]\nsync_interval = {}\naction_timeout = {}{}{}{}",
        settings.sync_interval.unwrap_or(DEFAULT_SYNC_INTERVAL),
        settings.action_timeout.unwrap_or(DEFAULT_ACTION_TIMEOUT),
        line("sync_poolsize", settings.sync_poolsize.as_ref()),
        line("ipmitool.interface", settings.ipmitool_interface.as_ref().map(|word| format!("\"{word}\"")).as_ref()),
        line("ipmitool.retries", settings.ipmitool_retries.as_ref()),
    ) + &notify
}

fn receiver(notify: &Notify) -> String {
    let Notify { receiver, timeout, way } = notify;
    let seconds = [receiver.group_wait, receiver.group_interval, receiver.repeat_interval, *timeout].map(|time| time.as_secs());
    let [group_wait, group_interval, repeat_interval, timeout] = seconds;
    format!(
        "\n\n[[notify]]\nname = \"{}\"\ntype = \"{}\" # {}\nseverity = \"{}\"\ngroup_wait = {group_wait}\n\
         group_interval = {group_interval}\nrepeat_interval = {repeat_interval}\ntimeout = {timeout}",
        receiver.id,
        way.kind(),
        way.target(),
        receiver.severity,
    )
}

/// Files of receivers that this user cannot read: the daemon's user may.
fn unreadable(config: &Config) -> Vec<String> {
    let files = config.notify.iter().flat_map(|notify| notify.way.files().into_iter().map(move |file| (notify, file)));
    let tried = files.map(|(notify, (key, path))| (notify, key, path, std::fs::File::open(path)));
    tried
        .filter_map(|(notify, key, path, opened)| {
            opened.err().map(|error| format!("[[notify]] {}: {key} {}: {error}", notify.receiver.id, path.display()))
        })
        .collect()
}

fn line(key: &str, value: Option<&impl std::fmt::Display>) -> String {
    value.map(|value| format!("\n{key} = {value}")).unwrap_or_default()
}

fn make(config: &Config, state_dir: &Path, args: InitArgs) -> anyhow::Result<()> {
    let InitArgs { names, token_file, recovery_key_file, json } = args;
    let options = Options { names, token_file, recovery_key_file };
    let made = init::init(config, state_dir, &options)?;
    println!("{}", if json { as_json(&made, &options) } else { as_text(&made, &options) });
    Ok(())
}

fn as_json(made: &Made, options: &Options) -> String {
    serde_json::json!({
        "ca_sha256": made.ca_sha256,
        "token": options.token_file.is_none().then_some(&*made.token),
        "recovery_key": options.recovery_key_file.is_none().then_some(&*made.recovery_key),
    })
    .to_string()
}

fn as_text(made: &Made, options: &Options) -> String {
    let place =
        |file: &Option<PathBuf>, secret: &str| file.as_ref().map_or(secret.to_owned(), |file| format!("in {}", file.display()));
    format!(
        "CA fingerprint  {}\nAdmin token     {}\nRecovery key    {}\n\n\
         Neither the token nor the recovery key can be shown again. Keep the recovery key offline: with it, and only with it,\n\
         BMC passwords can be sealed anew to a replaced agent.",
        made.ca_sha256,
        place(&options.token_file, &made.token),
        place(&options.recovery_key_file, &made.recovery_key),
    )
}
