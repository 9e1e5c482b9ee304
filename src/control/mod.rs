//! What a running instance tells others: metrics, and the control socket that `halfopen flows` and `halfopen stats` ask.
//!
//! | file | what |
//! |---|---|
//! | `serve` | endpoints: listeners with bounds, answered by one thread |
//! | `http`, `metrics`, `process` | the endpoint of Prometheus |
//! | `api` | the control socket's answers |
//! | `socket` | its address, and who may ask |
//! | `client` | the other side: finds instances and asks them |

pub mod api;
pub mod client;
pub mod http;
pub mod metrics;
mod process;
pub mod serve;
pub mod socket;

pub use http::Source;
pub use metrics::Snapshot;
pub use serve::{Endpoint, Server};
