//! The context of a call into the core: the time, and the only door out.

use crate::time::Instant;
use crate::trace::{Event, FlowId, Leg, Record, SegmentNote, Sink};
use crate::wire::{Flags, Segment};

/// What every call into the core carries.
pub struct Cx<'a> {
    /// Now.
    pub now: Instant,
    /// The flow that is being worked on.
    pub flow: FlowId,
    /// The leg that is being worked on.
    pub leg: Option<Leg>,
    sink: &'a mut dyn Sink,
    segments: bool,
    snaplen: u32,
}

impl<'a> Cx<'a> {
    /// A context without a flow.
    pub fn new(now: Instant, sink: &'a mut dyn Sink) -> Self {
        let (segments, snaplen) = (sink.wants_segments(), sink.snaplen());
        Self { now, flow: FlowId(0), leg: None, sink, segments, snaplen }
    }

    /// The same context for a flow.
    pub fn for_flow(&mut self, flow: FlowId) -> Cx<'_> {
        Cx { flow, leg: None, ..self.again() }
    }

    /// The same context for a leg of the flow.
    pub fn for_leg(&mut self, leg: Leg) -> Cx<'_> {
        Cx { leg: Some(leg), ..self.again() }
    }

    fn again(&mut self) -> Cx<'_> {
        let Self { now, flow, leg, segments, snaplen, .. } = *self;
        Cx { now, flow, leg, sink: &mut *self.sink, segments, snaplen }
    }

    /// What is told of a segment.
    #[must_use]
    pub fn note(&self, segment: &Segment) -> SegmentNote {
        let mut note = SegmentNote::from(segment);
        if self.snaplen > 0 && note.len > 0 {
            // A copy: what is told may wait for long, and must not pin the buffers of the data path.
            note.data = segment.payload.slice(0, self.snaplen).to_vec().into();
        }
        note
    }

    /// Tells what happened.
    pub fn emit(&mut self, event: Event) {
        self.sink.record(Record { at: self.now, flow: self.flow, leg: self.leg, event });
    }

    /// A segment arrived.
    pub fn segment_in(&mut self, segment: &Segment) {
        if self.wants(segment) {
            self.emit(Event::SegmentIn { segment: self.note(segment) });
        }
    }

    /// A segment left.
    pub fn segment_out(&mut self, segment: &Segment) {
        if self.wants(segment) {
            self.emit(Event::SegmentOut { segment: self.note(segment) });
        }
    }

    const fn wants(&self, segment: &Segment) -> bool {
        self.segments || segment.flags.any(Flags(Flags::SYN.0 | Flags::FIN.0 | Flags::RST.0))
    }
}
