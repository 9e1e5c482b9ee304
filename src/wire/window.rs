//! Windows: the 16-bit field of the header and the bytes it stands for do not mix (RFC 7323 §2).

/// The window field as it is in the header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RawWindow(pub u16);

/// The shift count of the window scale option, 0 to 14 (RFC 7323 §2.3: larger values count as 14).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct WindowScale(u8);

impl WindowScale {
    /// No scaling.
    pub const NONE: Self = Self(0);

    /// A shift count; values above 14 become 14.
    #[must_use]
    pub const fn new(shift: u8) -> Self {
        Self(if shift > 14 { 14 } else { shift })
    }

    /// The shift count, 0 to 14.
    #[must_use]
    pub const fn shift(self) -> u8 {
        self.0
    }

    /// The field that announces `bytes`, rounded down so that the peer never gets more than there is.
    #[must_use]
    pub fn raw(self, bytes: u32) -> RawWindow {
        RawWindow(u16::try_from(bytes >> self.0).unwrap_or(u16::MAX))
    }

    /// The bytes that a field announces (RFC 9293 REC-1: windows are 32 bits inside).
    #[must_use]
    pub const fn bytes(self, raw: RawWindow) -> u32 {
        (raw.0 as u32) << self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaling_rounds_down_and_saturates() {
        let seven = WindowScale::new(7);
        assert_eq!(seven.raw(64_256), RawWindow(502));
        assert_eq!(seven.bytes(RawWindow(502)), 64_256);
        assert_eq!(seven.raw(127), RawWindow(0));
        assert_eq!(WindowScale::NONE.raw(70_000), RawWindow(65_535));
        assert_eq!(WindowScale::new(99).shift(), 14);
    }
}
