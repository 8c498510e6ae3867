//! What is asked beyond power: diagnostic interrupt, light, boot override, facts, logins, passwords.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use picket_agent::bmc::{Answer, Ask, ErrorClass, NOT_SUPPORTED, Reading};
use picket_agent::driver::Driver;
use picket_common::command::{BootDevice, Persistence};
use picket_common::facts::Capability;

use super::server::*;
use super::{ACCEPTED, NOT_IN_THIS_STATE, ON};

const DONE: Result<Answer, picket_agent::bmc::DriverError> = Ok(Answer::Done);
const PXE: Ask = Ask::Bootdev { device: BootDevice::Pxe, persistence: Persistence::Once };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn diag_is_an_nmi_where_it_is_offered() {
    let offered = system_with("\"On\"", r#","ResetType@Redfish.AllowableValues":["On","ForceOff","Nmi"]"#);
    let (server, mut able) = rig(&[], move |seen| if seen.reads_system() { say(200, offered.clone()) } else { None }).await;
    assert_eq!(able.ask(Ask::Diag).await, ACCEPTED);
    assert_eq!(server.last(Seen::resets).body, r#"{"ResetType":"Nmi"}"#);
    let (server, mut unable) = rig(&[], ordinary).await;
    let error = unable.fail(Ask::Diag).await;
    assert_eq!((error.class, error.code.as_str(), error.maybe_sent), (ErrorClass::Refused, NOT_SUPPORTED, false), "{error}");
    assert_eq!(server.count(Seen::resets), 0);
    let offered = system_with("\"Off\"", r#","ResetType@Redfish.AllowableValues":["Nmi"]"#);
    let script = move |seen: &Seen| match () {
        () if seen.reads_system() => say(200, offered.clone()),
        () if seen.resets() => say(409, ""),
        () => None,
    };
    assert_eq!(rig(&[], script).await.1.ask(Ask::Diag).await, NOT_IN_THIS_STATE);
}

/// An order of a host that was taken away between reading and ordering does not go out.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_goes_out_for_a_host_that_was_forgotten_meanwhile() {
    for ask in [Ask::Off, Ask::Reset, Ask::Identify { seconds: 1 }, PXE, Ask::SetPassword] {
        let (open, gate) = mpsc::channel::<()>();
        let (gate, armed) = (Mutex::new(gate), Arc::new(AtomicBool::new(false)));
        let held = Arc::clone(&armed);
        let script = move |seen: &Seen| {
            let last_look = if ask == Ask::SetPassword { seen.path == ACCOUNT } else { seen.reads_system() };
            if last_look && seen.method == "GET" && held.swap(false, Ordering::SeqCst) {
                tokio::task::block_in_place(|| gate.lock().unwrap().recv().unwrap());
            }
            let boot = r#""LocationIndicatorActive":false,"Boot":{"BootSourceOverrideTarget":"None"}"#;
            if seen.reads_system() { say(200, system_and(boot)) } else { None }
        };
        let (server, mut rig) = rig(&[], script).await;
        assert_eq!(rig.ask(Ask::Status).await, ON);
        armed.store(true, Ordering::SeqCst);
        rig.driver.submit(vec![picket_agent::bmc::Job {
            ticket: 9,
            bmc: Arc::new(rig.bmc.clone()),
            ask,
            new_password: Some(picket_common::secret::Secret::new("brand-new".into())),
            timeout: Duration::from_secs(10),
        }]);
        eventually("the BMC is being read", || !armed.load(Ordering::SeqCst)).await;
        rig.driver.forget(&host());
        open.send(()).unwrap();
        let error = rig.answers.recv().await.unwrap().result.unwrap_err();
        assert_eq!((error.code.as_str(), error.maybe_sent), ("forgotten", false), "{ask:?}: {error}");
        assert_eq!(server.count(|seen| seen.resets() || seen.changes()), 0, "{ask:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_light_is_found_where_the_bmc_has_it() {
    let chassis = r#""Links":{"Chassis":[{"@odata.id":"/redfish/v1/Chassis/1"}]}"#;
    for (members, path, on, off) in [
        (
            r#""LocationIndicatorActive":false"#,
            SYSTEM,
            r#"{"LocationIndicatorActive":true}"#,
            r#"{"LocationIndicatorActive":false}"#,
        ),
        (r#""IndicatorLED":"Off""#, SYSTEM, r#"{"IndicatorLED":"Lit"}"#, r#"{"IndicatorLED":"Off"}"#),
        (chassis, "/redfish/v1/Chassis/1", r#"{"IndicatorLED":"Lit"}"#, r#"{"IndicatorLED":"Off"}"#),
    ] {
        let script = move |seen: &Seen| match seen.line().as_str() {
            "GET /redfish/v1/Chassis/1" => say(200, r#"{"IndicatorLED":"Off"}"#),
            _ if seen.reads_system() => say(200, system_and(members)),
            _ => None,
        };
        let (server, mut rig) = rig(&[], script).await;
        for (seconds, body) in [(30, on), (0, off)] {
            assert_eq!(rig.ask(Ask::Identify { seconds }).await, DONE, "{members}");
            let change = server.last(Seen::changes);
            assert_eq!((change.path.as_str(), change.body.as_str()), (path, body));
        }
    }
    let error = rig(&[], ordinary).await.1.fail(Ask::Identify { seconds: 1 }).await;
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Refused, NOT_SUPPORTED));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_climb_the_ladder_of_etags_and_no_further() {
    // What the BMC takes as If-Match, and the tries until then.
    let table: [(&str, &str, &str, &[&str]); 6] = [
        ("\"1\"", "", "\"1\"", &["\"1\""]),
        ("W/\"1\"", "", "\"1\"", &["W/\"1\"", "\"1\""]),
        ("W/\"1\"", "", "", &["W/\"1\"", "\"1\"", ""]),
        ("", "\"2\"", "\"2\"", &["\"2\""]),
        ("\"1\"", "\"2\"", "\"2\"", &["\"1\"", "\"2\""]),
        ("", "", "*", &["", "*"]),
    ];
    for (header, body, taken, tries) in table {
        let script = move |seen: &Seen| {
            if seen.changes() {
                return say(if seen.header("if-match") == taken { 200 } else { 412 }, "{}");
            }
            let body = if body.is_empty() { "null".into() } else { body.replace('"', "\\\"") };
            let members = format!(r#""LocationIndicatorActive":false,"@odata.etag":"{body}""#).replace("\"null\"", "null");
            let tag = if header.is_empty() { String::new() } else { format!("ETag: {header}\r\n") };
            if seen.reads_system() { say_with(200, &tag, &system_and(&members)) } else { None }
        };
        let (server, mut rig) = rig(&[], script).await;
        assert_eq!(rig.ask(Ask::Identify { seconds: 1 }).await, DONE, "{header} {body} {taken}");
        let sent: Vec<String> = server.all(Seen::changes).iter().map(|seen| seen.header("if-match").to_owned()).collect();
        assert_eq!(sent, tries, "{header} {body} {taken}");
    }
    // None is taken: told, after every rung was tried once. Any other refusal ends it at once.
    for (status, tries) in [(412, 2), (428, 2), (400, 1), (500, 1)] {
        let script = move |seen: &Seen| match () {
            () if seen.changes() => say(status, ""),
            () if seen.reads_system() => say_with(200, "ETag: \"1\"\r\n", &system_and(r#""LocationIndicatorActive":false"#)),
            () => None,
        };
        let (server, mut rig) = rig(&[], script).await;
        let error = rig.fail(Ask::Identify { seconds: 1 }).await;
        assert_eq!((error.class, error.code, error.maybe_sent), (ErrorClass::Refused, format!("http-{status}"), status == 500));
        assert_eq!(server.count(Seen::changes), tries, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_boot_override_is_chosen_from_what_is_offered_and_read_back() {
    let boot = |target: &str, enabled: &str| {
        system_and(&format!(
            r#""Boot":{{"BootSourceOverrideTarget":"{target}","BootSourceOverrideEnabled":"{enabled}","BootSourceOverrideTarget@Redfish.AllowableValues":["None","Pxe","Hdd"]}}"#
        ))
    };
    // Taken at once, and taken only after a while.
    for late in [1, 3] {
        let gets = counter();
        let script = move |seen: &Seen| {
            let taken = seen.reads_system() && gets() > late;
            match () {
                () if taken => say(200, boot("Pxe", "Once")),
                () if seen.reads_system() => say(200, boot("None", "Disabled")),
                () => None,
            }
        };
        let (server, mut rig) = rig(&[], script).await;
        assert_eq!(rig.ask(PXE).await, DONE, "late {late}");
        let change = server.last(Seen::changes);
        let body = r#"{"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"Pxe"}}"#;
        assert_eq!((change.path.as_str(), change.body.as_str()), (SYSTEM, body));
        assert_eq!(server.count(Seen::changes), 1);
    }
    // Acknowledged and not done.
    let (server, mut liar) =
        rig(&[], move |seen| if seen.reads_system() { say(200, boot("Hdd", "Continuous")) } else { None }).await;
    let error = liar.fail(PXE).await;
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Refused, "not-taken"), "{error}");
    assert!(error.text.contains("Pxe Once") && error.text.contains("Hdd Continuous"), "{error}");
    let bios = Ask::Bootdev { device: BootDevice::Bios, persistence: Persistence::Once };
    let error = liar.fail(bios).await;
    assert_eq!(error.code, NOT_SUPPORTED, "{error}");
    assert!(error.text.contains("None, Pxe, Hdd"), "{error}");
    assert_eq!(server.count(Seen::changes), 1, "what is not offered is not asked for");
    assert_eq!(rig(&[], ordinary).await.1.fail(PXE).await.code, NOT_SUPPORTED);
    // A lost answer.
    let script = move |seen: &Seen| match () {
        () if seen.changes() => Some(Say::Hangup),
        () if seen.reads_system() => say(200, boot("None", "Disabled")),
        () => None,
    };
    let (server, mut lost) = rig(&[], script).await;
    let error = lost.fail(PXE).await;
    assert_eq!((error.class, error.maybe_sent), (ErrorClass::Connection, true));
    assert_eq!(server.count(Seen::changes), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_is_tried_in_a_session_made_for_it() {
    let (server, mut rig) = rig(&[], ordinary).await;
    assert_eq!(rig.ask(Ask::Status).await, ON);
    assert_eq!(rig.ask(Ask::TryLogin).await, DONE);
    assert_eq!((server.deleted(1), server.count(Seen::logs_in)), (1, 2), "the kept one is closed first");
    assert_eq!(rig.ask(Ask::Status).await, ON);
    assert_eq!(server.last(Seen::reads_system).header("x-auth-token"), "token2", "and the new one is kept");
    assert_eq!(rig.remembered().unwrap().sessions, [format!("{SESSIONS}/2")]);

    let logins = counter();
    let (server, mut refused) = self::rig(&[], move |seen| if seen.logs_in() && logins() > 1 { say(401, "") } else { None }).await;
    assert_eq!(refused.ask(Ask::Status).await, ON);
    assert_eq!(refused.fail(Ask::TryLogin).await.class, ErrorClass::Auth);
    assert_eq!(server.count(Seen::logs_in), 2);

    let (server, mut basic) = self::rig(&[("auth", "basic")], ordinary).await;
    assert_eq!(basic.ask(Ask::TryLogin).await, DONE);
    assert_eq!(
        server.last(|seen| seen.path == "/redfish/v1/Systems").header("authorization"),
        "Basic b3BlcmF0b3I6czNjcmV0LXdvcmQ="
    );
    let refuses = |seen: &Seen| if seen.header("authorization").is_empty() { None } else { say(401, "") };
    let (server, mut refused) = self::rig(&[("auth", "basic")], refuses).await;
    assert_eq!(refused.fail(Ask::TryLogin).await.class, ErrorClass::Auth);
    assert_eq!(server.count(|seen| !seen.header("authorization").is_empty()), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn facts_are_what_the_bmc_tells() {
    let members = r#""Manufacturer":"Maker","Model":"M1","SerialNumber":"S1","PowerRestorePolicy":"AlwaysOn","LocationIndicatorActive":false,
        "Boot":{"BootSourceOverrideTarget":"None"},"Links":{"ManagedBy":[{"@odata.id":"/redfish/v1/Managers/1"}]}"#;
    let script = move |seen: &Seen| match seen.line().as_str() {
        "GET /redfish/v1/Managers/1" => say(200, r#"{"FirmwareVersion":"6.10"}"#),
        _ if seen.reads_system() => say(200, system_and(members)),
        _ => None,
    };
    let (server, mut rig) = rig(&[], script).await;
    assert_eq!(rig.ask(Ask::Status).await, ON);
    let before = picket_agent::clock::boottime();
    let completion = rig.complete(Ask::Inspect, Duration::from_secs(10)).await;
    let Ok(Answer::Facts(facts, Reading::On)) = completion.result else { panic!("{completion:?}") };
    assert!(completion.begun >= before && completion.begun <= picket_agent::clock::boottime());
    assert_eq!(server.lines().last().unwrap(), &format!("GET {SYSTEM}"), "the reading is the last request");
    assert_eq!((server.deleted(1), server.count(Seen::logs_in)), (1, 2), "a session anew");
    assert_eq!(facts.identity.as_deref(), Some("4c4c4544-0042-4410-8057-b4c04f564433"));
    let texts = [&facts.manufacturer, &facts.product, &facts.firmware, &facts.privilege, &facts.protocol];
    let texts = texts.map(|text| text.as_deref().unwrap());
    assert_eq!(texts, ["Maker", "M1", "6.10", "Operator", "Redfish 1.11.0, TLS 1.3, session"]);
    assert_eq!(facts.certificate, Some(hex::encode(server.fingerprint())));
    assert!(facts.latency_us.is_some_and(|latency| latency > 0));
    use Capability::{Bootdev, ChangePassword, Identify, Power, Reset, Soft};
    assert_eq!(facts.capabilities, [Power, Soft, Reset, Identify, Bootdev, ChangePassword]);
    assert_eq!(facts.warnings, ["power-restore-always-on", "identify-has-no-timer"]);
    assert_eq!(facts.quirks, [""; 0]);
    assert!(!format!("{facts:?}").contains("s3cret"));
    // A BMC that tells nothing but its system, over basic authentication and unchecked TLS.
    let bare = |seen: &Seen| match seen.path.as_str() {
        "/redfish/v1/" => say(200, root(false)),
        path if path.starts_with("/redfish/v1/AccountService") => say(404, ""),
        _ => None,
    };
    let (_server, mut bare) = self::rig(&[("tls", "insecure"), ("connection", "close")], bare).await;
    let Ok(Answer::Facts(facts, _)) = bare.ask(Ask::Inspect).await else { panic!() };
    assert_eq!((facts.manufacturer, facts.firmware, facts.privilege), (None, None, None));
    assert_eq!(facts.capabilities, [Power, Soft, Reset]);
    assert_eq!(facts.warnings, ["insecure-tls", "basic-authentication"]);
    assert_eq!(facts.quirks, ["connection-close"]);
    assert_eq!(facts.protocol.as_deref(), Some("Redfish 1.11.0, TLS 1.3, basic"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_set_on_the_account_with_the_logins_name() {
    // Free slots, somebody else's account, one that may not be read, and the own one on the second page.
    let script = |seen: &Seen| match (seen.method.as_str(), seen.path.as_str()) {
        ("GET", ACCOUNTS) => say(
            200,
            format!(
                r#"{{"Members":[{{"@odata.id":"{ACCOUNTS}/1"}},{{"@odata.id":"{ACCOUNTS}/2"}},{{"@odata.id":"{ACCOUNTS}/9"}}],"Members@odata.nextLink":"{ACCOUNTS}?$skip=3"}}"#
            ),
        ),
        ("GET", path) if path.ends_with("?$skip=3") => say(200, members(&[ACCOUNT])),
        ("GET", path) if path.ends_with("/1") && path.starts_with(ACCOUNTS) => say(200, r#"{"UserName":""}"#),
        ("GET", path) if path.ends_with("/2") => say(200, r#"{"UserName":"Operator"}"#),
        ("GET", path) if path.ends_with("/9") => say(403, ""),
        _ => None,
    };
    let (server, mut rig) = rig(&[], script).await;
    assert_eq!(rig.ask(Ask::Status).await, ON);
    assert_eq!(rig.set_password("brand-new").await, DONE);
    let change = server.last(Seen::changes);
    assert_eq!((change.path.as_str(), change.body.as_str()), (ACCOUNT, r#"{"Password":"brand-new"}"#));
    assert_eq!((change.header("if-match"), server.count(Seen::changes)), ("\"a1\"", 1));
    assert_eq!((server.deleted(1), rig.remembered().unwrap().sessions.len()), (1, 0), "the old session is dropped");
    // The login's name nowhere: nothing is set.
    let (server, mut missing) =
        self::rig(&[], |seen| if seen.path == ACCOUNT { say(200, r#"{"UserName":"root"}"#) } else { None }).await;
    let error = missing.set_password("brand-new").await.unwrap_err();
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Setting, "no-such-account"), "{error}");
    assert_eq!(server.count(Seen::changes), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_password_is_told_in_the_bmcs_words() {
    let policy = r#"{"error":{"@Message.ExtendedInfo":[{"MessageId":"Base.1.8.PropertyValueFormatError","Message":"brand-new is too simple, s3cret-word too."}]}}"#;
    for (status, body, class, code, maybe_sent) in [
        (400, policy, ErrorClass::Refused, "password-refused", false),
        (403, "", ErrorClass::Setting, "http-403", false),
        (401, "", ErrorClass::Refused, "http-401", true),
        (405, "", ErrorClass::Refused, NOT_SUPPORTED, false),
        (500, "", ErrorClass::Refused, "http-500", true),
        (503, "", ErrorClass::Refused, "http-503", false),
    ] {
        let (server, mut rig) =
            rig(&[], move |seen| if seen.changes() { say_with(status, "Retry-After: 0\r\n", body) } else { None }).await;
        let error = rig.set_password("brand-new").await.unwrap_err();
        assert_eq!((error.class, error.code.as_str(), error.maybe_sent), (class, code, maybe_sent), "{status}: {error}");
        assert!(!error.text.contains("brand-new") && !error.text.contains("s3cret"), "{error}");
        assert!(status != 400 || error.text.contains("too simple"), "{error}");
        assert_eq!((server.count(Seen::changes), server.count(Seen::logs_in)), (1, 1), "{status}: once, and no new login");
    }
    for say in [|| Say::Hangup, || Say::Silence] {
        let (server, mut lost) = rig(&[], move |seen| if seen.changes() { Some(say()) } else { None }).await;
        let completion = lost.complete_with(Ask::SetPassword, Some("brand-new"), Duration::from_secs(2)).await;
        assert!(completion.result.unwrap_err().maybe_sent);
        assert_eq!(server.count(Seen::changes), 1);
    }
    // Against the limits that the BMC tells, nothing is sent.
    let limits = format!(r#"{{"Accounts":{{"@odata.id":"{ACCOUNTS}"}},"MinPasswordLength":8,"MaxPasswordLength":16}}"#);
    let (server, mut strict) =
        rig(&[], move |seen| if seen.path == "/redfish/v1/AccountService" { say(200, limits.clone()) } else { None }).await;
    for wrong in ["short", "much-too-long-for-it", ""] {
        assert_eq!(strict.set_password(wrong).await.unwrap_err().class, ErrorClass::Setting, "{wrong:?}");
    }
    assert_eq!(server.count(Seen::changes), 0);
    let bare = |seen: &Seen| if seen.path == "/redfish/v1/AccountService" { say(404, "") } else { None };
    assert_eq!(rig(&[], bare).await.1.set_password("brand-new").await.unwrap_err().code, NOT_SUPPORTED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bmc_that_wants_its_password_changed_first_says_where() {
    let first = format!(
        r#"{{"error":{{"@Message.ExtendedInfo":[{{"MessageId":"Base.1.8.PasswordChangeRequired","Message":"Change it.","MessageArgs":["{ACCOUNT}"]}}]}}}}"#
    );
    let foreign = first.replace(ACCOUNT, "https://10.9.9.9/redfish/v1/AccountService/Accounts/3");
    let script = |first: String, shows_account: bool| {
        move |seen: &Seen| match (seen.method.as_str(), seen.path.as_str()) {
            ("GET", "/redfish/v1/") | ("POST" | "PATCH" | "DELETE", _) => None,
            ("GET", ACCOUNT) if shows_account => None,
            _ => say(403, first.clone()),
        }
    };
    for shows_account in [true, false] {
        let (server, mut rig) = rig(&[], script(first.clone(), shows_account)).await;
        let error = rig.fail(Ask::Status).await;
        assert_eq!((error.class, error.code.as_str()), (ErrorClass::Setting, "password-change-required"), "{error}");
        assert_eq!(rig.ask(Ask::TryLogin).await, DONE, "the login itself is good");
        assert_eq!(rig.set_password("brand-new").await, DONE);
        let change = server.last(Seen::changes);
        assert_eq!((change.path.as_str(), change.body.as_str()), (ACCOUNT, r#"{"Password":"brand-new"}"#));
        assert_eq!(change.header("if-match"), if shows_account { "\"a1\"" } else { "" });
    }
    let (server, mut led_away) = rig(&[], script(foreign, true)).await;
    assert!(led_away.set_password("brand-new").await.is_err());
    assert_eq!(server.count(Seen::changes), 0, "a password goes to this BMC alone");
}
