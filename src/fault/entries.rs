//! The entries of the catalogue of TCP faults that are known from production: what there is to reach. H is the handshake, E the
//! open connection, T the end of it, X the toxics of Toxiproxy. A [`super::Kind`] says which of them it serves.

/// One entry.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its number.
    pub id: &'static str,
    /// What it is called in the field.
    pub name: &'static str,
}

const fn entry(id: &'static str, name: &'static str) -> Entry {
    Entry { id, name }
}

/// All entries.
pub const ENTRIES: &[Entry] = &[
    entry("H1", "SYN lost"),
    entry("H2", "SYN lost in a race for a conntrack entry"),
    entry("H3", "SYN-ACK lost"),
    entry("H4", "final ACK lost"),
    entry("H5", "accept queue full: SYN dropped"),
    entry("H6", "accept queue full: ACK dropped"),
    entry("H7", "ghost connection: SYN cookie and a full accept queue"),
    entry("H8", "options lost to a SYN cookie"),
    entry("H9", "window scale stripped from one side"),
    entry("H10", "data beyond the unscaled window dropped"),
    entry("H11", "MSS rewritten"),
    entry("H12", "path MTU black hole"),
    entry("H13", "tcp_tw_recycle behind NAT"),
    entry("H14", "SYN lost for a port that is used again (IPVS)"),
    entry("H15", "SYN answered by a challenge ACK"),
    entry("H16", "SYN meets a leaked CLOSE-WAIT"),
    entry("H17", "refused by RST"),
    entry("H18", "refused by a RST with wrong numbers"),
    entry("H19", "refused by ICMP"),
    entry("H20", "silence instead of a refusal"),
    entry("H21", "load balancer accepts first"),
    entry("H22", "SYN-ACK late"),
    entry("H23", "simultaneous open"),
    entry("H24", "SYN with TFO lost"),
    entry("H25", "SYN with ECN lost, ECN bleached"),
    entry("H26", "options removed or mangled"),
    entry("H27", "flood of half-open connections"),
    entry("H28", "SYN duplicated or late"),
    entry("H29", "SYN-ACK with a wrong ACK"),
    entry("H30", "silence after connect"),
    entry("E1", "zero window"),
    entry("E2", "zero window, probes unanswered"),
    entry("E3", "window update lost"),
    entry("E4", "tiny window"),
    entry("E5", "window shrunk"),
    entry("E6", "silly window"),
    entry("E7", "ACK delayed"),
    entry("E8", "ACK lost"),
    entry("E9", "ACKs stretched or compressed"),
    entry("E10", "idle flow forgotten, silently"),
    entry("E11", "idle flow forgotten, RST on the next segment"),
    entry("E12", "idle flow reset on both sides"),
    entry("E13", "keepalives swallowed, or answered for a dead peer"),
    entry("E14", "open connection in a black hole"),
    entry("E15", "one direction in a black hole"),
    entry("E16", "RST injected"),
    entry("E17", "blind RST"),
    entry("E18", "late segment, then RST (conntrack INVALID)"),
    entry("E19", "loss"),
    entry("E20", "duplication"),
    entry("E21", "reordering"),
    entry("E22", "corruption"),
    entry("E23", "sequence numbers shifted, SACK not"),
    entry("E24", "timestamps mangled"),
    entry("E25", "sequence wrap"),
    entry("E26", "acknowledged and lost"),
    entry("E27", "bufferbloat"),
    entry("E28", "rate and slices"),
    entry("E29", "urgent pointer and unknown flags"),
    entry("E30", "ACK storm"),
    entry("T1", "FIN lost"),
    entry("T2", "FIN late"),
    entry("T3", "FIN before the data"),
    entry("T4", "FIN-WAIT-2 for ever"),
    entry("T5", "CLOSE-WAIT leak provoked"),
    entry("T6", "half-closed flow forgotten"),
    entry("T7", "half-close not supported"),
    entry("T8", "half-close cut after a time"),
    entry("T9", "RST instead of FIN"),
    entry("T10", "RST overtakes the tail"),
    entry("T11", "keep-alive race"),
    entry("T12", "graceful close crosses a request"),
    entry("T13", "TIME-WAIT on the client"),
    entry("T14", "TIME-WAIT assassinated"),
    entry("T15", "simultaneous close"),
    entry("T16", "late segments"),
    entry("T17", "listener restarts"),
    entry("T18", "drained flows cut"),
    entry("T19", "maximal age"),
    entry("T20", "last ACK lost"),
    entry("X1", "toxic latency"),
    entry("X2", "toxic bandwidth"),
    entry("X3", "toxic slow_close"),
    entry("X4", "toxic timeout"),
    entry("X5", "toxic reset_peer"),
    entry("X6", "toxic slicer"),
    entry("X7", "toxic limit_data"),
];

/// The fault that serves an entry, and the rule that is this entry.
#[must_use]
pub fn served(id: &str) -> Option<(&'static super::Kind, &'static str)> {
    super::KINDS.iter().find_map(|kind| match kind.also.iter().find(|alias| alias.id == id) {
        Some(alias) => Some((kind, alias.rule)),
        None => (kind.source.id == id).then_some((kind, kind.example)),
    })
}
