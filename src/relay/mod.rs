//! The seam between the two legs of a flow.
