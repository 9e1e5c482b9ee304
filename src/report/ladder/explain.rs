//! A sentence to each step, as a textbook would have it. It says what the segment at hand shows and nothing that the
//! events do not tell.

use super::rows::{Arrow, Fate, Way};
use super::track::Meaning;
use super::words::brief_seconds;
use crate::trace::{Did, Leg, State};

/// The explanation of this arrow, if it is worth one.
pub(super) fn sentence(arrow: &Arrow) -> Option<String> {
    let mut text = if arrow.again.is_some() { repeated(arrow) } else { first_time(arrow) };
    if let Some(fate) = fate(arrow) {
        text = Some(format!("{} {fate}", text.unwrap_or_default()).trim_start().to_owned());
    }
    text
}

/// The sender, as the subject of a sentence.
const fn sender(arrow: &Arrow) -> &'static str {
    match (arrow.way, arrow.leg) {
        (Way::Out, _) => "halfopen",
        (Way::In, Leg::Client) => "the client",
        (Way::In, Leg::Server) => "the server",
    }
}

/// The end of the leg that the segment goes to.
const fn receiver(arrow: &Arrow) -> &'static str {
    match (arrow.way, arrow.leg) {
        (Way::In, _) => "halfopen",
        (Way::Out, Leg::Client) => "the client",
        (Way::Out, Leg::Server) => "the server",
    }
}

fn first_time(arrow: &Arrow) -> Option<String> {
    let (from, to, len) = (sender(arrow), receiver(arrow), arrow.seg.len);
    let bytes = if len == 1 { "byte" } else { "bytes" };
    Some(match (arrow.meaning, arrow.way, arrow.leg) {
        (Meaning::Syn, Way::In, _) => "SYN: connect() asks for a connection. SYN takes sequence number 0 of the client's \
                                       direction; the options offer segment size, selective ACKs, timestamps and window \
                                       scale."
            .to_owned(),
        (Meaning::Syn, Way::Out, _) => "halfopen dials the server with the options that the client offered. The client \
                                        gets no answer before the server has given one."
            .to_owned(),
        (Meaning::SynAck, Way::In, _) => "SYN and ACK in one: the server agrees. ack 1 says: your SYN arrived, send byte \
                                          1 next. Its own SYN is number 0 of the other direction."
            .to_owned(),
        (Meaning::SynAck, Way::Out, _) => "Now halfopen may answer the client, with the options of the server.".to_owned(),
        (Meaning::HandshakeAck, Way::In, _) => "ACK: the third step. connect() has returned, and this leg is open in both \
                                                directions."
            .to_owned(),
        (Meaning::HandshakeAck, Way::Out, _) => {
            "The client has completed its handshake, so halfopen completes the one with the server: accept() returns there."
                .to_owned()
        }
        (Meaning::DataAndAckOfFin, ..) => {
            format!("{} sends {len} {bytes}, and acknowledges the FIN with them.", capital(from))
        }
        (Meaning::Data, Way::In, _) => format!("{} sends {len} {bytes}.", capital(from)),
        (Meaning::Data, Way::Out, _) => format!("halfopen passes {len} {bytes} on to {to}."),
        (Meaning::Fin, ..) => fin(arrow),
        (Meaning::AckOfFin, ..) => ack_of_fin(arrow),
        (Meaning::Reset, ..) => format!("RST: {from} breaks the connection off at once; what was not delivered is lost."),
        (Meaning::WindowProbe, Way::In, _) => {
            format!("{} asks whether the window is still closed.", capital(from))
        }
        (Meaning::KeepaliveProbe, Way::In, _) => format!("{} asks whether anybody is still there.", capital(from)),
        (Meaning::Ack | Meaning::FirstAck, ..) if arrow.seg.window == 0 => {
            format!("Window 0: {from} has no room. {} must stop and ask from time to time.", capital(to))
        }
        (Meaning::FirstAck, ..) => format!(
            "ack {}: {from} has every byte before this number, and room for {} more.",
            arrow.seg.ack, arrow.seg.window
        ),
        (Meaning::Ack | Meaning::WindowProbe | Meaning::KeepaliveProbe, ..) => return None,
    })
}

fn fin(arrow: &Arrow) -> String {
    let (from, to) = (sender(arrow), receiver(arrow));
    if arrow.seg.len > 0 && arrow.way == Way::Out {
        return format!(
            "halfopen passes the last {} bytes on to {to}, and with them the FIN.",
            arrow.seg.len
        );
    }
    match (arrow.way, arrow.peer) {
        (Way::In, State::FinWait1) => format!(
            "FIN: {from} has no more to send and enters FIN-WAIT-1. FIN takes one sequence number, as SYN does. {} may \
             still receive: this is a half-close.",
            capital(from)
        ),
        (Way::In, State::LastAck) => {
            format!(
                "{} has finished as well: its FIN, LAST-ACK, only the ACK for it is missing.",
                capital(from)
            )
        }
        (Way::In, State::Closing) => {
            format!("{} closed at the same time; the two FINs crossed.", capital(from))
        }
        (Way::Out, _) => {
            format!("halfopen passes the end of the stream on: FIN to {to}, and only in this direction.")
        }
        _ => format!("FIN of {from}."),
    }
}

fn ack_of_fin(arrow: &Arrow) -> String {
    let (from, to) = (sender(arrow), receiver(arrow));
    match (arrow.way, arrow.peer) {
        (Way::In, State::CloseWait) => {
            format!("{} acknowledges the FIN and may go on sending: CLOSE-WAIT.", capital(from))
        }
        (Way::In, State::TimeWait) => format!(
            "The last ACK. {} closed first and stays in TIME-WAIT (60 s on Linux): to answer if its ACK was lost, and so \
             that stray segments cannot reach the next connection with the same ports.",
            capital(from)
        ),
        (Way::Out, State::FinWait2) => {
            format!("halfopen acknowledges the FIN: FIN-WAIT-2, {to} waits for the other FIN.")
        }
        (Way::Out, State::Closed) => {
            format!("The last ACK towards {to}, which is CLOSED with it and forgets the connection.")
        }
        (Way::Out, State::TimeWait) => format!("The last ACK towards {to}, which stays in TIME-WAIT."),
        _ => format!("{} acknowledges the FIN.", capital(from)),
    }
}

fn repeated(arrow: &Arrow) -> Option<String> {
    let again = arrow.again?;
    let (from, after) = (sender(arrow), brief_seconds(again.after));
    let what = match arrow.meaning {
        Meaning::Syn => "its SYN",
        Meaning::SynAck => "the SYN-ACK",
        Meaning::Fin => "its FIN",
        _ => "the same bytes",
    };
    let state = if arrow.way == Way::In { format!(", still in {}", arrow.peer) } else { String::new() };
    Some(format!("No ACK came within {after} s: {from}{state}, sends {what} again."))
}

fn fate(arrow: &Arrow) -> Option<String> {
    let mark = arrow.marks.last()?;
    let to = receiver(arrow);
    Some(match (arrow.fate, mark.did, arrow.way) {
        (Fate::Dropped, ..) if arrow.again.is_some() => format!("{} swallows this one as well.", mark.rule),
        (Fate::Dropped, _, Way::In) => {
            format!("{} swallows it: halfopen's TCP never sees it, so nobody answers.", mark.rule)
        }
        (Fate::Dropped, _, Way::Out) => format!("{} swallows it: {to} never sees it.", mark.rule),
        (Fate::Held, Did::Hold(_) | Did::Behind(_), _) => format!("{} {}.", mark.rule, mark.did),
        (_, Did::Inject, _) => format!("{} made this segment; neither end has sent it.", mark.rule),
        _ => return None,
    })
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}
