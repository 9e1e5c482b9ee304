//! The small facts of a flow.

use crate::trace::{Direction, Leg};

/// What is true of a flow, in one byte: there may be very many that only wait for their servers.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::relay) struct Marks(u8);

impl Marks {
    /// After an input, until the legs have been coupled.
    const UNSETTLED: u8 = 1 << 2;
    /// The client leg is a kernel socket; the next bit is for the server leg.
    const KERNEL: u8 = 1 << 3;
    /// It was killed without a word: what its peers still send is swallowed.
    const SWALLOWS: u8 = 1 << 5;

    pub(in crate::relay) const fn unsettle(&mut self) {
        self.0 |= Self::UNSETTLED;
    }

    pub(in crate::relay) const fn is_unsettled(self) -> bool {
        self.0 & Self::UNSETTLED != 0
    }

    pub(in crate::relay) const fn take_unsettled(&mut self) -> bool {
        let was = self.is_unsettled();
        self.0 &= !Self::UNSETTLED;
        was
    }

    pub(in crate::relay) const fn swallow(&mut self) {
        self.0 |= Self::SWALLOWS;
    }

    pub(in crate::relay) const fn swallows(self) -> bool {
        self.0 & Self::SWALLOWS != 0
    }

    /// The leg is a kernel socket, or is not.
    pub(in crate::relay) const fn with_kernel(self, leg: Leg, is_kernel: bool) -> Self {
        let kernel = Self::KERNEL << leg as u8;
        Self(if is_kernel { self.0 | kernel } else { self.0 & !kernel })
    }

    /// True for a leg that is a kernel socket.
    pub(in crate::relay) const fn is_kernel(self, leg: Leg) -> bool {
        self.0 & Self::KERNEL << leg as u8 != 0
    }

    /// The first payload of a direction is told once; true if it is to be told now.
    pub(in crate::relay) const fn tell(&mut self, direction: Direction) -> bool {
        let told = 1 << direction as u8;
        let is_first = self.0 & told == 0;
        self.0 |= told;
        is_first
    }
}
