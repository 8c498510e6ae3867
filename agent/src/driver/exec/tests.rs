//! The whole driver with scripts as programs: what they are told, what their ends mean, and that no password shows.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use picket_common::config::parse;
use picket_common::facts::Capability;

use super::*;
use crate::bmc::{Completion, DriverError, Job};
use crate::driver::Driver as _;

/// A password that no other text on the machine holds.
const CANARY: &str = "c4nary-0f-this-test";

/// The program: a file says whether it is on; only who has the password may ask.
const SCRIPT: &str = r#"#!/bin/sh
folder=$1 action=$2 file=$3 user=$4
[ "$(cat "$file")" = "$(cat "$folder/password")" ] || { echo "login refused for $(cat "$file")" >&2; exit 9; }
echo "$user $action" >>"$folder/calls"
sleep 0.2
case "$action" in
  status) cat "$folder/power" ;;
  off|on) [ "$(cat "$folder/power")" != "$action" ] || { echo already >&2; exit 4; }; echo "$action" >"$folder/power" ;;
  reset) echo "no reset with $(cat "$file")" >&2; exit 1 ;;
  test) exit 0 ;;
  setpw) read -r new; printf '%s\n' "$new" >"$folder/password" ;;
  *) echo "$action" ;;
esac
"#;

struct Stand {
    folder: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    driver: Exec,
    answers: mpsc::Receiver<Completion>,
}

impl Stand {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        std::fs::write(&program, SCRIPT).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::write(folder.path().join("power"), "on\n").unwrap();
        std::fs::write(folder.path().join("password"), format!("{CANARY}\n")).unwrap();
        let at = folder.path().display();
        let text = format!(
            "[box]\nprogram = \"{at}/program\"\nargs = [\"{at}\", \"{{action}}\", \"{{password_file}}\", \"{{username}}\"]\nstdin = \"{{new_password}}\\n\"\nreading = {{ on_output = \"on\", off_output = \"off\" }}\nauth = {{ exit = 9 }}\nalready = {{ pattern = \"already\" }}\nactions = {{ status = \"status\", start = \"on\", stop = \"off\", reboot = \"reset\", blink = \"led\", test = \"test\", password = \"setpw\" }}\n\
             [lines]\nfence_agent = \"/bin/cat\"\nset = {{ lanplus = \"1\" }}\nallow = [\"plug\"]\n[slow]\nprogram = \"/bin/sleep\"\nargs = [\"300\", \"{{action}}\"]\nactions = {{ status = \"1\", stop = \"1\" }}\ntimeout = 1\n"
        );
        Self::with(folder, parse("agent.toml", &text).unwrap())
    }

    fn with(folder: tempfile::TempDir, templates: Templates) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (sender, answers) = mpsc::channel();
        let completions: Completions = Arc::new(move |all| all.into_iter().for_each(|one| sender.send(one).unwrap()));
        let allowed = AllowedNetworks { networks: vec!["127.0.0.0/8".parse().unwrap()] };
        let (_, templates) = watch::channel(Arc::new(templates));
        let driver = Exec::new(completions, templates, allowed, Arc::new(Runner::new(8)), runtime.handle().clone());
        Self { folder, runtime, driver, answers }
    }

    fn bmc(&self, template: &str) -> Bmc {
        Bmc {
            host: "h1".parse().unwrap(),
            address: Ipv4Addr::LOCALHOST.to_string(),
            port: Some(7),
            username: "admin".into(),
            password: Secret::new(CANARY.into()),
            options: [("template".to_owned(), template.to_owned())].into(),
            revision: 1,
        }
    }

    fn ask_with(&self, bmc: Bmc, ask: Ask, new_password: Option<&str>) -> Result<Answer, DriverError> {
        let new_password = new_password.map(|password| Secret::new(password.to_owned()));
        let timeout = Duration::from_secs(20);
        self.driver.submit(vec![Job { ticket: 1, bmc: Arc::new(bmc), ask, new_password, timeout }]);
        self.answers.recv_timeout(Duration::from_secs(25)).unwrap().result
    }

    fn ask(&self, ask: Ask) -> Result<Answer, DriverError> {
        self.ask_with(self.bmc("box"), ask, None)
    }

    fn calls(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default()
    }
}

/// Every command line and environment on the machine that shows the canary, but this test's own.
fn shown() -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let files = processes.flat_map(|process| ["cmdline", "environ"].map(|name| process.path().join(name)));
    let seen =
        files.filter(|file| std::fs::read(file).is_ok_and(|text| text.windows(CANARY.len()).any(|w| w == CANARY.as_bytes())));
    seen.map(|file| file.display().to_string()).collect()
}

#[test]
fn a_template_does_everything_and_shows_no_password() {
    let stand = Stand::new();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut seen = Vec::new();
            let mut looks = 0;
            while !done.load(Ordering::SeqCst) {
                seen.extend(shown());
                looks += 1;
            }
            (seen, looks)
        });
        assert_eq!(stand.ask(Ask::Status), Ok(Answer::Reading(Reading::On)));
        assert_eq!(stand.ask(Ask::Off), Ok(Answer::Power(PowerReply::Accepted)));
        assert_eq!(stand.ask(Ask::Off), Ok(Answer::Power(PowerReply::NotInThisState)));
        assert_eq!(stand.ask(Ask::Status), Ok(Answer::Reading(Reading::Off)));
        assert_eq!(stand.ask(Ask::On), Ok(Answer::Power(PowerReply::Accepted)));
        assert_eq!(stand.ask(Ask::Identify { seconds: 5 }), Ok(Answer::Done));
        assert_eq!(stand.ask(Ask::TryLogin), Ok(Answer::Done));
        let Ok(Answer::Facts(facts, Reading::On)) = stand.ask(Ask::Inspect) else { panic!("no facts") };
        assert_eq!(facts.protocol.as_deref(), Some("exec box (program)"));
        use Capability::{ChangePassword, Identify, Power, Reset};
        assert_eq!(facts.capabilities, [Power, Reset, Identify, ChangePassword]);

        let failed = stand.ask(Ask::Reset).unwrap_err();
        assert_eq!((failed.class, failed.code.as_str(), failed.maybe_sent), (ErrorClass::Connection, "exit-1", true));
        assert!(failed.text.contains("no reset with (secret)"), "{}", failed.text);
        let none = stand.ask(Ask::Soft).unwrap_err();
        assert_eq!((none.class, none.code.as_str(), none.maybe_sent), (ErrorClass::Refused, NOT_SUPPORTED, false));
        let wrong = Bmc { password: Secret::new("c4nary-0f-another".into()), ..stand.bmc("box") };
        let refused = stand.ask_with(wrong, Ask::Status, None).unwrap_err();
        assert_eq!((refused.class, refused.code.as_str()), (ErrorClass::Auth, "exit-9"));
        assert!(!refused.text.contains("c4nary"), "{}", refused.text);
        std::fs::write(stand.folder.path().join("power"), "onn\n").unwrap();
        let neither = stand.ask(Ask::Status).unwrap_err();
        assert_eq!((neither.class, neither.code.as_str()), (ErrorClass::Protocol, "neither-on-nor-off"));

        let new = format!("{CANARY} $(x) \"2\"");
        assert_eq!(stand.ask_with(stand.bmc("box"), Ask::SetPassword, Some(&new)), Ok(Answer::Done));
        let changed = Bmc { password: Secret::new(new), ..stand.bmc("box") };
        assert_eq!(stand.ask_with(changed, Ask::TryLogin, None), Ok(Answer::Done));
        assert_eq!(stand.ask(Ask::TryLogin).unwrap_err().class, ErrorClass::Auth);
        done.store(true, Ordering::SeqCst);
        let (seen, looks) = watch.join().unwrap();
        assert!(looks > 50, "it was hardly looked: {looks}");
        assert_eq!(seen, Vec::<String>::new());
    });
    assert!(stand.calls().starts_with("admin status\nadmin off\nadmin off\nadmin status\nadmin on\nadmin led\nadmin test\n"));
}

#[test]
fn a_fence_agent_is_told_line_by_line() {
    let stand = Stand::new();
    let mut bmc = stand.bmc("lines");
    bmc.password = Secret::new("\"quoted\"".into());
    bmc.options.insert("plug".into(), "3".into());
    // `cat` says back what it was told and ends with 0: On for a status, whatever the words.
    assert_eq!(stand.ask_with(bmc.clone(), Ask::Status, None), Ok(Answer::Reading(Reading::On)));
    let set = [("lanplus".to_owned(), "1".to_owned())].into();
    let values = Values {
        bmc: &bmc,
        at: "127.0.0.1:7".parse().unwrap(),
        port: Some(7),
        ask: Ask::Off,
        action: &["off".to_owned()],
        new_password: "",
        files: &BTreeMap::new(),
    };
    let lines = fence_lines(&set, &["plug".into(), "cipher".into()], &values).unwrap();
    let wanted = "action=off\nip=127.0.0.1\nipport=7\nusername=admin\npassword=\"\"quoted\"\"\nlanplus=1\nplug=3\n";
    assert_eq!(String::from_utf8(lines).unwrap(), wanted);
    for (key, value, code) in
        [("plug", "3\npassword=x", "bad-option"), ("plug", "3 --x", "bad-option"), ("debug_file", "/etc/x", "unknown-option")]
    {
        let mut bmc = stand.bmc("lines");
        bmc.options.insert(key.into(), value.into());
        let error = stand.ask_with(bmc, Ask::Status, None).unwrap_err();
        assert_eq!((error.class, error.code.as_str()), (ErrorClass::Setting, code));
    }
}

#[test]
fn what_cannot_work_runs_nothing() {
    let stand = Stand::new();
    let with = |edit: fn(&mut Bmc)| {
        let mut bmc = stand.bmc("box");
        edit(&mut bmc);
        let error = stand.ask_with(bmc, Ask::Off, None).unwrap_err();
        assert_eq!((error.class, error.maybe_sent), (ErrorClass::Setting, false), "{error}");
        format!("{} {}", error.code, error.text)
    };
    for (said, edit) in [
        (
            "unknown-template there is no template \"bax\"; the agent's own file has box, lines, slow",
            (|bmc| {
                bmc.options.insert("template".into(), "bax".into());
            }) as fn(&mut Bmc),
        ),
        ("template-missing", |bmc| bmc.options.clear()),
        ("unknown-option unknown option \"x\"; template box knows template", |bmc| {
            bmc.options.insert("x".into(), "y".into());
        }),
        ("address-not-allowed", |bmc| bmc.address = "10.0.0.1".into()),
        ("value-like-option", |bmc| bmc.username = "--help".into()),
        ("control-character", |bmc| bmc.username = "a\nb".into()),
        ("control-character", |bmc| bmc.password = Secret::new("a\nb".into())),
    ] {
        let told = with(edit);
        assert!(told.starts_with(said), "{told}");
    }
    assert_eq!(stand.calls(), "", "nothing ran");
    assert!(!stand.driver.can_prove(&stand.bmc("box")) && !DESCRIPTOR.can_prove);
}

#[test]
fn a_program_that_hangs_is_ended_in_its_time() {
    let stand = Stand::new();
    let error = stand.ask_with(stand.bmc("slow"), Ask::Off, None).unwrap_err();
    assert_eq!((error.class, error.code.as_str(), error.maybe_sent), (ErrorClass::Deadline, "timeout", true));
    let error = stand.ask_with(stand.bmc("slow"), Ask::Status, None).unwrap_err();
    assert_eq!((error.class, error.code.as_str(), error.maybe_sent), (ErrorClass::Deadline, "timeout", false));
}

#[test]
fn a_queue_that_is_too_long_is_told() {
    let stand = Stand::new();
    let template = Template::clone(
        &parse::<Templates>("a", "[x]\nprogram = \"/bin/sleep\"\nargs = [\"3\", \"{action}\"]\nactions.status = \"0\"\n").unwrap()
            ["x"],
    );
    let stand = Stand::with(stand.folder, [("x".to_owned(), template)].into());
    let jobs = (0..12u32).map(|n| Job {
        ticket: u64::from(n),
        bmc: Arc::new(Bmc { host: format!("h{n}").parse().unwrap(), ..stand.bmc("x") }),
        ask: Ask::Status,
        new_password: None,
        timeout: Duration::from_millis(1500),
    });
    stand.driver.submit(jobs.collect());
    let answers = (0..12).map(|_| stand.answers.recv_timeout(Duration::from_secs(20)).unwrap());
    let errors: Vec<DriverError> = answers.map(|answer| answer.result.unwrap_err()).collect();
    assert!(errors.iter().all(|error| error.class == ErrorClass::Deadline && !error.maybe_sent), "{errors:?}");
    let with = |code: &str| errors.iter().filter(|error| error.code == code).count();
    // Hosts that never answered share three places of eight.
    assert!(with("queued") >= 3 && with("timeout") >= 3, "{errors:?}");
}

#[test]
fn after_the_end_nothing_runs() {
    let stand = Stand::new();
    stand.runtime.block_on(stand.driver.shutdown());
    let error = stand.ask(Ask::Off).unwrap_err();
    assert_eq!(error.code, crate::bmc::SHUTTING_DOWN);
    assert_eq!(stand.calls(), "");
}
