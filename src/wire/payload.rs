//! The bytes of a segment: a few reference-counted slices, so that relaying never copies a large payload.

use bytes::Bytes;
use smallvec::SmallVec;

/// Payload bytes in order. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Payload {
    parts: SmallVec<[Bytes; 1]>,
    len: u32,
}

impl Payload {
    /// No bytes.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Number of bytes.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// True without bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a slice.
    pub fn push(&mut self, part: Bytes) {
        if !part.is_empty() {
            self.len += part.len() as u32;
            self.parts.push(part);
        }
    }

    /// The slices in order; none is empty.
    #[must_use]
    pub fn parts(&self) -> &[Bytes] {
        &self.parts
    }

    /// Takes the slices out.
    pub fn into_parts(self) -> impl Iterator<Item = Bytes> {
        self.parts.into_iter()
    }

    /// The bytes from `from` (inclusive) to `to` (exclusive, cut at the end), shared.
    #[must_use]
    pub fn slice(&self, from: u32, to: u32) -> Self {
        let mut out = Self::empty();
        let mut at = 0;
        for part in &self.parts {
            let end = at + part.len() as u32;
            let (a, b) = (from.max(at), to.min(end));
            if a < b {
                out.push(part.slice((a - at) as usize..(b - at) as usize));
            }
            at = end;
        }
        out
    }

    /// All bytes in one vector; for tests and small payloads.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.parts.concat()
    }
}

impl From<Bytes> for Payload {
    fn from(part: Bytes) -> Self {
        let mut payload = Self::empty();
        payload.push(part);
        payload
    }
}

impl From<&'static [u8]> for Payload {
    fn from(part: &'static [u8]) -> Self {
        Bytes::from_static(part).into()
    }
}

impl PartialEq for Payload {
    /// Equal bytes, however they are cut.
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.parts.iter().flatten().eq(other.parts.iter().flatten())
    }
}

impl Eq for Payload {}

/// Neighbours are copied into one while they stay below this.
const SMALL: usize = 2048;

/// Appends `right` to `left` by copying if both are small, and tells whether it did. A queue of single bytes would cost a
/// hundred times the memory that its limit counts.
pub fn join_small(left: &mut Bytes, right: &[u8]) -> bool {
    let small = left.len() + right.len() < SMALL;
    if small {
        *left = [left, right].concat().into();
    }
    small
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cross_part_borders() {
        let mut p = Payload::from(&b"hello"[..]);
        p.push(Bytes::new());
        p.push(Bytes::from_static(b"world"));
        assert_eq!((p.len(), p.parts().len()), (10, 2));
        assert_eq!(p.slice(3, 7).to_vec(), b"lowo");
        assert_eq!(p.slice(5, 99).parts().len(), 1);
        assert!(p.slice(7, 7).is_empty());
        assert_eq!(p, Payload::from(&b"helloworld"[..]));
    }
}
