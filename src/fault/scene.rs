//! What two applications do so that a fault can be seen: for the demo (with a kernel), the golden ladders and the help (in
//! virtual time).

/// A rule and what the applications do.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    /// The rule, with times that suit a demonstration of four seconds.
    pub rule: &'static str,
    /// What the applications do.
    pub play: Play,
}

/// What the applications do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Play {
    /// Request, reply; the client closes its direction, gets the rest of the reply, and the server closes.
    Talk,
    /// Request, reply; the server closes, and the client waits for end-of-file.
    ServerCloses,
    /// The client writes a request in two small pieces.
    TwoWrites,
    /// The client sends more than fits any window at the start.
    Upload,
    /// The server sends more than fits any window at the start.
    Download,
    /// Request and reply, a pause of 1.2 s, and the same again.
    Pause,
    /// The server speaks first.
    Greeting,
    /// The first SYN asks for ECN and for a cookie of TCP Fast Open; the rest is [`Self::Talk`].
    Extensions,
    /// Request, reply; each closes by itself, the server first.
    EachCloses,
    /// Request and reply, and then nothing but keepalive probes of the client, one each second.
    Idle,
}

impl Play {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Talk,
        Self::ServerCloses,
        Self::TwoWrites,
        Self::Upload,
        Self::Download,
        Self::Pause,
        Self::Greeting,
        Self::Extensions,
        Self::EachCloses,
        Self::Idle,
    ];
}
