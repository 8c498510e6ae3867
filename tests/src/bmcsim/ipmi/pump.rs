//! The sockets of the IPMI side: one thread, one epoll, one socket for each BMC; answers that faults delay wait in a heap.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::fd::OwnedFd;

use super::super::bmc::Bmc;
use super::super::clock;
use super::{Scratch, Send, handle};

/// Marks the descriptor that ends the thread.
const STOP: u64 = u64::MAX;
/// Events taken from the kernel at once.
const BATCH: usize = 256;

/// A running thread; ends when dropped.
#[derive(Debug)]
pub(crate) struct Pump {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Pump {
    /// Starts to serve these sockets.
    pub(crate) fn start(bmcs: Vec<(UdpSocket, Arc<Bmc>)>) -> std::io::Result<Self> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&poll, &stop, epoll::EventData::new_u64(STOP), epoll::EventFlags::IN)?;
        for (index, (socket, _)) in (0u64..).zip(&bmcs) {
            socket.set_nonblocking(true)?;
            epoll::add(&poll, socket, epoll::EventData::new_u64(index), epoll::EventFlags::IN)?;
        }
        let mut serving = Serving { poll, bmcs, delayed: BinaryHeap::new(), number: 0, scratch: Scratch::default() };
        let thread = std::thread::Builder::new().name("bmcsim-ipmi".into()).spawn(move || serving.run())?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        let told = rustix::io::write(&self.stop, &1u64.to_ne_bytes()).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| told)
            && thread.join().is_err()
        {
            tracing::error!("the IPMI thread of the simulator panicked");
        }
    }
}

/// An answer that waits.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Delayed {
    at: Instant,
    number: u64,
    socket: usize,
    to: SocketAddr,
    bytes: Vec<u8>,
}

struct Serving {
    poll: OwnedFd,
    bmcs: Vec<(UdpSocket, Arc<Bmc>)>,
    delayed: BinaryHeap<Reverse<Delayed>>,
    number: u64,
    scratch: Scratch,
}

impl Serving {
    fn run(&mut self) {
        let mut events = Vec::with_capacity(BATCH);
        let mut buffer = [0u8; 2048];
        loop {
            events.clear();
            let timeout = self.until_next();
            match epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "the simulator cannot wait for datagrams");
                    return;
                }
            }
            for event in &events {
                let index = event.data.u64();
                if index == STOP {
                    return;
                }
                self.serve(usize::try_from(index).unwrap_or(usize::MAX), &mut buffer);
            }
            self.send_due();
        }
    }

    /// Serves one datagram of a socket; the poll is level-triggered, so more of them bring it up again.
    fn serve(&mut self, index: usize, buffer: &mut [u8]) {
        let Some((socket, bmc)) = self.bmcs.get(index) else { return };
        let Ok((len, peer)) = socket.recv_from(buffer) else { return };
        let now = clock::now();
        match handle(bmc, now, peer, buffer.get(..len).unwrap_or(&[]), &mut self.scratch) {
            Send::Nothing => {}
            Send::Now(bytes) => send(socket, bytes, peer),
            Send::Faulty(many) => {
                for one in many {
                    if one.after.is_zero() {
                        send(socket, &one.bytes, peer);
                        continue;
                    }
                    self.number += 1;
                    let delayed = Delayed { at: now + one.after, number: self.number, socket: index, to: peer, bytes: one.bytes };
                    self.delayed.push(Reverse(delayed));
                }
            }
        }
    }

    fn send_due(&mut self) {
        if self.delayed.is_empty() {
            return;
        }
        let now = clock::now();
        while self.delayed.peek().is_some_and(|next| next.0.at <= now) {
            let Some(Reverse(due)) = self.delayed.pop() else { return };
            if let Some((socket, _)) = self.bmcs.get(due.socket) {
                send(socket, &due.bytes, due.to);
            }
        }
    }

    fn until_next(&self) -> Option<Timespec> {
        let wait = self.delayed.peek()?.0.at.saturating_duration_since(clock::now());
        Timespec::try_from(wait).ok()
    }
}

/// A datagram that cannot be sent is lost, as datagrams are.
fn send(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) {
    if let Err(error) = socket.send_to(bytes, to) {
        tracing::debug!(%error, %to, "datagram not sent");
    }
}
