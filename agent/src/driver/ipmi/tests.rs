//! The engine over real UDP on loopback, against the test BMC on a thread.

use std::collections::{BTreeMap, HashMap};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use picket_common::secret::Secret;

use super::super::address::AllowedNetworks;
use super::super::{Completions, Driver};
use super::Ipmi;
use crate::bmc::{Answer, Ask, Bmc, Completion, DriverError, ErrorClass, Job, PowerReply, Reading};
use crate::clock;
use crate::eventually::eventually;
use crate::ipmi::testbmc::TestBmc;

/// Test BMCs behind one socket; each client port is a "port" of its BMC.
struct Farm {
    address: SocketAddr,
    bmc: Arc<Mutex<TestBmc>>,
    stop: Arc<AtomicBool>,
    datagrams: Arc<AtomicUsize>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Farm {
    fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        Self::on(socket)
    }

    fn on(socket: UdpSocket) -> Self {
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let address = socket.local_addr().unwrap();
        let bmc = Arc::new(Mutex::new(TestBmc::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let datagrams = Arc::new(AtomicUsize::new(0));
        let thread = std::thread::spawn({
            let (bmc, stop, datagrams) = (Arc::clone(&bmc), Arc::clone(&stop), Arc::clone(&datagrams));
            move || {
                let mut ports = HashMap::new();
                let mut buffer = [0u8; 2048];
                while !stop.load(Ordering::Relaxed) {
                    let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
                    datagrams.fetch_add(1, Ordering::Relaxed);
                    let next = u8::try_from(ports.len()).unwrap();
                    let port = *ports.entry(from).or_insert(next);
                    for answer in bmc.lock().unwrap().handle(port, &buffer[..len]) {
                        socket.send_to(&answer, from).unwrap();
                    }
                }
            }
        });
        Self { address, bmc, stop, datagrams, thread: Some(thread) }
    }

    fn bmc(&self) -> MutexGuard<'_, TestBmc> {
        self.bmc.lock().unwrap()
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

struct Client {
    driver: Ipmi,
    answers: Receiver<Completion>,
    runtime: tokio::runtime::Runtime,
}

fn loopback() -> AllowedNetworks {
    AllowedNetworks { networks: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()] }
}

impl Client {
    fn new(allowed: AllowedNetworks) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (sender, answers) = mpsc::channel();
        let sender = Mutex::new(sender);
        let completions: Completions = Arc::new(move |batch: Vec<Completion>| {
            let sender = sender.lock().unwrap();
            // The receiver is gone at the end of a test.
            batch.into_iter().for_each(|completion| drop(sender.send(completion)));
        });
        let driver = runtime.block_on(async { Ipmi::new(completions, allowed) }).unwrap();
        let driver = driver.serving_local(Some("own".parse().unwrap()));
        Self { driver, answers, runtime }
    }

    fn submit(&self, bmc: &Arc<Bmc>, ask: Ask, ticket: u64, timeout: Duration) {
        self.driver.submit(vec![Job { ticket, bmc: Arc::clone(bmc), ask, new_password: None, timeout }]);
    }

    fn next(&self) -> Completion {
        self.answers.recv_timeout(Duration::from_secs(20)).expect("every job gets its completion")
    }

    fn ask(&self, bmc: &Arc<Bmc>, ask: Ask) -> Result<Answer, DriverError> {
        self.submit(bmc, ask, 1, Duration::from_secs(5));
        self.next().result
    }
}

fn bmc(host: &str, address: SocketAddr, revision: u64) -> Bmc {
    Bmc {
        host: host.parse().unwrap(),
        address: address.ip().to_string(),
        port: Some(address.port()),
        username: "operator".into(),
        password: Secret::new("oper".into()),
        options: BTreeMap::new(),
        revision,
    }
}

#[test]
fn a_kept_session_serves_job_after_job_with_one_datagram_each() {
    let farm = Farm::new();
    let client = Client::new(loopback());
    let host = Arc::new(bmc("h1", farm.address, 1));
    assert_eq!(client.ask(&host, Ask::Status), Ok(Answer::Reading(Reading::On)));
    let before = farm.datagrams.load(Ordering::Relaxed);
    let begin = clock::boottime();
    assert_eq!(client.ask(&host, Ask::Off), Ok(Answer::Power(PowerReply::Accepted)));
    client.submit(&host, Ask::Status, 9, Duration::from_secs(5));
    let completion = client.next();
    assert_eq!((completion.ticket, completion.result), (9, Ok(Answer::Reading(Reading::Off))));
    assert!(completion.begun >= begin && completion.begun <= clock::boottime());
    assert_eq!(farm.datagrams.load(Ordering::Relaxed) - before, 2);
}

#[test]
fn jobs_for_one_bmc_wait_their_turn() {
    let farm = Farm::new();
    let client = Client::new(loopback());
    let host = Arc::new(bmc("h1", farm.address, 1));
    let jobs = (0..20).map(|ticket| Job {
        ticket,
        bmc: Arc::clone(&host),
        ask: Ask::Status,
        new_password: None,
        timeout: Duration::from_secs(5),
    });
    client.driver.submit(jobs.collect());
    for ticket in 0..20 {
        let completion = client.next();
        assert_eq!((completion.ticket, completion.result), (ticket, Ok(Answer::Reading(Reading::On))));
    }
    assert_eq!(farm.bmc().proposed, [17], "one handshake");
}

#[test]
fn new_settings_close_the_old_session_and_open_another() {
    let farm = Farm::new();
    let client = Client::new(loopback());
    client.ask(&Arc::new(bmc("h1", farm.address, 1)), Ask::Status).unwrap();
    let mut changed = bmc("h1", farm.address, 2);
    changed.username = "admin".into();
    changed.password = Secret::new("secret".into());
    client.ask(&Arc::new(changed), Ask::Status).unwrap();
    let closes = || farm.bmc().executed.iter().filter(|(netfn, command, _)| (*netfn, *command) == (6, 0x3C)).count();
    assert_eq!(farm.bmc().proposed.len(), 2);
    eventually("the old session is closed", || closes() == 1 && farm.bmc().sessions.len() == 1);
}

#[test]
fn forget_and_shutdown_close_sessions_and_tolerate_silence() {
    let farms: Vec<Farm> = (0..3).map(|_| Farm::new()).collect();
    let client = Client::new(loopback());
    let hosts: Vec<Arc<Bmc>> = farms.iter().enumerate().map(|(n, farm)| Arc::new(bmc(&format!("h{n}"), farm.address, 1))).collect();
    for host in &hosts {
        client.ask(host, Ask::Status).unwrap();
    }
    client.driver.forget(&hosts[0].host);
    eventually("the session is closed", || farms[0].bmc().sessions.is_empty());
    farms[2].bmc().faults.silent = true;
    client.submit(&hosts[2], Ask::Off, 77, Duration::from_secs(60));
    let begin = clock::boottime();
    client.runtime.block_on(client.driver.shutdown());
    assert!(clock::boottime() - begin < Duration::from_millis(2500));
    assert!(farms[1].bmc().sessions.is_empty());
    let outstanding = client.next();
    assert_eq!(outstanding.ticket, 77);
    assert_eq!(outstanding.result.unwrap_err().class, ErrorClass::Connection);
    assert_eq!(client.ask(&hosts[1], Ask::Status).unwrap_err().code, crate::bmc::SHUTTING_DOWN);
}

#[test]
fn no_byte_goes_to_an_address_that_is_not_allowed() {
    let farm = Farm::new();
    let client = Client::new(AllowedNetworks::default());
    let mut named = bmc("h2", farm.address, 1);
    named.address = "localhost".into();
    for host in [bmc("h1", farm.address, 1), named] {
        let error = client.ask(&Arc::new(host), Ask::Status).unwrap_err();
        assert_eq!((error.class, error.code.as_str()), (ErrorClass::Setting, "address-not-allowed"));
    }
    assert_eq!(farm.datagrams.load(Ordering::Relaxed), 0);
}

#[test]
fn names_are_resolved_and_unknown_ones_told() {
    let farm = Farm::new();
    let client = Client::new(AllowedNetworks { networks: vec!["127.0.0.0/8".parse().unwrap()] });
    let mut named = bmc("h1", farm.address, 1);
    named.address = "localhost".into();
    let named = Arc::new(named);
    for _ in 0..3 {
        assert_eq!(client.ask(&named, Ask::Status), Ok(Answer::Reading(Reading::On)));
    }
    let mut unknown = bmc("h2", farm.address, 1);
    unknown.address = "no-such-bmc.invalid".into();
    let error = client.ask(&Arc::new(unknown), Ask::Status).unwrap_err();
    assert!(matches!(error.class, ErrorClass::Connection | ErrorClass::Deadline), "{error}");
}

#[test]
fn wrong_options_and_logins_are_told_at_once() {
    let farm = Farm::new();
    let client = Client::new(loopback());
    let mut host = bmc("h1", farm.address, 1);
    host.options.insert("cipher_suite".into(), "0".into());
    let error = client.ask(&Arc::new(host), Ask::Status).unwrap_err();
    assert_eq!((error.class, error.code.as_str(), error.driver), (ErrorClass::Setting, "bad-option", "ipmi"));
    let mut host = bmc("h2", farm.address, 1);
    host.password = Secret::new("wrong".into());
    let error = client.ask(&Arc::new(host), Ask::Off).unwrap_err();
    assert_eq!((error.class, error.code.as_str(), error.maybe_sent), (ErrorClass::Auth, "rakp2-hmac", false));
    assert!(error.address.ends_with(&farm.address.port().to_string()));
}

#[test]
fn the_local_interface_needs_its_device_and_serves_the_agents_own_host_alone() {
    let client = Client::new(loopback());
    for (host, wanted) in [("own", (ErrorClass::Connection, "no-device")), ("h1", (ErrorClass::Setting, "address-not-allowed"))] {
        let mut host = bmc(host, "127.0.0.1:623".parse().unwrap(), 1);
        host.options.insert("interface".into(), "open".into());
        let error = client.ask(&Arc::new(host), Ask::Status).unwrap_err();
        assert_eq!((error.class, error.code.as_str()), wanted);
    }
}

#[test]
fn ipv6_works_where_there_is_ipv6() {
    let Ok(socket) = UdpSocket::bind("[::1]:0") else { return };
    let farm = Farm::on(socket);
    let client = Client::new(loopback());
    assert_eq!(client.ask(&Arc::new(bmc("h1", farm.address, 1)), Ask::Status), Ok(Answer::Reading(Reading::On)));
}

#[test]
fn silent_bmcs_cost_the_others_nothing() {
    let farm = Farm::new();
    // Bound and never read: a BMC that swallows everything.
    let dead = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = Client::new(loopback());
    let silent: Vec<Job> = (0..10_000)
        .map(|n| Job {
            ticket: 0,
            bmc: Arc::new(bmc(&format!("dead{n}"), dead, 1)),
            ask: Ask::Status,
            new_password: None,
            timeout: Duration::from_secs(3),
        })
        .collect();
    let live = Job {
        ticket: 1,
        bmc: Arc::new(bmc("live", farm.address, 1)),
        ask: Ask::Status,
        new_password: None,
        timeout: Duration::from_secs(3),
    };
    client.driver.submit(silent);
    client.driver.submit(vec![live]);
    let mut answered = HashMap::new();
    for _ in 0..10_001 {
        let completion = client.next();
        *answered.entry((completion.ticket, completion.result.is_ok())).or_insert(0) += 1;
    }
    assert_eq!(answered, HashMap::from([((0, false), 10_000), ((1, true), 1)]));
}
