//! Wires engine, setup and observers together.

pub mod observer;
