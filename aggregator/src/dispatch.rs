//! What is said to agents, as signed frames with their channels, in the order they must go out. Sends nothing itself.

use bytes::Bytes;
use picket_common::id::AgentId;
use picket_common::wire::codec::{SigningKey, WireError, sign};
use picket_common::wire::topic::Channel;

use crate::fleet::Told;

/// A signed frame and where it goes.
pub type Outgoing = (Channel, Bytes);

/// Signs `told` for `agent`.
///
/// # Errors
/// [`WireError`] when a message is out of the wire's bounds: a fault of the core, nothing of `told` must be sent.
pub fn signed(key: &SigningKey, agent: &AgentId, told: &Told) -> Result<Vec<Outgoing>, WireError> {
    match told {
        Told::Reply(reply) => Ok(vec![(Channel::Ack, sign(key, agent, reply)?.into())]),
        Told::Command(command) => Ok(vec![(Channel::Cmd, sign(key, agent, command)?.into())]),
        Told::Assign(parts) => parts.iter().map(|part| Ok((Channel::Assign, sign(key, agent, part)?.into()))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use picket_common::secret::Secret;
    use picket_common::wire::assign::{Assign, Delta};
    use picket_common::wire::codec::verify;
    use picket_common::wire::down::Reply;
    use picket_common::wire::{Generation, Incarnation};
    use uuid::Uuid;

    #[test]
    fn frames_are_for_one_agent_and_in_order() {
        let key = SigningKey::from_seed(&Secret::new([3; 32])).unwrap();
        let keys = [key.verifying_key()];
        let (agent, other): (AgentId, AgentId) = ("r07".parse().unwrap(), "r08".parse().unwrap());
        let reply = Reply::Ack { boot: Incarnation(Uuid::nil()), up_to: 9 };
        let frames = signed(&key, &agent, &Told::Reply(reply.clone())).unwrap();
        let [(Channel::Ack, frame)] = &frames[..] else { panic!("{frames:?}") };
        assert_eq!(verify::<Reply>(&keys, &agent, frame), Ok(reply));
        assert_eq!(verify::<Reply>(&keys, &other, frame), Err(WireError::Signature));
        let delta = |counter| {
            let generation = Generation { store: Uuid::nil(), counter };
            Assign::Delta(Delta { base: generation, generation, epoch: 1, upsert: vec![], remove: vec![] })
        };
        let frames = signed(&key, &agent, &Told::Assign(vec![delta(1), delta(2)])).unwrap();
        let told: Vec<Assign> = frames.iter().map(|(_, frame)| verify(&keys, &agent, frame).unwrap()).collect();
        assert_eq!(told, [delta(1), delta(2)]);
        assert!(frames.iter().all(|(channel, _)| *channel == Channel::Assign));
    }
}
