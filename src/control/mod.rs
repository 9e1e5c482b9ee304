//! What a running instance tells those who ask: metrics for Prometheus, and whether it lives and is ready.

pub mod http;
pub mod metrics;
mod process;

pub use http::{Listener, Source};
pub use metrics::Snapshot;
