//! FIN to the end.

pub(super) mod fin_drop;
pub(super) mod half_close_broken;
