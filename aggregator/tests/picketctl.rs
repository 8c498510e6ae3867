//! `picketctl` against the real daemon over TLS: a login by the CA's hash, the inventory, gates, refusals and their exit codes.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the helpers of tests fail as tests do")]

#[path = "waiting/ready.rs"]
mod ready;

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use ready::Ready;

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
        let mut daemon = aggregator(folder.path());
        let ready = Ready::of(&mut daemon, folder.path());
        let child = daemon.stdout(Stdio::null()).spawn().unwrap();
        ready.wait();
        let addresses = std::fs::read(folder.path().join("state/addresses.json")).unwrap();
        let addresses: Value = serde_json::from_slice(&addresses).unwrap();
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
    assert!(list.contains("h1") && list.contains("disabled") && !list.contains('–'), "{list}");
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
    assert!(daemon.fails("power off h[1-2]", 8).contains("there is no host h2; nothing was done"));
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
    assert_eq!((code, said.as_str()), (0, "2 created, 0 changed, 0 unchanged, 0 refused\n"));
    let one_is_wrong = format!("{}\n{}\n", host("h3"), host("H4"));
    let (code, _, said) = daemon.run_with("hosts import -", &one_is_wrong);
    assert!(
        code == 3 && said.starts_with("-:2: id: \"H4\" is not a valid host id") && said.contains("nothing was changed"),
        "{said}"
    );
    assert_eq!(daemon.ok("hosts list -o name"), "h1\nh2\n");
    let (code, table, said) = daemon.run_with("hosts import - --partial", &one_is_wrong);
    assert!(code == 1 && table.contains("not a valid host id") && said.starts_with("1 created"), "{table} {said}");
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

#[test]
fn host_sets_name_hosts_everywhere() {
    let daemon = Daemon::start();
    // What names its hosts itself needs no aggregator.
    assert_eq!(daemon.ok("hosts expand n[08-10]!n09 m"), "m\nn08\nn10\n");
    assert_eq!(daemon.ok("hosts fold r1n1 r1n2 r2n1 r2n2 -o json"), "r[1-2]n[1-2]\n");
    assert_eq!(daemon.ok("hosts fold --last r1n1 r1n2 r2n1"), "r1n[1-2],r2n1\n");
    assert_eq!(daemon.ok("hosts count dc[1-4]n[1-100]"), "400\n");
    assert!(daemon.fails("hosts expand n[3-1]", 2).contains("character 3"));
    assert!(daemon.fails("hosts expand @all", 2).contains("login"));
    let (code, folded, _) = daemon.run_with("hosts fold -", "n3\nn1 n2,n9\n");
    assert_eq!((code, folded.as_str()), (0, "n[1-3,9]\n"));

    daemon.login();
    for words in [
        "zones add z1",
        "clusters add c1 --zone z1",
        "clusters add c2 --zone z1",
        "racks add r1 --zone z1",
        "racks add r2 --zone z1",
    ] {
        daemon.ok(words);
    }
    let line = |n: u32, rack: &str, cluster: &str| {
        format!(
            "{{\"id\":\"{rack}n{n:02}\",\"cluster\":\"{cluster}\",\"rack\":\"{rack}\",\"labels\":{{\"os\":\"v{n}\"}},\"bmc\":{{\"driver\":\"null\"}}}}\n"
        )
    };
    let hosts: String = (1..=12).map(|n| line(n, "r1", "c1") + &line(n, "r2", "c2")).collect();
    assert_eq!(daemon.run_with("hosts import -", &hosts).0, 0);
    assert_eq!(daemon.ok("hosts list -o folded"), "r[1-2]n[01-12]\n");
    assert_eq!(daemon.ok("hosts list @rack:r2&*n0?!r2n05 -o folded"), "r2n[01-04,06-09]\n");
    assert_eq!(daemon.ok("hosts expand @label:os=v7"), "r1n07\nr2n07\n");
    assert_eq!(daemon.ok("hosts count @zone:z1!@cluster:c2"), "12\n");
    assert_eq!(
        daemon.ok("hosts list @state:disabled --rack r1 -o csv --columns host,power --no-header").lines().nth(1),
        Some("r1n02,disabled")
    );
    assert!(daemon.fails("hosts list @rack:r3", 2).contains("there is no @rack:r3"));
    assert!(daemon.fails("power off x*", 8).contains("no host is in"));
    let yaml = daemon.ok("hosts show r1n01 -o yaml");
    assert!(yaml.contains("power: disabled\n") && yaml.contains("id: r1n01\n"), "{yaml}");

    // Many are asked about, and nobody is there to answer.
    for words in [
        "hosts rm r1n[01-02]",
        "power off @rack:r1",
        "oobm disable host r1n[01-02]",
        "hosts set r1n[01-02] --maintenance true",
        "pm -0 r1n[01-02]",
    ] {
        assert!(daemon.fails(words, 2).contains("--yes"), "{words}");
    }
    daemon.ok("oobm enable host r1n[01-02]");
    daemon.ok("hosts set r1n[01-03] --maintenance true --label rank=a --yes");
    assert_eq!(daemon.ok("hosts list @label:rank=a -o folded"), "r1n[01-03]\n");
    let (_, _, warned) = daemon.run("power off r1n[01-05] --yes");
    assert!(warned.contains("in maintenance, somebody may be working on it: r1n[01-03]"), "{warned}");
    let host = |words: &str| -> Value { serde_json::from_str(&daemon.ok(words)).unwrap() };
    assert_eq!(
        host("hosts set r1n01 --label rank= --label room=7 -o json")["labels"],
        serde_json::json!({"os": "v1", "room": "7"})
    );
    assert_eq!(host("hosts set r1n01 --unset labels -o json")["labels"], serde_json::json!({}));
    daemon.ok("hosts rm r2n[01-12] --yes");
    assert_eq!(daemon.ok("hosts list -o folded"), "r1n[01-12]\n");
    assert!(daemon.fails("hosts rm r2n01", 8).contains("r2n01"));
}

#[test]
fn powermans_words_and_its_exit_codes() {
    let daemon = Daemon::start();
    daemon.login();
    daemon.ok("zones add z1");
    daemon.ok("clusters add c1 --zone z1");
    daemon.ok("racks add r1 --zone z1");
    for host in ["n1", "n2", "n10", "login1"] {
        daemon.ok(&format!("hosts add {host} --cluster c1 --rack r1 --driver null"));
    }
    assert_eq!(daemon.ok("pm -l"), "login1,n[1-2,10]\n");
    assert_eq!(daemon.ok("pm -l -x"), "login1\nn1\nn2\nn10\n");
    let (code, said, _) = daemon.run("pm -1 n[1-3] x9 --yes");
    assert_eq!((code, said.as_str()), (209, "No such nodes: n3,x9\n"));
    let (code, said, _) = daemon.run("pm -q");
    assert_eq!(code, 211, "{said}");
    assert!(
        said.starts_with("login1: ")
            && said.ends_with("on:      \noff:     \nunknown: login1,n[1-2,10]\nQuery completed with errors\n"),
        "{said}"
    );
    let (code, said, _) = daemon.run("pm -0 n1");
    assert!(code == 210 && said.ends_with("(host-disabled)\nCommand completed with errors\n"), "{said}");
    daemon.fails("pm n1", 2);
}

#[test]
fn contexts_are_kept_apart() {
    let daemon = Daemon::start();
    daemon.login();
    let token = daemon.folder.path().join("token");
    let again = format!("login {} --token-file {} --ca-hash {} --context two", daemon.url, token.display(), daemon.ca_hash);
    daemon.ok(&again);
    let csv = format!("context,url,current,ca,token\ndefault,{0},no,stored,yes\ntwo,{0},yes,stored,yes\n", daemon.url);
    assert_eq!(daemon.ok("context list -o csv"), csv);
    daemon.ok("context use default");
    assert_eq!(daemon.ok("context show -o name"), "default\n");
    assert_eq!(daemon.ok("context show two -o name"), "two\n");
    daemon.ok("context rm default");
    assert!(daemon.fails("summary", 2).contains("login"), "none is in use");
    daemon.ok("--context two summary");
    assert!(daemon.fails("context rm default", 2).contains("no context"));
    let credentials = daemon.folder.path().join("config/credentials.toml");
    let secret = std::fs::read_to_string(&token).unwrap();
    assert_eq!(std::fs::read_to_string(&credentials).unwrap().matches(secret.trim()).count(), 1);
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&credentials, open).unwrap();
    assert!(daemon.fails("--context two summary", 2).contains("chmod 600"));
}

#[test]
fn problems_are_documents_where_documents_are_asked_for() {
    let daemon = Daemon::start();
    daemon.login();
    let (code, said, _) = daemon.run("api GET /v1/hosts/h9 -o json");
    let problem: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, problem["code"].as_str(), problem["status"].as_u64()), (8, Some("not-found"), Some(404)));
    let (code, said, complaint) = daemon.run("api GET /v1/hosts/h9");
    assert!(code == 8 && said.is_empty() && complaint.contains("[not-found]"), "{complaint}");
}

/// Runs a shell's own program on a text.
fn shell(program: &str, words: &[&str], script: &str) -> (bool, String) {
    let mut child =
        Command::new(program).args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

fn picketctl(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_picketctl")).args(words).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn shells_can_complete() {
    let script = |shell: &str| String::from_utf8(picketctl(&["completion", shell]).stdout).unwrap();
    let bash = script("bash");
    assert_eq!(shell("bash", &["-n"], &bash), (true, String::new()));
    let ask = |words: &str, word: usize| {
        let words = format!(
            "{bash}\nCOMP_WORDS=({words}); COMP_CWORD={word}; \
             _picketctl picketctl \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; echo \"${{COMPREPLY[@]}}\"\n"
        );
        shell("bash", &[], &words).1
    };
    assert_eq!(ask("picketctl pow", 1).trim(), "power");
    assert!(ask("picketctl power ''", 2).contains("on off soft cycle reset status diag"));
    assert!(ask("picketctl hosts list -o ''", 4).contains("folded"));
    assert!(script("zsh").starts_with("#compdef picketctl") && script("fish").contains("complete -c picketctl"));
}

#[test]
fn manual_pages_come_out_right() {
    let dir = tempfile::tempdir().unwrap();
    let made = picketctl(&["man", &dir.path().join("man1").to_string_lossy()]);
    assert!(made.status.success());
    let mut pages: Vec<_> = std::fs::read_dir(dir.path().join("man1")).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    let names: Vec<_> = pages.iter().map(|page| page.file_name().unwrap().to_string_lossy().into_owned()).collect();
    for wanted in ["picketctl.1", "picketctl-power.1", "picketctl-hosts.1", "picketctl-hosts-fold.1"] {
        assert!(names.iter().any(|name| name == wanted), "{wanted}: {names:?}");
    }
    let power = std::fs::read_to_string(dir.path().join("man1/picketctl-power.1")).unwrap();
    assert!(power.contains(".TH") && power.contains("host sets"), "{power}");
    // man-db complains of what groff does not understand.
    let mut man = Command::new("man");
    let man = man
        .args(["--warnings", "-l"])
        .args(&pages)
        .env("MANPAGER", "cat")
        .env("MANWIDTH", "200")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null());
    let shown = man.output().expect("man-db is there");
    let complaints = String::from_utf8_lossy(&shown.stderr).into_owned();
    assert!(shown.status.success() && complaints.is_empty(), "{complaints}");
    assert!(String::from_utf8_lossy(&shown.stdout).contains("Exit codes"));
}

#[test]
fn tokens_are_made_for_somebody_and_revoked() {
    let daemon = Daemon::start();
    daemon.login();
    daemon.ok("zones add z1");
    daemon.ok("clusters add c1 --zone z1");
    let file = daemon.folder.path().join("viewer");
    daemon.ok(&format!("tokens add looker --role viewer --cluster c1 --ttl 7d --out {}", file.display()));
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions()) & 0o777, 0o600);
    let as_looker = |words: &str| daemon.run(&format!("--token-file {} --url {} {words}", file.display(), daemon.url)).0;
    assert_eq!((as_looker("clusters list"), as_looker("zones add z2")), (0, 4));
    let listed = daemon.ok("tokens list -o csv --columns name,role,scope --no-header");
    assert!(listed.lines().any(|line| line == "looker,viewer,cluster c1"), "{listed}");
    let id = daemon.ok("tokens list -o csv --columns token,name --no-header");
    let id = id.lines().find_map(|line| line.strip_suffix(",looker")).unwrap().to_owned();
    daemon.ok(&format!("tokens rm {id}"));
    assert_eq!(as_looker("clusters list"), 4);
    let secret = daemon.ok("tokens add shown --role auditor");
    assert!(secret.starts_with("pkt_") && secret.lines().count() == 1, "{secret}");
}
