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
    const ALL: [Self; 6] =
        [Self::StreamUp, Self::StreamDown, Self::Connections, Self::Requests, Self::P99, Self::Idle];

    /// Name and unit.
    const fn name(self) -> &'static str {
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

    /// The median of the rounds.
    fn median(&self, peer: Peer, row: Row) -> Option<f64> {
        let mut values = self.0.get(&(peer, row))?.clone();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    /// As text: a column per peer, and what halfopen is of the others.
    pub(crate) fn render(&self, peers: &[Peer]) -> String {
        let mut out = format!("{:30}", "median of the rounds");
        for peer in peers {
            let _ = write!(out, "{:>11}", peer.name());
        }
        let others: Vec<Peer> = peers.iter().copied().filter(|peer| *peer != Peer::Halfopen).collect();
        for peer in &others {
            let _ = write!(out, "{:>12}", format!("/{}", peer.name()));
        }
        out.push('\n');
        for row in Row::ALL {
            let _ = write!(out, "{:30}", row.name());
            for peer in peers {
                match self.median(*peer, row) {
                    Some(value) => write!(out, "{value:>11.digits$}", digits = row.digits()),
                    None => write!(out, "{:>11}", "-"),
                }
                .expect("a string takes all");
            }
            for peer in &others {
                let ratio = self
                    .median(Peer::Halfopen, row)
                    .zip(self.median(*peer, row))
                    .map(|(ours, other)| ours / other);
                let _ = write!(
                    out,
                    "{:>12}",
                    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}x"))
                );
            }
            out.push('\n');
        }
        out
    }
}
