//! Bytes that cross from one socket to another by splice(2): they are never copied to user space and back.
//!
//! It goes through a pipe of the kernel. One is enough for all sockets of a shard, as nothing stays in it: what the other
//! socket does not take at once is read out of the pipe, and waits like any write. So an idle flow has none, and a slow peer
//! keeps none from others.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::AsFd;

use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;

/// Fewer bytes are copied: that costs no more than the calls that it saves, and requests and answers keep their way.
pub(super) const BULK: usize = 32 << 10;
/// Most bytes of one crossing, so that no socket keeps the others waiting, and the size of the pipe: Linux moves at most a page
/// of room at a time. Room costs nothing: the pages are those that the bytes came in.
const MOST: usize = 256 << 10;
/// How many times bytes are copied, once there was no pipe, before the next attempt to get one.
const PAUSE: u32 = 1000;

/// The limit of pipe memory for a user without privileges.
const PIPE_LIMIT: &str = "fs.pipe-user-pages-soft";
/// That of descriptors.
const FILE_LIMIT: &str = "RLIMIT_NOFILE";

/// The pipe, once it was needed.
#[derive(Debug, Default)]
pub(super) struct Splice {
    pipe: Option<(PipeReader, PipeWriter)>,
    /// Attempts that are still to be left out.
    pause: u32,
    limit: Option<&'static str>,
}

/// Bytes that have left the first socket.
#[derive(Debug)]
pub(super) struct Crossing {
    /// How many.
    pub(super) bytes: usize,
    /// How many of them the second socket has not taken.
    pub(super) left: usize,
    /// These; or its error, and they are lost.
    pub(super) rest: io::Result<Bytes>,
}

impl Splice {
    /// Moves at most `most` of the bytes that are there, and before an urgent one. `None`: none can be moved, or not in this
    /// way.
    ///
    /// # Errors
    /// That of a read from the first socket.
    pub(super) fn cross(
        &mut self,
        from: impl AsFd,
        to: impl AsFd,
        most: usize,
    ) -> io::Result<Option<Crossing>> {
        let Some((reader, writer)) = self.pipe() else { return Ok(None) };
        let bytes = match moved(&from, &*writer, most.min(MOST)) {
            Ok(0) | Err(Errno::EAGAIN) => return Ok(None),
            Ok(bytes) => bytes,
            Err(e) if is_about_splice(e) => {
                self.give_up(None);
                return Ok(None);
            }
            Err(e) => return Err(e.into()),
        };
        let (left, stopped) = push(reader, &to, bytes);
        let rest = match stopped {
            Some(e) if e != Errno::EAGAIN && !is_about_splice(e) => Err(e.into()),
            _ => read_out(reader, left),
        };
        if rest.is_err() {
            // What is still in it belongs to nobody.
            self.pipe = None;
        }
        Ok(Some(Crossing { bytes, left, rest }))
    }

    /// The empty pipe.
    fn pipe(&mut self) -> Option<&mut (PipeReader, PipeWriter)> {
        if self.pipe.is_none() {
            if self.pause > 0 {
                self.pause -= 1;
                return None;
            }
            match open() {
                Ok(pipe) => self.pipe = Some(pipe),
                Err(limit) => self.give_up(Some(limit)),
            }
        }
        self.pipe.as_mut()
    }

    fn give_up(&mut self, limit: Option<&'static str>) {
        (self.pipe, self.pause) = (None, PAUSE);
        self.limit = limit;
    }

    /// One that never gets a pipe.
    #[cfg(test)]
    pub(super) fn absent() -> Self {
        Self { pause: u32::MAX, ..Self::default() }
    }

    /// The limit that was hit since the last call.
    pub(super) const fn poll_limit(&mut self) -> Option<&'static str> {
        self.limit.take()
    }
}

/// A pipe that takes more than a read would, or the limit that keeps us from one.
fn open() -> Result<(PipeReader, PipeWriter), &'static str> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let (reader, writer) = pipe2(flags).map_err(|_| FILE_LIMIT)?;
    if fcntl(&writer, FcntlArg::F_SETPIPE_SZ(MOST as i32)).is_err() {
        // It may still have the usual 64 KiB; beyond the limit Linux makes it as small as a page or two.
        let size = fcntl(&writer, FcntlArg::F_GETPIPE_SZ).map_or(0, |size| size as usize);
        if size < BULK {
            return Err(PIPE_LIMIT);
        }
    }
    Ok((reader.into(), writer.into()))
}

/// One splice(2) that does not wait: neither do the pipe and our sockets. Without `SPLICE_F_MORE`, so that the last bytes of a
/// crossing leave at once.
fn moved(from: impl AsFd, to: impl AsFd, most: usize) -> nix::Result<usize> {
    loop {
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        match splice(&from, None, &to, None, most, flags) {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// Moves bytes on from the pipe; how many are left in it, and why.
fn push(reader: &PipeReader, to: impl AsFd, bytes: usize) -> (usize, Option<Errno>) {
    let mut left = bytes;
    while left > 0 {
        match moved(reader, &to, left) {
            Ok(0) => break,
            Ok(n) => left -= n,
            Err(e) => return (left, Some(e)),
        }
    }
    (left, None)
}

/// Takes these bytes out of the pipe, which has them.
fn read_out(reader: &PipeReader, len: usize) -> io::Result<Bytes> {
    let mut rest = Vec::with_capacity(len);
    reader.take(len as u64).read_to_end(&mut rest)?;
    Ok(rest.into())
}

/// An error of the call, which says nothing of the connection: a sandbox may forbid it, and memory may be short.
const fn is_about_splice(error: Errno) -> bool {
    matches!(error, Errno::EINVAL | Errno::ENOSYS | Errno::EPERM | Errno::ENOMEM)
}
