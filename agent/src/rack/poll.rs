//! When a host is looked at: polls, operations that wait, and how many requests are in flight. Pure.

use std::time::Duration;

use picket_common::clock::Now;

use super::host::Purpose;
use super::operation::{Input, Phase};
use super::request::timeout_of;
use super::{Decision, Rack};
use crate::bmc::Ask;

impl Rack {
    pub(super) fn wake(&mut self, slot: usize, now: Now, decision: &mut Decision) {
        let Some(host) = self.host_mut(slot) else { return };
        if let Some(operation) = host.operations.front() {
            if now.boottime >= operation.deadline.boottime {
                self.operate(slot, Input::Overdue, now, decision);
            } else if host.in_flight.is_none() && host.operation_due.is_some_and(|due| due <= now.boottime) {
                let input = if matches!(operation.phase, Phase::Ordering(_)) { Input::Start } else { Input::Due };
                host.operation_due = None;
                self.operate(slot, input, now, decision);
            } else {
                self.reschedule(slot);
            }
            return;
        }
        self.poll(slot, now, decision);
    }

    fn poll(&mut self, slot: usize, now: Now, decision: &mut Decision) {
        let full = self.in_flight >= self.max_in_flight();
        let journal_works = self.journal_works;
        let Some(host) = self.host_mut(slot) else { return };
        if !host.is_open() || host.in_flight.is_some() {
            return;
        }
        if let Some(until) = host.blocked(now.boottime) {
            host.poll_due = until;
            self.reschedule(slot);
            return;
        }
        if full {
            self.waiting.push_back(slot);
            return;
        }
        if host.is_in_doubt() {
            self.prove(slot, now, decision);
            return;
        }
        let ask = if journal_works && host.wants_inspection(now.boottime) { Ask::Inspect } else { Ask::Status };
        let timeout = timeout_of(host, ask);
        self.send(slot, ask, Purpose::Poll, timeout, now, decision);
    }

    pub(super) fn start_waiting(&mut self, now: Now, decision: &mut Decision) {
        while self.in_flight < self.max_in_flight() {
            let Some(slot) = self.waiting.pop_front() else { return };
            if self.host(slot).is_some_and(|host| host.operations.is_empty()) {
                self.poll(slot, now, decision);
            }
        }
    }

    /// Most polls in flight at once: the site says, and the agent's own file may say less.
    pub(super) fn max_in_flight(&self) -> usize {
        let own = self.settings.max_in_flight;
        let site = self.site.as_ref().and_then(|site| usize::try_from(site.max_in_flight).ok());
        site.map_or(own, |site| site.min(own))
    }

    /// First poll of a host: soon, but spread so that a whole rack does not start in one packet burst.
    pub(super) fn poll_soon(&mut self, slot: usize, now: Now) {
        let spread = self.draw_jitter() - 0.8;
        let Some(host) = self.host_mut(slot) else { return };
        host.poll_due = now.boottime.saturating_add(host.interval().min(Duration::from_secs(1)).mul_f64(spread.max(0.0)));
        self.reschedule(slot);
    }

    /// Nothing is asked before the next poll is due.
    pub(super) fn rest(&mut self, slot: usize, now: Now) {
        let jitter = self.draw_jitter();
        let dense = self.dense_pause(slot);
        if let Some(host) = self.host_mut(slot) {
            host.poll_due = now.boottime.saturating_add(dense.unwrap_or_else(|| host.pause(jitter)));
            if let Some(due) = host.inspect_due.filter(|due| *due > now.boottime) {
                host.poll_due = host.poll_due.min(due);
            }
        }
        self.reschedule(slot);
    }

    pub(super) fn reschedule(&mut self, slot: usize) {
        let Some(host) = self.hosts.get_mut(slot).and_then(Option::as_mut) else { return };
        let due = match host.operations.front() {
            Some(operation) => Some(
                host.operation_due
                    .filter(|_| host.in_flight.is_none())
                    .map_or(operation.deadline.boottime, |due| due.min(operation.deadline.boottime)),
            ),
            None if host.is_open() && host.in_flight.is_none() => Some(host.poll_due),
            None => None,
        };
        host.stamp += 1;
        if let Some(due) = due {
            self.schedule.push(due, slot, host.stamp);
        }
    }

    /// Between 0.8 and 1.2 (xorshift64: jitter needs no more).
    pub(super) fn draw_jitter(&mut self) -> f64 {
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        let sixteen_bits = u16::try_from(self.jitter >> 48).unwrap_or(u16::MAX);
        0.8 + 0.4 * f64::from(sixteen_bits) / f64::from(u16::MAX)
    }
}
