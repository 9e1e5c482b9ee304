//! The config: from text to meaning.
//!
//! [`load`] puts the layers on each other (defaults, file, environment, options), [`raw`] is their shape, [`resolve`] gives
//! them meaning: parse, don't validate. After that no text is left to be understood. Whatever is wrong comes back as a
//! list of [`Problem`]s with place, key, value and hint.

mod error;
mod load;
mod locate;
pub mod raw;
pub mod units;

pub use error::{Place, Problem};
pub use load::{Layers, OptionValue, Request, load};
