//! The proving ground: our TCP in virtual time, without a kernel. Everything here is a pure function of a seed.
//!
//! - [`link`]: a cable with weather (loss, reordering, duplication, delay, rate, MTU);
//! - [`host`]: an application on top of a [`crate::tcp::Connection`], and the invariants that every host must keep;
//! - [`world`]: two hosts and the cables between them; [`trio`]: the same with a [`crate::relay`] in the middle;
//! - [`fuzz`]: what the fuzz targets run;
//! - [`scene`]: what shows a fault, for ladders;
//! - [`watch`]: what must hold of every TCP at all times; [`chance`]: random worlds;
//! - [`script`]: segment scripts in the notation of [`crate::wire::notation`].

pub mod chance;
pub mod fuzz;
pub mod host;
pub mod link;
pub mod scene;
pub mod script;
pub mod trio;
pub mod watch;
pub mod world;
