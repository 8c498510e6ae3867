//! `fence_picket` beside the real `fence_ipmilan`: the same questions about machines of the same kind, the same answers; the same
//! form of metadata; and nothing said to be off that is not.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use picket_tests::bmcsim::{Action, Faults, Simulator};
use picket_tests::eventually::eventually;
use picket_tests::harness::{Agent, Answer, Site, host_body, hosts, program, simulator};
use picket_tests::peers::Power;
use picket_tests::peers::fence_agent::{FenceAgent, xmllint};
use picket_tests::peers::ipmi_sim::IpmiSim;

const PATIENCE: Duration = Duration::from_secs(60);

/// Debian's `fence-agents` brings it: what its own agents' metadata is checked with.
const GRAMMAR: &str = "/usr/share/cluster/relaxng/metadata.rng";

/// The value of an attribute, in a line of metadata.
fn attribute<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("{name}=\""))?;
    Some(rest.split_once('"')?.0)
}

/// What matters to who configures an agent by its metadata: of each parameter what it is called, on the command line too, what it
/// takes, and which name it stands for.
type Parameters = BTreeMap<String, (Vec<String>, String, [Option<String>; 3])>;

fn parameters(xml: &str) -> Parameters {
    let parameter = |text: &str| {
        let owned = |name: &str| attribute(text, name).map(str::to_owned);
        let words = owned("mixed")?;
        let words = words.split(", ").map(|word| word.split('=').next().unwrap_or_default().to_owned()).collect();
        Some((owned("name")?, (words, owned("type")?, [owned("unique"), owned("deprecated"), owned("obsoletes")])))
    };
    xml.split("<parameter ").skip(1).filter_map(parameter).collect()
}

fn actions(xml: &str) -> BTreeSet<&str> {
    xml.split("<action ").skip(1).filter_map(|text| attribute(text, "name")).collect()
}

#[test]
fn metadata_has_the_form_of_theirs() {
    let ours = FenceAgent::new(&program("fence_picket").unwrap(), &[]);
    let theirs = FenceAgent::ipmilan(&[]).unwrap();
    let metadata = |agent: &FenceAgent, action: &str| {
        let (by_stdin, by_words) = (agent.act(action, "").unwrap(), agent.with_words(&["-o", action]).unwrap());
        assert_eq!((by_stdin.code, by_stdin.out.as_str()), (0, by_words.out.as_str()), "{action}");
        by_stdin.out
    };
    let (ours, theirs) = (metadata(&ours, "metadata"), metadata(&theirs, "metadata"));
    for xml in [&ours, &theirs] {
        assert_eq!(xmllint(xml, Path::new(GRAMMAR)).unwrap(), "");
    }
    assert_ne!(xmllint(&ours.replace("unique=\"0\"", "unique=\"no\""), Path::new(GRAMMAR)).unwrap(), "");

    let (our, their) = (parameters(&ours), parameters(&theirs));
    // Of IPMI alone, or of a command that is run; and what makes a plug an address, where a plug is one.
    let not_ours = [
        "auth",
        "cipher",
        "hexadecimal_kg",
        "lanplus",
        "method",
        "privlvl",
        "target",
        "ipmitool_path",
        "ipmitool_timeout",
        "sudo",
        "use_sudo",
        "sudo_path",
        "port_as_ip",
    ];
    for (name, parameter) in &their {
        if not_ours.contains(&name.as_str()) {
            continue;
        }
        assert_eq!(our.get(name), Some(parameter), "{name}");
    }
    let theirs_alone: BTreeSet<&str> = actions(&theirs).difference(&actions(&ours)).copied().collect();
    assert_eq!(theirs_alone, BTreeSet::from(["diag"]));
    assert!(actions(&ours).is_superset(&BTreeSet::from(["list", "list-status"])));
}

/// A rack with one machine of OpenIPMI's and two of ours.
struct Stage {
    site: Site,
    _agent: Agent,
    simulator: Simulator,
    machine: IpmiSim,
}

impl Stage {
    fn set() -> Self {
        let simulator = simulator("h", 2, 0).unwrap();
        let machine = IpmiSim::start().unwrap();
        let site = Site::start().unwrap();
        site.place("z1", "c1", "r1").unwrap();
        let agent = site.join("r1").unwrap();
        let user = IpmiSim::operator();
        let machines = host_body("sim", "c1", "r1", "ipmi", machine.address(), (&user.name, &user.password));
        let stage = Self { site, _agent: agent, simulator, machine };
        for bmc in stage.simulator.fleet().all() {
            bmc.set_power(true);
        }
        stage.site.import(&[&hosts(&stage.simulator, "c1", "r1")[..], &[machines]].concat()).unwrap();
        stage.ok(&["oobm", "enable", "host", "@all"]);
        // An agent that has just started switches nobody off; a cluster without health checks has nowhere to go.
        stage.ok(&["ha", "set", "cluster", "c1", "startup_quiet=0", "somewhere_to_go=no", "identity_waived=yes"]);
        stage.ok(&["ha", "enable", "host", "@all"]);
        for host in ["sim", "h-0001", "h-0002"] {
            stage.site.until(host, "power", "on", PATIENCE).unwrap();
            eventually(PATIENCE, || {
                let state = stage.site.json(&["ha", "show", host])?;
                anyhow::ensure!(state[0]["state"] == "ineligible", "{state}");
                Ok(())
            })
            .unwrap();
        }
        // Who fences a cluster needs no more than this.
        let token = stage.token_file().display().to_string();
        stage.ok(&["tokens", "add", "pacemaker", "--role", "fencer", "--cluster", "c1", "--out", &token]);
        stage
    }

    fn token_file(&self) -> PathBuf {
        self.site.path("pacemaker.token")
    }

    fn ok(&self, words: &[&str]) {
        let answer = self.site.ctl(words).unwrap();
        assert_eq!(answer.code, 0, "{words:?}: {answer:?}");
    }

    fn fencer(&self, host: &str) -> FenceAgent {
        let url = self.site.url();
        let (ip, port) = url.trim_start_matches("https://").rsplit_once(':').unwrap();
        let (ca, token) = (self.site.ca_file().display().to_string(), self.token_file().display().to_string());
        let options = [("ip", ip), ("ipport", port), ("ca_file", &ca), ("token_file", &token), ("plug", host)];
        FenceAgent::new(&program("fence_picket").unwrap(), &options)
    }
}

fn ipmilan(machine: &IpmiSim) -> FenceAgent {
    let address = machine.address();
    let (ip, port, user) = (address.ip().to_string(), address.port().to_string(), IpmiSim::operator());
    let login = [("username", user.name.as_str()), ("password", user.password.as_str()), ("privlvl", "operator")];
    let place = [("ip", ip.as_str()), ("ipport", port.as_str()), ("lanplus", "1"), ("cipher", "3"), ("power_wait", "0")];
    FenceAgent::ipmilan(&[&login[..], &place].concat()).unwrap()
}

#[test]
fn it_answers_as_fence_ipmilan_does() {
    let stage = Stage::set();
    let direct = IpmiSim::start().unwrap();
    let (ours, theirs) = (stage.fencer("sim"), ipmilan(&direct));
    let said = |answer: &Answer| (answer.code, answer.out.clone());
    for (action, more, wanted, power) in [
        ("status", "", (0, "Status: ON\n"), Power::On),
        ("monitor", "", (0, ""), Power::On),
        ("validate-all", "", (0, ""), Power::On),
        ("off", "", (0, "Success: Powered OFF\n"), Power::Off),
        ("status", "", (2, "Status: OFF\n"), Power::Off),
        ("off", "", (0, "Success: Already OFF\n"), Power::Off),
        ("on", "", (0, "Success: Powered ON\n"), Power::On),
        ("on", "", (0, "Success: Already ON\n"), Power::On),
        ("reboot", "", (0, "Success: Rebooted\n"), Power::On),
        ("OFF", "# as some write it\ncolour=red\n", (0, "Success: Powered OFF\n"), Power::Off),
        ("on", "", (0, "Success: Powered ON\n"), Power::On),
        ("explode", "", (1, ""), Power::On),
        ("off", "delay=soon\n", (1, ""), Power::On),
        ("off", "ip=\n", (1, ""), Power::On),
    ] {
        let (mine, other) = (ours.act(action, more).unwrap(), theirs.act(action, more).unwrap());
        assert_eq!(said(&mine), said(&other), "{action} {more}: {mine:?} {other:?}");
        assert_eq!(said(&mine), (wanted.0, wanted.1.to_owned()), "{action} {more}: {mine:?}");
        assert_eq!((stage.machine.chassis_power().unwrap(), direct.chassis_power().unwrap()), (power, power), "{action}");
    }
}

#[test]
fn it_says_off_only_of_what_is_off() {
    let stage = Stage::set();
    let (liar, other) = (stage.fencer("h-0001"), stage.fencer("h-0002"));
    let bmc = |index: usize| stage.simulator.fleet().all().get(index).unwrap().clone();
    // An off that is acknowledged and not done.
    bmc(0).set_faults(Faults { ignore: vec![Action::Off], ..Faults::default() });
    let answer = liar.act("off", "power_timeout=20\n").unwrap();
    assert_eq!((answer.code, answer.out.as_str(), bmc(0).is_on()), (1, "", true), "{answer:?}");
    assert!(answer.err.contains("Failed: Timed out waiting to power OFF"), "{answer:?}");

    // Several at once: all, or it failed.
    let both = other.act("off", "plug=h-0001,h-0002\npower_timeout=20\n").unwrap();
    assert_eq!((both.code, both.out.as_str()), (1, ""), "{both:?}");

    let list = other.act("list", "").unwrap();
    assert_eq!((list.code, list.out.as_str()), (0, "h-0001,\nh-0002,\nsim,\n"));
    let listed = other.act("list-status", "").unwrap();
    assert!(listed.code == 0 && listed.out.contains("h-0001,,ON\n"), "{listed:?}");
    let absent = other.act("status", "plug=h-0009\n").unwrap();
    let words = "Failed: Unable to obtain correct plug status or plug is not available";
    assert!(absent.code == 1 && absent.err.contains(words), "{absent:?}");

    // Whom nobody knows.
    let stranger = stage.site.path("stranger");
    std::fs::write(&stranger, "pkt_nobody\n").unwrap();
    for action in ["off", "status", "monitor"] {
        let answer = other.act(action, &format!("token_file={}\n", stranger.display())).unwrap();
        assert!(answer.code == 1 && answer.err.contains("Unable to connect/login to fencing device"), "{action}: {answer:?}");
    }
}
