//! The engine: one thread that waits for datagrams, inputs and timers, hands them to the sessions, and sends what the
//! sessions want sent. Everything of one wake-up is done with one reading of the clock, so a reading is never dated
//! later than its request.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use picket_common::id::HostId;
use rustix::event::{Timespec, epoll};
use tokio::sync::oneshot;

use super::budget::Budget;
use super::ports::{PORTS, Ports};
use super::random::SystemRandom;
use super::slot::{Pending, Slot, Turn, Whereabouts, error, key, refuse};
use super::{DEFAULT_PORT, DESCRIPTOR, Inbox, Input, IpmiError, closed};
use crate::bmc::{Bmc, Completion, DriverError, ErrorClass, Job};
use crate::clock;
use crate::driver::Completions;
use crate::driver::address::AllowedNetworks;
use crate::ipmi::session::Learned;
use crate::ipmi::{Event, Script, Session, Settings, wire};

/// Timers are exact to this: at most 250 wake-ups a second come from them.
const TICK: Duration = Duration::from_millis(4);
/// Datagrams taken from one socket before the others get their turn.
const BURST: usize = 256;
/// Longest wait, as a safety net under the timers.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How long outstanding jobs go on during a shutdown, and when the engine ends whatever is left.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(800);
const SHUTDOWN_END: Duration = Duration::from_millis(1900);
/// Console session ids have 16 bits for the slot.
const MAX_SLOTS: usize = u16::MAX as usize;
/// The event number of the wake-up descriptor; sockets have lower ones.
const WAKE: u64 = u64::MAX;
/// Largest datagram of any interest.
const DATAGRAM: usize = 2048;

/// See the module.
pub struct Engine {
    inbox: Arc<Inbox>,
    completions: Completions,
    allowed: AllowedNetworks,
    runtime: tokio::runtime::Handle,
    poller: OwnedFd,
    ports: Ports,
    random: SystemRandom,
    slots: Vec<Option<Box<Slot>>>,
    free: Vec<u16>,
    hosts: HashMap<HostId, u16>,
    addresses: HashMap<(IpAddr, u16), Vec<u16>>,
    timers: BinaryHeap<Reverse<(u64, u16)>>,
    budget: Budget,
    line: VecDeque<u16>,
    dirty: Vec<u16>,
    done: Vec<Completion>,
    out: Vec<u8>,
    askings: u64,
    ending: Option<Ending>,
    strays: u64,
}

/// A shutdown in progress.
struct Ending {
    grace: Duration,
    end: Duration,
    tell: Vec<oneshot::Sender<()>>,
}

enum Next {
    GoOn,
    End,
}

impl Engine {
    /// Opens everything the engine needs.
    pub fn new(
        inbox: Arc<Inbox>,
        completions: Completions,
        allowed: AllowedNetworks,
        runtime: tokio::runtime::Handle,
    ) -> Result<Self, IpmiError> {
        let ports = Ports::open().map_err(|cause| IpmiError::Io { what: "UDP socket", cause })?;
        let poller = poller(&ports, &inbox.wake).map_err(|cause| IpmiError::Io { what: "poller", cause: cause.into() })?;
        let random = SystemRandom::new().map_err(|cause| IpmiError::Io { what: "randomness", cause })?;
        let budget = Budget::new(ports.receive_buffer());
        Ok(Self {
            inbox,
            completions,
            allowed,
            runtime,
            poller,
            ports,
            random,
            slots: Vec::new(),
            free: Vec::new(),
            hosts: HashMap::new(),
            addresses: HashMap::new(),
            timers: BinaryHeap::new(),
            budget,
            line: VecDeque::new(),
            dirty: Vec::new(),
            done: Vec::new(),
            out: Vec::with_capacity(DATAGRAM),
            askings: 0,
            ending: None,
            strays: 0,
        })
    }

    /// Serves until it is told to stop.
    pub fn run(mut self) {
        let mut events = Vec::with_capacity(16);
        let mut inputs = Vec::new();
        let mut buffer = [0u8; DATAGRAM];
        loop {
            self.drop_idle_timers();
            self.wait(&mut events);
            let now = clock::boottime();
            let mut next = Next::GoOn;
            for event in events.drain(..) {
                let event: epoll::Event = event;
                match event.data.u64() {
                    WAKE => next = self.take_inputs(now, &mut inputs),
                    number => self.receive(now, u8::try_from(number).unwrap_or(u8::MAX), &mut buffer),
                }
            }
            self.run_timers(now);
            self.advance_line(now);
            self.flush(now);
            self.deliver();
            if matches!(next, Next::End) || self.ended(now) {
                return self.finish();
            }
        }
    }

    fn wait(&self, events: &mut Vec<epoll::Event>) {
        let timeout = self.next_wake();
        let timeout = Timespec::try_from(timeout).ok();
        match epoll::wait(&self.poller, rustix::buffer::spare_capacity(events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => tracing::warn!(%error, "waiting for datagrams failed"),
        }
    }

    fn next_wake(&self) -> Duration {
        let timer = self.timers.peek().map(|Reverse((tick, _))| instant(*tick));
        let place = if self.line.is_empty() { None } else { self.budget.next_end() };
        let ending = self.ending.as_ref().map(|ending| ending.grace.min(ending.end));
        match [timer, place, ending].into_iter().flatten().min() {
            None => LONGEST_WAIT,
            Some(at) => at.saturating_sub(clock::boottime()).min(LONGEST_WAIT),
        }
    }

    /// Takes timers off the top that nothing waits for any more, so that they wake nobody: nearly every request is
    /// answered long before it would be sent again.
    fn drop_idle_timers(&mut self) {
        while let Some(Reverse((set, index))) = self.timers.peek().copied() {
            let due = match self.slot(index) {
                Some(slot) if slot.timer == Some(set) => slot.due().map(tick),
                _ => None,
            };
            if due.is_some_and(|due| due <= set) {
                return;
            }
            self.timers.pop();
            if let Some(slot) = self.slot(index).filter(|slot| slot.timer == Some(set)) {
                slot.timer = due;
                self.timers.extend(due.map(|due| Reverse((due, index))));
            }
        }
    }

    fn take_inputs(&mut self, now: Duration, inputs: &mut Vec<Input>) -> Next {
        let mut count = [0u8; 8];
        if let Err(error) = rustix::io::read(&self.inbox.wake, &mut count) {
            tracing::trace!(%error, "nothing to read from the wake-up descriptor");
        }
        self.inbox.drain(inputs);
        for input in inputs.drain(..) {
            match input {
                Input::Job(job) => self.take_job(now, job),
                Input::Forget(host) => self.drop_host(now, &host),
                Input::Resolved { slot, asking, addresses } => self.resolved(now, slot, asking, addresses),
                Input::Shutdown(tell) => self.begin_ending(now, tell),
                Input::Stop => return Next::End,
            }
        }
        Next::GoOn
    }

    fn take_job(&mut self, now: Duration, job: Job) {
        if self.ending.is_some() {
            return self.done.push(closed(&job));
        }
        match self.slot_of(now, &job.bmc) {
            Ok(index) => {
                let deadline = now.saturating_add(job.timeout);
                let Some(slot) = self.slot(index) else { return };
                match Script::new(job.ask, job.new_password.as_ref(), slot.session.settings()) {
                    Ok(script) => slot.queue.push_back(Pending { job, script, deadline, taken: now }),
                    Err(wrong) => {
                        let error = error(&slot.bmc, ErrorClass::Setting, wrong.code(), wrong.to_string(), false);
                        return self.done.push(refuse(&job, now, error));
                    }
                }
                self.start(now, index);
                self.touch(index);
            }
            Err(error) => self.done.push(refuse(&job, now, error)),
        }
    }

    /// The slot of a BMC, made if need be; a slot of other settings is closed.
    fn slot_of(&mut self, now: Duration, bmc: &Arc<Bmc>) -> Result<u16, DriverError> {
        let known = self.hosts.get(&bmc.host).copied();
        let mut first_port = 0;
        let mut learned = Learned::default();
        if let Some(index) = known {
            if let Some(slot) = self.slot(index) {
                if slot.bmc.revision == bmc.revision {
                    return Ok(index);
                }
                if is_same_login(&slot.bmc, bmc) {
                    learned = slot.session.learned();
                }
            }
            self.drop_host(now, &bmc.host);
            // Not from the port of the session that is being closed.
            first_port = 1;
        }
        let settings = Settings::parse(&bmc.username, bmc.password.expose(), &bmc.options)
            .map_err(|wrong| error(bmc, ErrorClass::Setting, wrong.code(), wrong.to_string(), false))?;
        let whereabouts = match self.allowed.literal(DESCRIPTOR.name, bmc, DEFAULT_PORT)? {
            Some(address) => Whereabouts::Fixed(address),
            None => Whereabouts::Unknown,
        };
        for quirk in settings.dropped_checks() {
            tracing::warn!(host = %bmc.host, quirk = quirk.name(), "a check is dropped for this BMC by its options");
        }
        let index = self
            .free_index()
            .ok_or_else(|| error(bmc, ErrorClass::Setting, "too-many-bmcs", "one ipmi driver serves at most 65,535 BMCs", false))?;
        let session = Session::new(Arc::new(settings), index, first_port, PORTS).recalling(learned);
        let slot = Slot::new(Arc::clone(bmc), session, whereabouts);
        if let Some(place) = self.slots.get_mut(usize::from(index)) {
            *place = Some(Box::new(slot));
        }
        if let Some(address) = whereabouts.address() {
            self.addresses.entry(key(address)).or_default().push(index);
        }
        self.hosts.insert(bmc.host.clone(), index);
        Ok(index)
    }

    fn free_index(&mut self) -> Option<u16> {
        if let Some(index) = self.free.pop() {
            return Some(index);
        }
        let index = u16::try_from(self.slots.len()).ok().filter(|_| self.slots.len() < MAX_SLOTS)?;
        self.slots.push(None);
        Some(index)
    }

    fn slot(&mut self, index: u16) -> Option<&mut Slot> {
        self.slots.get_mut(usize::from(index))?.as_deref_mut()
    }

    /// Marks a slot for [`Self::flush`].
    fn touch(&mut self, index: u16) {
        if let Some(slot) = self.slot(index)
            && !std::mem::replace(&mut slot.dirty, true)
        {
            self.dirty.push(index);
        }
    }

    /// Begins the next job of a slot, if it is free, has one, knows its BMC's address and the budget allows.
    fn start(&mut self, now: Duration, index: u16) {
        let full = self.budget.is_full();
        let Some(slot) = self.slot(index) else { return };
        if slot.active.is_some() || slot.in_line || (slot.queue.is_empty() && !slot.leaving) || slot.closing {
            return;
        }
        if full {
            slot.in_line = true;
            return self.line.push_back(index);
        }
        let Some(mut pending) = slot.queue.pop_front() else {
            slot.closing = true;
            slot.session.close(now);
            return self.touch(index);
        };
        if !slot.session.is_up() && matches!(slot.whereabouts, Whereabouts::Unknown | Whereabouts::Asked(_)) {
            slot.queue.push_front(pending);
            return self.resolve(index);
        }
        slot.send_error = None;
        let request = pending.script.begin(now, pending.deadline);
        if slot.session.request(now, request).is_ok() {
            slot.active = Some(pending);
        }
        self.touch(index);
    }

    /// Has a name looked up by tokio, off this thread.
    fn resolve(&mut self, index: u16) {
        self.askings += 1;
        let asking = self.askings;
        let Some(slot) = self.slot(index) else { return };
        if matches!(slot.whereabouts, Whereabouts::Asked(_)) {
            return;
        }
        slot.whereabouts = Whereabouts::Asked(asking);
        let target = (slot.bmc.address.clone(), slot.bmc.port.unwrap_or(DEFAULT_PORT));
        let inbox = Arc::clone(&self.inbox);
        self.runtime.spawn(async move {
            let addresses = tokio::net::lookup_host(target).await.map(Iterator::collect);
            if inbox.push([Input::Resolved { slot: index, asking, addresses }]).is_err() {
                tracing::trace!("a name was resolved after the end");
            }
        });
    }

    fn resolved(&mut self, now: Duration, index: u16, asking: u64, addresses: io::Result<Vec<SocketAddr>>) {
        let Some(slot) = self.slot(index).filter(|slot| slot.whereabouts == Whereabouts::Asked(asking)) else { return };
        let bmc = Arc::clone(&slot.bmc);
        let name = |text: String| error(&bmc, ErrorClass::Connection, "name", text, false);
        let found = match addresses {
            Err(cause) => Err(name(format!("the name {} cannot be resolved: {cause}", bmc.address))),
            Ok(addresses) => match addresses.iter().find(|address| self.allowed.allows(address.ip())) {
                Some(address) => Ok(*address),
                None => match addresses.first() {
                    Some(address) => self.allowed.check(DESCRIPTOR.name, &bmc, *address),
                    None => Err(name(format!("the name {} has no address", bmc.address))),
                },
            },
        };
        match found {
            Ok(address) => {
                self.addresses.entry(key(address)).or_default().push(index);
                if let Some(slot) = self.slot(index) {
                    slot.whereabouts = Whereabouts::Found(address);
                }
                self.start(now, index);
            }
            Err(error) => {
                let Some(slot) = self.slot(index) else { return };
                slot.whereabouts = Whereabouts::Unknown;
                let refused: Vec<_> = slot.queue.drain(..).map(|pending| refuse(&pending.job, now, error.clone())).collect();
                self.done.extend(refused);
                self.start(now, index);
            }
        }
        self.touch(index);
    }

    fn receive(&mut self, now: Duration, number: u8, buffer: &mut [u8]) {
        for _ in 0..BURST {
            match self.ports.receive(number, buffer) {
                Ok((len, from)) => self.dispatch(now, number % PORTS, from, buffer.get(..len).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // An error another datagram left behind, of which the session learns by silence.
                Err(error) => tracing::debug!(%error, "receiving failed"),
            }
        }
    }

    fn dispatch(&mut self, now: Duration, port: u8, from: SocketAddr, datagram: &[u8]) {
        let from = key(from);
        if let Some(id) = wire::console_id(datagram) {
            let index = u16::try_from((id & 0xFFFF).wrapping_sub(1)).unwrap_or(u16::MAX);
            let slot = self.slot(index).filter(|slot| slot.whereabouts.address().map(key) == Some(from));
            let Some(slot) = slot else { return self.strays += 1 };
            slot.session.handle_datagram(now, port, datagram);
            return self.answered(index);
        }
        let Some(here) = self.addresses.get(&from) else { return self.strays += 1 };
        // Nearly always one; hosts with the same address are told apart by what their sessions wait for.
        for at in 0..here.len() {
            let Some(index) = self.addresses.get(&from).and_then(|here| here.get(at)).copied() else { return };
            if let Some(slot) = self.slot(index) {
                slot.session.handle_datagram(now, port, datagram);
                self.answered(index);
            }
        }
    }

    fn answered(&mut self, index: u16) {
        if self.slot(index).and_then(|slot| slot.place.take()).is_some() {
            self.budget.give_back();
        }
        self.touch(index);
    }

    fn run_timers(&mut self, now: Duration) {
        while let Some(Reverse((tick, index))) = self.timers.peek().copied() {
            if instant(tick) > now {
                break;
            }
            self.timers.pop();
            let Some(slot) = self.slot(index).filter(|slot| slot.timer == Some(tick)) else { continue };
            slot.timer = None;
            slot.session.handle_timeout(now);
            self.expire_queue(now, index);
            self.touch(index);
        }
    }

    /// Ends jobs whose time was over before their turn came.
    fn expire_queue(&mut self, now: Duration, index: u16) {
        let Some(slot) = self.slot(index) else { return };
        if slot.queue.iter().all(|pending| pending.deadline > now) {
            return;
        }
        let text = match slot.whereabouts {
            Whereabouts::Asked(_) => "the time was over before the BMC's name was resolved",
            _ => "the time was over before the request's turn came",
        };
        let late = error(&slot.bmc, ErrorClass::Deadline, "queued", text, false);
        let (over, rest): (VecDeque<_>, _) =
            std::mem::take(&mut slot.queue).into_iter().partition(|pending| pending.deadline <= now);
        slot.queue = rest;
        self.done.extend(over.iter().map(|pending| refuse(&pending.job, now, late.clone())));
    }

    /// Lets those in line begin, as far as the budget goes.
    fn advance_line(&mut self, now: Duration) {
        while let Some((index, place)) = self.budget.expired(now) {
            if let Some(slot) = self.slot(index).filter(|slot| slot.place == Some(place)) {
                slot.place = None;
                self.budget.give_back();
            }
        }
        while !self.budget.is_full() {
            let Some(index) = self.line.pop_front() else { return };
            if let Some(slot) = self.slot(index) {
                slot.in_line = false;
                self.start(now, index);
                // Sent at once, so that the budget counts it.
                self.flush_one(now, index);
            }
        }
    }

    fn flush(&mut self, now: Duration) {
        while let Some(index) = self.dirty.pop() {
            self.flush_one(now, index);
        }
    }

    /// Sends what a session wants sent, takes what it has to tell, and sets its timer.
    fn flush_one(&mut self, now: Duration, index: u16) {
        let Some(slot) = self.slots.get_mut(usize::from(index)).and_then(Option::as_deref_mut) else { return };
        slot.dirty = false;
        loop {
            while let Some(port) = slot.session.poll_transmit(now, &mut self.random, &mut self.out) {
                let Some(address) = slot.whereabouts.address() else { continue };
                if slot.place.is_none() {
                    slot.place = Some(self.budget.take(now, index));
                }
                if let Err(error) = self.ports.send(port, address, &self.out) {
                    tracing::debug!(host = %slot.bmc.host, %address, %error, "sending failed");
                    slot.send_error = Some(error.kind());
                }
            }
            match slot.session.poll_event() {
                None => break,
                Some(Event::Closed) => return self.free(index),
                Some(Event::Done(result)) => {
                    let Some(mut pending) = slot.active.take() else { continue };
                    match slot.turn(now, &mut pending, result) {
                        Turn::Through(completion) => {
                            if pending.script.leaves() {
                                slot.session.leave();
                            }
                            self.done.push(completion);
                        }
                        Turn::Again(request) => {
                            if slot.session.request(now, request).is_ok() {
                                slot.active = Some(pending);
                            } else {
                                // The session is being closed; its job ends as those that waited do.
                                self.done.push(closed(&pending.job));
                            }
                        }
                    }
                }
            }
        }
        if slot.active.is_none() && (!slot.queue.is_empty() || slot.leaving) && !slot.in_line {
            self.start(now, index);
        }
        self.after_flush(index);
    }

    /// Forgets a name's address once no session rests on it, and sets the slot's timer.
    fn after_flush(&mut self, index: u16) {
        let Some(slot) = self.slot(index) else { return };
        let due = slot.due().map(tick);
        let earlier = due.filter(|due| slot.timer.is_none_or(|set| *due < set));
        if earlier.is_some() {
            slot.timer = earlier;
        }
        let stale = match slot.whereabouts {
            Whereabouts::Found(address) if slot.active.is_none() && !slot.session.is_up() && !slot.leaving => Some(address),
            _ => None,
        };
        if let Some(address) = stale {
            slot.whereabouts = Whereabouts::Unknown;
            self.forget_address(address, index);
        }
        if let Some(tick) = earlier {
            self.timers.push(Reverse((tick, index)));
        }
    }

    fn forget_address(&mut self, address: SocketAddr, index: u16) {
        if let Entry::Occupied(mut here) = self.addresses.entry(key(address)) {
            here.get_mut().retain(|other| *other != index);
            if here.get().is_empty() {
                here.remove();
            }
        }
    }

    /// Ends a host's jobs at once, so that none outlives its host's gate or settings, and has its session closed.
    fn drop_host(&mut self, now: Duration, host: &HostId) {
        let Some(index) = self.hosts.get(host).copied() else { return };
        if let Some(slot) = self.slot(index) {
            slot.session.abort(now);
            let queued: Vec<_> = slot.queue.drain(..).map(|pending| closed(&pending.job)).collect();
            self.done.extend(queued);
        }
        self.forget(now, host);
    }

    /// Has a host's session closed after its jobs; a later job of the host gets another slot.
    fn forget(&mut self, now: Duration, host: &HostId) {
        let Some(index) = self.hosts.remove(host) else { return };
        if let Some(slot) = self.slot(index) {
            slot.leaving = true;
            self.start(now, index);
            self.touch(index);
        }
    }

    fn free(&mut self, index: u16) {
        let Some(slot) = self.slots.get_mut(usize::from(index)).and_then(Option::take) else { return };
        if slot.place.is_some() {
            self.budget.give_back();
        }
        if let Some(address) = slot.whereabouts.address() {
            self.forget_address(address, index);
        }
        if self.hosts.get(&slot.bmc.host) == Some(&index) {
            self.hosts.remove(&slot.bmc.host);
        }
        tracing::debug!(host = %slot.bmc.host, drops = ?slot.session.drops(), "ipmi session closed");
        self.free.push(index);
    }

    fn begin_ending(&mut self, now: Duration, tell: oneshot::Sender<()>) {
        let ending =
            self.ending.get_or_insert_with(|| Ending { grace: now + SHUTDOWN_GRACE, end: now + SHUTDOWN_END, tell: Vec::new() });
        ending.tell.push(tell);
        let hosts: Vec<HostId> = self.hosts.keys().cloned().collect();
        for host in &hosts {
            self.forget(now, host);
        }
    }

    /// Whether the engine is through with its end; past the grace outstanding jobs are ended.
    fn ended(&mut self, now: Duration) -> bool {
        let Some(ending) = &mut self.ending else { return false };
        if ending.end <= now {
            return true;
        }
        if ending.grace <= now {
            ending.grace = Duration::MAX;
            for index in 0..u16::try_from(self.slots.len()).unwrap_or(u16::MAX) {
                if let Some(slot) = self.slot(index) {
                    slot.session.abort(now);
                    let queued: Vec<_> = slot.queue.drain(..).map(|pending| closed(&pending.job)).collect();
                    self.done.extend(queued);
                    self.touch(index);
                }
            }
            self.flush(now);
            self.deliver();
        }
        self.slots.iter().all(Option::is_none)
    }

    /// The end: every job that is left gets its answer.
    fn finish(mut self) {
        let left = self.inbox.close();
        for input in left {
            match input {
                Input::Job(job) => self.done.push(closed(&job)),
                Input::Shutdown(tell) => self.ending.get_or_insert_with(Ending::now).tell.push(tell),
                Input::Forget(_) | Input::Resolved { .. } | Input::Stop => {}
            }
        }
        for slot in self.slots.iter_mut().flatten() {
            let left = slot.active.take().into_iter().chain(slot.queue.drain(..));
            self.done.extend(left.map(|pending| closed(&pending.job)));
        }
        self.deliver();
        tracing::debug!(strays = self.strays, "ipmi engine ended");
        for tell in self.ending.take().into_iter().flat_map(|ending| ending.tell) {
            if tell.send(()).is_err() {
                tracing::trace!("nobody waits for the ipmi engine's end");
            }
        }
    }

    fn deliver(&mut self) {
        if !self.done.is_empty() {
            // One vector per batch, of the batch's size.
            let room = Vec::with_capacity(self.done.len());
            (self.completions)(std::mem::replace(&mut self.done, room));
        }
    }
}

impl Ending {
    const fn now() -> Self {
        Self { grace: Duration::ZERO, end: Duration::ZERO, tell: Vec::new() }
    }
}

/// Whether two revisions of settings differ in the password alone, so that what was found out about the BMC still counts.
fn is_same_login(one: &Bmc, other: &Bmc) -> bool {
    (&one.address, one.port, &one.username, &one.options) == (&other.address, other.port, &other.username, &other.options)
}

fn poller(ports: &Ports, wake: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let poller = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poller, wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
    for (number, socket) in ports.all() {
        epoll::add(&poller, socket, epoll::EventData::new_u64(number.into()), epoll::EventFlags::IN)?;
    }
    Ok(poller)
}

/// The tick at or after `at`.
fn tick(at: Duration) -> u64 {
    u64::try_from(at.as_nanos().div_ceil(TICK.as_nanos())).unwrap_or(u64::MAX)
}

/// When a tick is.
fn instant(tick: u64) -> Duration {
    Duration::from_millis(tick.saturating_mul(4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_never_come_early() {
        for millis in [0, 1, 3, 4, 5, 400, 1_000_001] {
            let at = Duration::from_millis(millis);
            assert!(instant(tick(at)) >= at);
            assert!(instant(tick(at)) < at + TICK);
        }
    }
}
