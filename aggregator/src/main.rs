//! `picket-aggregator`.
fn main() {}
