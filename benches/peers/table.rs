//! The table of results.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::peer::Peer;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Row {
    /// One stream from client to server.
    StreamUp,
    /// One stream from server to client.
    StreamDown,
    /// New connections with one request each.
    Connections,
    /// Requests over kept connections.
    Requests,
    /// The latency of these.
    P99,
    /// Memory of an idle flow.
    Idle,
}

impl Row {
    /// In the order of the table.
    pub(crate) const ALL: [Self; 6] =
        [Self::StreamUp, Self::StreamDown, Self::Connections, Self::Requests, Self::P99, Self::Idle];

    /// Name and unit.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::StreamUp => "one stream, up (Gbit/s)",
            Self::StreamDown => "one stream, down (Gbit/s)",
            Self::Connections => "new connections (per s)",
            Self::Requests => "keep-alive requests (per s)",
            Self::P99 => "  their p99 (ms)",
            Self::Idle => "memory per idle flow (bytes)",
        }
    }

    const fn digits(self) -> usize {
        match self {
            Self::StreamUp | Self::StreamDown | Self::P99 => 2,
            Self::Connections | Self::Requests | Self::Idle => 0,
        }
    }
}

/// All results.
#[derive(Default)]
pub(crate) struct Table(HashMap<(Peer, Row), Vec<f64>>);

impl Table {
    /// Adds one.
    pub(crate) fn add(&mut self, peer: Peer, row: Row, value: f64) {
        self.0.entry((peer, row)).or_default().push(value);
    }

    /// Of all rounds.
    fn values(&self, peer: Peer, row: Row) -> Option<Quartiles> {
        Quartiles::of(self.0.get(&(peer, row))?.clone())
    }

    /// What `peer` is of `other`, round by round.
    fn ratios(&self, peer: Peer, other: Peer, row: Row) -> Option<Quartiles> {
        let (ours, others) = (self.0.get(&(peer, row))?, self.0.get(&(other, row))?);
        Quartiles::of(ours.iter().zip(others).map(|(ours, other)| ours / other).collect())
    }

    /// As text: a column per peer, and what halfopen is of the others.
    pub(crate) fn render(&self, peers: &[Peer]) -> String {
        let others: Vec<Peer> = peers.iter().copied().filter(|peer| *peer != Peer::Halfopen).collect();
        let mut out = format!("{:30}", "median of the rounds");
        for peer in peers {
            let _ = write!(out, "{:>11}", peer.name());
        }
        for peer in &others {
            let _ = write!(out, "{:>25}", format!("/{} (middle half)", peer.name()));
        }
        out.push('\n');
        let measured = |row: &Row| self.0.keys().any(|(_, measured)| measured == row);
        for row in Row::ALL.into_iter().filter(measured) {
            let _ = write!(out, "{:30}", row.name());
            for peer in peers {
                let text = self
                    .values(*peer, row)
                    .map(|values| format!("{:.digits$}", values.median, digits = row.digits()));
                let _ = write!(out, "{:>11}", text.as_deref().unwrap_or("-"));
            }
            for peer in &others {
                let text = self
                    .ratios(Peer::Halfopen, *peer, row)
                    .map(|ratios| format!("{:.2}x ({:.2}-{:.2})", ratios.median, ratios.lower, ratios.upper));
                let _ = write!(out, "{:>25}", text.as_deref().unwrap_or("-"));
            }
            out.push('\n');
        }
        out
    }
}

/// The middle half of some values.
struct Quartiles {
    lower: f64,
    median: f64,
    upper: f64,
}

impl Quartiles {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let at = |quarter: usize| values.get((values.len().checked_sub(1)? * quarter + 2) / 4).copied();
        Some(Self { lower: at(1)?, median: at(2)?, upper: at(3)? })
    }
}
