//! One host's place in the engine: its session, its jobs and where its BMC is.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::DESCRIPTOR;
use super::budget::Place;
use crate::bmc::{Bmc, Completion, DriverError, ErrorClass, Job};
use crate::ipmi::{Failure, Next, Reply, Request, Script, Session};

/// Where a BMC is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whereabouts {
    /// A literal address, checked.
    Fixed(SocketAddr),
    /// A name that was looked up and checked for the login that goes on or the session that is up.
    Found(SocketAddr),
    /// A name that is being looked up; the number tells the answer from late ones.
    Asked(u64),
    /// A name that is to be looked up before the next login.
    Unknown,
}

impl Whereabouts {
    pub const fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Fixed(address) | Self::Found(address) => Some(address),
            Self::Asked(_) | Self::Unknown => None,
        }
    }
}

/// A job with how far it is and its deadline (time since boot).
pub struct Pending {
    pub job: Job,
    pub script: Script,
    pub deadline: Duration,
    pub taken: Duration,
}

/// What follows the end of a request.
pub enum Turn {
    Again(Request),
    Through(Completion),
}

/// See the module.
pub struct Slot {
    pub bmc: Arc<Bmc>,
    pub session: Session,
    pub whereabouts: Whereabouts,
    /// The job its session serves.
    pub active: Option<Pending>,
    /// Jobs after that; the asker keeps at most one in flight, so this is nearly always empty.
    pub queue: VecDeque<Pending>,
    /// To be closed, then freed.
    pub leaving: bool,
    pub closing: bool,
    /// Stands in the line of those that wait for the budget.
    pub in_line: bool,
    pub dirty: bool,
    pub place: Option<Place>,
    /// The tick of its earliest entry among the timers.
    pub timer: Option<u64>,
    /// Why the last datagram could not be sent.
    pub send_error: Option<io::ErrorKind>,
}

impl Slot {
    pub fn new(bmc: Arc<Bmc>, session: Session, whereabouts: Whereabouts) -> Self {
        Self {
            bmc,
            session,
            whereabouts,
            active: None,
            queue: VecDeque::new(),
            leaving: false,
            closing: false,
            in_line: false,
            dirty: false,
            place: None,
            timer: None,
            send_error: None,
        }
    }

    /// When something is due here.
    pub fn due(&self) -> Option<Duration> {
        let waiting = self.queue.iter().map(|pending| pending.deadline).min();
        [self.session.poll_timeout(), waiting].into_iter().flatten().min()
    }

    /// What follows the end of a job's request: the next one, or the job's end.
    pub fn turn(&self, now: Duration, pending: &mut Pending, ended: Result<Reply, Failure>) -> Turn {
        let (settings, about) = (self.session.settings(), self.session.about());
        let ticket = pending.job.ticket;
        match (pending.script.next(now, pending.deadline, ended.as_ref(), settings, &about), ended) {
            (Next::Ask(request), _) => Turn::Again(request),
            (Next::End(result), ended) => {
                let begun = ended.map_or(pending.taken, |reply| reply.begun);
                let result = result.map_err(|no| error(&self.bmc, no.class(), no.code(), no.to_string(), no.maybe_sent()));
                Turn::Through(Completion { ticket, begun, result })
            }
            (Next::Failed, Err(failure)) => {
                let result = Err(self.failed(&failure, &pending.script));
                Turn::Through(Completion { ticket, begun: pending.taken, result })
            }
            // Not reached: an answer is not a failure.
            (Next::Failed, Ok(_)) => {
                let unclear = error(&self.bmc, ErrorClass::Protocol, "unclear", "an answer that fits nothing", false);
                Turn::Through(Completion { ticket, begun: pending.taken, result: Err(unclear) })
            }
        }
    }

    fn failed(&self, failure: &Failure, script: &Script) -> DriverError {
        let text = match (failure.class(), self.send_error) {
            (ErrorClass::Connection, Some(kind)) => format!("{failure}; sending failed: {kind}"),
            _ => failure.to_string(),
        };
        error(&self.bmc, failure.class(), failure.code(), text, failure.maybe_sent() && script.is_order_out())
    }
}

/// An address as a key: without the scope and flow of IPv6, which differ between what is sent to and what is heard from.
pub fn key(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip(), address.port())
}

/// A typed failure of this driver at `bmc`.
pub fn error(bmc: &Bmc, class: ErrorClass, code: impl Into<String>, text: impl Into<String>, maybe_sent: bool) -> DriverError {
    let address = match bmc.port {
        Some(port) => format!("{}:{port}", bmc.address),
        None => bmc.address.clone(),
    };
    DriverError { driver: DESCRIPTOR.name, address, class, code: code.into(), text: text.into(), maybe_sent }
}

/// The completion of a job that never reached a session.
pub fn refuse(job: &Job, now: Duration, error: DriverError) -> Completion {
    Completion { ticket: job.ticket, begun: now, result: Err(error) }
}
