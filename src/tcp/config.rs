//! The numbers of a host.

use crate::time::Duration;

/// The numbers of a host. The default is Linux 6.x.
#[derive(Clone, Debug)]
pub struct Config {
    /// Lower bound of the retransmission timeout. Linux `TCP_RTO_MIN`: 200 ms.
    pub rto_min: Duration,
    /// Upper bound of the retransmission timeout. Linux `TCP_RTO_MAX`: 120 s.
    pub rto_max: Duration,
    /// Retransmissions of data before the connection is given up. Linux `tcp_retries2`: 15.
    pub retries: u32,
    /// Retransmissions of a SYN-ACK. Linux `tcp_synack_retries`: 5.
    pub syn_ack_retries: u32,
    /// How long TIME-WAIT lasts. Linux `TCP_TIMEWAIT_LEN`: 60 s.
    pub time_wait: Duration,
    /// Most bytes that a leg may be offered in advance (receive window), and so the size of the queue of the other leg.
    pub buffer: u32,
    /// Most out-of-order ranges kept per connection.
    pub out_of_order_ranges: usize,
    /// Congestion control.
    pub congestion: Congestion,
    /// Key of the initial sequence numbers and timestamp offsets (RFC 6528).
    pub secret: [u64; 2],
}

/// Congestion control algorithms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// RFC 9438.
    #[default]
    Cubic,
    /// RFC 5681 and RFC 6582.
    NewReno,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rto_min: Duration::from_millis(200),
            rto_max: Duration::from_secs(120),
            retries: 15,
            syn_ack_retries: 5,
            time_wait: Duration::from_secs(60),
            buffer: 1 << 20,
            out_of_order_ranges: 256,
            congestion: Congestion::Cubic,
            secret: [0, 0],
        }
    }
}
