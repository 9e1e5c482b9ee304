//! The relay: flows, their two legs, and the seam between them.

mod around;
mod control;
mod early;
mod ending;
pub mod flow;
mod leg;
mod neighbours;
mod opening;
mod pipe;
mod seam;
pub mod settings;
mod shaping;
pub mod socket_command;
pub mod socket_leg;
pub mod table;

pub use control::{FlowInfo, NotKilled, RuleFired};
pub use flow::{Caps, Flow, Output};
pub use settings::{Limits, Settings, SourcePorts, Uplink};
pub use socket_command::{Refusal, SocketCommand, SocketEvent, SocketOffer};
pub use socket_leg::SocketLeg;
pub use table::{FlowIds, FlowKey, Looked, Route, Table};
