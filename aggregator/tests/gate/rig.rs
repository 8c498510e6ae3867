//! A gate on loopback with an authority of its own, and clients of three kinds: bytes, rumqttc, mosquitto.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use picket_aggregator::broker::{Broker, Inbound, Message, Retained};
use picket_aggregator::clock;
use picket_aggregator::gate::{AgentKeys, Gate, GateConfig, GateHandle, Limits};
use picket_aggregator::pki::{Authority, GateTls, Identity, Role};
use picket_common::clock::Now;
use picket_common::id::{AgentId, ConsumerId};
use picket_common::wire::topic::{Channel, matches};
use rcgen::{CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType, SerialNumber};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS, TlsConfiguration, Transport};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::eventually::eventually;

/// A SUBACK's code for a filter that is not allowed.
pub const DENIED: u8 = 0x80;
/// Long enough that a loaded machine makes no failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// Certificate, key (PEM) and the key's SPKI hash.
pub type Card = (String, String, String);

#[derive(Default)]
pub struct Documents {
    map: Mutex<BTreeMap<String, Bytes>>,
    reads: AtomicUsize,
}

impl Retained for Documents {
    fn matching(&self, filter: &str) -> Vec<(String, Bytes)> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let documents = self.map.lock().unwrap();
        documents.iter().filter(|(topic, _)| matches(filter, topic)).map(|(t, p)| (t.clone(), p.clone())).collect()
    }
}

pub struct Rig {
    pub authority: Authority,
    pub address: SocketAddr,
    pub broker: Broker,
    pub handle: GateHandle,
    pub tls_settings: GateTls,
    documents: Arc<Documents>,
    inbound: mpsc::Receiver<Inbound>,
    /// Keys that are no agent's any more.
    strangers: Arc<Mutex<HashSet<String>>>,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
    dir: tempfile::TempDir,
}

pub fn agent(name: &str) -> AgentId {
    name.parse().unwrap()
}

pub fn consumer(name: &str) -> ConsumerId {
    name.parse().unwrap()
}

pub fn uri(identity: &Identity) -> String {
    format!("picket://{}/{}", identity.site, identity.role)
}

/// The topic of host `i`: ten clusters of a zone.
pub fn topic(i: usize) -> String {
    format!("picket/v1/state/z1/c{}/h{i}", i % 10)
}

impl Rig {
    pub async fn new() -> Self {
        Self::with(Limits::default(), 1024).await
    }

    /// With `inbound` messages of room towards the core.
    pub async fn with(limits: Limits, inbound: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let (authority, _) = Authority::init(dir.path(), &"s1".parse().unwrap(), &names, clock::now()).unwrap();
        Self::over(dir, authority, Arc::default(), limits, inbound).await
    }

    async fn over(dir: tempfile::TempDir, authority: Authority, documents: Arc<Documents>, limits: Limits, inbound: usize) -> Self {
        let (to_core, inbound) = mpsc::channel(inbound);
        let broker = Broker::embedded(documents.clone(), to_core).unwrap();
        let tls = GateTls::new(authority.gate_material(Vec::new()).unwrap()).unwrap();
        let strangers: Arc<Mutex<HashSet<String>>> = Arc::default();
        let disowned = strangers.clone();
        let keys = AgentKeys::new(move |_, spki| !disowned.lock().unwrap().contains(spki));
        let config = GateConfig { limits, site: authority.site().clone(), keys };
        let gate = Gate::bind("127.0.0.1:0".parse().unwrap(), tls.clone(), config, broker.clone()).await.unwrap();
        let (address, handle) = (gate.local_addr(), gate.handle());
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(gate.run(async move {
            stopped.await.ok();
        }));
        let stop = Some(stop);
        Self { authority, address, broker, handle, tls_settings: tls, documents, inbound, strangers, stop, running, dir }
    }

    /// Another broker, gate and authority from what is kept: the files and the documents.
    pub async fn restart(&mut self) {
        self.stop().await;
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        let authority = Authority::load(dir.path()).unwrap();
        *self = Self::over(dir, authority, self.documents.clone(), Limits::default(), 1024).await;
    }

    pub async fn stop(&mut self) {
        drop(self.stop.take());
        timeout(PATIENCE, &mut self.running).await.unwrap().unwrap();
    }

    pub async fn inbound(&mut self) -> Option<Inbound> {
        timeout(PATIENCE, self.inbound.recv()).await.expect("something from an agent")
    }

    pub fn try_inbound(&mut self) -> Option<Inbound> {
        self.inbound.try_recv().ok()
    }

    /// The key with this hash is no agent's from now on.
    pub fn disown(&self, spki: &str) {
        self.strangers.lock().unwrap().insert(spki.to_owned());
    }

    /// How often retained documents were read.
    pub fn snapshots(&self) -> usize {
        self.documents.reads.load(Ordering::SeqCst)
    }

    /// The next message, which must be one.
    pub async fn message(&mut self) -> Option<(AgentId, Channel, Bytes)> {
        match self.inbound().await? {
            Inbound::Message { agent, channel, payload } => Some((agent, channel, payload)),
            Inbound::Disconnected { agent } => panic!("{agent} disconnected"),
        }
    }

    pub async fn until(&mut self, condition: impl Fn(&Self) -> bool) {
        eventually("the condition", async || condition(self).then_some(())).await;
    }

    /// Opens connections and throws at them what is made of `templates` with bytes changed at random; most begin as `opening` says,
    /// to the client of its name. Ends when all of them are gone, but for the one that looks on.
    pub async fn besieged(&mut self, seed: u64, packets: usize, templates: &[Vec<u8>], opening: impl Fn(&'static str) -> Vec<u8>) {
        let mut random = Random(seed);
        let (agent_tls, consumer_tls) = (self.agent_tls("r07"), self.consumer_tls("fuzz"));
        let mut sent = 0;
        while sent < packets {
            let is_agent = random.byte().is_multiple_of(2);
            let mut raw = self.tls(if is_agent { &agent_tls } else { &consumer_tls }).await.unwrap();
            if !random.byte().is_multiple_of(4) {
                raw.try_send(&opening(if is_agent { "r07" } else { "f" })).await;
            }
            for _ in 0..40 {
                let mut bytes = templates[usize::from(random.byte()) % templates.len()].clone();
                for _ in 0..random.byte() % 4 {
                    let at = usize::from(random.byte()) % bytes.len();
                    bytes[at] = random.byte();
                }
                raw.try_send(&bytes).await;
                sent += 1;
            }
            while self.try_inbound().is_some() {}
        }
        self.until(|rig| rig.handle.sessions() == 1).await;
        while self.try_inbound().is_some() {}
    }

    /// `count` hosts at sequence 0.
    pub fn fill(&self, count: usize) {
        let mut documents = self.documents.map.lock().unwrap();
        documents.extend((0..count).map(|i| (topic(i), Bytes::from_static(b"0"))));
    }

    /// Host `i` changes: first what is retained, then the word of it.
    pub fn change(&self, i: usize, seq: u64) {
        let payload = Bytes::from(seq.to_string());
        self.documents.map.lock().unwrap().insert(topic(i), payload.clone());
        self.broker.publish(&topic(i), Message::document(payload), true);
    }

    /// Says a document to whoever listens.
    pub fn say(&self, topic: &str, json: impl Into<Bytes>) {
        self.broker.publish(topic, Message::document(json.into()), false);
    }

    /// What is retained of host `i`.
    pub fn document(&self, i: usize) -> String {
        let documents = self.documents.map.lock().unwrap();
        String::from_utf8(documents.get(&topic(i)).unwrap().to_vec()).unwrap()
    }

    pub fn agent_of(authority: &Authority, name: &str, now: Now) -> Card {
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let (certificate, spki) = authority.sign_agent(&csr, &agent(name), now, 30).unwrap();
        (certificate, key.serialize_pem(), spki)
    }

    fn consumer_card(&self, name: &str) -> Card {
        let (certificate, key) = self.authority.issue_consumer(&consumer(name), clock::now(), 30).unwrap();
        (certificate, key.to_string(), String::new())
    }

    /// A certificate of our authority with exactly these URIs.
    pub fn named(&self, uris: &[&str], client: bool) -> Card {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        let usage = if client { ExtendedKeyUsagePurpose::ClientAuth } else { ExtendedKeyUsagePurpose::ServerAuth };
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &self.issuer()).unwrap();
        (certificate.pem(), key.serialize_pem(), String::new())
    }

    fn issuer(&self) -> Issuer<'static, KeyPair> {
        let key = std::fs::read_to_string(self.dir.path().join("pki/ca.key")).unwrap();
        Issuer::from_ca_cert_pem(self.authority.ca_pem(), KeyPair::from_pem(&key).unwrap()).unwrap()
    }

    pub fn agent_with_serial(&self, name: &str) -> (ClientConfig, Vec<u8>) {
        let card = Self::agent_of(&self.authority, name, clock::now());
        let der = CertificateDer::from_pem_slice(card.0.as_bytes()).unwrap();
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
        let serial = certificate.raw_serial().to_vec();
        (self.client_tls(Some(card)), serial)
    }

    pub fn crl(&self, serial: &[u8]) -> CertificateRevocationListDer<'static> {
        let now = time::OffsetDateTime::from_unix_timestamp(clock::now().wall.as_second()).unwrap();
        let revoked = rcgen::RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now,
            next_update: now + time::Duration::days(1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer()).unwrap().der().clone()
    }

    pub fn client_tls(&self, card: Option<Card>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.ca_pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        match card {
            None => builder.with_no_client_auth(),
            Some((certificate, key, _)) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
                )
                .unwrap(),
        }
    }

    pub fn agent_tls(&self, name: &str) -> ClientConfig {
        self.client_tls(Some(Self::agent_of(&self.authority, name, clock::now())))
    }

    pub fn consumer_tls(&self, name: &str) -> ClientConfig {
        self.client_tls(Some(self.consumer_card(name)))
    }

    /// A TLS connection that has said nothing yet.
    pub async fn tls(&self, config: &ClientConfig) -> std::io::Result<Raw> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config.clone())).connect(name, stream).await?;
        Ok(Raw { stream, buffer: BytesMut::new(), ended_politely: false })
    }

    pub async fn agent(&self, name: &str) -> Raw {
        self.connected(&self.agent_tls(name), name).await
    }

    pub async fn consumer(&self, name: &str) -> Raw {
        self.connected(&self.consumer_tls(name), "").await
    }

    async fn connected(&self, tls: &ClientConfig, client_id: &str) -> Raw {
        let mut raw = self.tls(tls).await.unwrap();
        raw.send(&connect(client_id, 60, None)).await;
        assert_eq!(raw.packet().await, Some((0x20, vec![0, 0])));
        raw
    }

    /// rumqttc as a consumer.
    pub fn client(&self, name: &str) -> Client {
        self.rumqttc(self.consumer_tls(name), "some-id")
    }

    /// rumqttc as an agent.
    pub fn agent_client(&self, name: &str) -> Client {
        self.rumqttc(self.agent_tls(name), name)
    }

    fn rumqttc(&self, tls: ClientConfig, client_id: &str) -> Client {
        let mut options = MqttOptions::new(client_id, "localhost", self.address.port());
        options.set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::new(tls))));
        options.set_max_packet_size(1 << 20, 1 << 20);
        let (client, events) = AsyncClient::new(options, 10);
        Client { client, events }
    }

    pub async fn mosquitto_sub(&self, name: &str, host: &str, arguments: &[&str]) -> Vec<String> {
        self.mosquitto(Role::Consumer(consumer(name)), host, &[&["-F", "%t %p"], arguments].concat()).await
    }

    /// Runs `mosquitto_sub` to its end and gives the lines of both its outputs.
    pub async fn mosquitto(&self, role: Role, host: &str, arguments: &[&str]) -> Vec<String> {
        let output = self.mosquitto_command(role, host, arguments).output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        format!("{}{}", text(&output.stdout), text(&output.stderr)).lines().map(str::to_owned).collect()
    }

    /// Starts `mosquitto_sub`, waits until it is subscribed, and leaves it to collect payloads. For the first consumer of a rig:
    /// others' snapshots would be taken for its own.
    pub async fn mosquitto_sub_started(&mut self, name: &str, arguments: &[&str]) -> JoinHandle<Vec<String>> {
        assert_eq!(self.documents.reads.load(Ordering::SeqCst), 0, "the first consumer");
        let mut command = self.mosquitto_command(Role::Consumer(consumer(name)), "localhost", arguments);
        let child = command.stdout(Stdio::piped()).spawn().unwrap();
        // Retained documents are read when the subscription stands.
        self.until(|rig| rig.documents.reads.load(Ordering::SeqCst) > 0).await;
        tokio::spawn(async move {
            let output = child.wait_with_output().await.unwrap();
            String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
        })
    }

    fn mosquitto_command(&self, role: Role, host: &str, arguments: &[&str]) -> tokio::process::Command {
        let (certificate, key, _) = match &role {
            Role::Agent(agent) => Self::agent_of(&self.authority, agent.as_str(), clock::now()),
            Role::Consumer(consumer) => self.consumer_card(consumer.as_str()),
            Role::Witness(_) => unreachable!("no client"),
        };
        let file = |name: &str, content: &str| {
            let path = self.dir.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let mut command = tokio::process::Command::new("mosquitto_sub");
        command.args(["-h", host, "-p", &self.address.port().to_string()]);
        command.arg("--cafile").arg(file("ca.crt", self.authority.ca_pem()));
        command.arg("--cert").arg(file("client.crt", &certificate)).arg("--key").arg(file("client.key", &key));
        command.args(arguments).kill_on_drop(true);
        command
    }
}

/// A client of bytes.
pub struct Raw {
    stream: TlsStream<TcpStream>,
    buffer: BytesMut,
    /// It ended, and TLS said so before TCP did.
    pub ended_politely: bool,
}

impl Raw {
    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Sends what the other side may no longer want.
    pub async fn try_send(&mut self, bytes: &[u8]) {
        if self.stream.write_all(bytes).await.is_ok() {
            self.stream.flush().await.ok();
        }
    }

    /// First byte and body of the next packet; `None` at the connection's end, however that comes.
    pub async fn packet(&mut self) -> Option<(u8, Vec<u8>)> {
        timeout(PATIENCE, self.read()).await.expect("a packet or the end")
    }

    async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let mut len = 0;
            let end = self.buffer.iter().skip(1).take(4).position(|byte| byte & 0x80 == 0);
            if let Some(end) = end {
                for (i, byte) in self.buffer.iter().skip(1).take(end + 1).enumerate() {
                    len |= usize::from(byte & 0x7f) << (7 * i);
                }
                if self.buffer.len() >= 2 + end + len {
                    let packet = self.buffer.split_to(2 + end + len);
                    return Some((packet[0], packet[2 + end..].to_vec()));
                }
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => {
                    self.ended_politely = true;
                    return None;
                }
                Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}

/// rumqttc, driven by hand.
pub struct Client {
    client: AsyncClient,
    events: EventLoop,
}

impl Client {
    pub fn sender(&self) -> AsyncClient {
        self.client.clone()
    }

    pub async fn event(&mut self) -> Event {
        timeout(PATIENCE, self.events.poll()).await.expect("an event").unwrap()
    }

    pub async fn connected(&mut self) {
        while !matches!(self.event().await, Event::Incoming(Packet::ConnAck(_))) {}
    }

    pub async fn subscribe(&mut self, filter: &str, qos: QoS) {
        self.client.subscribe(filter, qos).await.unwrap();
        loop {
            if let Event::Incoming(Packet::SubAck(ack)) = self.event().await {
                assert!(matches!(ack.return_codes[..], [rumqttc::SubscribeReasonCode::Success(_)]), "{ack:?}");
                return;
            }
        }
    }

    pub async fn publish(&mut self) -> rumqttc::Publish {
        loop {
            if let Event::Incoming(Packet::Publish(publish)) = self.event().await {
                return publish;
            }
        }
    }
}

/// Whether the other side ends the connection within `patience`.
pub async fn closed(stream: &mut TcpStream, patience: Duration) -> bool {
    let mut bytes = [0; 64];
    let read = async {
        loop {
            match stream.read(&mut bytes).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    };
    timeout(patience, read).await.is_ok()
}

/// A packet of this first byte and body.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut len = body.len();
    loop {
        let low = u8::try_from(len & 0x7f).unwrap();
        len >>= 7;
        out.push(if len > 0 { low | 0x80 } else { low });
        if len == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

fn field(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u16(u16::try_from(bytes.len()).unwrap());
    out.put_slice(bytes);
}

/// CONNECT at 3.1.1, clean session; the will is (topic, payload, retain).
pub fn connect(client_id: &str, keep_alive: u16, will: Option<(&str, &[u8], bool)>) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x04".to_vec();
    body.push(match will {
        None => 0b0000_0010,
        Some((_, _, retain)) => 0b0000_1110 | u8::from(retain) << 5,
    });
    body.put_u16(keep_alive);
    field(&mut body, client_id.as_bytes());
    if let Some((topic, payload, _)) = will {
        field(&mut body, topic.as_bytes());
        field(&mut body, payload);
    }
    packet(0x10, &body)
}

pub fn publish(topic: &str, payload: &[u8], id: Option<u16>, retain: bool) -> Vec<u8> {
    let mut body = Vec::new();
    field(&mut body, topic.as_bytes());
    if let Some(id) = id {
        body.put_u16(id);
    }
    body.put_slice(payload);
    packet(0x30 | u8::from(id.is_some()) << 1 | u8::from(retain), &body)
}

pub fn subscribe(id: u16, filters: &[&str], qos: u8) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    for filter in filters {
        field(&mut body, filter.as_bytes());
        body.push(qos);
    }
    packet(0x82, &body)
}

pub fn disconnect() -> Vec<u8> {
    packet(0xe0, &[])
}

/// A repeatable sequence (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn byte(&mut self) -> u8 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_be_bytes()[0]
    }
}
