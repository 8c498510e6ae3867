//! Those whom Picket must not trust: an MQTT client that sends any bytes anywhere, and a broker in strange hands that an agent
//! is led to.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use picket_common::id::AgentId;
use picket_common::wire::Generation;
use picket_common::wire::codec;
use picket_common::wire::report::Hello;
use picket_common::wire::topic::{Channel, internal};
use rumqttc::{Client, ConnectReturnCode, Event, MqttOptions, Packet, QoS, SubscribeReasonCode, TlsConfiguration, Transport};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;

use super::Agent;
use crate::peers::certificate::Identity;
use crate::peers::mosquitto::{Broker, Mosquitto};

/// Far above what an answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Above what either side takes, so that theirs is the limit that is met.
const MAX_PACKET: usize = 1 << 20;

/// An MQTT client that obeys nobody's rights. It never comes back by itself.
pub struct Speaker {
    client: Client,
    heard: Receiver<Result<Packet, String>>,
}

impl Speaker {
    /// Connects; the client id is `broker`'s, or none.
    ///
    /// # Errors
    /// When the broker does not let it in.
    pub fn connect(broker: &Broker) -> Result<Self> {
        let mut options = MqttOptions::new(
            broker.client_id.as_deref().unwrap_or_default(),
            broker.address.ip().to_string(),
            broker.address.port(),
        );
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(tls(broker)?))));
        options.set_max_packet_size(MAX_PACKET, MAX_PACKET);
        let (client, mut connection) = Client::new(options, 16);
        let (tell, heard) = channel();
        std::thread::spawn(move || {
            for event in connection.iter() {
                let said = match event {
                    Ok(Event::Incoming(packet)) => Ok(packet),
                    Ok(Event::Outgoing(_)) => continue,
                    Err(error) => Err(error.to_string()),
                };
                let last = said.is_err();
                if tell.send(said).is_err() || last {
                    return;
                }
            }
        });
        let speaker = Self { client, heard };
        speaker.wait_for(|packet| match packet {
            Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => Some(Ok(())),
            Packet::ConnAck(ack) => Some(Err(format!("CONNACK {:?}", ack.code))),
            _ => None,
        })?;
        Ok(speaker)
    }

    /// Publishes with QoS 1 and waits for the acknowledgement.
    ///
    /// # Errors
    /// When the broker ends the connection instead.
    pub fn publish(&self, topic: &str, payload: Vec<u8>) -> Result<()> {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload)?;
        self.wait_for(|packet| matches!(packet, Packet::PubAck(_)).then_some(Ok(())))
    }

    /// Subscribes with QoS 1.
    ///
    /// # Errors
    /// When the broker says no.
    pub fn subscribe(&self, filter: &str) -> Result<()> {
        self.client.subscribe(filter, QoS::AtLeastOnce)?;
        self.wait_for(|packet| match packet {
            Packet::SubAck(ack) if ack.return_codes.contains(&SubscribeReasonCode::Failure) => {
                Some(Err("subscription denied".into()))
            }
            Packet::SubAck(_) => Some(Ok(())),
            _ => None,
        })
    }

    /// The next message's payload.
    ///
    /// # Errors
    /// When none comes.
    pub fn message(&self) -> Result<Vec<u8>> {
        self.wait_for(|packet| match packet {
            Packet::Publish(publish) => Some(Ok(publish.payload.to_vec())),
            _ => None,
        })
    }

    fn wait_for<T>(&self, wanted: impl Fn(Packet) -> Option<Result<T, String>>) -> Result<T> {
        loop {
            match self.heard.recv_timeout(PATIENCE) {
                Ok(Ok(packet)) => match wanted(packet) {
                    Some(Ok(found)) => return Ok(found),
                    Some(Err(why)) => bail!("{why}"),
                    None => {}
                },
                Ok(Err(error)) => bail!("connection ended: {error}"),
                Err(RecvTimeoutError::Disconnected) => bail!("connection ended"),
                Err(RecvTimeoutError::Timeout) => bail!("no answer within {PATIENCE:?}"),
            }
        }
    }
}

fn tls(broker: &Broker) -> Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&broker.ca_file)?)?;
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let Some(Identity { certificate, key }) = &broker.identity else { return Ok(config.with_no_client_auth()) };
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>()?;
    Ok(config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key)?)?)
}

/// A broker that somebody else controls, TLS included, with an agent connected to it.
pub struct Rogue {
    // The broker lives as long as its one client.
    _broker: Mosquitto,
    speaker: Speaker,
    agent: AgentId,
    generation: Generation,
}

impl Rogue {
    /// Restarts `agent` so that it takes a broker of the test for the site's. Only the signing key in its identity is left as
    /// it was joined with.
    ///
    /// # Errors
    /// When it does not connect.
    pub fn lure(agent: &mut Agent) -> Result<Self> {
        agent.stop()?;
        let id: AgentId = agent.name().parse()?;
        let broker = Mosquitto::start()?;
        let speaker = Speaker::connect(&Broker { client_id: Some("rogue".into()), ..broker.broker("rogue")? })?;
        speaker.subscribe(&internal(&id, Channel::Hello))?;
        mislead(&agent.state_dir().join("identity"), &broker.broker(agent.name())?)?;
        agent.start()?;
        let hello: Hello = codec::decode(&speaker.message()?)?;
        let generation = hello.generation.context("the agent has no assignment")?;
        Ok(Self { _broker: broker, speaker, agent: id, generation })
    }

    /// The assignment that the agent holds.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// Puts bytes on one of the agent's channels.
    ///
    /// # Errors
    /// When the broker does not take them.
    pub fn say(&self, channel: Channel, payload: Vec<u8>) -> Result<()> {
        self.speaker.publish(&internal(&self.agent, channel), payload)
    }

    /// Waits until the agent introduces itself again: it had lost the connection.
    ///
    /// # Errors
    /// When it does not.
    pub fn hello(&self) -> Result<()> {
        self.speaker.message().map(drop)
    }
}

fn mislead(identity: &Path, broker: &Broker) -> Result<()> {
    let card = broker.identity.as_ref().context("no certificate")?;
    std::fs::copy(&card.certificate, identity.join("agent.crt"))?;
    std::fs::copy(&card.key, identity.join("agent.key"))?;
    std::fs::copy(&broker.ca_file, identity.join("ca.crt"))?;
    let file = identity.join("identity.json");
    let mut document: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    let mqtt = document.get_mut("mqtt").context("identity.json has no mqtt")?;
    *mqtt = Value::String(broker.address.to_string());
    std::fs::write(file, document.to_string())?;
    Ok(())
}
