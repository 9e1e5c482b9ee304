//! FIN to the end.

pub(super) mod fin_drop;
