//! Whether a host is watched over at all: its gates, and what is missing. Pure.

use std::time::Duration;

use picket_common::clock::Now;
use picket_common::ha::{HaEvent, HaState, Ineligible};

use super::{Watch, why};
use crate::rack::host::Host;
use crate::rack::moment::Moment;
use crate::rack::{Decision, Rack};

/// How long a closed gate leaves an off that may be under way to be read.
const LAST_READINGS: Duration = Duration::from_secs(60);

impl Host {
    /// What is missing for host-HA to watch over it, its HA gates apart.
    pub(super) fn missing(&self, watch: &Watch, proving: &[String]) -> Option<Ineligible> {
        let bmc = self.assignment.bmc.as_ref().filter(|_| self.assignment.refusal.is_none());
        if bmc.is_none() {
            return Some(Ineligible::PowerDisabled);
        }
        if !self.can_prove(proving) {
            return Some(Ineligible::CannotProve);
        }
        let health = &watch.ha.settings.health;
        let missing = [
            (watch.ha.maintenance, Ineligible::Maintenance),
            (watch.row.commanded_off, Ineligible::CommandedOff),
            (health.is_empty(), Ineligible::NoHealthCheck),
            (watch.row.passed.as_ref() != Some(health), Ineligible::NeverHealthy),
        ];
        missing.into_iter().find(|(is_missing, _)| *is_missing).map(|(_, why)| why)
    }
}

impl Rack {
    /// Looks at a host's gates and at what is missing, and tells its state machine.
    pub(in crate::rack) fn reconsider(&mut self, slot: usize, now: Now, decision: &mut Decision) {
        let proving = self.settings.proving_templates.clone();
        let Some(host) = self.host(slot) else { return };
        let Some(watch) = host.watch.as_deref() else { return };
        let missing = host.missing(watch, &proving);
        let (event, said) = match (&watch.row.state, watch.ha.closed) {
            (HaState::Disabled, Some(_)) => return,
            (HaState::Disabled, None) => return self.enable(slot, now, decision),
            (HaState::Fencing(fencing), Some(_)) if fencing.off_possibly_sent && host.is_open() => {
                return self.finish_reading(slot, now, decision);
            }
            (_, Some(closed)) => (HaEvent::Disabled, why::closed(closed)),
            (HaState::Ineligible(was), None) => match missing {
                None => (HaEvent::Eligible, why::ELIGIBLE),
                Some(why) if why == *was => return,
                Some(why) => (HaEvent::Ineligible(why), why::missing(why)),
            },
            (HaState::Fencing(_), None) => return self.reopened(slot, decision),
            (_, None) => match missing {
                None => return,
                Some(why) => (HaEvent::Ineligible(why), why::missing(why)),
            },
        };
        self.ha_event(slot, &event, said, now, decision);
    }

    fn enable(&mut self, slot: usize, now: Now, decision: &mut Decision) {
        let proving = self.settings.proving_templates.clone();
        let Some(watch) = self.watch_mut(slot) else { return };
        // A wrong port must not fence a healthy host: it has to be seen well first.
        watch.row.passed = None;
        let mark = watch.row.mark.clone();
        let Some(host) = self.host(slot) else { return };
        let missing = host.watch.as_deref().and_then(|watch| host.missing(watch, &proving));
        let (event, said) = match (mark, missing) {
            (Some(evidence), _) => {
                (HaEvent::EnabledFenced(evidence), "it was fenced before host-HA was disabled, and is not released")
            }
            (None, Some(why)) => (HaEvent::Enabled(missing), why::missing(why)),
            (None, None) => (HaEvent::Enabled(None), why::ELIGIBLE),
        };
        self.ha_event(slot, &event, said, now, decision);
    }

    /// An off that may be under way is read to its end, for a while, when only the HA gates were closed.
    fn finish_reading(&mut self, slot: usize, now: Now, decision: &mut Decision) {
        let until = Moment::at(self.settings.machine_boot, now.after(LAST_READINGS));
        let Some(watch) = self.watch_mut(slot) else { return };
        match watch.row.closing {
            None => {
                watch.row.closing = Some(until);
                self.keep_row(slot, decision);
            }
            Some(over) if over.boottime <= now.boottime => {
                let said = watch.ha.closed.map_or("host-HA was disabled", why::closed);
                self.ha_event(slot, &HaEvent::Disabled, said, now, decision);
            }
            Some(_) => {}
        }
    }

    fn reopened(&mut self, slot: usize, decision: &mut Decision) {
        let Some(watch) = self.watch_mut(slot) else { return };
        if watch.row.closing.take().is_some() {
            self.keep_row(slot, decision);
        }
    }
}
