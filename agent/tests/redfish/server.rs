//! A scripted HTTPS server that plays one BMC, and the rig that puts the driver before it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use picket_agent::bmc::{Answer, Ask, Bmc, Completion, DriverError, Job};
use picket_agent::driver::Driver;
use picket_agent::driver::address::AllowedNetworks;
use picket_agent::driver::redfish::{Config, Memory, Redfish, RedfishMemory, Volatile};
use picket_common::id::HostId;
use picket_common::secret::Secret;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

pub const RESET: &str = "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset";
pub const SYSTEM: &str = "/redfish/v1/Systems/1";
pub const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
pub const ACCOUNTS: &str = "/redfish/v1/AccountService/Accounts";
pub const ACCOUNT: &str = "/redfish/v1/AccountService/Accounts/3";

#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Seen {
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    pub fn reads_system(&self) -> bool {
        self.method == "GET" && self.path == SYSTEM
    }

    pub fn logs_in(&self) -> bool {
        self.method == "POST" && self.path == SESSIONS
    }

    pub fn resets(&self) -> bool {
        self.method == "POST" && self.path == RESET
    }

    pub fn changes(&self) -> bool {
        self.method == "PATCH"
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

pub enum Say {
    /// Status, further header lines, body.
    Answer(u16, String, String),
    /// A good status and a body without end.
    Endless,
    /// The request is taken and the connection closed.
    Hangup,
    /// Nothing, ever.
    Silence,
}

pub fn say(status: u16, body: impl Into<String>) -> Option<Say> {
    Some(Say::Answer(status, String::new(), body.into()))
}

pub fn say_with(status: u16, headers: &str, body: &str) -> Option<Say> {
    Some(Say::Answer(status, headers.into(), body.into()))
}

/// What is not `None` replaces the ordinary answer.
pub type Script = Box<dyn Fn(&Seen) -> Option<Say> + Send + Sync>;

pub struct Server {
    pub address: SocketAddr,
    pub identity: Mutex<Identity>,
    pub connections: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
    logins: AtomicUsize,
    script: Script,
}

#[derive(Clone)]
pub struct Identity {
    config: Arc<rustls::ServerConfig>,
    certificate: Vec<u8>,
}

impl Identity {
    pub fn new(certificate: &rcgen::Certificate, key: &rcgen::KeyPair) -> Self {
        let der = certificate.der().clone();
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![der.clone()], key)
            .unwrap();
        Self { config: Arc::new(config), certificate: der.to_vec() }
    }

    pub fn self_signed() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
        Self::new(&made.cert, &made.signing_key)
    }
}

impl Server {
    pub async fn start(identity: Identity, script: Script) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            identity: Mutex::new(identity),
            connections: AtomicUsize::new(0),
            seen: Mutex::default(),
            logins: AtomicUsize::new(0),
            script,
        });
        let serving = Arc::clone(&server);
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                serving.connections.fetch_add(1, Ordering::SeqCst);
                let config = Arc::clone(&serving.identity.lock().unwrap().config);
                let serving = Arc::clone(&serving);
                tokio::spawn(async move {
                    if let Ok(stream) = TlsAcceptor::from(config).accept(socket).await {
                        serving.serve(stream).await;
                    }
                });
            }
        });
        server
    }

    async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        while let Some(seen) = read_request(&mut stream).await {
            self.seen.lock().unwrap().push(seen.clone());
            match (self.script)(&seen).unwrap_or_else(|| self.ordinary(&seen)) {
                Say::Answer(status, headers, body) => {
                    let length = if status == 204 { String::new() } else { format!("content-length: {}\r\n", body.len()) };
                    let head = format!("HTTP/1.1 {status} X\r\n{length}{headers}\r\n");
                    if stream.write_all((head + &body).as_bytes()).await.is_err() {
                        return;
                    }
                }
                Say::Endless => {
                    let mut sent = stream.write_all(b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n").await;
                    while sent.is_ok() {
                        sent = stream.write_all(format!("1000\r\n{}\r\n", " ".repeat(4096)).as_bytes()).await;
                    }
                    return;
                }
                Say::Hangup => return,
                Say::Silence => std::future::pending().await,
            }
            if seen.header("connection") == "close" {
                let _closed = stream.shutdown().await;
                return;
            }
        }
    }

    /// What an ordinary BMC answers.
    fn ordinary(&self, seen: &Seen) -> Say {
        let answer = match (seen.method.as_str(), seen.path.as_str()) {
            ("GET", "/redfish/v1/") => say(200, root(true)),
            ("GET", "/redfish/v1/Systems") => say(200, members(&[SYSTEM])),
            ("POST", SESSIONS) => {
                let n = self.logins.fetch_add(1, Ordering::SeqCst) + 1;
                say_with(201, &format!("X-Auth-Token: token{n}\r\nLocation: {SESSIONS}/{n}\r\n"), "{}")
            }
            ("GET", SYSTEM) => say(200, system("\"On\"")),
            ("GET", "/redfish/v1/AccountService") => say(200, format!(r#"{{"Accounts":{{"@odata.id":"{ACCOUNTS}"}}}}"#)),
            ("GET", ACCOUNTS) => say(200, members(&[ACCOUNT])),
            ("GET", ACCOUNT) => say_with(200, "ETag: \"a1\"\r\n", r#"{"UserName":"operator","RoleId":"Operator"}"#),
            ("PATCH", _) => say(204, ""),
            ("POST", RESET) => say(204, ""),
            ("DELETE", path) if path.starts_with(SESSIONS) => say(204, ""),
            _ => say(404, "{}"),
        };
        answer.unwrap()
    }

    pub fn lines(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(Seen::line).collect()
    }

    pub fn all(&self, which: impl Fn(&Seen) -> bool) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().filter(|seen| which(seen)).cloned().collect()
    }

    pub fn count(&self, which: impl Fn(&Seen) -> bool) -> usize {
        self.all(which).len()
    }

    pub fn last(&self, which: impl Fn(&Seen) -> bool) -> Seen {
        self.all(which).pop().unwrap()
    }

    pub fn deleted(&self, session: u32) -> usize {
        self.count(|seen| seen.line() == format!("DELETE {SESSIONS}/{session}"))
    }

    pub fn connected(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(&self.identity.lock().unwrap().certificate).into()
    }
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ').map(str::to_owned);
    let headers: BTreeMap<String, String> =
        lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    let mut body = vec![0; headers.get("content-length").map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.ok()?;
    Some(Seen { method: words.next()?, path: words.next()?, headers, body: String::from_utf8(body).unwrap() })
}

pub fn root(sessions: bool) -> String {
    let service = if sessions { r#","SessionService":{"@odata.id":"/redfish/v1/SessionService"}"# } else { "" };
    let accounts = r#""AccountService":{"@odata.id":"/redfish/v1/AccountService"}"#;
    format!(r#"{{"RedfishVersion":"1.11.0","Systems":{{"@odata.id":"/redfish/v1/Systems"}},{accounts}{service}}}"#)
}

pub fn members(paths: &[&str]) -> String {
    let links: Vec<String> = paths.iter().map(|path| format!(r#"{{"@odata.id":"{path}"}}"#)).collect();
    format!(r#"{{"Members":[null,{}]}}"#, links.join(","))
}

pub fn system(power_state: &str) -> String {
    system_with(power_state, r#","ResetType@Redfish.AllowableValues":["On","ForceOff","GracefulShutdown","ForceRestart"]"#)
}

/// `action` goes into the reset action as it is.
pub fn system_with(power_state: &str, action: &str) -> String {
    format!(
        r##"{{"UUID":"4C4C4544-0042-4410-8057-B4C04F564433","PowerState":{power_state},"Actions":{{"#ComputerSystem.Reset":{{"target":"{RESET}"{action}}}}}}}"##
    )
}

/// A system with these further members.
pub fn system_and(members: &str) -> String {
    system("\"On\"").replacen('{', &format!("{{{members},"), 1)
}

/// The driver before one BMC.
pub struct Rig {
    pub driver: Redfish,
    pub answers: mpsc::UnboundedReceiver<Completion>,
    pub bmc: Bmc,
    pub memory: Arc<Volatile>,
}

impl Rig {
    pub fn new(address: SocketAddr, options: &[(&str, &str)]) -> Self {
        Self::with(address, options, &Arc::default(), Vec::new())
    }

    pub fn with(address: SocketAddr, options: &[(&str, &str)], memory: &Arc<Volatile>, roots: Vec<Vec<u8>>) -> Self {
        let (tell, answers) = mpsc::unbounded_channel();
        let completions = Arc::new(move |batch: Vec<Completion>| batch.into_iter().for_each(|one| tell.send(one).unwrap_or(())));
        let config = Config { allowed: AllowedNetworks { networks: vec!["127.0.0.0/8".parse().unwrap()] }, roots };
        let memories: Arc<dyn Memory> = Arc::<Volatile>::clone(memory);
        let bmc = Bmc {
            host: host(),
            address: address.ip().to_string(),
            port: Some(address.port()),
            username: "operator".into(),
            password: Secret::new("s3cret-word".into()),
            options: options.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            revision: 1,
        };
        let driver = Redfish::new(completions, config, Handle::current(), memories).unwrap();
        Self { driver, answers, bmc, memory: Arc::clone(memory) }
    }

    pub async fn complete(&mut self, ask: Ask, timeout: Duration) -> Completion {
        self.complete_with(ask, None, timeout).await
    }

    /// Sets a password.
    pub async fn set_password(&mut self, new: &str) -> Result<Answer, DriverError> {
        self.complete_with(Ask::SetPassword, Some(new), Duration::from_secs(10)).await.result
    }

    pub async fn complete_with(&mut self, ask: Ask, new: Option<&str>, timeout: Duration) -> Completion {
        let new_password = new.map(|new| Secret::new(new.to_owned()));
        self.driver.submit(vec![Job { ticket: 7, bmc: Arc::new(self.bmc.clone()), ask, new_password, timeout }]);
        let completion = tokio::time::timeout(timeout + Duration::from_secs(5), self.answers.recv()).await.unwrap().unwrap();
        assert_eq!(completion.ticket, 7);
        completion
    }

    pub async fn ask(&mut self, ask: Ask) -> Result<Answer, DriverError> {
        self.complete(ask, Duration::from_secs(10)).await.result
    }

    pub async fn fail(&mut self, ask: Ask) -> DriverError {
        self.ask(ask).await.unwrap_err()
    }

    pub fn remembered(&self) -> Option<RedfishMemory> {
        self.memory.load(&host())
    }
}

pub fn host() -> HostId {
    "h1".parse().unwrap()
}

/// A BMC that answers by `script` and the driver before it.
pub async fn rig(options: &[(&str, &str)], script: impl Fn(&Seen) -> Option<Say> + Send + Sync + 'static) -> (Arc<Server>, Rig) {
    let server = Server::start(Identity::self_signed(), Box::new(script)).await;
    let rig = Rig::new(server.address, options);
    (server, rig)
}

pub fn ordinary(_: &Seen) -> Option<Say> {
    None
}

/// Counts its calls from 1.
pub fn counter() -> impl Fn() -> usize + Send + Sync {
    let count = AtomicUsize::new(0);
    move || count.fetch_add(1, Ordering::SeqCst) + 1
}

pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}
