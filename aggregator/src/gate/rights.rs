//! Who may do what with which topic: the whole list of rights, decided from the certificate's role alone. Pure.

use picket_common::wire::topic::{self, Channel};

use super::packet::{Reason, Will};
use crate::pki::Role;

/// Longest filter taken, in bytes: four ids of 63 and their branches fit.
const MAX_FILTER_LEN: usize = 512;
/// Longest client id of a consumer, in bytes. It is only ever compared with the same consumer's others.
const MAX_CLIENT_ID_LEN: usize = 128;

/// Where a PUBLISH may go, when it may.
pub(super) fn publish(role: &Role, topic: &str, retain: bool) -> Option<Channel> {
    match role {
        // The will alone says `gone` in a clean way, but an agent may also say so itself before it leaves.
        Role::Agent(_) if !retain => own_channel(role, topic).filter(|channel| channel.is_up()),
        Role::Agent(_) | Role::Consumer(_) | Role::Witness(_) => None,
    }
}

/// Whether a will is the agent's own `gone`.
pub(super) fn will(role: &Role, will: &Will) -> bool {
    publish(role, &will.topic, will.retain) == Some(Channel::Gone)
}

/// What a SUBSCRIBE may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readable {
    /// An agent's own downward channel.
    Own(Channel),
    /// Part of the public tree.
    Public,
}

/// Whether `role` may subscribe to `filter`.
pub(super) fn subscribe(role: &Role, filter: &str) -> Option<Readable> {
    match role {
        Role::Agent(_) => own_channel(role, filter).filter(|channel| !channel.is_up()).map(Readable::Own),
        Role::Consumer(_) => {
            let fine = filter.len() <= MAX_FILTER_LEN && topic::is_valid_filter(filter) && topic::is_public_filter(filter);
            fine.then_some(Readable::Public)
        }
        Role::Witness(_) => None,
    }
}

/// Why it may not.
pub(super) fn why_not_subscribe(filter: &str) -> Reason {
    match filter {
        shared if shared.starts_with("$share/") => Reason::SharedSubscription,
        invalid if !topic::is_valid_filter(invalid) => Reason::Filter,
        _ => Reason::NotAuthorized,
    }
}

/// Whether what `role` publishes may be retained, were it to publish. Consumers' messages are refused for what they are.
pub(super) const fn may_retain(role: &Role) -> bool {
    matches!(role, Role::Consumer(_))
}

/// Whether a client may call itself `client_id`: an agent by its own name only, a consumer as it likes.
pub(super) fn client_id(role: &Role, client_id: &str) -> bool {
    match role {
        Role::Agent(agent) => client_id == agent.as_str(),
        Role::Consumer(_) => client_id.len() <= MAX_CLIENT_ID_LEN,
        Role::Witness(_) => false,
    }
}

fn own_channel(role: &Role, topic: &str) -> Option<Channel> {
    match (role, topic::parse_internal(topic)?) {
        (Role::Agent(own), (agent, channel)) if *own == agent => Some(channel),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn agent() -> Role {
        Role::Agent("r07".parse().unwrap())
    }

    fn consumer() -> Role {
        Role::Consumer("grafana".parse().unwrap())
    }

    #[test]
    fn an_agent_writes_and_reads_its_own_channels_only() {
        for (topic, write, read) in [
            ("picket/v1/i/r07/up", Some(Channel::Up), None),
            ("picket/v1/i/r07/hello", Some(Channel::Hello), None),
            ("picket/v1/i/r07/gone", Some(Channel::Gone), None),
            ("picket/v1/i/r07/ack", None, Some(Readable::Own(Channel::Ack))),
            ("picket/v1/i/r07/cmd", None, Some(Readable::Own(Channel::Cmd))),
            ("picket/v1/i/r07/assign", None, Some(Readable::Own(Channel::Assign))),
            ("picket/v1/i/r08/up", None, None),
            ("picket/v1/i/r08/cmd", None, None),
            ("picket/v1/i/r07/#", None, None),
            ("picket/v1/i/+/cmd", None, None),
            ("#", None, None),
            ("$share/g/picket/v1/i/r07/cmd", None, None),
            ("$SYS/x", None, None),
            ("picket/v1/state/z/c/h", None, None),
            ("picket/v1/i/r07/up/x", None, None),
            ("/picket/v1/i/r07/up", None, None),
        ] {
            assert_eq!((publish(&agent(), topic, false), subscribe(&agent(), topic)), (write, read), "{topic}");
            assert_eq!(publish(&agent(), topic, true), None, "{topic}: agents retain nothing");
            assert_eq!(publish(&consumer(), topic, false), None, "{topic}: consumers publish nothing");
        }
    }

    #[test]
    fn a_consumer_reads_the_public_tree_only() {
        for good in ["picket/v1/state/#", "picket/v1/state/+/+/h1", "picket/v1/event/#", "picket/v1/status", "picket/v1/alert/+"] {
            assert_eq!(subscribe(&consumer(), good), Some(Readable::Public), "{good}");
            assert_eq!(subscribe(&agent(), good), None, "{good}: agents do not read it");
        }
        let long = format!("picket/v1/state/{}", "+/".repeat(300));
        for bad in [
            "#",
            "+/+/#",
            "picket/v1/+/#",
            "picket/v1/i/#",
            "$share/g/picket/v1/state/#",
            "picket/v1/state/a#",
            "picket/v1/#",
            &long,
        ] {
            assert_eq!(subscribe(&consumer(), bad), None, "{bad}");
        }
    }

    #[test]
    fn a_subscription_that_may_not_be_says_why() {
        for (filter, wanted) in [
            ("$share/g/picket/v1/state/#", Reason::SharedSubscription),
            ("picket/v1/state/a#", Reason::Filter),
            ("", Reason::Filter),
            ("picket/v1/i/#", Reason::NotAuthorized),
            ("#", Reason::NotAuthorized),
        ] {
            assert_eq!(why_not_subscribe(filter), wanted, "{filter}");
        }
    }

    #[test]
    fn wills_and_names() {
        let a_will = |topic: &str, retain| Will { topic: topic.into(), payload: Bytes::new(), retain };
        assert!(will(&agent(), &a_will("picket/v1/i/r07/gone", false)));
        for (topic, retain) in [("picket/v1/i/r07/gone", true), ("picket/v1/i/r07/up", false), ("picket/v1/i/r08/gone", false)] {
            assert!(!will(&agent(), &a_will(topic, retain)), "{topic}");
        }
        assert!(!will(&consumer(), &a_will("picket/v1/status", false)));
        for (role, name, wanted) in [
            (agent(), "r07", true),
            (agent(), "r08", false),
            (agent(), "", false),
            (agent(), "bad#id", false),
            (consumer(), "", true),
            (consumer(), "bad#id", true),
        ] {
            assert_eq!(client_id(&role, name), wanted, "{role} {name}");
        }
        assert!(!client_id(&consumer(), &"x".repeat(129)));
    }
}
