//! The faults against unmodified Linux hosts, through the gateway: what the application sees, and the event log. Each
//! proof gives what was expected and what was observed to `docs/truth.md`.
//!
//! A delay is bounded from below by what the fault does, and from above by [`SLACK`] more, which a loaded machine may need.
//! Schedules of the kernel's own timers are compared by [`near`].

mod ack;
mod answers;
mod bench;
mod established;
mod handshake;
mod options;
mod queue;
mod refusal;
mod same_seed;
mod segments;
mod stream;
mod teardown;
mod teardown_race;
mod window;

pub(crate) use bench::{Proof, seated};

use crate::Single;

/// All proofs, a file each.
pub(crate) const PROOFS: &[&[Proof]] = &[
    ack::PROOFS,
    answers::PROOFS,
    established::PROOFS,
    handshake::PROOFS,
    options::PROOFS,
    queue::PROOFS,
    refusal::PROOFS,
    segments::PROOFS,
    stream::PROOFS,
    teardown::PROOFS,
    teardown_race::PROOFS,
    window::PROOFS,
];

pub(crate) const SINGLES: &[Single] =
    &[("the same seed gives the same event log twice", same_seed::same_seed)];
