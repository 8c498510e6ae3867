//! The Redfish driver against a scripted HTTPS server: what a BMC may do to it, and what it may never do to a BMC.

#[cfg(test)]
mod changes;
#[cfg(test)]
mod server;

use std::sync::Arc;
use std::time::Duration;

use picket_agent::bmc::{Answer, Ask, Bmc, DriverError, ErrorClass, Job, PowerReply, Reading};
use picket_agent::clock;
use picket_agent::driver::Driver;
use picket_agent::driver::redfish::{Memory, RedfishMemory};
use server::*;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

const ON: Result<Answer, DriverError> = Ok(Answer::Reading(Reading::On));
const ACCEPTED: Result<Answer, DriverError> = Ok(Answer::Power(PowerReply::Accepted));
const NOT_IN_THIS_STATE: Result<Answer, DriverError> = Ok(Answer::Power(PowerReply::NotInThisState));

// ---- the ordinary course

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_is_one_get_on_a_kept_connection() {
    let (server, mut rig) = rig(&[], ordinary).await;
    let before = clock::boottime();
    let completion = rig.complete(Ask::Status, Duration::from_secs(10)).await;
    assert_eq!(completion.result, ON);
    assert!(completion.begun >= before && completion.begun <= clock::boottime());
    let first = server.lines();
    let login = format!("POST {SESSIONS}");
    assert_eq!(first, ["GET /redfish/v1/", &login, "GET /redfish/v1/Systems", "GET /redfish/v1/Systems/1"]);
    let login = server.last(Seen::logs_in);
    assert_eq!(login.body, r#"{"Password":"s3cret-word","UserName":"operator"}"#);
    assert_eq!(login.header("authorization"), "");
    for _ in 0..5 {
        assert_eq!(rig.ask(Ask::Status).await, ON);
    }
    assert_eq!(server.lines().len(), first.len() + 5, "one request a poll");
    assert_eq!(server.connected(), 1, "one connection");
    let poll = server.last(Seen::reads_system);
    assert_eq!(poll.header("x-auth-token"), "token1");
    assert_eq!(poll.header("host"), server.address.to_string());
    assert_eq!(poll.header("accept-encoding"), "identity");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t21_off_is_force_off_on_the_wire_and_never_graceful() {
    let (server, mut rig) = rig(&[], ordinary).await;
    for (ask, reset_type) in
        [(Ask::On, "On"), (Ask::Off, "ForceOff"), (Ask::Soft, "GracefulShutdown"), (Ask::Reset, "ForceRestart")]
    {
        assert_eq!(rig.ask(ask).await, ACCEPTED);
        assert_eq!(server.last(Seen::resets).body, format!(r#"{{"ResetType":"{reset_type}"}}"#));
    }
    assert_eq!(server.count(Seen::resets), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t20_powering_off_is_neither_off_nor_on() {
    let states = ["\"Off\"", "\"PoweringOn\"", "\"PoweringOff\"", "\"Paused\"", "null", "\"Reset\"", "7"];
    let next = counter();
    let (_server, mut rig) =
        rig(&[], move |seen| if seen.reads_system() { say(200, system(states[next() - 1])) } else { None }).await;
    assert_eq!(rig.ask(Ask::Status).await, Ok(Answer::Reading(Reading::Off)));
    for _ in 0..3 {
        assert_eq!(rig.ask(Ask::Status).await, Ok(Answer::Reading(Reading::Transitioning)));
    }
    for code in ["no-power-state", "unknown-power-state", "no-power-state"] {
        let error = rig.fail(Ask::Status).await;
        assert_eq!((error.class, error.code.as_str()), (ErrorClass::Protocol, code), "{error}");
    }
}

/// Whatever goes wrong while the state is read, the answer is an error and never a state.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t15_errors_are_never_off() {
    let off = system("\"Off\"");
    let cut = off[..off.len() - 3].to_owned();
    let bodies = [
        (200, cut, true),
        (200, "Off".into(), true),
        (200, "{}".into(), true),
        (200, "[]".into(), true),
        (200, String::new(), true),
        (500, off.clone(), true),
        (503, off.clone(), true),
        (404, off.clone(), true),
        (403, off.clone(), true),
        (302, off.clone(), true),
        (200, off, false),
    ];
    let next = counter();
    let answers = bodies.clone();
    let script = move |seen: &Seen| {
        let (status, body, _) = if seen.reads_system() { answers[next() - 1].clone() } else { return None };
        say(status, body)
    };
    let (_server, mut rig) = rig(&[("system", SYSTEM)], script).await;
    for (status, body, fails) in bodies {
        let answer = rig.ask(Ask::Status).await;
        assert_eq!(answer.is_err(), fails, "{status} {body}: {answer:?}");
    }
    let (_server, mut hung) = self::rig(&[], |seen| if seen.reads_system() { Some(Say::Hangup) } else { None }).await;
    assert_eq!(hung.fail(Ask::Status).await.class, ErrorClass::Connection);
}

/// A BMC that is unplugged in mid-session is an error within the time given to the poll.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t11_an_unplugged_bmc_is_an_error_in_time() {
    let gets = counter();
    let (_server, mut rig) = rig(&[], move |seen| if seen.reads_system() && gets() > 1 { Some(Say::Silence) } else { None }).await;
    assert_eq!(rig.ask(Ask::Status).await, ON);
    let before = clock::boottime();
    let error = rig.complete(Ask::Status, Duration::from_secs(2)).await.result.unwrap_err();
    assert_eq!((error.class, error.maybe_sent), (ErrorClass::Deadline, false), "{error}");
    assert!(clock::boottime() - before < Duration::from_secs(4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forget_deletes_the_session_and_the_memory() {
    let (server, mut rig) = rig(&[], ordinary).await;
    assert_eq!(rig.ask(Ask::Status).await, ON);
    let memory = rig.remembered().unwrap();
    assert_eq!(memory.sessions, [format!("{SESSIONS}/1")]);
    assert_eq!(memory.pin, Some(server.fingerprint()));
    assert_eq!(memory.system.unwrap().path, SYSTEM);
    rig.driver.forget(&host());
    eventually("session deleted", || server.deleted(1) == 1).await;
    eventually("memory dropped", || rig.remembered().is_none()).await;
    assert_eq!(server.last(|seen| seen.method == "DELETE").header("connection"), "close");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_deletes_sessions_even_beside_a_dead_bmc() {
    let (server, mut rig) = rig(&[], ordinary).await;
    assert_eq!(rig.ask(Ask::Status).await, ON);
    let dead = Server::start(Identity::self_signed(), Box::new(|_| Some(Say::Silence))).await;
    let other = Bmc { host: "h2".parse().unwrap(), port: Some(dead.address.port()), ..rig.bmc.clone() };
    rig.driver.submit(vec![Job {
        ticket: 8,
        bmc: Arc::new(other),
        ask: Ask::Status,
        new_password: None,
        timeout: Duration::from_secs(60),
    }]);
    eventually("the dead BMC was asked", || !dead.lines().is_empty()).await;
    tokio::time::timeout(Duration::from_millis(2500), rig.driver.shutdown()).await.unwrap();
    assert_eq!(server.deleted(1), 1);
    assert_eq!(rig.remembered().unwrap().sessions, Vec::<String>::new());
    let late = tokio::time::timeout(Duration::from_secs(5), rig.answers.recv()).await.unwrap().unwrap();
    assert_eq!((late.ticket, late.result.unwrap_err().class), (8, ErrorClass::Connection));
    let after = rig.fail(Ask::Off).await;
    assert_eq!((after.class, after.code.as_str(), after.maybe_sent), (ErrorClass::Connection, "shutting-down", false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_crash_the_old_session_is_deleted_unless_it_is_anothers() {
    let script = |seen: &Seen| {
        let user = if seen.path.ends_with("/77") { "somebody" } else { "operator" };
        if seen.method == "GET" && seen.path.starts_with(SESSIONS) { say(200, format!(r#"{{"UserName":"{user}"}}"#)) } else { None }
    };
    let (server, first) = rig(&[], script).await;
    let mut memory = RedfishMemory::new(server.address.to_string());
    memory.pin = Some(server.fingerprint());
    memory.sessions = vec![format!("{SESSIONS}/77"), format!("{SESSIONS}/78")];
    first.memory.store(&host(), &memory);
    let mut rig = Rig::with(server.address, &[], &first.memory, Vec::new());
    assert_eq!(rig.ask(Ask::Status).await, ON);
    assert_eq!(server.deleted(78), 1);
    assert_eq!(server.deleted(77), 0, "its name belongs to another now");
    assert_eq!(rig.remembered().unwrap().sessions, [format!("{SESSIONS}/1")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_settings_mean_a_new_session() {
    let (server, mut rig) = rig(&[], ordinary).await;
    assert_eq!(rig.ask(Ask::Status).await, ON);
    rig.bmc.revision = 2;
    assert_eq!(rig.ask(Ask::Status).await, ON);
    assert_eq!(server.deleted(1), 1);
    assert_eq!(server.last(Seen::reads_system).header("x-auth-token"), "token2");
    assert_eq!(server.connected(), 2, "nothing of the old contact is used again");
}

// ---- logging in

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn basic_only_where_there_is_no_session_service() {
    for status in [404, 405, 501] {
        let (server, mut rig) = rig(&[], move |seen| if seen.logs_in() { say(status, "") } else { None }).await;
        assert_eq!(rig.ask(Ask::Status).await, ON, "{status}");
        assert_eq!(rig.ask(Ask::Status).await, ON, "{status}");
        assert_eq!(server.last(Seen::reads_system).header("authorization"), "Basic b3BlcmF0b3I6czNjcmV0LXdvcmQ=");
        assert_eq!(server.count(Seen::logs_in), 1, "found out once");
    }
    let (server, mut rig) = rig(&[], |seen| if seen.path == "/redfish/v1/" { say(200, root(false)) } else { None }).await;
    assert_eq!(rig.ask(Ask::Status).await, ON);
    assert_eq!(server.count(Seen::logs_in), 0);
    assert_eq!(
        server.last(|seen| seen.path == "/redfish/v1/").header("authorization"),
        "",
        "no credentials before they are needed"
    );
    let mut strict = Rig::new(server.address, &[("auth", "session")]);
    assert_eq!(strict.fail(Ask::Status).await.code, "no-session-service");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_login_is_tried_once() {
    let echo = r#"{"error":{"@Message.ExtendedInfo":[{"MessageId":"Base.1.8.X","Message":"wrong: s3cret-word"}]}}"#;
    let (server, mut session) = rig(&[], move |seen| if seen.logs_in() { say(401, echo) } else { None }).await;
    let error = session.fail(Ask::Status).await;
    assert_eq!((error.class, error.maybe_sent), (ErrorClass::Auth, false));
    assert!(error.text.contains("wrong: …") && !error.text.contains("s3cret"), "{error}");
    assert_eq!(server.count(Seen::logs_in), 1);
    let (server, mut basic) =
        rig(&[("auth", "basic")], |seen| if seen.path.contains("Systems") { say(401, "") } else { None }).await;
    assert_eq!(basic.fail(Ask::Off).await.class, ErrorClass::Auth);
    assert_eq!(server.count(|seen| seen.path.contains("Systems")), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_session_is_renewed_once() {
    let stale = |seen: &Seen| if seen.reads_system() && seen.header("x-auth-token") == "token1" { say(401, "") } else { None };
    let (server, mut renewed) = rig(&[], stale).await;
    assert_eq!(renewed.fail(Ask::Status).await.class, ErrorClass::Auth);
    assert_eq!(server.count(Seen::logs_in), 1, "a session made in this job is not expired: no second login");
    assert_eq!(renewed.ask(Ask::Status).await, ON);
    assert_eq!(server.count(Seen::logs_in), 2);

    let gets = counter();
    let (server, mut lost) = rig(&[], move |seen| if seen.reads_system() && gets() > 1 { say(401, "") } else { None }).await;
    assert_eq!(lost.ask(Ask::Status).await, ON);
    assert_eq!(lost.fail(Ask::Status).await.class, ErrorClass::Auth);
    assert_eq!(server.count(Seen::logs_in), 2, "one attempt more, then Auth");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_survives_an_expired_session() {
    let gets = counter();
    let (server, mut rig) = rig(&[], move |seen| if seen.reads_system() && gets() == 2 { say(401, "") } else { None }).await;
    assert_eq!(rig.ask(Ask::Status).await, ON);
    assert_eq!(rig.ask(Ask::Reset).await, ACCEPTED);
    assert_eq!(server.count(Seen::resets), 1);
    assert_eq!(server.last(Seen::resets).header("x-auth-token"), "token2");
    assert_eq!(rig.remembered().unwrap().sessions, [format!("{SESSIONS}/2")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_all_sessions_in_use_an_order_goes_by_basic() {
    let full = r#"{"error":{"@Message.ExtendedInfo":[{"MessageId":"Base.1.8.SessionLimitExceeded","Message":"full"}]}}"#;
    let (server, mut rig) = rig(&[], move |seen| if seen.logs_in() { say(503, full) } else { None }).await;
    let error = rig.fail(Ask::Status).await;
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Refused, "sessions-used-up"));
    assert_eq!(rig.ask(Ask::Off).await, ACCEPTED);
    assert!(server.last(Seen::resets).header("authorization").starts_with("Basic "));
    assert_eq!(rig.fail(Ask::Status).await.code, "sessions-used-up", "polls go on asking for a session");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_login_outlives_its_job() {
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let (server, mut rig) = rig(&[], move |seen| {
        if seen.logs_in() {
            tokio::task::block_in_place(|| gate.lock().unwrap().recv().unwrap());
        }
        None
    })
    .await;
    let error = rig.complete(Ask::Status, Duration::from_millis(500)).await.result.unwrap_err();
    assert_eq!((error.class, error.maybe_sent), (ErrorClass::Deadline, false));
    assert!(error.text.contains("logging in"), "{error}");
    open.send(()).unwrap();
    assert_eq!(rig.ask(Ask::Status).await, ON);
    assert_eq!(server.count(Seen::logs_in), 1, "no second session while one is in the making");
}

/// What a BMC counts as refused logins: one at most for each job, however it is logged in to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_costs_one_refused_login_at_most() {
    let full = r#"{"error":{"@Message.ExtendedInfo":[{"MessageId":"Base.1.8.SessionLimitExceeded"}]}}"#;
    let refused = |seen: &Seen| seen.header("authorization").starts_with("Basic ") || seen.logs_in();
    for (options, login) in [(&[][..], 401), (&[], 403), (&[], 400), (&[("auth", "basic")], 401), (&[], 503)] {
        // With all sessions in use the BMC does not look at the password of a session's POST; basic authentication is refused.
        let script = move |seen: &Seen| match seen.header("authorization") {
            "" if seen.logs_in() => say(login, if login == 503 { full } else { "" }),
            "" => None,
            _ => say(401, ""),
        };
        for ask in [Ask::Status, Ask::Off, Ask::TryLogin, Ask::Inspect, Ask::SetPassword, Ask::Identify { seconds: 1 }] {
            let (server, first) = rig(options, script).await;
            let mut memory = RedfishMemory::new(server.address.to_string());
            memory.pin = Some(server.fingerprint());
            memory.sessions = vec![format!("{SESSIONS}/77"), format!("{SESSIONS}/78")];
            first.memory.store(&host(), &memory);
            let mut rig = Rig::with(server.address, options, &first.memory, Vec::new());
            let error = rig.complete_with(ask, Some("new"), Duration::from_secs(10)).await.result.unwrap_err();
            assert_eq!(error.class, ErrorClass::Auth, "{options:?} {login} {ask:?}: {error}");
            let counted = server.count(|seen| refused(seen) && !(login == 503 && seen.logs_in()));
            assert_eq!(counted, 1, "{options:?} {login} {ask:?}: {:?}", server.lines());
        }
    }
}

// ---- refusals

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_refused_order_means() {
    let unsupported =
        r#"{"error":{"@Message.ExtendedInfo":[{"MessageId":"Base.1.8.ActionParameterNotSupported","Message":"no"}]}}"#;
    let ilo = r#"{"error":{"@Message.ExtendedInfo":[{"MessageArgs":["Power is off"],"MessageID":"iLO.0.10.InvalidOperationForSystemState"}]}}"#;
    let failed = |class, maybe_sent| Some((class, maybe_sent));
    for (status, body, accepted, expected) in [
        (200, "", true, None),
        (202, "{}", true, None),
        (409, "", false, None),
        (400, ilo, false, None),
        (400, "", false, None),
        (400, unsupported, false, failed(ErrorClass::Refused, false)),
        (403, "", false, failed(ErrorClass::Setting, false)),
        (404, "", false, failed(ErrorClass::Refused, false)),
        (500, "", false, failed(ErrorClass::Refused, true)),
        (501, "", false, failed(ErrorClass::Refused, false)),
        (503, "", false, failed(ErrorClass::Refused, false)),
        (302, "", false, failed(ErrorClass::Protocol, false)),
    ] {
        let (server, mut rig) = rig(&[], move |seen| if seen.resets() { say(status, body) } else { None }).await;
        let answer = rig.ask(Ask::Off).await;
        match expected {
            None => assert_eq!(answer, if accepted { ACCEPTED } else { NOT_IN_THIS_STATE }, "{status} {body}"),
            Some((class, maybe_sent)) => {
                let error = answer.unwrap_err();
                assert_eq!(
                    (error.class, error.code, error.maybe_sent),
                    (class, format!("http-{status}"), maybe_sent),
                    "{status} {body}"
                );
            }
        }
        assert_eq!(server.count(Seen::resets), 1, "{status}: never twice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_after_is_honoured_within_the_deadline() {
    let gets = counter();
    let busy = move |seen: &Seen| if seen.reads_system() && gets() == 1 { say_with(503, "Retry-After: 1\r\n", "") } else { None };
    let (server, mut patient) = rig(&[], busy).await;
    let before = clock::boottime();
    let completion = patient.complete(Ask::Status, Duration::from_secs(10)).await;
    assert_eq!(completion.result, ON);
    assert!(completion.begun >= before + Duration::from_secs(1), "a reading is as young as its own request");
    assert_eq!(server.count(Seen::reads_system), 2);

    let (server, mut hasty) =
        rig(&[], |seen| if seen.reads_system() { say_with(503, "Retry-After: 20\r\n", "") } else { None }).await;
    let error = hasty.fail(Ask::Status).await;
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Refused, "http-503"));
    assert_eq!(server.count(Seen::reads_system), 1, "no waiting beyond the deadline");

    // A reset is not repeated even then; an off is, after a read between.
    for (ask, posts) in [(Ask::Reset, 1), (Ask::Soft, 1), (Ask::Off, 2), (Ask::On, 2)] {
        let first = counter();
        let busy = move |seen: &Seen| if seen.resets() && first() == 1 { say_with(503, "Retry-After: 0\r\n", "") } else { None };
        let (server, mut rig) = rig(&[], busy).await;
        assert_eq!(rig.ask(ask).await.is_ok(), posts == 2, "{ask:?}");
        assert_eq!((server.count(Seen::resets), server.count(Seen::reads_system)), (posts, posts), "{ask:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_offered_reset_types_are_asked_for() {
    let odd = r#","ResetType@Redfish.AllowableValues":["ForceOn","GracefulShutdown","PowerCycle"]"#;
    let (server, mut rig) =
        rig(&[], move |seen| if seen.reads_system() { say(200, system_with("\"On\"", odd)) } else { None }).await;
    let error = rig.fail(Ask::Off).await;
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Refused, "reset-type-not-offered"));
    assert!(error.text.contains("ForceOn, GracefulShutdown, PowerCycle"), "{error}");
    assert_eq!(rig.fail(Ask::Reset).await.class, ErrorClass::Refused);
    assert_eq!(server.count(Seen::resets), 0);
    assert_eq!(rig.ask(Ask::On).await, ACCEPTED);
    assert_eq!(server.last(Seen::resets).body, r#"{"ResetType":"ForceOn"}"#);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn action_info_is_read_once() {
    let info = "/redfish/v1/Systems/1/ResetActionInfo";
    let script = move |seen: &Seen| {
        if seen.path == info {
            return say(200, r#"{"Parameters":[{"Name":"ResetType","AllowableValues":["On","ForceRestart"]}]}"#);
        }
        let action = format!(r#","@Redfish.ActionInfo":"{info}""#);
        if seen.reads_system() { say(200, system_with("\"On\"", &action)) } else { None }
    };
    let (server, mut rig) = rig(&[], script).await;
    assert_eq!(rig.ask(Ask::Reset).await, ACCEPTED);
    assert_eq!(rig.fail(Ask::Off).await.code, "reset-type-not-offered");
    assert_eq!(rig.ask(Ask::On).await, ACCEPTED);
    assert_eq!(server.count(|seen| seen.path == info), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_system_does_not_stop_an_off() {
    let gets = counter();
    let (_server, mut rig) = rig(&[], move |seen| if seen.reads_system() && gets() > 1 { say(500, "") } else { None }).await;
    assert_eq!(rig.ask(Ask::Status).await, ON);
    assert_eq!(rig.ask(Ask::Off).await, ACCEPTED);
    assert_eq!(rig.fail(Ask::Status).await.code, "http-500");
}

// ---- which system

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_several_systems_must_be_named() {
    let script = |seen: &Seen| match seen.path.as_str() {
        "/redfish/v1/Systems/blade-a" => say_with(307, "Location: /redfish/v1/Systems/1\r\n", ""),
        "/redfish/v1/Systems" => say(200, members(&["/redfish/v1/Systems/2", SYSTEM])),
        _ => None,
    };
    let (server, mut unnamed) = rig(&[], script).await;
    let error = unnamed.fail(Ask::Status).await;
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Setting, "several-systems"));
    assert!(error.text.contains("/redfish/v1/Systems/1, /redfish/v1/Systems/2"), "{error}");
    for named in ["1", SYSTEM, "blade-a"] {
        let mut rig = Rig::new(server.address, &[("system", named)]);
        assert_eq!(rig.ask(Ask::Status).await, ON, "{named}");
        let before = server.lines().len();
        assert_eq!(rig.ask(Ask::Status).await, ON, "{named}");
        assert_eq!(server.lines()[before..], [format!("GET {SYSTEM}")], "{named}: the path is remembered");
    }
    let error = Rig::new(server.address, &[("system", "9")]).fail(Ask::Status).await;
    assert_eq!(error.class, ErrorClass::Setting);
    assert!(error.text.contains("there are /redfish/v1/Systems/1"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_machine_behind_the_same_address_is_noticed() {
    let gets = counter();
    let script = move |seen: &Seen| {
        let other = system("\"Off\"").replace("4C4C4544", "DEADBEEF");
        if seen.reads_system() && gets() > 1 { say(200, other) } else { None }
    };
    let (server, mut rig) = rig(&[], script).await;
    assert_eq!(rig.ask(Ask::Status).await, ON);
    for ask in [Ask::Status, Ask::Off] {
        let error = rig.fail(ask).await;
        assert_eq!((error.class, error.code.as_str()), (ErrorClass::Setting, "system-changed"));
    }
    assert_eq!(server.count(Seen::resets), 0, "a stranger is not switched off");
}

// ---- hostile and broken BMCs

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_to_an_order_is_not_asked_for_again() {
    for ask in [Ask::Off, Ask::Reset] {
        let (server, mut cut) = rig(&[], |seen| if seen.resets() { Some(Say::Hangup) } else { None }).await;
        let error = cut.fail(ask).await;
        assert_eq!((error.class, error.maybe_sent), (ErrorClass::Connection, true), "{error}");
        assert_eq!(server.count(Seen::resets), 1);
        let (server, mut silent) = rig(&[], |seen| if seen.resets() { Some(Say::Silence) } else { None }).await;
        let error = silent.complete(ask, Duration::from_secs(2)).await.result.unwrap_err();
        assert_eq!((error.class, error.maybe_sent), (ErrorClass::Deadline, true), "{error}");
        assert_eq!(server.count(Seen::resets), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_closed_under_a_get_is_reopened_once() {
    let gets = counter();
    let (server, mut flaky) = rig(&[], move |seen| if seen.reads_system() && gets() == 2 { Some(Say::Hangup) } else { None }).await;
    assert_eq!(flaky.ask(Ask::Status).await, ON);
    assert_eq!(flaky.ask(Ask::Status).await, ON);
    assert_eq!(server.count(Seen::logs_in), 1, "the session lives on");
    let (server, mut gone) = rig(&[], |seen| if seen.reads_system() { Some(Say::Hangup) } else { None }).await;
    let error = gone.fail(Ask::Status).await;
    assert_eq!((error.class, error.maybe_sent), (ErrorClass::Connection, false));
    assert_eq!(server.count(Seen::reads_system), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_bounded() {
    let (_server, mut endless) = rig(&[], |seen| if seen.reads_system() { Some(Say::Endless) } else { None }).await;
    let error = endless.fail(Ask::Status).await;
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Protocol, "body-too-big"));
    let (_server, mut accepted) = rig(&[], |seen| if seen.resets() { Some(Say::Endless) } else { None }).await;
    assert_eq!(accepted.ask(Ask::Off).await, ACCEPTED, "an accepted order stays accepted, whatever the body does");
    let huge = format!("{}{}", root(true), " ".repeat(2 << 20));
    let (_server, mut huge) = rig(&[], move |seen| if seen.path == "/redfish/v1/" { say(200, huge.clone()) } else { None }).await;
    assert_eq!(huge.fail(Ask::Status).await.code, "body-too-big");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_stay_on_the_host() {
    let victim = Server::start(Identity::self_signed(), Box::new(ordinary)).await;
    let away = format!("Location: https://{}{SYSTEM}\r\n", victim.address);
    for status in [301, 302, 307, 308] {
        let away = away.clone();
        let (_server, mut rig) = rig(&[], move |seen| if seen.reads_system() { say_with(status, &away, "") } else { None }).await;
        let error = rig.fail(Ask::Status).await;
        assert_eq!((error.class, error.code.as_str()), (ErrorClass::Protocol, "redirect-refused"), "{error}");
    }
    let (_server, mut post) = rig(&[], move |seen| if seen.method == "POST" { say_with(308, &away, "") } else { None }).await;
    assert_eq!(post.fail(Ask::Off).await.class, ErrorClass::Protocol);
    assert_eq!(victim.connected(), 0, "not even a connection");

    let ring = format!("Location: {SYSTEM}\r\n");
    let (server, mut ring) = rig(&[], move |seen| if seen.reads_system() { say_with(307, &ring, "") } else { None }).await;
    assert_eq!(ring.fail(Ask::Status).await.code, "redirect-refused");
    assert_eq!(server.count(Seen::reads_system), 3, "a ring of redirects is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trailing_slash_is_followed() {
    let script = |seen: &Seen| match (seen.method.as_str(), seen.path.trim_end_matches('/')) {
        (_, SYSTEM | RESET) if !seen.path.ends_with('/') => say_with(308, &format!("Location: {}/\r\n", seen.path), ""),
        ("GET", SYSTEM) => say(200, system("\"On\"")),
        ("POST", RESET) => say(204, ""),
        _ => None,
    };
    let (server, mut rig) = rig(&[], script).await;
    assert_eq!(rig.ask(Ask::Off).await, ACCEPTED);
    assert_eq!(server.count(|seen| seen.path == format!("{RESET}/")), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_to_other_hosts_are_no_links() {
    let foreign = system("\"On\"").replace(RESET, "https://10.9.9.9/x");
    let (server, mut rig) = rig(&[], move |seen| if seen.reads_system() { say(200, foreign.clone()) } else { None }).await;
    assert_eq!(rig.fail(Ask::Off).await.code, "no-reset-action");
    assert_eq!(server.count(|seen| seen.method == "POST"), 1, "nothing but the login");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hung_bmcs_cost_the_others_nothing() {
    let hung = Server::start(Identity::self_signed(), Box::new(|_| Some(Say::Silence))).await;
    let (_server, mut rig) = rig(&[], ordinary).await;
    assert_eq!(rig.ask(Ask::Status).await, ON);
    let jobs = (0..600).map(|n| {
        let bmc = Bmc { host: format!("hung{n}").parse().unwrap(), port: Some(hung.address.port()), ..rig.bmc.clone() };
        Job { ticket: 1000 + n, bmc: Arc::new(bmc), ask: Ask::Status, new_password: None, timeout: Duration::from_secs(60) }
    });
    rig.driver.submit(jobs.collect());
    eventually("the hung BMCs hold their places", || hung.connected() >= 100).await;
    for ask in [Ask::Status, Ask::Status, Ask::Off] {
        assert!(rig.ask(ask).await.is_ok(), "{ask:?}");
    }
}

// ---- trust

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_certificate_is_the_only_one() {
    let (server, mut first) = rig(&[("connection", "close")], ordinary).await;
    assert_eq!(first.ask(Ask::Status).await, ON);
    let old = hex::encode(server.fingerprint());
    *server.identity.lock().unwrap() = Identity::self_signed();
    let new = hex::encode(server.fingerprint());
    let before = server.lines().len();
    // The same process, and one after a restart.
    let mut restarted = Rig::with(server.address, &[], &first.memory, Vec::new());
    for rig in [&mut first, &mut restarted] {
        let error = rig.fail(Ask::Off).await;
        assert_eq!((error.class, error.code.as_str(), error.maybe_sent), (ErrorClass::Setting, "certificate-changed", false));
        assert!(error.text.contains(&old) && error.text.contains(&new), "{error}");
    }
    assert_eq!(server.lines().len(), before, "not one byte of HTTP to a stranger");
    for (pin, good) in [(&new, true), (&old, false)] {
        let mut named = Rig::with(server.address, &[("pin", pin)], &first.memory, Vec::new());
        assert_eq!(named.ask(Ask::Status).await.is_ok(), good);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pin_belongs_to_the_address() {
    let (_server, mut rig) = rig(&[], ordinary).await;
    assert_eq!(rig.ask(Ask::Status).await, ON);
    let other = Server::start(Identity::self_signed(), Box::new(ordinary)).await;
    rig.bmc.port = Some(other.address.port());
    rig.bmc.revision = 2;
    assert_eq!(rig.ask(Ask::Status).await, ON);
    assert_eq!(rig.remembered().unwrap().pin, Some(other.fingerprint()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ca_means_this_ca_and_this_address() {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(params, ca_key);
    let issue = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        Identity::new(&certificate, &key)
    };
    let roots = vec![ca.der().to_vec()];
    for (identity, roots, code) in [
        (issue("127.0.0.1"), roots.clone(), None),
        (issue("127.0.0.2"), roots.clone(), Some("certificate-untrusted")),
        (Identity::self_signed(), roots.clone(), Some("certificate-untrusted")),
        (issue("127.0.0.1"), Vec::new(), Some("no-ca")),
    ] {
        let server = Server::start(identity, Box::new(ordinary)).await;
        let mut rig = Rig::with(server.address, &[("tls", "ca")], &Arc::default(), roots);
        assert_eq!(rig.ask(Ask::Status).await.err().map(|error| error.code), code.map(str::to_owned));
    }
    let server = Server::start(Identity::self_signed(), Box::new(ordinary)).await;
    let mut insecure = Rig::new(server.address, &[("tls", "insecure")]);
    assert_eq!(insecure.ask(Ask::Status).await, ON);
    assert_eq!(insecure.remembered().unwrap().pin, None, "nothing is pinned that was not asked to be");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_are_refused_before_the_first_byte() {
    let (server, mut rig) = rig(&[("tsl", "ca")], ordinary).await;
    let error = rig.fail(Ask::Status).await;
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Setting, "unknown-option"));
    rig.bmc.options.clear();
    for address in ["10.255.255.1", "[::1]"] {
        rig.bmc.address = address.into();
        rig.bmc.revision += 1;
        let error = rig.fail(Ask::Status).await;
        assert_eq!((error.class, error.code.as_str()), (ErrorClass::Setting, "address-not-allowed"), "{address}");
    }
    assert_eq!(server.connected(), 0);
    // A name is judged by what it resolves to: of localhost's addresses only the IPv4 one is allowed here.
    rig.bmc.address = "localhost".into();
    rig.bmc.revision += 1;
    assert_eq!(rig.ask(Ask::Status).await, ON);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_without_tls_is_told() {
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = plain.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = plain.accept().await.unwrap();
            socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            tokio::spawn(async move { tokio::io::copy(&mut socket, &mut tokio::io::sink()).await });
        }
    });
    assert_eq!(Rig::new(address, &[]).fail(Ask::Status).await.code, "not-tls");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_there() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = Rig::new(free, &[]).fail(Ask::Off).await;
    assert_eq!((error.class, error.code.as_str(), error.maybe_sent), (ErrorClass::Connection, "no-connection", false), "{error}");
    assert_eq!(error.address, free.to_string());
}
