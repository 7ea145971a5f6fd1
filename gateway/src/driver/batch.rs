//! Several datagrams in one system call, each with the time at which the kernel got it.
//!
//! A thread with many calls reads its sockets in turns of a millisecond or two. What it reads then
//! is stamped by the kernel (`SO_TIMESTAMPNS`), so jitter is measured as it is on the wire and not
//! as the thread got round to it; and signalling knows how long a request has waited for it.
#![allow(unsafe_code)]

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Datagrams taken by one system call.
pub(super) const BATCH: usize = 8;
/// Room for control messages: the time stamp, and some that nobody asked for.
const CONTROL: usize = 64;
/// A time stamp further from now than this is that of a clock that was set meanwhile.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Buffers for a batch, used over and over.
pub(super) struct Inbox {
    /// One for each datagram of a batch, one behind the other.
    buffers: Vec<u8>,
    /// Longest datagram taken; a longer one is cut.
    longest: usize,
    names: [libc::sockaddr_storage; BATCH],
    /// Aligned for `cmsghdr`, as `u64` is on every Linux.
    controls: [[u64; CONTROL / 8]; BATCH],
    arrivals: [(Instant, usize); BATCH],
    sources: [SocketAddr; BATCH],
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").field("longest", &self.longest).finish_non_exhaustive()
    }
}

impl Inbox {
    /// Makes room for datagrams of at most `longest` bytes.
    pub(super) fn new(longest: usize, now: Instant) -> Self {
        Self {
            buffers: vec![0; longest * BATCH],
            longest,
            // SAFETY: all zeroes is a valid `sockaddr_storage`, which is plain numbers.
            names: unsafe { mem::zeroed() },
            controls: [[0; CONTROL / 8]; BATCH],
            arrivals: [(now, 0); BATCH],
            sources: [SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0)); BATCH],
        }
    }

    /// Reads what waits at a socket, without waiting, and returns how many datagrams that were.
    /// Fewer than [`BATCH`] mean that nothing is left.
    ///
    /// # Errors
    /// What `recvmmsg` says, such as an ICMP error of an earlier send; the socket is still good.
    pub(super) fn receive(&mut self, socket: &impl AsRawFd, now: Instant) -> io::Result<usize> {
        let mut vectors = [const { MaybeUninit::<libc::iovec>::uninit() }; BATCH];
        // SAFETY: all zeroes is a valid `mmsghdr`: null pointers with lengths of nought.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
        let buffers = self.buffers.chunks_exact_mut(self.longest);
        for ((index, header), buffer) in headers.iter_mut().enumerate().zip(buffers) {
            let vector = vectors[index]
                .write(libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() });
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = (&raw mut self.names[index]).cast();
            header.msg_hdr.msg_namelen = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_hdr.msg_control = self.controls[index].as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = CONTROL as _;
        }
        // SAFETY: every pointer in `headers` is to memory of `self` or of this frame that outlives
        // the call and is as long as the length beside it; no timeout is given.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        let Ok(count) = usize::try_from(count) else {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock { Ok(0) } else { Err(error) };
        };
        let wall = SystemTime::now();
        let mut kept = 0;
        for (index, header) in headers.iter().enumerate().take(count) {
            let Some(source) = source(&self.names[index]) else { continue };
            let at = arrived(stamp(&header.msg_hdr), now, wall);
            if kept != index {
                let from = index * self.longest;
                self.buffers.copy_within(from..from + self.longest, kept * self.longest);
            }
            self.arrivals[kept] = (at, (header.msg_len as usize).min(self.longest));
            self.sources[kept] = source;
            kept += 1;
        }
        // A datagram from nowhere does not happen; if it did, the next event would bring the rest.
        Ok(if count == BATCH { BATCH.min(kept) } else { kept })
    }

    /// Returns a datagram of the last batch: when it came, from where, and what it says.
    pub(super) fn datagram(&self, index: usize) -> (Instant, SocketAddr, &[u8]) {
        let (at, length) = self.arrivals[index];
        (at, self.sources[index], &self.buffers[index * self.longest..][..length])
    }
}

/// Returns when something came by the clock of the program, from its time stamp and what both clocks say now.
pub(super) fn arrived(stamp: Option<SystemTime>, now: Instant, wall: SystemTime) -> Instant {
    let waited = stamp.and_then(|at| wall.duration_since(at).ok()).filter(|waited| *waited <= LONGEST_WAIT);
    now.checked_sub(waited.unwrap_or_default()).unwrap_or(now)
}

/// Asks the kernel to stamp what comes to a socket.
///
/// # Errors
/// What `setsockopt` says; datagrams are then taken to have come when they are read.
pub(super) fn stamp_arrivals(socket: &impl AsRawFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the value is a `c_int` of this frame, and its length is given.
    let code = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_TIMESTAMPNS,
            (&raw const on).cast(),
            mem::size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn source(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the kernel wrote a `sockaddr_in`, which `sockaddr_storage` has room and alignment for.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in>() };
            let ip = std::net::Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr));
            Some(SocketAddr::new(ip.into(), u16::from_be(name.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above, with `sockaddr_in6`.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
            let port = u16::from_be(name.sin6_port);
            Some(SocketAddrV6::new(ip, port, name.sin6_flowinfo, name.sin6_scope_id).into())
        }
        _ => None,
    }
}

fn stamp(header: &libc::msghdr) -> Option<SystemTime> {
    // SAFETY: the kernel filled the control buffer of `header` and set its length; the macros stay
    // within it, and each message is as long as its own header says.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while let Some(head) = message.as_ref() {
            if head.cmsg_level == libc::SOL_SOCKET && head.cmsg_type == libc::SCM_TIMESTAMPNS {
                let time = libc::CMSG_DATA(message).cast::<libc::timespec>().read_unaligned();
                let seconds = u64::try_from(time.tv_sec).ok()?;
                return UNIX_EPOCH.checked_add(Duration::new(seconds, u32::try_from(time.tv_nsec).ok()?));
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    fn pair(address: &str) -> (UdpSocket, UdpSocket) {
        let (to, from) = (UdpSocket::bind(address).unwrap(), UdpSocket::bind(address).unwrap());
        to.set_nonblocking(true).unwrap();
        stamp_arrivals(&to).unwrap();
        (to, from)
    }

    #[test]
    fn a_batch_has_every_datagram_with_its_source_and_the_time_it_came() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (to, from) = pair(address);
            let mut inbox = Inbox::new(2048, Instant::now());
            assert_eq!(inbox.receive(&to, Instant::now()).unwrap(), 0);
            // The kernel begins to stamp a moment after the first socket of the system asked for it,
            // and fills in the time of reading until then.
            let stamped = (0..20).any(|_| {
                for number in 0..3_u8 {
                    from.send_to(&[number; 20], to.local_addr().unwrap()).unwrap();
                }
                let sent = Instant::now();
                std::thread::sleep(Duration::from_millis(30)); // the thread comes round to it later
                assert_eq!(inbox.receive(&to, Instant::now()).unwrap(), 3);
                (0..3).all(|number| {
                    let (at, source, bytes) = inbox.datagram(number);
                    assert_eq!((source, bytes), (from.local_addr().unwrap(), &[number as u8; 20][..]));
                    at < sent + Duration::from_millis(15)
                })
            });
            assert!(stamped, "{address}");
        }
    }

    #[test]
    fn more_than_a_batch_comes_in_order_and_an_oversized_datagram_is_cut() {
        let (to, from) = pair("127.0.0.1:0");
        for number in 0..11_u8 {
            from.send_to(&[number], to.local_addr().unwrap()).unwrap();
        }
        from.send_to(&[7; 4000], to.local_addr().unwrap()).unwrap();
        let mut inbox = Inbox::new(2048, Instant::now());
        let mut lengths = Vec::new();
        loop {
            let count = inbox.receive(&to, Instant::now()).unwrap();
            lengths.extend((0..count).map(|index| inbox.datagram(index).2.len()));
            if count < BATCH {
                break;
            }
        }
        assert_eq!(lengths, [&[1; 11][..], &[2048]].concat());
    }
}
