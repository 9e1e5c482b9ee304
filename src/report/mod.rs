//! What a person reads: the ladder of a flow and the summary of a run. Made from events; pure text with roles for colour.

pub mod html;
pub mod ladder;
pub mod matrix;
pub mod percentiles;
pub mod runs;
pub mod summary;
pub mod text;

pub use ladder::{Ladder, Ladders, Worst};
pub use matrix::Matrix;
pub use runs::{Comparison, LoggedRun};
pub use summary::{Summary, latency_line, status_line};
pub use text::{Line, Role, Span, Style, Text};
