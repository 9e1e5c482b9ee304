//! The config: from text to meaning.
//!
//! [`load`] puts the layers on each other (defaults, file, environment, options), [`raw`] is their shape,
//! [`Settings::resolve`] gives them meaning: parse, don't validate. After that no text is left to be understood. Whatever is wrong comes back as a
//! list of [`Problem`]s with place, key, value and hint.

mod error;
pub mod listeners;
mod load;
mod locate;
mod modes;
pub mod presets;
pub mod raw;
mod resolve;
mod rules;
mod scale;
mod schema;
pub mod units;

pub use error::{Place, Problem};
pub use load::{Layers, OptionValue, Request, load};
pub use presets::Preset;
pub use resolve::{Machine, Settings};
pub use scale::{Scaled, Scaling};
pub use schema::schema;
pub use units::Loopback;

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::raw::Raw;
    use super::*;

    fn file(name: &str) -> Layers {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
        load(&Request { file: Some(path), ..Request::default() }).unwrap_or_else(|p| panic!("{name}: {p:?}"))
    }

    #[test]
    fn default_toml_has_every_key_with_its_default_and_a_comment() {
        let layers = file("default.toml");
        assert_eq!(layers.raw, Raw::default());
        for (key, _, place) in layers.values() {
            let Place::File { path, line: Some(line) } = &place else {
                panic!("{key} is missing, it comes from {place}")
            };
            let text = std::fs::read_to_string(path).unwrap();
            let line = text.lines().nth(line - 1).unwrap();
            assert!(line.contains(" # "), "no comment: {line}");
        }
    }

    #[test]
    fn the_examples_load() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/config/examples");
        let mut count = 0;
        for entry in std::fs::read_dir(directory).unwrap() {
            let layers = file(entry.unwrap().path().to_str().unwrap());
            assert!(!layers.raw.rule.is_empty());
            Settings::resolve(&layers, Machine { random: 0, cores: 1 }).unwrap();
            count += 1;
        }
        assert!(count >= 2);
    }
}
