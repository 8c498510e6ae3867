//! Checks against real peers on loopback: some answer, some refuse, some are silent.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::sleep;
use std::time::Duration;

use picket_agent::check::{Checks, Programs, Tools};
use picket_agent::identity::Identity;
use picket_agent::sign::witness::{FILES, FilesSeen, HEALTH, Health};
use picket_agent::sign::{Check, CheckDone, CheckJob, Sign};
use picket_agent::witness::{Absolute, Config, Heartbeat, Interval, Witness};
use picket_agent::{clock, tls};
use picket_common::config::parse;
use picket_common::ha::settings::{ActivityCheck, HealthCheck, MAX_FILES, Neighbour};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

mod witness;

use self::witness::Ca;

/// Long enough for anything that answers.
const LONG: Duration = Duration::from_secs(20);
/// What is silent is given this.
const SHORT: Duration = Duration::from_millis(600);

struct Rig {
    checks: Checks,
    answers: Receiver<Vec<CheckDone>>,
    runtime: Runtime,
}

impl Rig {
    fn new() -> Self {
        Self::with(&Ca::new(), Programs::new())
    }

    fn with(ca: &Ca, programs: Programs) -> Self {
        Self::of(&ca.agent("r1"), programs)
    }

    fn of(identity: &Identity, programs: Programs) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (tell, answers) = channel();
        let (_, programs) = watch::channel(Arc::new(programs));
        let tools = Tools { witness: tls::ToWitness::new(identity).unwrap(), programs, max_processes: 8 };
        let done = Arc::new(move |done| tell.send(done).unwrap());
        let checks = Checks::new(tools, done, runtime.handle().clone()).unwrap();
        Self { checks, answers, runtime }
    }

    fn done(&self, check: Check, timeout: Duration) -> CheckDone {
        self.checks.start(vec![CheckJob { ticket: 7, host: Some("h1".parse().unwrap()), check, timeout }]);
        let done = self.answers.recv_timeout(timeout + Duration::from_secs(5)).unwrap();
        assert_eq!((done.len(), done[0].ticket), (1, 7));
        done[0].clone()
    }

    fn health(&self, check: HealthCheck, timeout: Duration) -> Sign {
        self.done(Check::Health(check), timeout).sign
    }

    fn activity(&self, check: ActivityCheck, timeout: Duration) -> Sign {
        self.done(Check::Activity(check), timeout).sign
    }
}

#[track_caller]
fn is_dead(sign: &Sign, why: &str) {
    assert!(matches!(sign, Sign::Dead(text) if text.contains(why)), "{sign:?}, wanted dead: {why}");
}

#[track_caller]
fn is_unknown(sign: &Sign, why: &str) {
    assert!(matches!(sign, Sign::CannotTell(text) if text.contains(why)), "{sign:?}, wanted cannot tell: {why}");
}

/// A server that does this with each connection, for as long as the test runs.
fn server(serve: impl Fn(TcpStream) + Send + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    at
}

fn refusing() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A port whose packets are dropped: its queue of connections is full. The connections keep it so.
fn dropping() -> (SocketAddr, Vec<Socket>) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    listener.listen(0).unwrap();
    let at = listener.local_addr().unwrap();
    let mut kept = vec![listener];
    for _ in 0..4 {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        // In progress is what it says, for ever.
        drop(socket.connect(&at));
        kept.push(socket);
    }
    sleep(Duration::from_millis(100));
    (at.as_socket().unwrap(), kept)
}

fn tcp(at: SocketAddr) -> HealthCheck {
    HealthCheck::Tcp { address: at.ip().to_string(), port: at.port() }
}

#[test]
fn tcp_tells_refusal_and_silence_from_what_fails_here() {
    let rig = Rig::new();
    let hung = server(|stream| {
        sleep(LONG);
        drop(stream);
    });
    assert_eq!(rig.health(tcp(hung), LONG), Sign::Alive, "the connection counts, nothing is said on it");
    is_dead(&rig.health(tcp(refusing()), LONG), "refused");

    let (dropped, _kept) = dropping();
    let before = clock::boottime();
    let done = rig.done(Check::Health(tcp(dropped)), SHORT);
    is_dead(&done.sign, "accepts no connection within 0.6 s");
    assert!(done.begun >= before);

    let to = |address: &str| HealthCheck::Tcp { address: address.into(), port: 22 };
    for refused in ["169.254.169.254", "fe80::1", "224.0.0.1", "0.0.0.0"] {
        is_unknown(&rig.health(to(refused), LONG), "are refused");
    }
    is_unknown(&rig.health(to("no-such-name.invalid"), LONG), "cannot be resolved");
    is_unknown(&rig.health(tcp(hung), Duration::ZERO), "too many checks");
}

#[test]
fn references() {
    let rig = Rig::new();
    let reach = |text: String| rig.done(Check::Reference(text), SHORT).sign;
    assert_eq!(reach(format!("tcp://{}", server(drop))), Sign::Alive);
    is_dead(&reach(format!("tcp://{}", refusing())), "refused");
    is_dead(&reach(format!("tcp://{}", dropping().0)), "");
    is_unknown(&reach("gateway".into()), "is not an address");
}

#[test]
fn echoes() {
    let rig = Rig::new();
    let ping = |address: &str| rig.health(HealthCheck::Icmp { address: address.into() }, SHORT);
    // Whether ping sockets are allowed is the machine's choice; if not, that must be what is told.
    match ping("127.0.0.1") {
        Sign::Alive => assert_eq!(rig.done(Check::Reference("127.0.0.1".into()), SHORT).sign, Sign::Alive),
        sign => is_unknown(&sign, "net.ipv4.ping_group_range"),
    }
}

/// Answers `answer` to whatever is asked.
fn http(answer: &'static str) -> String {
    let at = server(move |mut stream| {
        let mut asked = [0; 4096];
        if stream.read(&mut asked).is_ok_and(|read| read > 0) {
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    format!("http://{at}/")
}

#[test]
fn http_answers() {
    let rig = Rig::new();
    let get = |url: String, time: Duration| rig.health(HealthCheck::Http { url }, time);
    for (answer, alive) in [
        ("HTTP/1.1 200 OK\r\n\r\n", true),
        ("HTTP/1.1 204 No Content\r\n\r\n", true),
        ("HTTP/1.0 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", true),
        ("HTTP/1.1 404 Not Found\r\n\r\n", false),
        ("HTTP/1.1 503 Service Unavailable\r\n\r\n", false),
    ] {
        let sign = get(http(answer), LONG);
        assert_eq!(sign == Sign::Alive, alive, "{answer:?}: {sign:?}");
        assert!(alive || matches!(sign, Sign::Dead(_)), "{sign:?}");
    }
    is_dead(&get(http(""), LONG), "closed");
    is_dead(&get(format!("http://{}/", refusing()), LONG), "refused");
    is_unknown(&get(http("SSH-2.0-OpenSSH_9\r\n"), LONG), "does not answer in HTTP");
    is_unknown(&get("http://user:secret@127.0.0.1/".into(), LONG), "without a login");
    let hung = server(|_stream| sleep(LONG));
    is_dead(&get(format!("http://{hung}/"), SHORT), "does not answer within 0.6 s");
    let slow = server(|mut stream| {
        for byte in "HTTP/1.1 200 OK\r\n\r\n".bytes() {
            sleep(Duration::from_millis(100));
            if stream.write_all(&[byte]).is_err() {
                return;
            }
        }
    });
    is_dead(&get(format!("http://{slow}/"), SHORT), "does not answer within");
    assert_eq!(get(format!("http://{slow}/"), LONG), Sign::Alive);
    let forward = server(|mut stream| {
        drop(stream.write_all(b"SSH-2.0-OpenSSH_9\r\n"));
        sleep(LONG);
    });
    is_unknown(&get(format!("http://{forward}/"), LONG), "does not answer in HTTP");
    let endless = server(|mut stream| {
        drop(stream.read(&mut [0; 4096]));
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        while stream.write_all(&[b'x'; 65536]).is_ok() {}
    });
    assert_eq!(get(format!("http://{endless}/"), LONG), Sign::Alive, "its body is not read");
}

#[test]
fn https_takes_any_certificate() {
    let (ca, other) = (Ca::new(), Ca::new());
    let rig = Rig::with(&ca, Programs::new());
    let at = other.https_server(rig.runtime.handle());
    assert_eq!(rig.health(HealthCheck::Http { url: format!("https://{at}/") }, LONG), Sign::Alive);
    let plain = http("HTTP/1.1 400 Bad Request\r\n\r\n").replace("http:", "https:");
    is_unknown(&rig.health(HealthCheck::Http { url: plain }, LONG), "TLS failed");
}

#[test]
fn programs() {
    let programs = r#"
        [check.shell]
        program = "sh"
        args = ["-c", "{host}"]
    "#;
    let script = |script: &str| programs.replace("{host}", script);
    #[derive(serde::Deserialize)]
    struct File {
        check: Programs,
    }
    for (text, wanted) in [
        ("exit 0", None),
        ("exit 1", Some(Sign::Dead("check shell says so".into()))),
        ("echo no watcher of {host}; exit 1", Some(Sign::Dead("check shell says: no watcher of h1".into()))),
        ("echo broken >&2; exit 2", Some(Sign::CannotTell("check shell: exit code 2: broken".into()))),
        ("kill -9 $$", Some(Sign::CannotTell("check shell: ended by signal 9: ".into()))),
    ] {
        let File { check } = parse("agent.toml", &script(text)).unwrap();
        let rig = Rig::with(&Ca::new(), check);
        let exec = || "shell".to_owned();
        assert_eq!(rig.health(HealthCheck::Exec { check: exec() }, LONG), wanted.clone().unwrap_or(Sign::Alive));
        assert_eq!(rig.activity(ActivityCheck::Exec { check: exec() }, LONG), wanted.unwrap_or(Sign::Alive));
    }
    let File { check } = parse("agent.toml", &script("sleep 60")).unwrap();
    let rig = Rig::with(&Ca::new(), check);
    let hung = |rig: &Rig| rig.health(HealthCheck::Exec { check: "shell".into() }, SHORT);
    is_dead(&hung(&rig), "did not end within 0.6 s");
    is_unknown(&rig.activity(ActivityCheck::Exec { check: "shell".into() }, SHORT), "did not end within 0.6 s");
    is_unknown(&rig.health(HealthCheck::Exec { check: "other".into() }, SHORT), "has no such check");
    rig.runtime.block_on(rig.checks.shutdown());
    is_unknown(&hung(&rig), "shutting down");
    let missing = parse::<File>("agent.toml", "[check.shell]\nprogram = \"/no/such\"").unwrap().check;
    is_unknown(&hung(&Rig::with(&Ca::new(), missing)), "there is no program /no/such");
}

#[test]
fn files() {
    let rig = Rig::new();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let look = |paths: &[&str]| rig.activity(ActivityCheck::Files { paths: paths.iter().map(|name| path(name)).collect() }, LONG);
    for name in ["a", "b"] {
        std::fs::write(path(name), name).unwrap();
    }
    let first = look(&["a", "b", "gone"]);
    let Sign::Stamps(stamps) = &first else { panic!("{first:?}") };
    assert_eq!(stamps.iter().map(|stamp| &stamp.path).collect::<Vec<_>>(), [&path("a"), &path("b")]);
    assert_eq!(look(&["a", "b"]), first, "nothing was written");
    std::fs::write(path("b"), "longer").unwrap();
    assert_ne!(look(&["a", "b"]), first);
    is_unknown(&look(&["gone"]), "none of the files is there");
    is_unknown(&look(&["a", "unmounted/c"]), "is the storage mounted?");
    let beat = |path: String| rig.activity(ActivityCheck::Heartbeat { path }, LONG);
    assert!(matches!(beat(path("a")), Sign::Stamps(stamps) if stamps.len() == 1));
    is_unknown(&beat("a".into()), "not an absolute path");
}

#[test]
fn each_job_is_answered_once_however_many_there_are() {
    const JOBS: u64 = 1500;
    let rig = Rig::new();
    let (dropped, _kept) = dropping();
    let job = |ticket| CheckJob { ticket, host: None, check: Check::Health(tcp(dropped)), timeout: SHORT };
    rig.checks.start((0..JOBS).map(job).collect());
    let mut answers = BTreeMap::new();
    while answers.len() < 1500 {
        for done in rig.answers.recv_timeout(LONG).unwrap() {
            assert!(answers.insert(done.ticket, done.sign).is_none(), "twice");
        }
    }
    let dead = answers.values().filter(|sign| matches!(sign, Sign::Dead(_))).count();
    assert!((1..=512).contains(&dead), "{dead}");
    assert!(
        answers
            .values()
            .all(|sign| matches!(sign, Sign::Dead(_)) || matches!(sign, Sign::CannotTell(why) if why.contains("too many checks")))
    );
    assert_eq!(rig.health(tcp(server(drop)), LONG), Sign::Alive);
}

/// A witness, until it is killed.
struct Host {
    name: &'static str,
    at: SocketAddr,
    serving: JoinHandle<()>,
}

impl Host {
    fn start(rig: &Rig, identity: &Identity, name: &'static str, config: Config) -> Self {
        let config = Config { listen: "127.0.0.1:0".parse().unwrap(), ..config };
        let tls = tls::witness_server(identity).unwrap();
        let witness = rig.runtime.block_on(Witness::start(name.parse().unwrap(), config, tls)).unwrap();
        Self { name, at: witness.address().unwrap(), serving: rig.runtime.spawn(witness.serve()) }
    }

    fn check(&self) -> HealthCheck {
        HealthCheck::Witness { address: "127.0.0.1".into(), port: Some(self.at.port()) }
    }

    fn neighbour(&self) -> Neighbour {
        Neighbour { host: self.name.parse().unwrap(), address: "127.0.0.1".into(), port: Some(self.at.port()) }
    }

    fn kill(self, rig: &Rig) {
        self.serving.abort();
        assert!(rig.runtime.block_on(self.serving).unwrap_err().is_cancelled());
    }

    /// What is answered to a raw request, headers and all.
    fn ask(&self, rig: &Rig, identity: &Identity, request: &[u8]) -> std::io::Result<String> {
        let tls = tls::ToWitness::new(identity).unwrap().of(&self.name.parse().unwrap());
        self.ask_by(rig, tls, request)
    }

    fn ask_by(&self, rig: &Rig, tls: Arc<rustls::ClientConfig>, request: &[u8]) -> std::io::Result<String> {
        rig.runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(self.at).await?;
            let mut stream = TlsConnector::from(tls).connect("witness".try_into().unwrap(), stream).await?;
            // A witness that has heard enough may have closed already.
            stream.write_all(request).await.ok();
            let mut answer = Vec::new();
            while let Ok(1..) = stream.read_buf(&mut answer).await {}
            if answer.is_empty() { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(String::from_utf8(answer).unwrap()) }
        })
    }
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes()
}

fn post(body: &str) -> Vec<u8> {
    format!("POST {FILES} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn asking(paths: &[String]) -> Vec<u8> {
    post(&serde_json::json!({ "paths": paths }).to_string())
}

#[test]
fn a_witness_speaks_for_its_host_alone() {
    let ca = Ca::new();
    let rig = Rig::with(&ca, Programs::new());
    let host = Host::start(&rig, &ca.witness("h1"), "h1", Config::default());
    assert_eq!(rig.health(host.check(), LONG), Sign::Alive);

    // What answers must be h1's own witness, with a certificate of this site.
    let swapped = Host::start(&rig, &ca.witness("h2"), "h1", Config::default());
    is_unknown(&rig.health(swapped.check(), LONG), "is not that of the witness of host");
    let agents = Host::start(&rig, &ca.agent("h1"), "h1", Config::default());
    is_unknown(&rig.health(agents.check(), LONG), "TLS failed");
    let foreign = Host::start(&rig, &Ca::new().witness("h1"), "h1", Config::default());
    is_unknown(&rig.health(foreign.check(), LONG), "TLS failed");
    let liar = Host::start(&rig, &ca.witness("h1"), "h2", Config::default());
    is_unknown(&rig.health(liar.check(), LONG), "speaks for h2");

    is_dead(&rig.health(HealthCheck::Witness { address: "127.0.0.1".into(), port: Some(refusing().port()) }, LONG), "refused");
    let hung = server(|_stream| sleep(LONG));
    is_dead(
        &rig.health(HealthCheck::Witness { address: "127.0.0.1".into(), port: Some(hung.port()) }, SHORT),
        "does not answer within",
    );
    let check = host.check();
    host.kill(&rig);
    is_dead(&rig.health(check, LONG), "refused");
}

#[test]
fn a_witness_answers_agents_of_its_site_only() {
    let ca = Ca::new();
    let rig = Rig::with(&ca, Programs::new());
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("x").to_str().unwrap().to_owned();
    std::fs::write(&secret, "x").unwrap();
    let config = Config { allowed_paths: vec![Absolute(dir.path().to_str().unwrap().into())], ..Config::default() };
    let host = Host::start(&rig, &ca.witness("h1"), "h1", config);
    assert!(host.ask(&rig, &ca.agent("r9"), &get(HEALTH)).unwrap().starts_with("HTTP/1.1 200 OK"));
    for request in [get(HEALTH), asking(std::slice::from_ref(&secret))] {
        let refused = host.ask(&rig, &ca.consumer(), &request).unwrap();
        assert!(refused.starts_with("HTTP/1.1 403") && refused.ends_with("only agents are answered"), "{refused}");
        for (who, identity) in [("a stranger", ca.stranger()), ("a witness", ca.witness("h2"))] {
            assert!(host.ask(&rig, &identity, &request).is_err(), "{who}");
        }
        let nobody = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let mut bare = (*tls::ToWitness::new(&ca.agent("r1")).unwrap().of(&"h1".parse().unwrap())).clone();
        bare.client_auth_cert_resolver = nobody.client_auth_cert_resolver;
        assert!(host.ask_by(&rig, Arc::new(bare), &request).is_err(), "nobody");
    }
    for identity in [ca.consumer(), ca.stranger(), ca.witness("h2")] {
        is_unknown(&Rig::of(&identity, Programs::new()).health(host.check(), LONG), "");
    }
}

#[test]
fn neighbours_tell_what_files_look_like() {
    let ca = Ca::new();
    let rig = Rig::with(&ca, Programs::new());
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir(path("pool")).unwrap();
    for file in ["pool/a", "pool/b", "secret"] {
        std::fs::write(path(file), file).unwrap();
    }
    std::os::unix::fs::symlink(path("secret"), path("pool/link")).unwrap();
    let config = || Config { allowed_paths: vec![Absolute(path("pool"))], ..Config::default() };
    let seeing = Host::start(&rig, &ca.witness("h2"), "h2", config());
    let blind = Host::start(&rig, &ca.witness("h3"), "h3", Config::default());
    let silent = server(|_stream| sleep(LONG));
    let silent = Neighbour { host: "h4".parse().unwrap(), address: "127.0.0.1".into(), port: Some(silent.port()) };
    let ask = |files: &[&str], neighbours: &[Neighbour], time: Duration| {
        let paths = files.iter().map(|name| path(name)).collect();
        rig.activity(ActivityCheck::Witness { paths, neighbours: neighbours.to_vec() }, time)
    };
    let all = [silent.clone(), blind.neighbour(), seeing.neighbour()];
    let first = ask(&["pool/a", "pool/b", "pool/gone"], &all, LONG);
    let Sign::Stamps(stamps) = &first else { panic!("{first:?}") };
    assert_eq!(
        stamps.iter().map(|stamp| (&*stamp.path, stamp.length)).collect::<Vec<_>>(),
        [(&*path("pool/a"), 6), (&*path("pool/b"), 6)]
    );
    assert_eq!(ask(&["pool/a", "pool/b"], &all, LONG), first);
    std::fs::write(path("pool/a"), "longer").unwrap();
    assert_ne!(ask(&["pool/a", "pool/b"], &all, LONG), first);

    is_unknown(&ask(&["pool/a"], &[blind.neighbour()], LONG), "h3: ");
    is_unknown(&ask(&["pool/a"], &[silent], SHORT), "no neighbour answered within 0.6 s");
    is_unknown(&ask(&["pool/a"], &[], LONG), "no neighbour to ask");
    is_unknown(&ask(&["pool/gone"], &[seeing.neighbour()], LONG), "it sees none of the files");
    let itself = Neighbour { host: "h1".parse().unwrap(), ..seeing.neighbour() };
    is_unknown(&ask(&["pool/a"], &[itself], LONG), "no neighbour to ask");
    let swapped = Neighbour { host: "h9".parse().unwrap(), ..seeing.neighbour() };
    is_unknown(&ask(&["pool/a"], &[swapped], LONG), "is not that of the witness of host");
    for escape in ["secret", "pool/../secret", "pool/link", "pool/../../../../../etc/passwd"] {
        is_unknown(&ask(&[escape], &[seeing.neighbour()], LONG), "does not lie in a folder that this witness may look into");
    }
    let agent = ca.agent("r1");
    let status = |request: Vec<u8>| seeing.ask(&rig, &agent, &request).unwrap().lines().next().unwrap().to_owned();
    assert_eq!(status(asking(&vec![path("pool/a"); MAX_FILES + 1])), "HTTP/1.1 400 Bad Request");
    assert_eq!(status(asking(&[])), "HTTP/1.1 400 Bad Request");
    assert_eq!(status(asking(&["pool/a".into()])), "HTTP/1.1 400 Bad Request");
    assert_eq!(status(post("{")), "HTTP/1.1 400 Bad Request");
    assert_eq!(status(post(&"x".repeat(600 * 1024))), "HTTP/1.1 413 Payload Too Large");
    assert_eq!(status(get(FILES)), "HTTP/1.1 405 Method Not Allowed");
    assert_eq!(status(get("/")), "HTTP/1.1 404 Not Found");
    let seen = seeing.ask(&rig, &agent, &asking(&[path("pool/b")])).unwrap();
    let seen: FilesSeen = serde_json::from_str(seen.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!((seen.files.len(), seen.files[0].length), (1, 6));
}

#[test]
fn a_witness_writes_its_heartbeat_and_tells_its_files() {
    let ca = Ca::new();
    let rig = Rig::with(&ca, Programs::new());
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().canonicalize().unwrap().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir(path("own")).unwrap();
    std::fs::write(path("own/disk"), "x").unwrap();
    let heartbeat = Heartbeat { path: Absolute(path("beat")), interval: Interval::try_from(1).unwrap() };
    let config = Config { own_files: vec![Absolute(path("own"))], heartbeat: Some(heartbeat), ..Config::default() };
    let host = Host::start(&rig, &ca.witness("h1"), "h1", config);
    let agent = ca.agent("r1");
    let health = || -> Health {
        let answer = host.ask(&rig, &agent, &get(HEALTH)).unwrap();
        serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap()
    };
    eventually("its file is told", || health().files == [path("own/disk")]);
    assert!(health().well);
    let own = || rig.activity(ActivityCheck::Files { paths: Vec::new() }, LONG);
    is_unknown(&own(), "has told of none");
    assert_eq!(rig.health(host.check(), LONG), Sign::Alive);
    assert!(matches!(own(), Sign::Stamps(stamps) if stamps[0].path == path("own/disk")), "what it told is looked at");
    let beat = || rig.activity(ActivityCheck::Heartbeat { path: path("beat") }, LONG);
    eventually("a heartbeat", || matches!(beat(), Sign::Stamps(_)));
    let first = beat();
    eventually("another", || matches!(beat(), Sign::Stamps(_)) && beat() != first);
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let end = clock::boottime() + LONG;
    while !condition() {
        assert!(clock::boottime() < end, "{what}");
        sleep(Duration::from_millis(20));
    }
}
