//! Whether the agent's own paths work: when a check of each kind last reached a host, and when a reference address last answered.
//! Without that a silent host is not called dead. Pure.

use std::time::Duration;

use picket_common::ha::settings::HealthCheck;

/// A kind of check: the way it takes to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the kind of the check of its name")]
pub enum Kind {
    Witness,
    Tcp,
    Http,
    Icmp,
    Exec,
}

impl Kind {
    /// Of a check.
    #[must_use]
    pub const fn of(check: &HealthCheck) -> Self {
        match check {
            HealthCheck::Witness { .. } => Self::Witness,
            HealthCheck::Tcp { .. } => Self::Tcp,
            HealthCheck::Http { .. } => Self::Http,
            HealthCheck::Icmp { .. } => Self::Icmp,
            HealthCheck::Exec { .. } => Self::Exec,
        }
    }
}

/// The newest checks that reached somebody.
#[derive(Debug, Default)]
pub struct PathLog {
    witness: Reached,
    tcp: Reached,
    http: Reached,
    icmp: Reached,
    exec: Reached,
    reference: Option<Duration>,
}

/// The newest check that reached a host, and the newest that reached another one.
#[derive(Debug, Default)]
struct Reached {
    newest: Option<(Duration, usize)>,
    another: Option<Duration>,
}

impl PathLog {
    /// A check of this kind that was begun at `begun` reached the host in `slot`.
    pub fn reached(&mut self, kind: Kind, slot: usize, begun: Duration) {
        let reached = match kind {
            Kind::Witness => &mut self.witness,
            Kind::Tcp => &mut self.tcp,
            Kind::Http => &mut self.http,
            Kind::Icmp => &mut self.icmp,
            Kind::Exec => &mut self.exec,
        };
        match reached.newest {
            Some((at, host)) if host != slot && begun >= at => {
                reached.another = Some(at);
                reached.newest = Some((begun, slot));
            }
            Some((_, host)) if host != slot => reached.another = reached.another.max(Some(begun)),
            Some((at, _)) => reached.newest = Some((begun.max(at), slot)),
            None => reached.newest = Some((begun, slot)),
        }
    }

    /// A reference address answered a check that was begun at `begun`.
    pub fn reference_reached(&mut self, begun: Duration) {
        self.reference = self.reference.max(Some(begun));
    }

    /// When a check that a reference address answered was last begun (boottime).
    #[must_use]
    pub const fn reference(&self) -> Option<Duration> {
        self.reference
    }

    /// Whether a check of this kind that was begun at `since` or later reached another host than that in `slot`, or a reference.
    /// What a program says goes by no path that a reference address could stand for.
    #[must_use]
    pub fn reached_another(&self, kind: Kind, slot: usize, since: Duration) -> bool {
        let reached = match kind {
            Kind::Witness => &self.witness,
            Kind::Tcp => &self.tcp,
            Kind::Http => &self.http,
            Kind::Icmp => &self.icmp,
            Kind::Exec => &self.exec,
        };
        let other = match reached.newest {
            Some((at, host)) if host != slot => Some(at),
            _ => reached.another,
        };
        let reference = self.reference.filter(|_| kind != Kind::Exec);
        [other, reference].into_iter().flatten().any(|at| at >= since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_others_vouch_for_the_path() {
        let at = Duration::from_secs;
        let mut path = PathLog::default();
        path.reached(Kind::Tcp, 1, at(10));
        assert!(!path.reached_another(Kind::Tcp, 1, at(5)), "its own answer says nothing of the path to it");
        assert!(path.reached_another(Kind::Tcp, 2, at(10)));
        assert!(!path.reached_another(Kind::Tcp, 2, at(11)) && !path.reached_another(Kind::Icmp, 2, at(5)));
        path.reached(Kind::Tcp, 2, at(12));
        assert!(path.reached_another(Kind::Tcp, 1, at(12)));
        assert!(path.reached_another(Kind::Tcp, 2, at(10)) && !path.reached_another(Kind::Tcp, 2, at(11)));
        path.reached(Kind::Tcp, 3, at(11));
        assert!(path.reached_another(Kind::Tcp, 2, at(11)));
        path.reference_reached(at(20));
        assert!(path.reached_another(Kind::Icmp, 1, at(20)) && !path.reached_another(Kind::Exec, 1, at(20)));
    }
}
