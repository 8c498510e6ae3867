//! Takes assignments in: parts are collected and applied as a whole, deltas only on what they build on. Pure.

use std::collections::BTreeMap;

use picket_common::id::HostId;
use picket_common::wire::Generation;
use picket_common::wire::assign::{Assign, Delta, HostAssignment, MAX_HOSTS, Part};

/// Which assignment is in force, and the parts of the next.
#[derive(Debug, Default)]
pub struct Assignments {
    /// In force.
    pub generation: Option<Generation>,
    /// Newest owner epoch heard of.
    pub epoch: u64,
    collecting: Option<Collecting>,
}

#[derive(Debug)]
struct Collecting {
    generation: Generation,
    epoch: u64,
    of: u16,
    parts: BTreeMap<u16, Vec<HostAssignment>>,
}

/// A change of the assignment, ready to be applied.
#[derive(Debug, PartialEq, Eq)]
pub struct Change {
    /// New and changed hosts.
    pub upsert: Vec<HostAssignment>,
    /// What becomes of the others.
    pub others: Others,
}

/// See [`Change::others`].
#[derive(Debug, PartialEq, Eq)]
pub enum Others {
    /// All others are no longer ours.
    Remove,
    /// Only these are no longer ours.
    KeepBut(Vec<HostId>),
}

impl Assignments {
    /// Takes a message; gives the change when one is complete.
    pub fn take(&mut self, message: Assign) -> Option<Change> {
        match message {
            Assign::Part(part) => self.part(part),
            Assign::Delta(delta) => self.delta(delta),
            Assign::Settings(_) | Assign::Ha(_) | Assign::Surroundings(_) => None,
        }
    }

    fn part(&mut self, part: Part) -> Option<Change> {
        if part.epoch < self.epoch || !self.is_newer(part.generation) {
            return None;
        }
        let fits =
            self.collecting.as_ref().is_some_and(|c| c.generation == part.generation && c.of == part.of && c.epoch == part.epoch);
        if !fits {
            let Part { generation, epoch, of, .. } = part;
            self.collecting = Some(Collecting { generation, epoch, of, parts: BTreeMap::new() });
        }
        let collecting = self.collecting.as_mut()?;
        collecting.parts.insert(part.part, part.hosts);
        if collecting.parts.values().map(Vec::len).sum::<usize>() > MAX_HOSTS {
            self.collecting = None;
            return None;
        }
        if collecting.parts.len() < usize::from(collecting.of) {
            return None;
        }
        let whole = self.collecting.take()?;
        self.generation = Some(whole.generation);
        self.epoch = whole.epoch;
        Some(Change { upsert: whole.parts.into_values().flatten().collect(), others: Others::Remove })
    }

    fn delta(&mut self, delta: Delta) -> Option<Change> {
        let builds_on_ours = self.generation == Some(delta.base);
        let forward = delta.generation.store == delta.base.store && delta.generation.counter > delta.base.counter;
        if delta.epoch < self.epoch || !builds_on_ours || !forward {
            return None;
        }
        self.generation = Some(delta.generation);
        self.epoch = delta.epoch;
        Some(Change { upsert: delta.upsert, others: Others::KeepBut(delta.remove) })
    }

    /// A counter only compares within one store; another store's assignment is taken whole, its epoch being checked.
    fn is_newer(&self, generation: Generation) -> bool {
        self.generation.is_none_or(|held| held.store != generation.store || generation.counter > held.counter)
    }

    /// Whether a command may be judged now: false while its assignment has not arrived.
    #[must_use]
    pub fn covers(&self, generation: Generation) -> bool {
        self.generation.is_some_and(|held| held.store == generation.store && held.counter >= generation.counter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(counter: u64) -> Generation {
        Generation { store: uuid::Uuid::nil(), counter }
    }

    fn host(name: &str) -> HostAssignment {
        HostAssignment {
            host: name.parse().unwrap(),
            zone: "z".parse().unwrap(),
            cluster: "c".parse().unwrap(),
            enablement: 1,
            refusal: None,
            bmc: None,
            poll_interval_ms: 1000,
        }
    }

    fn part(counter: u64, part: u16, of: u16, hosts: &[&str]) -> Assign {
        Assign::Part(Part { generation: generation(counter), epoch: 1, part, of, hosts: hosts.iter().map(|h| host(h)).collect() })
    }

    #[test]
    fn parts_apply_as_a_whole_in_any_order() {
        let mut held = Assignments::default();
        assert_eq!(held.take(part(1, 1, 2, &["b"])), None);
        assert_eq!(held.generation, None);
        let change = held.take(part(1, 0, 2, &["a"])).unwrap();
        assert_eq!(change.upsert, [host("a"), host("b")]);
        assert_eq!(change.others, Others::Remove);
        assert_eq!(held.generation, Some(generation(1)));
        assert_eq!(held.take(part(1, 0, 1, &["x"])), None, "the same again is nothing new");
    }

    #[test]
    fn a_newer_assignment_replaces_one_half_collected() {
        let mut held = Assignments::default();
        assert_eq!(held.take(part(1, 0, 2, &["a"])), None);
        assert!(held.take(part(2, 0, 1, &["c"])).is_some());
        assert_eq!(held.take(part(1, 1, 2, &["b"])), None, "older");
    }

    #[test]
    fn deltas_need_their_base_and_epochs_never_go_back() {
        let mut held = Assignments::default();
        held.take(part(5, 0, 1, &["a"]));
        let delta = |base, to, epoch| {
            Assign::Delta(Delta {
                base: generation(base),
                generation: generation(to),
                epoch,
                upsert: vec![host("b")],
                remove: vec!["a".parse().unwrap()],
            })
        };
        assert_eq!(held.take(delta(4, 6, 1)), None);
        assert_eq!(held.take(delta(5, 5, 1)), None);
        assert_eq!(held.take(delta(5, 6, 0)), None);
        let change = held.take(delta(5, 6, 2)).unwrap();
        assert_eq!(change.others, Others::KeepBut(vec!["a".parse().unwrap()]));
        assert_eq!(held.take(delta(6, 7, 1)), None, "an older epoch");
        assert!(held.covers(generation(6)) && !held.covers(generation(7)));
    }
}
