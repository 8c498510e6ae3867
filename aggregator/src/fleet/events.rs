//! Lines of history and CloudEvents: how they are numbered, named and addressed.

use jiff::Timestamp;
use picket_common::api::{CloudEvent, EventData, EventWhat, HistoryEntry, HistoryWhat};
use picket_common::clock::Now;
use picket_common::id::{AgentId, HostId};
use picket_common::wire::Session;
use picket_common::wire::topic::Public;

use super::view::{ClusterRow, HostRow};
use super::{Effect, EventTopic, Fleet, Record};

/// What kind of event: its CloudEvents `type` and, for hosts, the last segment of its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Power,
    Management,
    Operation,
    Enablement,
    AlertFiring,
    AlertResolved,
    AgentConnected,
    AgentLost,
    Ha,
    HostStatus,
}

impl Kind {
    pub(super) const fn of_type(self) -> &'static str {
        match self {
            Self::Power => "io.picket.power.changed.v1",
            Self::Management => "io.picket.management.changed.v1",
            Self::Operation => "io.picket.operation.done.v1",
            Self::Enablement => "io.picket.enablement.changed.v1",
            Self::AlertFiring => "io.picket.alert.firing.v1",
            Self::AlertResolved => "io.picket.alert.resolved.v1",
            Self::AgentConnected => "io.picket.agent.connected.v1",
            Self::AgentLost => "io.picket.agent.lost.v1",
            Self::Ha => "io.picket.ha.changed.v1",
            Self::HostStatus => "io.picket.host.status.v1",
        }
    }

    pub(super) const fn segment(self) -> &'static str {
        match self {
            Self::Power => "power",
            Self::Management => "management",
            Self::Operation => "operation",
            Self::Enablement => "enablement",
            Self::AlertFiring | Self::AlertResolved => "alert",
            Self::AgentConnected | Self::AgentLost => "agent",
            Self::Ha => "ha",
            Self::HostStatus => "status",
        }
    }
}

impl Fleet {
    /// Appends a line to a host's history and returns its sequence. `id` is the report's, if an agent reported it.
    pub(super) fn history(&mut self, host: &HostId, id: Option<String>, at: Timestamp, what: HistoryWhat, now: Now) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let entry = HistoryEntry { sequence, id, at, recorded_at: now.wall, what };
        self.draft.records.push(Record::History(host.clone(), Box::new(entry)));
        sequence
    }

    /// The id of an event that the aggregator itself caused: `{store}:{what}`, the same after a repetition of the decision.
    pub(super) fn own_id(&self, what: impl std::fmt::Display) -> String {
        format!("{}:{what}", self.store.simple())
    }

    /// Publishes an event of a host.
    pub(super) fn host_event(&mut self, host: &HostRow, id: String, kind: Kind, time: Timestamp, what: EventWhat) {
        let HostRow { zone, cluster, id: host, .. } = host;
        let event = CloudEvent {
            specversion: "1.0".into(),
            id,
            source: format!("/{zone}/{cluster}/{host}"),
            kind: kind.of_type().into(),
            subject: host.to_string(),
            time,
            datacontenttype: "application/json".into(),
            data: EventData {
                host: Some(host.clone()),
                zone: Some(zone.clone()),
                cluster: Some(cluster.clone()),
                agent: None,
                what,
            },
        };
        let topic = Public::Event(zone.clone(), cluster.clone(), host.clone(), kind.segment());
        self.draft.events.push(Effect::Event(Box::new(event), EventTopic::Topic(topic)));
    }

    /// Publishes an event of a cluster, on SSE only: on MQTT a retained document says so.
    pub(super) fn cluster_event(&mut self, cluster: &ClusterRow, id: String, kind: Kind, time: Timestamp, what: EventWhat) {
        let ClusterRow { zone, id: cluster, .. } = cluster;
        let event = CloudEvent {
            specversion: "1.0".into(),
            id,
            source: format!("/{zone}/{cluster}"),
            kind: kind.of_type().into(),
            subject: cluster.to_string(),
            time,
            datacontenttype: "application/json".into(),
            data: EventData { host: None, zone: Some(zone.clone()), cluster: Some(cluster.clone()), agent: None, what },
        };
        self.draft.events.push(Effect::Event(Box::new(event), EventTopic::None));
    }

    /// Publishes that an agent was heard again or lost. On MQTT the retained presence document says so.
    pub(super) fn presence_event(&mut self, agent: &AgentId, connected: bool, session: Option<Session>, now: Now) {
        let (kind, word) = if connected { (Kind::AgentConnected, "connected") } else { (Kind::AgentLost, "lost") };
        let session = session.map_or(uuid::Uuid::nil(), |session| session.0).simple();
        let id = self.own_id(format_args!("{agent}:{word}:{session}:{}", now.wall.as_microsecond()));
        self.agent_event(agent, id, kind, now.wall, EventWhat::Presence { connected });
    }

    /// Publishes an event of an agent, on SSE only: on MQTT a retained document says so.
    pub(super) fn agent_event(&mut self, agent: &AgentId, id: String, kind: Kind, time: Timestamp, what: EventWhat) {
        let event = CloudEvent {
            specversion: "1.0".into(),
            id,
            source: format!("/agent/{agent}"),
            kind: kind.of_type().into(),
            subject: agent.to_string(),
            time,
            datacontenttype: "application/json".into(),
            data: EventData { host: None, zone: None, cluster: None, agent: Some(agent.clone()), what },
        };
        self.draft.events.push(Effect::Event(Box::new(event), EventTopic::None));
    }
}
