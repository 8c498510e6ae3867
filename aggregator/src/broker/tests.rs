//! The broker without a gate: the bus, the seats, the order of last words.

use picket_common::wire::topic::Channel;

use super::*;

struct Documents(Vec<(String, Bytes)>);

impl Retained for Documents {
    fn matching(&self, filter: &str) -> Vec<(String, Bytes)> {
        self.0.iter().filter(|(topic, _)| picket_common::wire::topic::matches(filter, topic)).cloned().collect()
    }
}

const LOW: Terms = Terms { qos: Qos::AtMostOnce, retain_as_published: false };
const HIGH: Terms = Terms { qos: Qos::AtLeastOnce, retain_as_published: true };

fn document(payload: impl Into<Bytes>) -> Message {
    Message::document(payload.into())
}

fn broker() -> (Broker, mpsc::Receiver<Inbound>) {
    let (inbound, received) = mpsc::channel(16);
    (Broker::embedded(Arc::new(Documents(Vec::new())), inbound).unwrap(), received)
}

#[tokio::test]
async fn a_probe_comes_back() {
    let (broker, _inbound) = broker();
    for _ in 0..300 {
        broker.probe().await.unwrap();
    }
}

#[tokio::test]
async fn everything_published_arrives_in_order() {
    let (broker, _inbound) = broker();
    let (seat, mut link) = broker.seat_consumer(&"c".parse().unwrap(), "x", 1).unwrap();
    assert_eq!(seat.subscribe("picket/v1/event/#", LOW), Subscribed::New);
    assert_eq!(seat.subscribe("picket/v1/event/+/c/#", LOW), Subscribed::New);
    assert_eq!(seat.subscribe("picket/v1/event/+/c/#", HIGH), Subscribed::Again);
    for i in 0..30_000_u32 {
        broker.publish("picket/v1/event/z/c/h/k", document(i.to_be_bytes().to_vec()), false);
        broker.publish("picket/v1/state/z/c/h", document("not asked for"), true);
    }
    for i in 0..30_000_u32 {
        let delivery = link.queue.recv().await.unwrap();
        assert_eq!(delivery.message.payload(), &i.to_be_bytes().to_vec());
        assert_eq!(delivery.terms, HIGH, "once, at the highest terms asked for");
    }
    let large = Bytes::from(vec![7; 200 * 1024]);
    for _ in 0..50 {
        broker.publish("picket/v1/event/z/c/h/k", document(large.clone()), false);
    }
    for _ in 0..50 {
        assert_eq!(link.queue.recv().await.unwrap().message.payload().len(), large.len());
    }
    assert_eq!(*link.cut.borrow(), None);
}

#[tokio::test]
async fn a_consumer_that_does_not_read_is_cut_alone() {
    let (broker, _inbound) = broker();
    let (slow, slow_link) = broker.seat_consumer(&"slow".parse().unwrap(), "", 1).unwrap();
    let (good, mut good_link) = broker.seat_consumer(&"good".parse().unwrap(), "", 1).unwrap();
    for seat in [&slow, &good] {
        assert_eq!(seat.subscribe("picket/v1/#", LOW), Subscribed::New);
    }
    for _ in 0..40_000 {
        broker.publish("picket/v1/status", document("x"), false);
    }
    for _ in 0..40_000 {
        good_link.queue.recv().await.unwrap();
    }
    assert_eq!(*slow_link.cut.borrow(), Some(Cut::TooSlow));
    assert_eq!(*good_link.cut.borrow(), None);
}

#[tokio::test]
async fn agents_hear_only_what_they_subscribed_to_while_connected() {
    let (broker, _inbound) = broker();
    let agent: AgentId = "r07".parse().unwrap();
    let tell = |channel| broker.tell(&agent, channel, Bytes::from_static(b"x"));
    assert!(!tell(Channel::Cmd));
    let (seat, mut link) = broker.seat_agent(&agent);
    assert!(!tell(Channel::Cmd), "not subscribed");
    assert!(seat.subscribe(Channel::Cmd) && !seat.subscribe(Channel::Up));
    assert!(tell(Channel::Cmd) && !tell(Channel::Ack) && !tell(Channel::Up));
    assert_eq!(&*link.queue.recv().await.unwrap().topic, "picket/v1/i/r07/cmd");
    while tell(Channel::Cmd) {}
    assert_eq!(*link.cut.borrow(), Some(Cut::TooSlow));
    assert!(seat.unsubscribe(Channel::Cmd) && !seat.unsubscribe(Channel::Cmd) && !seat.unsubscribe(Channel::Up));
    broker.unseat_agent(&seat, link.cut, None).await;
    assert!(!tell(Channel::Cmd), "not connected");
}

#[tokio::test]
async fn the_longest_assignment_and_an_operation_of_all_its_hosts_fit_an_agents_queue() {
    let (broker, _inbound) = broker();
    let agent: AgentId = "r07".parse().unwrap();
    let (seat, mut link) = broker.seat_agent(&agent);
    assert!(seat.subscribe(Channel::Cmd) && seat.subscribe(Channel::Assign));
    let tell = |channel| broker.tell(&agent, channel, Bytes::from_static(b"x"));
    assert!((0..100).all(|_| tell(Channel::Cmd)));
    assert!((0..picket_common::wire::assign::MAX_PARTS).all(|_| tell(Channel::Assign)));
    assert!((0..picket_common::wire::assign::MAX_HOSTS).all(|_| tell(Channel::Cmd)));
    assert_eq!(*link.cut.borrow(), None);
    assert!(link.queue.recv().await.is_some());
}

#[tokio::test]
async fn last_words_come_before_the_next_connection() {
    let (broker, mut inbound) = broker();
    let agent: AgentId = "r07".parse().unwrap();
    let (old, old_link) = broker.seat_agent(&agent);
    let (new, new_link) = broker.seat_agent(&agent);
    assert_eq!(*old_link.cut.borrow(), Some(Cut::TakenOver));
    let leaving = broker.unseat_agent(&old, old_link.cut, Some(Bytes::from_static(b"will")));
    let (_, ()) = tokio::join!(leaving, new.predecessor_gone());
    let will = Inbound::Message { agent: agent.clone(), channel: Channel::Gone, payload: Bytes::from_static(b"will") };
    assert_eq!(inbound.try_recv(), Ok(will));
    assert!(inbound.try_recv().is_err(), "taken over is not disconnected");
    broker.unseat_agent(&new, new_link.cut, None).await;
    assert_eq!(inbound.try_recv(), Ok(Inbound::Disconnected { agent }));
}

#[tokio::test]
async fn a_consumers_connections_are_capped_and_taken_over() {
    let (broker, _inbound) = broker();
    let consumer: ConsumerId = "c".parse().unwrap();
    let first = broker.seat_consumer(&consumer, "a", 2).unwrap();
    let _second = broker.seat_consumer(&consumer, "", 2).unwrap();
    assert!(broker.seat_consumer(&consumer, "", 2).is_none());
    let _again = broker.seat_consumer(&consumer, "a", 2).unwrap();
    assert_eq!(*first.1.cut.borrow(), Some(Cut::TakenOver));
    drop(first);
    assert!(broker.seat_consumer(&consumer, "b", 2).is_none(), "an old seat given up frees nothing of the new one");
    assert!(broker.seat_consumer(&"d".parse().unwrap(), "a", 2).is_some());
}
