//! The one binary of Bulkhead.

fn main() {}
