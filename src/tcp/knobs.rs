//! The few values of our own TCP that a fault may turn. The defaults are an honest Linux host.

use crate::time::Duration;

/// What the window field says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WindowKnob {
    /// The free space, as every honest host.
    #[default]
    Natural,
    /// Always zero. Data that is already allowed is still taken; probes are acknowledged if `answer_probes`.
    Zero {
        /// False: window probes are swallowed.
        answer_probes: bool,
    },
    /// At most this many bytes.
    Cap(u32),
}

/// When data is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AckKnob {
    /// Quick at the start, every second full segment, else after 40 ms.
    #[default]
    Natural,
    /// Every pure ACK waits this long, never quick and never on outgoing data before that, unless `every` full segments wait
    /// for it.
    Delay {
        /// How long.
        delay: Duration,
        /// How many full segments end the wait; RFC 9293 asks for 2. `None`: only time does.
        every: Option<u32>,
    },
}

/// All knobs of one leg.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Knobs {
    /// Window policy.
    pub window: WindowKnob,
    /// Acknowledgement policy.
    pub ack: AckKnob,
    /// Send single segments only, never super-segments.
    pub single_segments: bool,
    /// Send what is ready to be sent, and then nothing, and run no timer: the path behind this leg is dead.
    pub mute: bool,
    /// The SYN-ACK is a SYN cookie: no timer repeats it and the handshake waits for its ACK for ever; only a SYN is answered
    /// again. Once turned in a handshake it stays for that handshake.
    pub syn_cookie: bool,
}
