//! Datagrams of many sockets by one system call, each with the time at which the kernel got it (io_uring).
//!
//! A socket is received from by one request that stays (multishot `recvmsg`, Linux 6.0) and takes buffers out of a ring
//! that all sockets share. The kernel works at it only while the thread is in [`Ring::turn`] (`DEFER_TASKRUN`, Linux
//! 6.1): between two turns nothing is written to, and what comes waits in the sockets as if nobody had asked.
#![allow(unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use io_uring::types::{BufRingEntry, CancelBuilder, Fd, RecvMsgOut, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::batch::arrived;

/// Requests made at once; if there are more, they are made in turns.
const REQUESTS: u32 = 256;
/// Completions that may wait. A request that finds no room ends, and is made again.
const COMPLETIONS: u32 = 4096;
/// Room for the source: a `sockaddr_in6` and what makes the payload begin at a multiple of eight.
const NAME: usize = 32;
/// Room for control messages: the time stamp, and some that nobody asked for.
const CONTROL: usize = 64;
/// Times that a turn asks for more: the kernel looks at twenty sockets or so at a time (seen on Linux 6.18).
const PASSES: usize = 256;
/// The name of the one group of buffers.
const GROUP: u16 = 0;
/// The user data of cancellations. No socket has such a token.
const CANCELLATION: u64 = u64::MAX;
/// How long the kernel may take to give up what is left when the ring goes.
const LONGEST_FAREWELL: u64 = 1;

/// Receives from many sockets. It belongs to the thread that made it.
pub(super) struct Ring {
    /// Closed before the memory is freed that it was told of.
    ring: IoUring,
    /// What the kernel says by that a turn would have something to do.
    bell: OwnedFd,
    buffers: Buffers,
    /// How a buffer is divided. The kernel may look at it as long as there are requests.
    division: Box<libc::msghdr>,
    sockets: HashMap<usize, Socket>,
    /// Sockets whose request is to be made or taken back.
    wanting: VecDeque<usize>,
    /// Sockets that left without a word from the kernel.
    left: VecDeque<usize>,
    /// What the arrival told last is in.
    lent: Option<u16>,
    turned: (Instant, SystemTime),
    exhausted: u64,
}

/// A socket that is received from, or shall be no longer.
#[derive(Clone, Copy)]
struct Socket {
    descriptor: RawFd,
    /// There is a request.
    asked: bool,
    leaves: bool,
}

/// What came.
#[derive(Debug)]
pub(super) enum Arrival<'a> {
    /// A datagram, cut to the longest that is taken.
    Datagram { token: Token, at: Instant, source: SocketAddr, bytes: &'a [u8] },
    /// The system refused, as for an ICMP error of an earlier send; the socket is still received from.
    Failed { token: Token, error: io::Error },
    /// The socket is received from no longer, and the kernel keeps nothing of it: it may be closed.
    Left { token: Token },
}

/// What a completion says, before anything is borrowed.
enum Step {
    Datagram { token: usize, buffer: u16 },
    Failed { token: usize, error: io::Error },
    Left { token: usize },
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("sockets", &self.sockets.len()).finish_non_exhaustive()
    }
}

impl Ring {
    /// Makes a ring of `count` buffers, a power of two up to 32768, for datagrams of at most `longest` bytes.
    ///
    /// # Errors
    /// What the kernel says: it is older than 6.1, or somebody forbids io_uring (`kernel.io_uring_disabled`, seccomp).
    pub(super) fn new(count: u16, longest: usize, now: Instant) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_cqsize(COMPLETIONS)
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .build(REQUESTS)?;
        let bell = bell()?;
        ring.submitter().register_eventfd(bell.as_raw_fd())?;
        // SAFETY: all zeroes is a valid `msghdr`: null pointers with lengths of nought.
        let mut division: Box<libc::msghdr> = Box::new(unsafe { mem::zeroed() });
        division.msg_namelen = NAME as libc::socklen_t;
        division.msg_controllen = CONTROL as _;
        let buffers = Buffers::new(count, longest);
        // SAFETY: the entries begin at a page, are as many as `count`, and are freed only when the kernel was told that
        // they go, or not at all (`drop`).
        unsafe { ring.submitter().register_buf_ring_with_flags(buffers.entries() as u64, count, GROUP, 0)? };
        Ok(Self {
            ring,
            bell,
            buffers,
            division,
            sockets: HashMap::new(),
            wanting: VecDeque::new(),
            left: VecDeque::new(),
            lent: None,
            turned: (now, SystemTime::now()),
            exhausted: 0,
        })
    }

    /// Has it reported under a token when there is something for a turn to do.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn watch(&self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut SourceFd(&self.bell.as_raw_fd()), token, Interest::READABLE)
    }

    /// Receives from a socket from the next turn on, what waits there included. It must stay open until
    /// [`Arrival::Left`], and its token be no other's until then.
    pub(super) fn add(&mut self, token: Token, socket: &impl AsRawFd) {
        let descriptor = socket.as_raw_fd();
        self.sockets.insert(token.0, Socket { descriptor, asked: false, leaves: false });
        self.wanting.push_back(token.0);
    }

    /// Receives from a socket no longer; [`Arrival::Left`] follows. Returns false where it was not received from.
    pub(super) fn remove(&mut self, token: Token) -> bool {
        let Some(socket) = self.sockets.get_mut(&token.0) else { return false };
        socket.leaves = true;
        self.wanting.push_back(token.0);
        true
    }

    /// Says whether a turn would have something to do.
    pub(super) fn is_ready(&mut self) -> bool {
        let submission = self.ring.submission();
        let kernel = submission.taskrun() || submission.cq_overflow() || !submission.is_empty();
        drop(submission);
        kernel || !self.wanting.is_empty() || !self.left.is_empty() || !self.ring.completion().is_empty()
    }

    /// Returns how often the buffers were used up. What came then waits in the sockets.
    pub(super) fn exhausted(&self) -> u64 {
        self.exhausted
    }

    /// Takes what the sockets have, without waiting. [`Self::poll_arrival`] tells it.
    ///
    /// # Errors
    /// What `io_uring_enter` says, if it is about more than this turn.
    pub(super) fn turn(&mut self, now: Instant) -> io::Result<()> {
        self.take_back();
        self.ask()?;
        self.turned = (now, SystemTime::now());
        self.run()
    }

    /// Tells what came, one after the other.
    pub(super) fn poll_arrival(&mut self) -> Option<Arrival<'_>> {
        self.take_back();
        let (token, buffer) = match self.step()? {
            Step::Datagram { token, buffer } => (Token(token), buffer),
            Step::Failed { token, error } => return Some(Arrival::Failed { token: Token(token), error }),
            Step::Left { token } => return Some(Arrival::Left { token: Token(token) }),
        };
        self.lent = Some(buffer);
        let read = RecvMsgOut::parse(self.buffers.get(buffer), &self.division).ok();
        let read = read.and_then(|out| {
            // As long as the buffer, and not as `out`.
            let payload = self.buffers.payload(buffer).get(..out.payload_data().len())?;
            Some((source(out.name_data())?, stamp(out.control_data()), payload))
        });
        let (now, wall) = self.turned;
        Some(match read {
            Some((source, stamp, bytes)) => {
                Arrival::Datagram { token, at: arrived(stamp, now, wall), source, bytes }
            }
            None => Arrival::Failed { token, error: io::ErrorKind::InvalidData.into() },
        })
    }

    fn step(&mut self) -> Option<Step> {
        if let Some(token) = self.left.pop_front() {
            return Some(Step::Left { token });
        }
        loop {
            let completion = self.ring.completion().next()?;
            let (flags, result) = (completion.flags(), completion.result());
            let buffer = cqueue::buffer_select(flags);
            let token = usize::try_from(completion.user_data()).unwrap_or(usize::MAX);
            let leaves = match self.sockets.get_mut(&token) {
                // A cancellation, for which the request that it is about answers.
                None => continue,
                Some(socket) if cqueue::more(flags) => socket.leaves,
                Some(socket) => {
                    socket.asked = false;
                    if socket.leaves {
                        self.sockets.remove(&token);
                        self.give_back(buffer);
                        return Some(Step::Left { token });
                    }
                    self.wanting.push_back(token);
                    false
                }
            };
            match (u32::try_from(result), buffer) {
                // Nobody waits for it any more.
                (_, buffer) if leaves => self.give_back(buffer),
                (Ok(_), Some(buffer)) => return Some(Step::Datagram { token, buffer }),
                (Ok(_), None) => {}
                (Err(_), buffer) => {
                    self.give_back(buffer);
                    match -result {
                        libc::ENOBUFS => self.exhausted += 1,
                        code => {
                            let error = io::Error::from_raw_os_error(code);
                            return Some(Step::Failed { token, error });
                        }
                    }
                }
            }
        }
    }

    /// Makes the requests that are wanting, and takes back those of sockets that leave.
    fn ask(&mut self) -> io::Result<()> {
        while let Some(&token) = self.wanting.front() {
            let request = match self.sockets.get(&token) {
                Some(&Socket { descriptor, asked: false, leaves: false }) => {
                    let division: *const libc::msghdr = &raw const *self.division;
                    opcode::RecvMsgMulti::new(Fd(descriptor), division, GROUP).build().user_data(token as u64)
                }
                Some(Socket { asked: true, leaves: true, .. }) => {
                    opcode::AsyncCancel::new(token as u64).build().user_data(CANCELLATION)
                }
                Some(Socket { asked: false, leaves: true, .. }) => {
                    self.sockets.remove(&token);
                    self.left.push_back(token);
                    self.wanting.pop_front();
                    continue;
                }
                Some(Socket { asked: true, leaves: false, .. }) | None => {
                    self.wanting.pop_front();
                    continue;
                }
            };
            if !self.push(&request) {
                self.enter()?;
                if !self.push(&request) {
                    return Ok(());
                }
            }
            self.wanting.pop_front();
            if let Some(socket) = self.sockets.get_mut(&token) {
                socket.asked = true;
            }
        }
        Ok(())
    }

    /// Queues a request. Returns false if there is no room.
    fn push(&mut self, request: &squeue::Entry) -> bool {
        // SAFETY: a request names a descriptor, a number, and `division`, which is on the heap and lives as long as the
        // ring. Its buffers are those that were registered.
        unsafe { self.ring.submission().push(request).is_ok() }
    }

    /// Hands the requests over and lets the kernel do what is to be done.
    fn run(&mut self) -> io::Result<()> {
        self.enter()?;
        for _ in 1..PASSES {
            if !self.ring.submission().taskrun() {
                break;
            }
            self.enter()?;
        }
        Ok(())
    }

    fn enter(&mut self) -> io::Result<()> {
        match self.ring.submit() {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Completions wait to be told first, memory is short for the moment, or a signal came.
                Some(libc::EBUSY | libc::EAGAIN | libc::EINTR) => Ok(()),
                _ => Err(error),
            },
        }
    }

    fn take_back(&mut self) {
        let lent = self.lent.take();
        self.give_back(lent);
    }

    fn give_back(&mut self, buffer: Option<u16>) {
        if let Some(buffer) = buffer {
            self.buffers.give(buffer);
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Closing would end the requests too, but some time later, and the ports be taken until then. Fails where there
        // are none.
        let patience = Timespec::new().sec(LONGEST_FAREWELL);
        let _ = self.ring.submitter().register_sync_cancel(Some(patience), CancelBuilder::any());
        let _ = self.run();
        if self.ring.submitter().unregister_buf_ring(GROUP).is_err() {
            self.buffers.leak();
        }
    }
}

/// Makes an event descriptor. It is not read: what counts is that it is written to again.
fn bell() -> io::Result<OwnedFd> {
    // SAFETY: no memory is handed over.
    let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was made just now, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// As the kernel wants the entries to be aligned.
#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Page([u8; 4096]);

/// The buffers, and the ring of entries that says which of them are the kernel's.
struct Buffers {
    entries: Vec<Page>,
    memory: Vec<u8>,
    count: u16,
    /// From one buffer to the next.
    stride: usize,
    longest: usize,
    /// How many were given so far, modulo 2^16.
    given: u16,
}

impl Buffers {
    /// Where the payload begins: behind what `io_uring_recvmsg_out` says, the source and the control messages.
    const HEAD: usize = 16 + NAME + CONTROL;

    fn new(count: u16, longest: usize) -> Self {
        let pages = (usize::from(count) * mem::size_of::<BufRingEntry>()).div_ceil(mem::size_of::<Page>());
        let stride = (Self::HEAD + longest).next_multiple_of(64);
        let mut buffers = Self {
            entries: vec![Page([0; 4096]); pages],
            memory: vec![0; stride * usize::from(count)],
            count,
            stride,
            longest,
            given: 0,
        };
        (0..count).for_each(|buffer| buffers.give(buffer));
        buffers
    }

    fn entries(&self) -> *const BufRingEntry {
        self.entries.as_ptr().cast()
    }

    fn get(&self, buffer: u16) -> &[u8] {
        &self.memory[usize::from(buffer) * self.stride..][..self.length()]
    }

    fn length(&self) -> usize {
        Self::HEAD + self.longest
    }

    fn payload(&self, buffer: u16) -> &[u8] {
        &self.get(buffer)[Self::HEAD..]
    }

    /// Gives a buffer to the kernel, which has at most `count` then: each is given once, and again after it came back.
    fn give(&mut self, buffer: u16) {
        let length = self.length() as u32;
        let at = self.memory[usize::from(buffer) * self.stride..].as_mut_ptr() as u64;
        let base: *mut BufRingEntry = self.entries.as_mut_ptr().cast();
        // SAFETY: `count` entries fit into `entries`, whose bytes are all valid as such; the kernel reads this one only
        // after the count behind the first, which lies in `entries` too, was raised over it.
        unsafe {
            let entry = &mut *base.add(usize::from(self.given & (self.count - 1)));
            entry.set_addr(at);
            entry.set_len(length);
            entry.set_bid(buffer);
            self.given = self.given.wrapping_add(1);
            let given = BufRingEntry::tail(base).cast_mut();
            AtomicU16::from_ptr(given).store(self.given, Ordering::Release);
        }
    }

    /// Leaves the memory to the kernel for good.
    fn leak(&mut self) {
        mem::forget(mem::take(&mut self.entries));
        mem::forget(mem::take(&mut self.memory));
    }
}

/// Reads a `sockaddr_in` or `sockaddr_in6`.
fn source(name: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(field(name, 0)?);
    let port = u16::from_be_bytes(field(name, 2)?);
    match libc::c_int::from(family) {
        libc::AF_INET => Some(SocketAddr::new(IpAddr::from(field::<4>(name, 4)?), port)),
        libc::AF_INET6 => {
            let flow = u32::from_ne_bytes(field(name, 4)?);
            let scope = u32::from_ne_bytes(field(name, 24)?);
            Some(SocketAddrV6::new(Ipv6Addr::from(field::<16>(name, 8)?), port, flow, scope).into())
        }
        _ => None,
    }
}

/// Reads the time stamp among control messages, each of which is a `cmsghdr` (its length, level and type) and its value.
fn stamp(mut control: &[u8]) -> Option<SystemTime> {
    const HEAD: usize = mem::size_of::<libc::cmsghdr>();
    loop {
        let length = usize::from_ne_bytes(field(control, 0)?);
        let level = libc::c_int::from_ne_bytes(field(control, HEAD - 8)?);
        let kind = libc::c_int::from_ne_bytes(field(control, HEAD - 4)?);
        let value = control.get(HEAD..length)?;
        if (level, kind) == (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) {
            let seconds = libc::time_t::from_ne_bytes(field(value, 0)?);
            let nanoseconds = libc::c_long::from_ne_bytes(field(value, mem::size_of::<libc::time_t>())?);
            let since = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanoseconds).ok()?);
            return UNIX_EPOCH.checked_add(since);
        }
        control = control.get(length.next_multiple_of(mem::align_of::<libc::cmsghdr>())..)?;
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests;
