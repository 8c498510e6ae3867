//! Alerts reach people: by mail, signed webhook, Alertmanager, SNMP 2c and 3, a program and MQTT, each judged by software that is
//! not Picket's own; once each, and once when they end, also when the aggregator is killed between or a receiver is away.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use picket_tests::bmcsim::{BmcHandle, Cut, Faults, Simulator, Unplug};
use picket_tests::eventually::eventually;
use picket_tests::harness::{Agent, Site, hosts, simulator};
use picket_tests::peers::certificate::{Authority, Identity};
use picket_tests::peers::mosquitto::Broker;
use picket_tests::peers::mosquitto_sub::MosquittoSub;
use picket_tests::peers::smtp::{Mail, Smtp, verify_webhook};
use picket_tests::peers::snmptrapd::{Snmptrapd, Trap};
use picket_tests::ports;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ENGINE: &str = "8000000005706963";
/// Below which `packaging/PICKET-MIB.txt` has its objects and notifications.
const MIB: &str = "1.3.6.1.4.1.8072.9999.9999.8443";
/// What a test waits for no longer than it must.
const QUICK: &str = "group_wait = 0\ngroup_interval = 0\n";

/// What somebody was told: `firing bmc-lost.h1`, by the key against taking it twice.
type Told = BTreeMap<String, Vec<String>>;

/// Everything told, by whichever delivery: sorted.
fn all(told: &Told) -> Vec<String> {
    let mut all: Vec<String> = told.values().flatten().cloned().collect();
    all.sort();
    all
}

/// One request of a receiver that speaks HTTP, as it came.
#[derive(Clone)]
struct Posted {
    path: String,
    headers: BTreeMap<String, String>,
    body: String,
    /// Whether it was answered with 2xx.
    taken: bool,
}

/// An HTTP receiver of this test: refuses the first request to each path for a while.
struct Web {
    address: SocketAddr,
    posted: Arc<Mutex<Vec<Posted>>>,
    _runtime: tokio::runtime::Runtime,
}

async fn take(State(posted): State<Arc<Mutex<Vec<Posted>>>>, request: Request) -> StatusCode {
    let (parts, body) = request.into_parts();
    let body: Bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let headers = parts.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    let path = parts.uri.path().to_owned();
    let mut posted = posted.lock().unwrap();
    let taken = posted.iter().any(|one| one.path == path);
    posted.push(Posted { path, headers, body: String::from_utf8(body.to_vec()).unwrap(), taken });
    if taken { StatusCode::NO_CONTENT } else { StatusCode::SERVICE_UNAVAILABLE }
}

impl Web {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let posted = Arc::<Mutex<Vec<Posted>>>::default();
        let address = ports::tcp().unwrap();
        let router = Router::new().fallback(take).with_state(Arc::clone(&posted));
        let listener = runtime.block_on(tokio::net::TcpListener::bind(address)).unwrap();
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { address, posted, _runtime: runtime }
    }

    fn posted(&self, path: &str) -> Vec<Posted> {
        self.posted.lock().unwrap().iter().filter(|one| one.path == path).cloned().collect()
    }

    /// What the webhook was told, and took.
    fn hook(&self) -> Result<Told> {
        let mut told = Told::new();
        for posted in self.posted("/hook").into_iter().filter(|posted| posted.taken) {
            let id = posted.headers.get("webhook-id").context("no id")?;
            told.insert(id.clone(), news(&posted.body)?);
        }
        Ok(told)
    }

    /// What Alertmanager would hold: for each alert and time of it, whether it ended.
    fn alertmanager(&self) -> Result<Vec<String>> {
        let mut held = BTreeMap::new();
        for posted in self.posted("/am/api/v2/alerts") {
            let alerts: Vec<Value> = serde_json::from_str(&posted.body)?;
            for alert in alerts.iter().filter(|_| posted.taken) {
                let text = |name: &str| alert[name].as_str().unwrap_or_default().to_owned();
                let label = |name: &str| alert["labels"][name].as_str().unwrap_or_default().to_owned();
                ensure!(label("site") == "test" && text("generatorURL").contains("/v1/alerts/"), "{alert}");
                let ends: jiff::Timestamp = text("endsAt").parse()?;
                let change = if ends <= now() { "resolved" } else { "firing" };
                held.insert(format!("{}.{} {}", label("alertname"), label("host"), text("startsAt")), change);
            }
        }
        Ok(held.into_iter().map(|(key, change)| format!("{change} {}", key.split(' ').next().unwrap_or_default())).collect())
    }
}

#[expect(clippy::disallowed_methods, reason = "the test judges by the wall clock, as Alertmanager does")]
fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// The news of a body as webhooks and programs get it.
fn news(body: &str) -> Result<Vec<String>> {
    let body: Value = serde_json::from_str(body)?;
    let alerts = body["alerts"].as_array().context("no alerts")?;
    alerts
        .iter()
        .map(|alert| {
            let word = |name: &str| alert[name].as_str().with_context(|| format!("no {name} in {alert}"));
            Ok(format!("{} {}", word("change")?, word("id")?))
        })
        .collect()
}

/// What a program appended to a file: one body in each line.
fn run(file: &Path) -> Result<Told> {
    let text = if file.exists() { std::fs::read_to_string(file)? } else { String::new() };
    let mut told = Told::new();
    for line in text.lines() {
        let body: Value = serde_json::from_str(line)?;
        told.insert(body["delivery"].as_str().context("no id")?.to_owned(), news(line)?);
    }
    Ok(told)
}

/// What mails say in their text, by Message-ID.
fn mails(mails: &[Mail]) -> Told {
    let line = |line: &str| {
        let change = ["FIRING ", "RESOLVED "].into_iter().find(|word| line.starts_with(word))?;
        let mut words = line.trim_start_matches(change).split(' ');
        Some(format!("{}{}.{}", change.to_lowercase(), words.next()?, words.next()?))
    };
    mails.iter().map(|mail| (mail.header("Message-ID").to_owned(), mail.body.lines().filter_map(line).collect())).collect()
}

/// The mails that a mailbox got.
fn mails_to(smtp: &Smtp, address: &str) -> Result<Vec<Mail>> {
    Ok(smtp.mails()?.into_iter().filter(|mail| mail.to.iter().any(|to| to == address)).collect())
}

/// What notifications said, by delivery.
fn traps(traps: &[Trap]) -> Result<Told> {
    let mut told = Told::new();
    for trap in traps {
        let value = |arc: u32| trap.get(&format!("{MIB}.1.{arc}.0")).with_context(|| format!("no {arc} in {trap:?}"));
        let kind = trap.get("1.3.6.1.6.3.1.1.4.1.0").context("no kind")?.trim_start_matches('.').to_owned();
        let change = match (kind.strip_prefix(MIB), value(10)?.as_str()) {
            (Some(".0.1"), "1") => "firing",
            (Some(".0.2"), "3") => "resolved",
            other => bail!("{other:?}: {trap:?}"),
        };
        ensure!((change == "resolved") == value(13).is_ok(), "only what ended says when: {trap:?}");
        told.insert(format!("{} {change} {}", value(12)?, value(1)?), vec![format!("{change} {}", value(1)?)]);
    }
    Ok(told)
}

/// Whether just this was told, each once; `wanted` is sorted.
fn is(told: &Told, wanted: &[&str]) -> Result<()> {
    ensure!(all(told) == wanted, "{told:?}");
    Ok(())
}

/// A running site of one rack whose hosts were all read once.
fn running(simulator: &Simulator, settings: &str) -> (Site, Agent) {
    let site = Site::start_with(&format!("[oobm]\nsync_interval = 1\naction_timeout = 30\n{settings}")).unwrap();
    site.place("z1", "c1", "r1").unwrap();
    let agent = site.join("r1").unwrap();
    site.import(&hosts(simulator, "c1", "r1")).unwrap();
    for bmc in simulator.fleet().all() {
        let answer = site.ctl(&["oobm", "enable", "host", bmc.name(), "--yes"]).unwrap();
        assert_eq!(answer.code, 0, "{answer:?}");
    }
    for bmc in simulator.fleet().all() {
        site.until(bmc.name(), "management", "reachable", PATIENCE).unwrap();
    }
    (site, agent)
}

fn unplugged() -> Faults {
    Faults { unplug: Some(Unplug::Refused), ..Faults::default() }
}

/// A consumer of a part of the public tree.
fn consumer(site: &Site, name: &str, filter: &str) -> MosquittoSub {
    let folder = site.consumer(name).unwrap();
    let identity = Identity { certificate: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}.key")) };
    let broker = Broker::new(site.mqtt().parse().unwrap(), &folder.join("ca.pem"), &identity);
    MosquittoSub::start(&broker, filter).unwrap()
}

/// The alerts whose documents were seen, by alert and time of it. A consumer that is not there to hear of one finds it, as long as
/// it fires, when it comes back; `mosquitto_sub` itself does not come back from a connection that broke within TLS.
fn documents(subs: &[&MosquittoSub]) -> Result<Told> {
    let mut told = Told::new();
    let messages: Result<Vec<_>> = subs.iter().map(|sub| sub.messages()).collect();
    for message in messages?.concat().iter().filter(|message| message.topic.contains("/alert/") && !message.payload.is_empty()) {
        let alert = message.json()?;
        let word = |name: &str| alert[name].as_str().with_context(|| format!("no {name} in {alert}"));
        told.insert(format!("{} {}", word("id")?, word("starts_at")?), vec![format!("{} {}", word("state")?, word("id")?)]);
    }
    Ok(told)
}

/// The events of alerts, by their id.
fn events(sub: &MosquittoSub) -> Result<Told> {
    let mut told = Told::new();
    for message in sub.messages()? {
        let event = message.json()?;
        let Some(change) = event["type"].as_str().and_then(|kind| kind.strip_prefix("io.picket.alert.")) else { continue };
        let change = change.trim_end_matches(".v1");
        told.insert(event["id"].to_string(), vec![format!("{change} {}", event["data"]["id"].as_str().context("no alert")?)]);
    }
    Ok(told)
}

#[test]
fn everybody_is_told_once_and_of_the_end_once_over_a_crash() {
    let simulator = simulator("h", 1, 1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("{text}\n")).unwrap();
        path.display().to_string()
    };
    let authority = Authority::new(folder.path()).unwrap();
    let mut smtp = Smtp::secured(|address| authority.server("mail", address.ip())).unwrap();
    smtp.start().unwrap();
    let (web, trapd, got) = (Web::start(), Snmptrapd::start(ENGINE).unwrap(), folder.path().join("got"));
    let (user, auth, private) = Snmptrapd::USER;
    let v3 = format!(
        "type = \"snmp\"\ntarget = \"{}\"\nusername = \"{user}\"\nauth_file = \"{}\"\npriv_file = \"{}\"\n{QUICK}",
        trapd.address(),
        file("auth", auth),
        file("priv", private)
    );
    let second = Snmptrapd::start(ENGINE).unwrap();
    let third = Snmptrapd::start(ENGINE).unwrap();
    let settings = [
        format!(
            "type = \"email\"\nserver = \"{}\"\nport = {}\nca_file = \"{}\"\nusername = \"{}\"\npassword_file = \"{}\"\n\
             from = \"Picket <picket@example.org>\"\nto = [\"nobody@example.org\", \"ops@example.org\", \"later@example.org\"]\n{QUICK}",
            smtp.address().ip(),
            smtp.address().port(),
            authority.certificate().display(),
            Smtp::LOGIN.0,
            file("password", Smtp::LOGIN.1),
        ),
        format!("type = \"webhook\"\nurl = \"http://{}/hook\"\nsecret_file = \"{}\"\n{QUICK}", web.address, file("secret", SECRET)),
        format!("type = \"alertmanager\"\nurl = \"http://{}/am/\"\n", web.address),
        v3.clone(),
        format!(
            "{}inform = false\nengine_id = \"{ENGINE}\"\n",
            v3.replace(&trapd.address().to_string(), &second.address().to_string())
        ),
        format!(
            "type = \"snmp\"\nversion = \"2c\"\ntarget = \"{}\"\ncommunity_file = \"{}\"\n{QUICK}",
            third.address(),
            file("community", Snmptrapd::COMMUNITY)
        ),
        format!("type = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", \"(cat; echo) >> {}\"]\n{QUICK}", got.display()),
    ];
    let settings: Vec<String> = (1..).zip(&settings).map(|(n, lines)| format!("[[notify]]\nname = \"r{n}\"\n{lines}")).collect();
    let (mut site, _agent) = running(&simulator, &settings.join("\n"));
    let sub = consumer(&site, "first", "picket/v1/alert/#");

    let [lost, strange] = simulator.fleet().all() else { panic!("two hosts") };
    let (lost_id, strange_id) = (format!("bmc-lost.{}", lost.name()), format!("bmc-auth-failed.{}", strange.name()));
    lost.set_faults(unplugged());
    assert!(strange.set_password("admin", "another"));
    strange.forget_sessions();
    let mut firing = [format!("firing {lost_id}"), format!("firing {strange_id}")];
    firing.sort();
    let firing: Vec<&str> = firing.iter().map(String::as_str).collect();
    let all_told = |wanted: &[&str]| -> Result<()> {
        is(&run(&got)?, wanted).context("program")?;
        is(&web.hook()?, wanted).context("webhook")?;
        for (to, whose) in [("ops@example.org", "mail"), ("later@example.org", "the mailbox that was put off")] {
            is(&mails(&mails_to(&smtp, to)?), wanted).context(whose)?;
        }
        is(&traps(&trapd.traps()?)?, wanted).context("informs, version 3")?;
        is(&traps(&second.traps()?)?, wanted).context("traps, version 3")?;
        is(&traps(&third.traps()?)?, wanted).context("informs, version 2c")
    };
    // Not all have been told when the aggregator dies: what was under way is sent again, with the id it had.
    eventually(PATIENCE, || {
        ensure!(!run(&got)?.is_empty(), "nothing yet");
        Ok(())
    })
    .unwrap();
    site.kill_aggregator();
    site.start_aggregator().unwrap();
    eventually(PATIENCE, || {
        all_told(&firing)
            .map_err(|error| error.context(site.json(&["api", "GET", "/v1/receivers"]).unwrap_or_default().to_string()))
    })
    .unwrap();
    eventually(PATIENCE, || {
        ensure!(web.alertmanager()? == firing_first(&firing), "{:?}", web.alertmanager());
        Ok(())
    })
    .unwrap();

    let back = consumer(&site, "back", "picket/v1/alert/#");
    eventually(PATIENCE, || is(&documents(&[&sub, &back])?, &firing).context("MQTT")).unwrap();

    site.kill_aggregator();
    lost.clear_faults();
    site.start_aggregator().unwrap();
    assert_eq!(site.ctl(&["oobm", "disable", "host", strange.name(), "--yes"]).unwrap().code, 0);
    let mut both: Vec<String> = firing.iter().map(|line| (*line).to_owned()).collect();
    both.extend([format!("resolved {lost_id}"), format!("resolved {strange_id}")]);
    both.sort();
    let both: Vec<&str> = both.iter().map(String::as_str).collect();
    eventually(PATIENCE, || all_told(&both)).unwrap();
    eventually(PATIENCE, || {
        let held = web.alertmanager()?;
        ensure!(held.len() == 2 && held.iter().all(|line| line.starts_with("resolved ")), "{held:?}");
        Ok(())
    })
    .unwrap();

    // Who comes to MQTT now finds nothing firing; one who came later has got what he finds.
    let newcomer = consumer(&site, "newcomer", "picket/v1/alert/#");
    consumer(&site, "later", "picket/v1/status")
        .wait_for(PATIENCE, |messages| {
            ensure!(messages.iter().any(|message| message.topic == "picket/v1/status"), "nothing yet");
            Ok(())
        })
        .unwrap();
    assert_eq!(documents(&[&newcomer]).unwrap(), Told::new());

    // The signature is good, with the id of the delivery; and what was refused first came again with the same id.
    let posted = web.posted("/hook");
    for one in &posted {
        let headers: Vec<(&str, &str)> = one.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        verify_webhook(SECRET, &headers, &one.body).unwrap();
        assert!(verify_webhook(SECRET, &headers, &format!("{} ", one.body)).is_err(), "a changed body passes");
        let body: Value = serde_json::from_str(&one.body).unwrap();
        assert_eq!(body["delivery"], one.headers["webhook-id"].as_str());
    }
    let (first, again) = (&posted[0], posted.iter().filter(|one| one.headers["webhook-id"] == posted[0].headers["webhook-id"]));
    assert!(!first.taken && again.clone().count() >= 2 && again.clone().all(|one| one.body == first.body));

    // Mails: encrypted, logged in, and the end answers the beginning.
    let mails = mails_to(&smtp, "ops@example.org").unwrap();
    assert!(mails.iter().all(|mail| mail.tls && mail.user.as_deref() == Some(Smtp::LOGIN.0)), "{mails:?}");
    let of = |start: &str| mails.iter().find(|mail| mail.header("Subject").contains(start)).unwrap();
    let (begin, end) = (of("firing: bmc-lost"), of("resolved: bmc-lost"));
    assert_eq!(end.header("In-Reply-To"), begin.header("Message-ID"));
    assert!(begin.body.contains("does not answer") && begin.body.contains("https://"), "{}", begin.body);
}

/// As Alertmanager's list has them: by alert.
fn firing_first(lines: &[&str]) -> Vec<String> {
    let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    lines.sort_by_key(|line| line.split(' ').next_back().map(str::to_owned));
    lines
}

/// `POST /v1/hosts/{host}/power` with `status`: a read of the BMC now. Waits for its end.
async fn read_now(client: reqwest::Client, url: String, token: String) -> Result<Value> {
    let request = client.post(url).bearer_auth(token.trim()).header("prefer", "wait=30");
    let answer = request.json(&serde_json::json!({ "operation": "status" })).send().await?;
    Ok(answer.json().await?)
}

/// How many BMCs share the thousand failures; with `PICKET_TEST_BMCS=1` one has them all, which takes four minutes.
fn bmcs() -> usize {
    std::env::var("PICKET_TEST_BMCS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

#[test]
fn a_thousand_failures_are_one_alert_each_and_a_dead_mail_server_is_told_once_when_it_is_back() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let simulator = simulator("h", 0, bmcs()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (mut smtp, got) = (Smtp::stopped().unwrap(), folder.path().join("got"));
    let settings = format!(
        "[[notify]]\nname = \"mail\"\ntype = \"email\"\nserver = \"{}\"\nport = {}\ntls = \"none\"\nfrom = \"picket@example.org\"\n\
         to = [\"ops@example.org\"]\n{QUICK}\
         [[notify]]\nname = \"run\"\ntype = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", \"(cat; echo) >> {}\"]\n{QUICK}",
        smtp.address().ip(),
        smtp.address().port(),
        got.display(),
    );
    let (site, _agent) = running(&simulator, &settings);
    let fleet = simulator.fleet();
    let lines = |change: &str| fleet.all().iter().map(|bmc| format!("{change} bmc-lost.{}", bmc.name())).collect::<Vec<_>>();
    let (firing, resolved) = (lines("firing"), lines("resolved"));
    let firing: Vec<&str> = firing.iter().map(String::as_str).collect();
    let both: Vec<&str> = firing.iter().copied().chain(resolved.iter().map(String::as_str)).collect();
    // Each request reaches the BMC, is counted there, and gets no answer.
    let before = fleet.totals().http_requests;
    for bmc in fleet.all() {
        bmc.set_faults(Faults { drop_at: Some(Cut::Request), ..Faults::default() });
    }
    eventually(PATIENCE, || is(&run(&got)?, &firing)).unwrap();
    let mail = || -> Result<Value> { site.json(&["api", "GET", "/v1/receivers/mail"]) };
    eventually(PATIENCE, || {
        let shown = mail()?;
        ensure!(shown["failed"].as_u64() >= Some(2) && shown["last_error"].is_string(), "{shown}");
        Ok(())
    })
    .unwrap();

    let token = std::fs::read_to_string(site.token_file()).unwrap();
    let authority = reqwest::Certificate::from_pem(&std::fs::read(site.ca_file()).unwrap()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([authority]).build().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut reads = 0;
    // Reads on demand come on top of the polls, so that it takes less long.
    while fleet.totals().http_requests - before < 1_000 {
        let answers = runtime.block_on(async {
            let url = |bmc: &BmcHandle| format!("{}/v1/hosts/{}/power", site.url(), bmc.name());
            let asked = fleet.all().iter().map(|bmc| read_now(client.clone(), url(bmc), token.clone()));
            asked.collect::<tokio::task::JoinSet<_>>().join_all().await
        });
        for answer in answers {
            let answer = answer.unwrap();
            assert_eq!(answer["hosts"][0]["result"].as_str().or(answer["result"].as_str()), Some("failed"), "{answer}");
            reads += 1;
        }
    }
    let failing = fleet.totals().http_requests - before;
    println!("{} BMCs were asked {failing} times and never answered; {reads} reads were on demand", fleet.all().len());

    smtp.start().unwrap();
    smtp.wait_for(PATIENCE, |found| is(&mails(found), &firing)).unwrap();
    fleet.all().iter().for_each(BmcHandle::clear_faults);
    eventually(PATIENCE, || is(&run(&got)?, &both)).unwrap();
    smtp.wait_for(PATIENCE, |found| is(&mails(found), &both)).unwrap();
    let (shown, found) = (mail().unwrap(), smtp.mails().unwrap());
    assert_eq!((&shown["delivered"], &shown["given_up"]), (&found.len().into(), &0.into()), "{shown}");
    assert_eq!(mails(&found).len(), found.len(), "no mail came twice");
}

#[test]
fn receivers_change_without_a_restart_and_can_be_tried() {
    let simulator = simulator("h", 1, 0).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let got = |name: &str| folder.path().join(name);
    let section = |name: &str| {
        let script = format!("(cat; echo) >> {}", got(name).display());
        format!("[[notify]]\nname = \"{name}\"\ntype = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", \"{script}\"]\n{QUICK}")
    };
    let (site, _agent) = running(&simulator, &section("old"));
    let [bmc] = simulator.fleet().all() else { panic!("one host") };
    let alert = format!("bmc-lost.{}", bmc.name());
    let firing = format!("firing {alert}");
    let sub = consumer(&site, "log", "picket/v1/event/+/+/+/+");
    bmc.set_faults(unplugged());
    eventually(PATIENCE, || is(&run(&got("old"))?, &[&firing])).unwrap();

    let file = site.path("aggregator.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    let pid = i32::try_from(site.aggregator_pid().unwrap()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
    let reload = || rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    std::fs::write(&file, format!("{before}\n{}", section("new"))).unwrap();
    reload();
    eventually(PATIENCE, || is(&run(&got("new"))?, &[&firing])).unwrap();
    let table = site.ctl(&["alerts", "receivers"]).unwrap();
    assert!(table.code == 0 && table.out.contains("new") && table.out.contains("exec"), "{table:?}");
    // What is wrong changes nothing.
    std::fs::write(&file, format!("{before}\n[[notify]]\nname = \"x\"\ntype = \"fax\"\n")).unwrap();
    reload();
    eventually(PATIENCE, || {
        ensure!(site.log()?.contains("unknown variant `fax`"), "the log says nothing of it");
        Ok(())
    })
    .unwrap();
    bmc.clear_faults();
    let both = [firing.clone(), format!("resolved {alert}")];
    let both: Vec<&str> = both.iter().map(String::as_str).collect();
    for name in ["old", "new"] {
        eventually(PATIENCE, || is(&run(&got(name))?, &both)).unwrap();
    }
    eventually(PATIENCE, || is(&events(&sub)?, &both)).unwrap();

    assert_eq!(site.ctl(&["alerts", "test", "new"]).unwrap().code, 0);
    assert_eq!(all(&run(&got("new")).unwrap()).last().map(String::as_str), Some("resolved test.new"));
    std::fs::write(&file, format!("{before}\n{}", section("new").replace("(cat; echo)", "exit 3; echo"))).unwrap();
    reload();
    eventually(PATIENCE, || {
        let answer = site.ctl(&["alerts", "test", "new"])?;
        ensure!(answer.code == 1 && answer.out.contains("code 3"), "{answer:?}");
        Ok(())
    })
    .unwrap();
    assert_eq!(site.ctl(&["alerts", "test", "none"]).unwrap().code, 8);
}
