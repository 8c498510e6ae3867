//! The public tree: what consumers are told when something changes, and the retained documents they find when they come.
//!
//! Retained documents are rendered from the view when somebody subscribes, so they are complete for any number of hosts and
//! after any restart. Decides nothing, stores nothing.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use jiff::Timestamp;
use picket_common::alert::AlertState;
use picket_common::api::CloudEvent;
use picket_common::id::{HostId, SiteId};
use picket_common::wire::topic::{Public, matches};
use serde::Serialize;

use crate::broker::{Broker, Message, Retained};
use crate::context::{EventBus, Published};
use crate::fleet::view::HostRow;
use crate::fleet::{EventTopic, View, json, state_document};

/// The retained `picket/v1/status`.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Name of the site.
    pub site: SiteId,
    /// `running`.
    pub status: &'static str,
    /// Version of the aggregator.
    pub version: &'static str,
    /// When this process started.
    pub since: Timestamp,
}

/// Renders the retained documents from the view.
pub struct Documents {
    view: Arc<ArcSwap<View>>,
    status: Status,
}

impl Documents {
    /// Documents of `view`, and `status`.
    #[must_use]
    pub fn new(view: Arc<ArcSwap<View>>, status: Status) -> Self {
        Self { view, status }
    }
}

impl Retained for Documents {
    fn matching(&self, filter: &str) -> Vec<(String, Bytes)> {
        let view = self.view.load();
        let wanted = Wanted::of(filter);
        let mut found = Found { filter, documents: Vec::new() };
        if wanted.branch("state") {
            for host in wanted.hosts(&view) {
                found.add(&Public::State(host.zone.clone(), host.cluster.clone(), host.id.clone()), || state_document(&view, host));
            }
        }
        if wanted.branch("agent") {
            for agent in view.agents.values() {
                found.add(&Public::Agent(agent.id.clone()), || json::agent_json(&view, agent));
            }
        }
        if wanted.branch("alert") {
            for alert in view.alerts.values().filter(|alert| alert.state == AlertState::Firing) {
                found.add(&Public::Alert(alert.id.clone()), || &**alert);
            }
        }
        if wanted.branch("status") {
            found.add(&Public::Status, || self.status.clone());
        }
        found.documents
    }
}

struct Found<'a> {
    filter: &'a str,
    documents: Vec<(String, Bytes)>,
}

impl Found<'_> {
    fn add<T: Serialize>(&mut self, topic: &Public, document: impl FnOnce() -> T) {
        let topic = topic.to_string();
        if matches(self.filter, &topic)
            && let Some(json) = rendered(&document())
        {
            self.documents.push((topic, json));
        }
    }
}

/// The filter's levels as far as they narrow the search; [`matches()`] has the last word.
struct Wanted<'a> {
    branch: Option<&'a str>,
    cluster: Option<&'a str>,
    host: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    fn of(filter: &'a str) -> Self {
        let mut levels = filter.split('/').map(|level| Some(level).filter(|level| !matches!(*level, "+" | "#")));
        // picket / v1 / branch / zone / cluster / host
        let mut level = |skipped| levels.nth(skipped).flatten();
        Self { branch: level(2), cluster: level(1), host: level(0) }
    }

    fn branch(&self, name: &str) -> bool {
        self.branch.is_none_or(|branch| branch == name)
    }

    /// The hosts worth looking at: one, a cluster's, or all.
    fn hosts<'v>(&self, view: &'v View) -> Box<dyn Iterator<Item = &'v Arc<HostRow>> + 'v> {
        let parsed = |text: &str| text.parse::<HostId>().ok();
        match (self.host, self.cluster) {
            (Some(host), _) => Box::new(parsed(host).and_then(|id| view.hosts.get(&id)).into_iter()),
            (None, Some(cluster)) => {
                let ids = cluster.parse().map(|id| view.hosts_of_cluster(&id)).unwrap_or_default();
                Box::new(ids.into_iter().filter_map(|id| view.hosts.get(&id)))
            }
            (None, None) => Box::new(view.hosts.values()),
        }
    }
}

/// Tells consumers on MQTT and on SSE.
#[derive(Clone)]
pub struct Publisher {
    broker: Broker,
    events: EventBus,
}

impl Publisher {
    /// Publishes through `broker` and `events`.
    #[must_use]
    pub fn new(broker: Broker, events: EventBus) -> Self {
        Self { broker, events }
    }

    /// An event, on MQTT and to who listens by HTTP.
    pub fn event(&self, event: Arc<Published>, topic: &EventTopic) {
        if let EventTopic::Topic(topic) = topic
            && let Some(message) = cloud_event(&event)
        {
            self.broker.publish(&topic.to_string(), message, false);
        }
        self.events.publish(event);
    }

    /// A change of a retained document; an empty body ends it.
    pub fn retain(&self, topic: &Public, body: Bytes) {
        self.broker.publish(&topic.to_string(), Message::document(body), true);
    }
}

/// An event in structured mode (CloudEvents JSON event format §3), and what MQTT 5's binary mode takes of it (MQTT binding §3.1).
fn cloud_event(published: &Published) -> Option<Message> {
    let (structured, event) = (published.json.clone(), &published.event);
    let data = rendered(&event.data)?;
    let Some(begin) = structured.strip_suffix(b"}").and_then(|json| json.strip_suffix(&data[..])).map(<[u8]>::len) else {
        tracing::error!(id = event.id, "event does not end in its data");
        return None;
    };
    let CloudEvent { specversion, id, source, kind, subject, time, .. } = event;
    let time = time.to_string();
    let attributes =
        [("specversion", specversion), ("id", id), ("source", source), ("type", kind), ("subject", subject), ("time", &time)];
    let attributes = attributes.map(|(name, value)| (name.to_owned(), value.clone()));
    Some(Message::event(structured, attributes.into(), begin..begin + data.len()))
}

fn rendered<T: Serialize>(document: &T) -> Option<Bytes> {
    match serde_json::to_vec(document) {
        Ok(json) => Some(json.into()),
        Err(error) => {
            tracing::error!(%error, "document does not render");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Form;

    #[test]
    fn filters_narrow_only_what_they_name() {
        for (filter, branch, cluster, host) in [
            ("picket/v1/state/z/c/h", Some("state"), Some("c"), Some("h")),
            ("picket/v1/state/+/+/h", Some("state"), None, Some("h")),
            ("picket/v1/state/z/+/+", Some("state"), None, None),
            ("picket/v1/state/z/c/#", Some("state"), Some("c"), None),
            ("picket/v1/state/#", Some("state"), None, None),
            ("picket/v1/status", Some("status"), None, None),
            ("picket/v1/#", None, None, None),
        ] {
            let wanted = Wanted::of(filter);
            assert_eq!((wanted.branch, wanted.cluster, wanted.host), (branch, cluster, host), "{filter}");
        }
    }
    #[test]
    fn an_event_in_binary_mode_is_the_one_in_structured_mode() {
        let event: CloudEvent = serde_json::from_value(serde_json::json!({
            "specversion": "1.0",
            "id": "r07:1:2",
            "source": "/z/c/h",
            "type": "io.picket.agent.lost.v1",
            "subject": "h",
            "time": "2026-11-22T00:59:12.5Z",
            "datacontenttype": "application/json",
            "data": { "host": "h", "zone": null, "cluster": null, "agent": null, "connected": false },
        }))
        .unwrap();
        let message = cloud_event(&Published::new(1, event.time, event.clone())).unwrap();
        let structured: serde_json::Value = serde_json::from_slice(message.payload()).unwrap();
        let Form::Event { attributes, .. } = message.form() else { panic!("{message:?}") };
        let mut put_together: serde_json::Map<_, _> =
            attributes.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        put_together.insert("datacontenttype".into(), "application/json".into());
        put_together.insert("data".into(), serde_json::from_slice(message.data()).unwrap());
        assert_eq!(structured, serde_json::Value::Object(put_together));
        assert_eq!(serde_json::from_value::<CloudEvent>(structured).unwrap(), event);
    }
}
