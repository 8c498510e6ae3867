//! `tests/demo`: a whole site on this machine. Two simulated racks, an agent on each, an aggregator, mutual TLS between them.
//!
//! Everything lives in a temporary folder and on loopback; Ctrl-C ends it and leaves nothing.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::Parser;
use picket_tests::bmcsim::{BmcHandle, Simulator};
use picket_tests::eventually::eventually;
use picket_tests::harness::{Agent, Living, Site, hosts, program, simulator};
use picket_tests::peers::process::Process;
use serde_json::Value;

/// Hosts a rack: half speak IPMI, half Redfish.
const HOSTS: usize = 48;
const RACKS: [(&str, &str); 2] = [("r07", "c1"), ("r08", "c2")];
const PATIENCE: Duration = Duration::from_secs(60);

/// A simulated site: two racks of 48 BMCs, two agents, one aggregator.
#[derive(Parser)]
#[command(about)]
struct Arguments {
    /// End after the tour instead of waiting for Ctrl-C.
    #[arg(long)]
    once: bool,
}

struct Demo {
    // Dropped in this order: agents close their BMC sessions before the BMCs go.
    agents: Vec<Agent>,
    site: Site,
    racks: Vec<Simulator>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // From here on Ctrl-C is ours: it ends the demo, not the daemons under it.
    let stop = runtime.block_on(async { tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()) })?;
    let mut demo = Demo::start()?;
    demo.wait_for_truth()?;
    demo.tour()?;
    demo.fence()?;
    if !arguments.once {
        demo.invite();
        runtime.block_on(wait(stop));
    }
    say("ending");
    demo.end()
}

async fn wait(mut stop: tokio::signal::unix::Signal) {
    stop.recv().await;
}

fn say(text: &str) {
    println!("\n── {text}");
}

impl Demo {
    fn start() -> Result<Self> {
        say("starting two racks of 48 simulated BMCs, half IPMI (RMCP+, suite 17), half Redfish (TLS)");
        let racks =
            RACKS.iter().map(|(rack, _)| simulator(&format!("{rack}n"), HOSTS / 2, HOSTS / 2)).collect::<Result<Vec<_>>>()?;
        say("starting the aggregator: its own CA, the API over TLS, MQTT behind the gate");
        let site = Site::start_with("[oobm]\nsync_interval = 2\naction_timeout = 60\n")?;
        say("zone z1, clusters c1 and c2, racks r07 and r08; an agent joins for each rack with one line");
        for (rack, cluster) in RACKS {
            site.place("z1", cluster, rack)?;
        }
        let agents = RACKS.iter().map(|(rack, _)| site.join(rack)).collect::<Result<Vec<_>>>()?;
        Ok(Self { agents, site, racks })
    }

    /// Imports and enables all hosts; then every one has to be shown as its BMC really is.
    fn wait_for_truth(&self) -> Result<()> {
        let begun = now();
        for ((rack, cluster), simulator) in RACKS.iter().zip(&self.racks) {
            self.site.import(&hosts(simulator, cluster, rack))?;
        }
        let names: Vec<String> = self.bmcs().map(|bmc| bmc.name().to_owned()).collect();
        let mut enable = vec!["oobm", "enable", "host"];
        enable.extend(names.iter().map(String::as_str));
        let answer = self.site.ctl(&enable)?;
        ensure!(answer.code == 0, "oobm enable: {answer:?}");
        eventually(PATIENCE, || self.check_truth())?;
        say(&format!(
            "all {} hosts imported, enabled and shown as they really are, after {:.1} s",
            names.len(),
            (now() - begun).as_secs_f64()
        ));
        print!("{}", self.site.ctl(&["summary"])?.out);
        Ok(())
    }

    fn bmcs(&self) -> impl Iterator<Item = &BmcHandle> {
        self.racks.iter().flat_map(|rack| rack.fleet().all())
    }

    fn check_truth(&self) -> Result<()> {
        let listed = self.site.json(&["hosts", "list"])?;
        let power = |name: &str| {
            let hosts = listed.as_array().or_else(|| listed.get("items").and_then(Value::as_array));
            hosts
                .into_iter()
                .flatten()
                .find(|host| host.get("id").is_some_and(|id| id == name))
                .and_then(|host| host.get("power")?.as_str())
        };
        for bmc in self.bmcs() {
            let wanted = if bmc.is_on() { "on" } else { "off" };
            ensure!(power(bmc.name()) == Some(wanted), "{} is {wanted}, but shown as {:?}", bmc.name(), power(bmc.name()));
        }
        Ok(())
    }

    /// A commanded change and one by hand, both seen on the event stream.
    fn tour(&self) -> Result<()> {
        let on: Vec<&BmcHandle> = self.bmcs().filter(|bmc| bmc.is_on()).collect();
        let [first, probe, .., last] = on[..] else { bail!("too few hosts are on") };
        let log = self.site.path("events.log");
        let mut tail = self.site.ctl_command()?;
        tail.args(["events", "tail"]);
        let _tail = Process::start(&tail, &log)?;
        // The stream is known to be open once it shows something: a gate closed and opened for the purpose.
        eventually(PATIENCE, || {
            self.site.ctl(&["oobm", "disable", "host", probe.name()])?;
            self.site.ctl(&["oobm", "enable", "host", probe.name()])?;
            ensure!(std::fs::read_to_string(&log)?.contains(probe.name()), "no event yet");
            Ok(())
        })?;

        say(&format!("picketctl power off {}", first.name()));
        let answer = self.site.ctl(&["power", "off", first.name(), "--wait"])?;
        print!("{}{}", answer.out, answer.err);
        ensure!(answer.code == 0 && !first.is_on(), "the power-off failed: {answer:?}");
        say(&format!("somebody presses the power button of {}", last.name()));
        last.set_power(false);
        self.site.until(last.name(), "power", "off", PATIENCE)?;

        say("picketctl events tail");
        let seen = eventually(PATIENCE, || {
            let text = std::fs::read_to_string(&log)?;
            let seen: Vec<String> =
                text.lines().filter(|line| line.contains("power.changed") && line.contains("off")).map(str::to_owned).collect();
            for bmc in [first, last] {
                ensure!(seen.iter().any(|line| line.contains(bmc.name())), "no event of {}: {text}", bmc.name());
            }
            Ok(seen)
        })?;
        println!("{}", seen.join("\n"));
        say(&format!("picketctl history {}", first.name()));
        print!("{}", self.site.ctl(&["history", first.name()])?.out);
        Ok(())
    }

    /// Three hosts are watched over; one of them loses its power and is proven off, without an order.
    fn fence(&self) -> Result<()> {
        let names: Vec<&str> = self.bmcs().filter(|bmc| bmc.is_on()).map(BmcHandle::name).take(3).collect();
        let mut living = Living::new(names.iter().copied())?;
        let [host, ..] = names[..] else { bail!("too few hosts are on") };
        say(&format!("host-HA for {}: a TCP health check each, quicker than by default", names.join(", ")));
        self.run(&["ha", "set", "cluster", "c1", "settle=5", "health_interval=1", "stable=5"])?;
        for name in &names {
            self.run(&["ha", "set", "host", name, &format!("health=tcp:{}", living.address(name)?)])?;
            self.run(&["ha", "enable", "host", name])?;
        }
        let stands = |host: &str, state: &str| {
            eventually(PATIENCE, || {
                let shown = self.site.json(&["ha", "show", host])?;
                ensure!(shown.pointer("/0/state").is_some_and(|is| is == state), "{host} is not {state}: {shown}");
                Ok(())
            })
        };
        names.iter().try_for_each(|name| stands(name, "available"))?;

        say(&format!("the power of {host} fails; its BMC stays up"));
        let begun = now();
        let bmc = self.bmcs().find(|bmc| bmc.name() == host);
        bmc.into_iter().for_each(|bmc| bmc.set_power(false));
        living.kill(host)?;
        stands(host, "fenced")?;
        say(&format!("fenced after {:.1} s, and nothing was sent: picketctl ha explain {host}", (now() - begun).as_secs_f64()));
        print!("{}", self.run(&["ha", "explain", host])?);
        Ok(())
    }

    /// Runs what must work, and gives what it prints.
    fn run(&self, words: &[&str]) -> Result<String> {
        let answer = self.site.ctl(words)?;
        ensure!(answer.code == 0, "{words:?}: {answer:?}");
        Ok(answer.out)
    }

    fn invite(&self) {
        say("the site is yours; in another terminal:");
        let picketctl = program("picketctl").unwrap_or_default();
        println!(
            "  alias picketctl='{} --url {} --ca {} --token-file {}'",
            picketctl.display(),
            self.site.url(),
            self.site.ca_file().display(),
            self.site.token_file().display()
        );
        println!("  picketctl hosts list --cluster c1");
        println!("  picketctl power cycle r07n-0001 --wait");
        println!("  picketctl events tail");
        println!("  API    {}/v1/summary   (Authorization: Bearer $(cat {}))", self.site.url(), self.site.token_file().display());
        println!("  MQTT   {}   (picketctl consumers issue me --out me)", self.site.mqtt());
        for (rack, simulator) in RACKS.iter().zip(&self.racks) {
            if let Some(control) = simulator.control() {
                println!(
                    "  BMCs of {}: {}/bmcs   (see picket-bmcsim --help for how to flip and break them)",
                    rack.0,
                    control_url(control)
                );
            }
        }
        println!("  Ctrl-C ends it");
    }

    fn end(&mut self) -> Result<()> {
        for agent in &mut self.agents {
            agent.stop()?;
        }
        self.site.stop_aggregator()
    }
}

/// Time since the machine started.
fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn control_url(control: std::net::SocketAddr) -> String {
    format!("http://{control}")
}
