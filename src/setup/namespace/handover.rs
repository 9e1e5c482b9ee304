//! What the two processes of a namespace say to each other: a pair of packet sockets, one message each.
//!
//! ```text
//! child  -> parent   Device + descriptors    the network stands, here is its packet device
//!                    Failed(text)            it does not stand; the child exits
//! parent -> child    Go                      the engine runs, start the command
//! child  -> parent   Failed(text)            the command did not start
//!                    (end of file)           the command runs: its end was closed on exec
//! ```

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::sys::socket::{
    self, AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
};

use crate::engine::tun::{Device, Framing};

use super::Error;

/// One end of the pair. Closed on exec.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

/// A message.
#[derive(Debug)]
pub(super) enum Message {
    /// The packet device.
    Device(Device),
    /// Start the command.
    Go,
    /// What went wrong in the child.
    Failed(Error),
}

const DEVICE: u8 = b'd';
const GO: u8 = b'g';
const FAILED: u8 = b'f';
/// An error text is a few lines.
const MAX_MESSAGE: usize = 4096;

impl Channel {
    pub(super) fn pair() -> io::Result<(Self, Self)> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (a, b) = socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok((Self(a), Self(b)))
    }

    pub(super) fn send_device(&self, device: &Device) -> io::Result<()> {
        let mut bytes = vec![DEVICE];
        if let Framing::Ethernet { inside, outside } = device.framing() {
            bytes.extend(inside);
            bytes.extend(outside);
        }
        let fds: Vec<RawFd> = [Some(device.as_fd()), device.loopback()]
            .into_iter()
            .flatten()
            .map(|fd| fd.as_raw_fd())
            .collect();
        self.send(&bytes, &[ControlMessage::ScmRights(&fds)])
    }

    pub(super) fn send_go(&self) -> io::Result<()> {
        self.send(&[GO], &[])
    }

    pub(super) fn send_failed(&self, error: &Error) -> io::Result<()> {
        let mut bytes = vec![FAILED, error.code];
        bytes.extend(error.what.as_bytes());
        bytes.push(0);
        bytes.extend(error.hint.as_bytes());
        bytes.truncate(MAX_MESSAGE);
        self.send(&bytes, &[])
    }

    /// The next message; `None` when the other end is closed.
    pub(super) fn receive(&self) -> io::Result<Option<Message>> {
        let mut bytes = [0; MAX_MESSAGE];
        let mut space = cmsg_space!(OwnedFd, OwnedFd);
        let (len, fds) = loop {
            let mut slices = [IoSliceMut::new(&mut bytes)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            match socket::recvmsg::<UnixAddr>(self.0.as_raw_fd(), &mut slices, Some(&mut space), flags) {
                Ok(message) => break (message.bytes, descriptors(message.cmsgs()?)),
                Err(nix::Error::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        };
        let mut fds = fds.into_iter();
        match (&bytes[..len], fds.next()) {
            ([], _) => Ok(None),
            ([GO], _) => Ok(Some(Message::Go)),
            ([DEVICE, framing @ ..], Some(fd)) => {
                let device = Device::from_fd(fd, read_framing(framing)?, fds.next());
                Ok(Some(Message::Device(device)))
            }
            ([FAILED, code, text @ ..], _) => Ok(Some(Message::Failed(read_error(*code, text)))),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn send(&self, bytes: &[u8], control: &[ControlMessage<'_>]) -> io::Result<()> {
        let slices = [IoSlice::new(bytes)];
        loop {
            match socket::sendmsg::<UnixAddr>(
                self.0.as_raw_fd(),
                &slices,
                control,
                MsgFlags::MSG_NOSIGNAL,
                None,
            ) {
                Ok(_) => return Ok(()),
                Err(nix::Error::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// The descriptors that came with a message.
#[allow(unsafe_code)]
fn descriptors(messages: impl Iterator<Item = ControlMessageOwned>) -> Vec<OwnedFd> {
    let raw = messages.filter_map(|message| match message {
        ControlMessageOwned::ScmRights(fds) => Some(fds),
        _ => None,
    });
    // SAFETY: the kernel made these descriptors for us and nobody else knows them.
    raw.flatten().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect()
}

fn read_framing(bytes: &[u8]) -> io::Result<Framing> {
    if bytes.is_empty() {
        return Ok(Framing::Ip);
    }
    match bytes.split_first_chunk::<6>() {
        Some((inside, rest)) => match rest.try_into() {
            Ok(outside) => Ok(Framing::Ethernet { inside: *inside, outside }),
            Err(_) => Err(io::ErrorKind::InvalidData.into()),
        },
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn read_error(code: u8, text: &[u8]) -> Error {
    let text = String::from_utf8_lossy(text);
    let (what, hint) = text.split_once('\0').unwrap_or((&text, ""));
    Error { code, what: what.to_owned(), hint: hint.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_crosses_with_its_framing_and_its_loopback() {
        let (a, b) = Channel::pair().unwrap();
        let framing = Framing::Ethernet { inside: [1; 6], outside: [2; 6] };
        for (framing, loopback) in [(Framing::Ip, false), (framing, true)] {
            let (reader, writer) = nix::unistd::pipe().unwrap();
            let (lo_reader, lo_writer) = nix::unistd::pipe().unwrap();
            a.send_device(&Device::from_fd(writer, framing, loopback.then_some(lo_writer))).unwrap();
            let Some(Message::Device(got)) = b.receive().unwrap() else { panic!("no device") };
            assert_eq!(got.framing(), framing);
            nix::unistd::write(got.as_fd(), b"x").unwrap();
            assert_eq!(nix::unistd::read(&reader, &mut [0; 2]), Ok(1), "it is the descriptor that was sent");
            assert_eq!(got.loopback().is_some(), loopback);
            if let Some(lo) = got.loopback() {
                nix::unistd::write(lo, b"x").unwrap();
                assert_eq!(nix::unistd::read(&lo_reader, &mut [0; 2]), Ok(1));
            }
        }
    }

    #[test]
    fn an_error_crosses_with_its_code_and_hint() {
        let (a, b) = Channel::pair().unwrap();
        let sent = Error { code: 127, what: "no such command".into(), hint: "look again".into() };
        a.send_failed(&sent).unwrap();
        let Some(Message::Failed(got)) = b.receive().unwrap() else { panic!("no error") };
        assert_eq!(got, sent);
    }

    #[test]
    fn a_closed_end_is_the_end() {
        let (a, b) = Channel::pair().unwrap();
        a.send_go().unwrap();
        drop(a);
        assert!(matches!(b.receive().unwrap(), Some(Message::Go)));
        assert!(b.receive().unwrap().is_none());
    }
}
