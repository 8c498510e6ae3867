//! `picketctl` against the real daemon over TLS: a login by the CA's hash, the inventory, gates, refusals and their exit codes.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the helpers of tests fail as tests do")]

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// Looks at the daemon's addresses, 20 ms apart: far above what a start takes on a busy machine.
const LOOKS: u32 = 3000;

struct Daemon {
    child: Child,
    folder: TempDir,
    ca_hash: String,
    url: String,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn aggregator(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_picket-aggregator"));
    command.arg("--config").arg(folder.join("aggregator.toml")).arg("--state-dir").arg(folder.join("state"));
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command
}

impl Daemon {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = "listen = \"127.0.0.1:0\"\nmqtt_listen = \"127.0.0.1:0\"\nadvertise = \"127.0.0.1\"\n";
        std::fs::write(folder.path().join("aggregator.toml"), settings).unwrap();
        let token = folder.path().join("token");
        let made = aggregator(folder.path()).args(["init", "--json", "--token-file"]).arg(token).output().unwrap();
        let made: Value = serde_json::from_slice(&made.stdout).unwrap();
        let child = aggregator(folder.path()).stdout(Stdio::null()).spawn().unwrap();
        let file = folder.path().join("state/addresses.json");
        let addresses = (0..LOOKS).find_map(|_| {
            std::thread::sleep(Duration::from_millis(20));
            std::fs::read(&file).ok()
        });
        let addresses: Value = serde_json::from_slice(&addresses.expect("the daemon starts")).unwrap();
        let url = format!("https://{}", addresses["api"].as_str().unwrap());
        Self { child, folder, ca_hash: made["ca_sha256"].as_str().unwrap().to_owned(), url }
    }

    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_picketctl"));
        command.args(words.split(' ')).env("PICKET_CONFIG_DIR", self.folder.path().join("config"));
        for name in ["PICKET_URL", "PICKET_TOKEN_FILE", "PICKET_CA", "PICKET_CONTEXT"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null());
        command
    }

    /// Exit code, stdout, stderr.
    fn run(&self, words: &str) -> (i32, String, String) {
        told(self.command(words).output().unwrap())
    }

    fn run_with(&self, words: &str, stdin: &str) -> (i32, String, String) {
        let mut command = self.command(words);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        told(child.wait_with_output().unwrap())
    }

    /// Runs what must work, and gives what it prints.
    fn ok(&self, words: &str) -> String {
        let (code, stdout, stderr) = self.run(words);
        assert_eq!(code, 0, "{words}: {stderr}");
        stdout
    }

    /// Runs what must fail so, and gives what it complains of.
    fn fails(&self, words: &str, wanted: i32) -> String {
        let (code, stdout, stderr) = self.run(words);
        assert_eq!(code, wanted, "{words}: {stdout} {stderr}");
        format!("{stdout}{stderr}")
    }

    fn login(&self) {
        let token = self.folder.path().join("token");
        let words = format!("login {} --token-file {} --ca-hash {}", self.url, token.display(), self.ca_hash);
        self.ok(&words);
    }
}

fn told(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or_else(|| panic!("killed")), text(output.stdout), text(output.stderr))
}

#[test]
fn a_login_trusts_the_right_root_only() {
    let daemon = Daemon::start();
    let token = daemon.folder.path().join("token");
    let wrong = "0".repeat(64);
    let said = daemon.fails(&format!("login {} --token-file {} --ca-hash {wrong}", daemon.url, token.display()), 7);
    assert!(said.contains("hash"), "{said}");
    assert!(daemon.fails("hosts list", 2).contains("login"));
    let (code, _, said) =
        daemon.run_with(&format!("login {} --token-stdin --ca-hash {}", daemon.url, daemon.ca_hash), "pkt_wrong\n");
    assert_eq!(code, 4, "{said}");
    assert!(!daemon.folder.path().join("config").exists(), "a login that failed leaves nothing");
    daemon.login();
    assert!(daemon.ok("summary").starts_with("WHERE"));

    // Without the CA nothing is said to anybody.
    let bare =
        format!("--url {} --token-file {} summary", daemon.url.replace("https://127.0.0.1", "https://localhost"), token.display());
    daemon.fails(&bare, 7);
    daemon.fails("--url https://127.0.0.1:1 summary", 7);
}

#[test]
fn the_inventory_the_gates_and_the_refusals() {
    let daemon = Daemon::start();
    daemon.login();
    daemon.ok("zones add z1");
    daemon.ok("clusters add c1 --zone z1");
    daemon.ok("racks add r1 --zone z1");
    daemon.ok("hosts add h1 --cluster c1 --rack r1 --driver null --label os=linux");
    assert!(daemon.fails("hosts add h1 --cluster c1 --rack r1", 2).contains("is there already"));
    assert!(daemon.fails("hosts add h2 --cluster c9 --rack r1", 8).contains("c9"));
    assert!(daemon.fails("hosts set h1 --driver steam", 2).contains("steam"));
    let (code, _, said) = daemon.run_with("hosts set h1 --username admin --password-stdin", "s3cret-canary\n");
    assert!(code == 6 && said.contains("rack-without-agent") && said.contains("hint:") && !said.contains("canary"), "{said}");

    let list = daemon.ok("hosts list");
    assert!(list.contains("h1") && list.contains("– disabled"), "{list}");
    assert_eq!(daemon.ok("hosts list -o name"), "h1\n");
    let host: Value = serde_json::from_str(&daemon.ok("hosts show h1 -o json")).unwrap();
    assert_eq!((host["labels"]["os"].as_str(), host["refusal"].as_str()), (Some("linux"), Some("host-disabled")));

    assert!(daemon.fails("power on h1", 6).contains("host-disabled"));
    daemon.ok("oobm enable host h1");
    daemon.ok("oobm disable cluster c1 --yes");
    assert!(daemon.fails("power status h1", 6).contains("cluster-disabled"));
    daemon.ok("oobm enable cluster c1");
    assert!(daemon.fails("oobm disable zone z1", 2).contains("--yes"));
    assert!(daemon.fails("power on h1", 6).contains("rack-without-agent"));
    assert!(daemon.fails("power off h1 --dry-run -o json", 6).contains("rack-without-agent"));
    assert!(daemon.fails("power off h[1-2]", 2).contains("--yes"));
    assert!(daemon.fails("power off nobody", 8).contains("not-found"));
    assert!(daemon.fails("racks rm r1", 6).contains("in-use"));
}

#[test]
fn imports_tokens_certificates_and_the_api_as_it_is() {
    let daemon = Daemon::start();
    daemon.login();
    daemon.ok("zones add z1");
    daemon.ok("clusters add c1 --zone z1");
    let command = daemon.ok("agents token --rack r1 --zone z1 --ttl 30m");
    assert!(command.starts_with(&format!("picket-agent join pkj1.{}.", daemon.ca_hash)), "{command}");
    let host = |id: &str| format!("{{\"id\":\"{id}\",\"cluster\":\"c1\",\"rack\":\"r1\",\"bmc\":{{\"driver\":\"null\"}}}}");
    let array = format!("[{},{}]", host("h1"), host("h2"));
    let (code, _, said) = daemon.run_with("hosts import -", &array);
    assert_eq!((code, said.as_str()), (0, "2 created, 0 changed, 0 refused\n"));
    let (code, table, _) = daemon.run_with("hosts import -", &format!("{}\n{}\n", host("h3"), host("H4")));
    assert!(code == 1 && table.contains("not a valid host id"), "{table}");
    assert_eq!(daemon.ok("hosts list --rack r1 -o name"), "h1\nh2\nh3\n");

    let out = daemon.folder.path().join("out");
    let issue = format!("consumers issue nagios --out {}", out.display());
    daemon.ok(&issue);
    let key = std::fs::metadata(out.join("nagios.key")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&key.permissions()) & 0o777, 0o600);
    assert!(daemon.fails(&issue, 2).contains("is there already"));
    assert!(daemon.ok("api GET /v1/drivers").contains("redfish"));
    daemon.fails("api GET /v1/nothing", 8);
    daemon.fails("agents show r9", 8);
    assert!(daemon.ok("alerts").starts_with("ALERT"));
    assert!(daemon.ok("history h1").starts_with("AT"));
}
