//! The relay: flows, their two legs, and the seam between them.

mod around;
mod early;
pub mod flow;
mod leg;
mod neighbours;
mod opening;
mod outside;
mod pipe;
mod seam;
pub mod settings;
mod shaping;
pub mod socket_leg;
pub mod table;

pub use flow::{Caps, Flow, Output};
pub use outside::{FlowInfo, NotKilled, RuleFired};
pub use settings::{Limits, Settings, SourcePorts, Uplink};
pub use socket_leg::{Refusal, SocketCommand, SocketEvent, SocketLeg};
pub use table::{FlowIds, FlowKey, Looked, Route, Table};
